"""Operators of phase retrieval: adjoints, norms, pseudo-inverses, the matrix they stand for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.solve.recovery import CodedDiffraction, Lines
from thalweg.solve.recovery.lines import squared_modulus


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(*shape, dtype=torch.complex128, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=seeded(seed))


OPERATORS = [
    Lines(gaussian(9, 4)),
    Lines(gaussian(9, 4, dtype=torch.float64)),
    Lines(gaussian(3, 9, 4)),
    CodedDiffraction.random((7,), 3, generator=seeded(1)),
    CodedDiffraction.random((4, 6), 2, generator=seeded(2)),
    CodedDiffraction(gaussian(2, 5, dtype=torch.float64)),
]
every = pytest.mark.parametrize("operator", OPERATORS)


def matrix(operator):
    n = math.prod(operator.signal_shape)
    columns = torch.eye(n, dtype=operator.dtype).reshape(n, *operator.signal_shape)
    return operator.forward(columns).mT


@every
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 100))
def test_the_adjoint_is_the_adjoint(operator, seed):
    batch = operator.batch_shape or (3,)
    m = math.prod(operator.data_shape)
    z = gaussian(*batch, *operator.signal_shape, dtype=operator.dtype, seed=seed)
    w = gaussian(*batch, m, dtype=operator.dtype, seed=seed + 1)
    left = (w.conj() * operator.forward(z)).sum(-1)
    back = operator.adjoint(w)
    assert back.shape == z.shape and operator.forward(z).shape == w.shape
    right = (back.conj() * z).flatten(len(batch)).sum(-1)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("operator", [o for o in OPERATORS if not o.batch_shape])
def test_norms_and_pseudo_inverse_are_those_of_the_matrix(operator):
    A = matrix(operator)
    torch.testing.assert_close(operator.row_norms2, squared_modulus(A).sum(-1))
    w = gaussian(2, len(A), dtype=operator.dtype, seed=5)
    least_squares = (torch.linalg.pinv(A) @ w.mT).mT
    torch.testing.assert_close(operator.pseudo_inverse()(w).flatten(1), least_squares)


def test_coded_diffraction_is_the_transform_behind_conjugate_masks():
    masks, z = gaussian(2, 5), gaussian(5, seed=1)
    k = torch.arange(5, dtype=torch.float64)
    fourier = torch.exp(-2j * math.pi * torch.outer(k, k) / 5)
    expected = torch.cat([fourier @ (mask.conj() * z) for mask in masks])
    torch.testing.assert_close(CodedDiffraction(masks).forward(z), expected)


def test_octanary_masks_have_their_moments():
    masks = CodedDiffraction.random((100, 100), 4, generator=seeded()).masks
    modulus = masks.abs()
    assert abs(modulus.square().mean() - 1) < 0.03  # 5 standard errors: sd of |d|^2 is 1
    assert abs((modulus > 1).double().mean() - 0.2) < 0.01
    turned = torch.view_as_real(masks / modulus).round()
    assert len(turned.reshape(-1, 2).unique(dim=0)) == 4
    assert masks.mean().abs() < 0.03


def test_members_of_a_batch():
    A = gaussian(2, 9, 4)
    members = Lines(A).members((2,))
    assert torch.equal(members[1].A, A[1])
    assert len(Lines(A[0]).members((3, 2))) == 6
    coded = OPERATORS[3]
    assert coded.members((2,)) == [coded, coded]


def test_bad_input_is_named():
    A = gaussian(6, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"A must have shape \(..., m, n\), got \(6,\)"):
        Lines(A[:, 0])
    with pytest.raises(TypeError, match="A must be a floating-point or complex tensor"):
        Lines(torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="A must be finite"):
        Lines(A / 0)
    hole = A.clone()
    hole[:, 1] = 0
    with pytest.raises(ValueError, match="A must have no column of zeros, got column 1"):
        Lines(hole)
    with pytest.raises(ValueError, match="A must have no row of zeros, got row 1"):
        Lines(hole.mT)
    with pytest.raises(ValueError, match="A must have at least as many rows as columns, got 2 x 3"):
        Lines(A[:2]).pseudo_inverse()
    with pytest.raises(ValueError, match="A must have independent columns"):
        Lines(A[:, [0, 0, 1]]).pseudo_inverse()
    with pytest.raises(ValueError, match=r"masks must have shape"):
        CodedDiffraction(A[0])
    with pytest.raises(ValueError, match=r"masks must let every position through, none does \[1\]"):
        CodedDiffraction(hole)
    with pytest.raises(ValueError, match="masks must not be all zero, got mask 1"):
        CodedDiffraction(hole.mT)
    with pytest.raises(ValueError, match="patterns must be"):
        CodedDiffraction.random((4,), 0)
