"""Conjugate gradients: exactness, the polynomial bound, curvature on the way."""

from __future__ import annotations

import pytest
import torch

from thalweg.core.result import Reason
from thalweg.numeric.krylov import conjugate_gradients
from thalweg.numeric.operator import Counted, as_operator


def positive(n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    B = torch.randn(n, n, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return B @ B.mH / n + torch.eye(n, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_solves_the_system(dtype: torch.dtype) -> None:
    A, b = positive(50, dtype), torch.arange(1, 51).to(dtype)
    counted = Counted(as_operator(A))
    found = conjugate_gradients(counted, b, tol=1e-12, max_steps=200)
    assert found.converged and counted.n_products == found.steps < 50
    assert float((A @ found.x - b).norm()) <= 1.1e-12 * float(b.norm())
    shifted = conjugate_gradients(as_operator(A), b, shift=2.0, tol=1e-12, max_steps=200)
    assert torch.allclose((A + 2 * torch.eye(50)) @ shifted.x, b, atol=1e-9)


def test_as_many_steps_as_distinct_eigenvalues() -> None:
    A = torch.diag(torch.tensor([1.0] * 10 + [5.0] * 10 + [9.0] * 10, dtype=torch.float64))
    found = conjugate_gradients(as_operator(A), torch.ones(30, dtype=torch.float64), tol=1e-12)
    assert found.steps == 3 and found.converged


def test_the_error_obeys_the_chebyshev_bound() -> None:
    d = torch.linspace(1, 100, 200, dtype=torch.float64)
    b = torch.ones(200, dtype=torch.float64)
    exact = b / d
    rate = (100**0.5 - 1) / (100**0.5 + 1)
    for steps in (1, 5, 20):
        x = conjugate_gradients(as_operator(torch.diag(d)), b, max_steps=steps).x
        error = float(((x - exact) ** 2 * d).sum().sqrt())
        start = float((exact**2 * d).sum().sqrt())
        assert error <= 2 * rate**steps * start


def test_a_preconditioner_and_a_warm_start_save_steps() -> None:
    d = torch.logspace(0, 4, 300, dtype=torch.float64)
    A = torch.diag(d) + 0.1
    b = torch.ones(300, dtype=torch.float64)
    plain = conjugate_gradients(as_operator(A), b, tol=1e-8, max_steps=2000)
    better = conjugate_gradients(as_operator(A), b, tol=1e-8, preconditioner=lambda r: r / d)
    assert better.converged and better.steps < plain.steps / 10
    assert float((A @ better.x - b).norm()) <= 1e-7 * float(b.norm())
    again = conjugate_gradients(as_operator(A), b, start=better.x, tol=1e-7)
    assert again.steps == 0 and again.reason is Reason.TOLERANCE


def test_negative_curvature_is_returned_with_its_direction() -> None:
    A = torch.diag(torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64))
    found = conjugate_gradients(as_operator(A), torch.ones(3, dtype=torch.float64))
    p = found.direction
    assert found.reason is Reason.STALLED and not found.converged and p is not None
    assert float(p @ A @ p) <= 0
    assert found.curvature == pytest.approx(float(p @ A @ p) / float(p @ p))
    shifted = conjugate_gradients(as_operator(A), torch.ones(3, dtype=torch.float64), shift=1.0)
    assert shifted.converged and shifted.direction is None


def test_a_zero_right_side_and_no_steps() -> None:
    A = as_operator(positive(5))
    zero = conjugate_gradients(A, torch.zeros(5, dtype=torch.float64))
    assert zero.reason is Reason.EXACT and zero.steps == 0 and not zero.x.any()
    none = conjugate_gradients(A, torch.ones(5, dtype=torch.float64), max_steps=0)
    assert none.reason is Reason.MAX_STEPS and not none.x.any()


def test_bad_input_is_named() -> None:
    A = as_operator(positive(5))
    with pytest.raises(ValueError, match="b must be of shape"):
        conjugate_gradients(A, torch.ones(4, dtype=torch.float64))
    with pytest.raises(ValueError, match="tol must be"):
        conjugate_gradients(A, torch.ones(5, dtype=torch.float64), tol=0)
    with pytest.raises(ValueError, match="not finite"):
        conjugate_gradients(
            as_operator(positive(5) * float("inf")), torch.ones(5, dtype=torch.float64)
        )
