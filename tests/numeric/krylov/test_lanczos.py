"""The Lanczos process: its identities, for one start and for blocks, real and complex."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thalweg.numeric.krylov import Lanczos, extreme_eigenvalues, lanczos, thick_restart
from thalweg.numeric.krylov.block import inner, orthonormalize
from thalweg.numeric.krylov.lanczos import sphere
from thalweg.numeric.operator import as_operator


def symmetric(n: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    B = torch.randn(n, n, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return (B + B.mH) / 2


def residual_of(process: Lanczos, A: Tensor) -> float:
    """The norm of A Q - Q T - V C."""
    Q = process.Q
    R = A @ Q - Q @ process.T.to(Q) - process.V @ process.C.to(Q)
    return float(torch.linalg.matrix_norm(R, 2))


@given(seed=st.integers(0, 10**6), b=st.integers(1, 4), steps=st.integers(1, 9),
       dtype=st.sampled_from([torch.float64, torch.complex128]))  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_the_recurrence_holds_and_the_basis_is_orthonormal(seed, b, steps, dtype) -> None:
    A = symmetric(40, seed, dtype)
    start = sphere(40, b, torch.Generator().manual_seed(seed), dtype)
    process = lanczos(as_operator(A), start, steps)
    Q = torch.cat([process.Q, process.V], dim=1)
    norm = float(torch.linalg.matrix_norm(A, 2))
    assert process.m == b * steps
    assert residual_of(process, A) <= 1e-13 * norm
    assert float((Q.mH @ Q - torch.eye(Q.shape[1])).abs().max()) <= 1e-14 * 40
    assert float((Q.mH @ A @ Q)[: process.m, : process.m].sub(process.T).abs().max()) <= 1e-12
    # the first block spans the start
    assert float((start - Q[:, :b] @ (Q[:, :b].mH @ start)).norm()) <= 1e-13


def test_one_start_gives_a_tridiagonal_matrix_of_the_coefficients_of_the_formula() -> None:
    A = symmetric(30, 1)
    start = torch.ones(30, dtype=torch.float64)
    process = lanczos(as_operator(A), start, 5)
    q, before, beta = start / start.norm(), torch.zeros(30, dtype=torch.float64), 0.0
    for j in range(5):
        w = A @ q - beta * before
        alpha = float(q @ w)
        w = w - alpha * q
        assert float(process.T[j, j]) == pytest.approx(alpha, abs=1e-12)
        beta = float(w.norm())
        if j < 4:
            assert float(process.T[j + 1, j]) == pytest.approx(beta, abs=1e-12)
            assert float(process.T[j, j + 1]) == pytest.approx(beta, abs=1e-12)
        before, q = q, w / beta
    assert process.coupling == pytest.approx(beta, abs=1e-12)
    assert float(process.T.triu(2).abs().max()) <= 1e-12


def test_orthogonality_survives_a_converged_eigenvalue() -> None:
    # without reorthogonalization, the basis falls apart once the outlier has converged
    d = torch.cat([torch.linspace(0, 1, 399, dtype=torch.float64), torch.tensor([1e3]).double()])
    process = lanczos(as_operator(torch.diag(d)), torch.ones(400, dtype=torch.float64), 120)
    Q = process.Q
    assert float((Q.T @ Q - torch.eye(120)).abs().max()) <= 1e-13
    assert int((process.ritz().values > 500).sum()) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("b", [1, 3])
def test_an_invariant_space_ends_the_process(dtype: torch.dtype, b: int) -> None:
    d = torch.tensor([1.0] * 20 + [2.0] * 20 + [-3.0] * 20, dtype=dtype)
    start = sphere(60, b, torch.Generator().manual_seed(0), dtype)
    process = lanczos(as_operator(torch.diag(d)), start, 50)
    assert not process.active and process.invariant and process.m == 3 * b
    values = process.ritz().values
    expected = torch.tensor([-3.0, 1.0, 2.0]).double().repeat_interleave(b)
    assert torch.allclose(values, expected, atol=1e-5 if dtype == torch.float32 else 1e-12)


def test_one_orthogonalization_would_not_be_enough() -> None:
    # w is 1e-10 of A q: what rounding leaves along q is 1e-6 of w, until w is orthogonalized again
    generator = torch.Generator().manual_seed(0)
    P = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64, generator=generator))[0]
    A = torch.diag(torch.cat([torch.tensor([1.0, 2.0]), torch.linspace(3, 4, 38)]).double())
    A[1, 2] = A[2, 1] = 1e-10
    process = lanczos(as_operator(P @ A @ P.T), P[:, 0] + P[:, 1], 3)
    Q = torch.cat([process.Q, process.V], dim=1)
    assert float((Q.T @ Q - torch.eye(Q.shape[1])).abs().max()) <= 1e-13


def test_dropped_directions_are_accounted_for() -> None:
    # a coupling of 5e-13 is dropped, and remains in the bound of the coupling
    A = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    A[1, 2] = A[2, 1] = 5e-13
    start = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    process = lanczos(as_operator(A), start, 4)
    assert process.m == 2 and process.invariant
    missed = float(torch.linalg.matrix_norm(A @ process.Q - process.Q @ process.T, 2))
    assert 4e-13 <= missed <= process.coupling + 1e-15 <= 4e-12


def test_a_whole_space_is_not_called_invariant() -> None:
    process = lanczos(as_operator(symmetric(6, 0)), torch.ones(6, dtype=torch.float64), 10)
    assert process.m == 6 and not process.active and not process.invariant
    assert process.coupling <= 1e-12


@given(seed=st.integers(0, 10**6), b=st.integers(1, 3), restarts=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_a_thick_restart_keeps_the_recurrence(seed: int, b: int, restarts: int) -> None:
    A = symmetric(60, seed)
    process = Lanczos(sphere(60, b, torch.Generator().manual_seed(seed), torch.float64))
    for _ in range(restarts):
        for _ in range(6):
            process.step(A @ process.V)
        kept = process.ritz().values
        thick_restart(process, 2, 3)
        assert process.m == 5
        assert torch.allclose(process.ritz().values, torch.cat([kept[:2], kept[-3:]]), atol=1e-11)
    process.step(A @ process.V)
    Q = torch.cat([process.Q, process.V], dim=1)
    assert residual_of(process, A) <= 1e-12 * float(torch.linalg.matrix_norm(A, 2))
    assert float((Q.T @ Q - torch.eye(Q.shape[1])).abs().max()) <= 1e-12


def test_residuals_of_ritz_pairs_are_those_of_the_vectors() -> None:
    A = symmetric(80, 3)
    for b in (1, 4):
        start = sphere(80, b, torch.Generator().manual_seed(1), torch.float64)
        process = lanczos(as_operator(A), start, 12)
        values, Z, residuals = process.ritz()
        Y = process.vectors(Z)
        fresh = torch.linalg.vector_norm(A @ Y - Y * values, dim=0)
        norm = float(torch.linalg.matrix_norm(A, 2))
        assert float((fresh - residuals).abs().max()) <= 1e-8 * norm


def test_single_precision_sums_in_pieces() -> None:
    # one matrix product over all entries is off by 1e-2 here
    n = 4_000_000
    q = torch.randn(n, generator=torch.Generator().manual_seed(0))
    expected = float(q.double() @ q.double())
    assert float(inner(q[:, None], q[:, None])) == pytest.approx(expected, rel=3e-6)
    Q, _, _ = orthonormalize(torch.stack([q, q.roll(1)], dim=1))
    assert float((inner(Q, Q) - torch.eye(2)).abs().max()) <= 1e-6


def test_unsymmetric_and_non_finite_operators_are_refused() -> None:
    B = torch.randn(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="must be symmetric"):
        lanczos(as_operator(B), torch.ones(30, dtype=torch.float64), 10)
    A = symmetric(30, 0)
    A[3, 3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        lanczos(as_operator(A), torch.ones(30, dtype=torch.float64), 10)


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (torch.zeros(3), "not zero"),
        (torch.tensor([1.0, float("inf")]), "finite"),
        (torch.ones(2, 3), "at most n = 2"),
        (torch.ones(2, dtype=torch.long), "real or complex"),
        (torch.ones(2, 2, 2), "of shape"),
    ],
)
def test_a_bad_start_is_refused(start: Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Lanczos(start)


def test_the_sphere_is_uniform_reproducible_and_leaves_the_global_generator() -> None:
    state = torch.get_rng_state()
    x = sphere(50, 400, torch.Generator().manual_seed(3), torch.float64)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(x[:, :2], sphere(50, 2, torch.Generator().manual_seed(3), torch.float64))
    assert torch.allclose(torch.linalg.vector_norm(x, dim=0), torch.ones(400).double())
    # E x_i^2 = 1/n, with standard error about sqrt(2 / 400) / n
    assert float((x**2).mean(1).sub(1 / 50).abs().max()) <= 5 * (2 / 400) ** 0.5 / 50


def test_what_cancellation_loses_is_noise_and_no_asymmetry() -> None:
    """The Hessian of a saturated softmax, whose row of the true class is lost to rounding."""
    J = torch.randn(
        2, 60, generator=torch.Generator().manual_seed(3)
    )  # of the logits of the true class and another
    p = torch.tensor([1.0, 1e-11])

    def product(v: Tensor) -> Tensor:
        u = J @ v
        return J.T @ (p.view(-1, *[1] * (v.ndim - 1)) * (u - p @ u))  # 0 for the true class

    process = Lanczos(torch.ones(60))
    while process.active and process.steps < 4:
        process.step(product(process.V[:, 0])[:, None])
    eps = torch.finfo(torch.float32).eps
    assert process.rounding == eps
    exact = J.double()
    true = 1e-11 * float((exact[1] - exact[0]).square().sum())  # its one eigenvalue
    assert float(process.ritz().values[-1]) < 0.9 * true  # what is computed is wrong
    for dense in (False, True):
        operator = as_operator(product, 60, torch.float32)
        found = extreme_eigenvalues(operator, dense=dense, steps=4)
        assert found.noise == eps and found.lower_bound <= 0 and true <= found.upper_bound


def test_what_symmetric_matrices_round_by_stays_relative() -> None:
    for size in (1e-11, 1.0, 1e11):
        A = size * symmetric(60, 3, torch.float32)
        process = lanczos(as_operator(A), torch.ones(60), 20)
        assert 0 < process.rounding <= 1e-5 * size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_asymmetry_above_the_rounding_of_unit_sums_is_refused(dtype: torch.dtype) -> None:
    eps = torch.finfo(dtype).eps
    B = torch.randn(40, 40, dtype=dtype, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="must be symmetric"):
        lanczos(as_operator(1e3 * eps * B), torch.ones(40, dtype=dtype), 5)


def test_what_is_left_of_a_cancellation_is_orthogonal() -> None:
    # the product has 3,000 times as much along the first vector as in the new direction
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(200, 9, generator=generator, dtype=torch.float64))[0]
    worst = 0.0
    for new in range(3, 9):
        process = Lanczos(basis[:, 0])
        process.step(basis[:, [0]] + basis[:, [1]])
        process.step(basis[:, [0]] + basis[:, [1]] + basis[:, [2]])
        q = basis[:, [1]] + basis[:, [2]]
        process.step(q + 1e-8 * basis[:, [0]] + 3e-12 * basis[:, [new]])
        assert process.active
        worst = max(worst, float((process.Q.T @ process.V).abs().max()))
    assert worst < 2e-14
