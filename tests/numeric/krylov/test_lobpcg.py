"""LOBPCG: agreement with dense decompositions, and what a preconditioner is worth."""

from __future__ import annotations

import pytest
import torch

from thalweg.numeric.krylov import lobpcg
from thalweg.numeric.operator import Counted, as_operator


def test_agrees_with_the_dense_decomposition_at_both_ends() -> None:
    B = torch.randn(120, 120, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    A = B + B.T
    exact = torch.linalg.eigvalsh(A)
    low = lobpcg(as_operator(A), 3, tol=1e-9, steps=500)
    high = lobpcg(as_operator(A), 3, largest=True, tol=1e-9, steps=500)
    assert low.converged and high.converged
    assert low.values.tolist() == pytest.approx(exact[:3].tolist(), abs=1e-9)
    assert high.values.tolist() == pytest.approx(exact.flip(0)[:3].tolist(), abs=1e-9)
    for found in (low, high):
        Y = found.vectors
        fresh = torch.linalg.vector_norm(A @ Y - Y * found.values, dim=0)
        assert torch.allclose(fresh, found.residuals, atol=1e-10)
        assert float((Y.T @ Y - torch.eye(3)).abs().max()) <= 1e-12


def test_a_preconditioner_saves_products() -> None:
    d = torch.logspace(-2, 2, 200, dtype=torch.float64)
    off = torch.full((199,), 1e-4, dtype=torch.float64)
    A = torch.diag(d) + torch.diag(off, 1) + torch.diag(off, -1)
    spent = []
    for preconditioner in (None, lambda R: R / d[:, None]):
        counted = Counted(as_operator(A))
        found = lobpcg(counted, 2, preconditioner=preconditioner, tol=1e-9, steps=200)
        spent.append(counted.n_products)
    assert found.values.tolist() == pytest.approx(torch.linalg.eigvalsh(A)[:2].tolist(), abs=1e-8)
    assert spent[1] < spent[0] / 3


def test_a_start_at_the_solution_takes_no_step() -> None:
    A = torch.diag(torch.arange(12, dtype=torch.float64))
    found = lobpcg(as_operator(A), 2, start=torch.eye(12, dtype=torch.float64)[:, :2])
    assert found.steps == 0 and found.converged and found.values.tolist() == [0.0, 1.0]


def test_multiple_eigenvalues_and_complex_operators() -> None:
    B = torch.randn(60, 60, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    Q = torch.linalg.qr(B)[0]
    d = torch.cat([torch.full((3,), -2.0), torch.linspace(0, 1, 57)]).to(torch.complex128)
    found = lobpcg(as_operator((Q * d) @ Q.mH), 3, tol=1e-8)
    assert found.values.tolist() == pytest.approx([-2.0] * 3, abs=1e-12)


def test_single_precision() -> None:
    B = torch.randn(200, 200, generator=torch.Generator().manual_seed(0))
    A = B + B.T
    found = lobpcg(as_operator(A), 2, tol=1e-5, steps=400)
    assert found.converged
    assert found.values.tolist() == pytest.approx(torch.linalg.eigvalsh(A)[:2].tolist(), rel=1e-5)


def test_running_out_of_steps_is_said() -> None:
    A = torch.diag(torch.linspace(0, 1, 300, dtype=torch.float64))
    found = lobpcg(as_operator(A), 1, steps=2, tol=1e-10)
    assert not found.converged and found.steps == 2


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"k": 0}, "k must be"),
        ({"k": 4}, "k must be"),
        ({"tol": 0}, "tol must be"),
        ({"steps": 0}, "steps must be"),
        ({"start": torch.ones(10, 2)}, "start must be of shape"),
        ({"preconditioner": lambda R: R[:2]}, "preconditioner must return"),
    ],
)
def test_bad_input_is_named(how, text) -> None:
    A = torch.diag(torch.arange(10, dtype=torch.float64))
    with pytest.raises(ValueError, match=text):
        lobpcg(as_operator(A), **how)
