"""Leading eigenpairs and singular triples: agreement with dense decompositions, multiplicity."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from thalweg.numeric.krylov import leading, leading_eigs, leading_svd

DTYPES = [torch.float64, torch.complex128, torch.float32, torch.complex64]


@pytest.fixture(autouse=True)
def iterative_from_31(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading, "DENSE_UP_TO", 30)  # small matrices then serve both paths


def random(rows: int, columns: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    entries = torch.randn(rows, columns, dtype=dtype, generator=generator)
    return entries / torch.arange(1, rows + 1)[:, None].sqrt() / torch.arange(1, columns + 1).sqrt()


def accuracy(dtype: torch.dtype) -> float:
    return 1e-5 if torch.finfo(dtype).eps > 1e-10 else 1e-9


@pytest.mark.parametrize("n", [30, 150])
@pytest.mark.parametrize("dtype", DTYPES)
def test_eigenpairs_are_the_algebraically_largest(n: int, dtype: torch.dtype) -> None:
    B = random(n, n, dtype)
    A = (B + B.mH) / 2 - 3 * torch.eye(n, dtype=dtype)  # all negative: largest is not by modulus
    values, V = leading_eigs(lambda X: A @ X, n, 3, dtype)
    exact = torch.linalg.eigvalsh(A).flip(0)[:3]
    assert values.dtype == dtype.to_real() and V.dtype == dtype
    assert float((values - exact).abs().max()) <= 3 * accuracy(dtype)
    residuals = torch.linalg.vector_norm(A @ V - V * values, dim=0)
    assert float(residuals.max()) <= 10 * accuracy(dtype)
    assert float((V.mH @ V - torch.eye(3)).abs().max()) <= accuracy(dtype)


def test_every_residual_meets_the_tolerance() -> None:
    B = random(150, 150, torch.float64)
    A = B + B.T
    for tol in (1e-2, 1e-5, 1e-9):
        values, V = leading_eigs(lambda X: A @ X, 150, 4, torch.float64, tol=tol)
        residuals = torch.linalg.vector_norm(A @ V - V * values, dim=0)
        assert float(residuals.max()) <= 1.01 * tol * float(values[0])


def test_multiple_eigenvalues_are_found_by_the_block() -> None:
    U = torch.linalg.qr(random(200, 5, torch.complex128))[0]
    s = torch.tensor([2.0, 2.0, 2.0, 2.0, 1.0], dtype=torch.complex128)
    values, V = leading_eigs(lambda X: U @ (s[:, None] * (U.mH @ X)), 200, 4, torch.complex128)
    assert values.tolist() == pytest.approx([2.0] * 4, abs=1e-12)
    assert float((U[:, :4].mH @ V).abs().square().sum()) == pytest.approx(4.0, abs=1e-10)


def test_a_matrix_of_smaller_rank_than_k() -> None:
    u = random(150, 1, torch.float64)
    values, V = leading_eigs(lambda X: u @ (u.T @ X), 150, 3, torch.float64)
    assert values.tolist() == pytest.approx([float(u.T @ u), 0.0, 0.0], abs=1e-12)
    assert float((V.T @ V - torch.eye(3)).abs().max()) <= 1e-10


def test_little_memory_costs_steps_not_accuracy() -> None:
    B = random(150, 150, torch.float64)
    A = B + B.T
    values, _ = leading_eigs(lambda X: A @ X, 150, 2, torch.float64, memory=20 * 150 * 8)
    exact = torch.linalg.eigvalsh(A).flip(0)[:2]
    assert values.tolist() == pytest.approx(exact.tolist(), abs=1e-10)


def test_too_few_steps_warn() -> None:
    B = random(150, 150, torch.float64)
    with pytest.warns(UserWarning, match="after steps = 2"):
        leading_eigs(lambda X: (B + B.T) @ X, 150, 1, torch.float64, steps=2)


@pytest.mark.parametrize("shape", [(30, 20), (150, 100), (20, 130), (130, 20)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_singular_triples(shape: tuple[int, int], dtype: torch.dtype) -> None:
    A = random(*shape, dtype)
    U, S, V = leading_svd(lambda X: A @ X, lambda X: A.mH @ X, shape, 3, dtype)
    exact = torch.linalg.svdvals(A)[:3]
    eps = accuracy(dtype)
    assert U.shape == (shape[0], 3) and V.shape == (shape[1], 3) and S.dtype == dtype.to_real()
    assert float((S - exact).abs().max()) <= eps
    assert float(torch.linalg.matrix_norm(A @ V - U * S)) <= 100 * eps
    assert float(torch.linalg.matrix_norm(A.mH @ U - V * S)) <= 1000 * eps
    for W in (U, V):
        assert float((W.mH @ W - torch.eye(3)).abs().max()) <= eps


def test_small_singular_values_are_not_squared_away() -> None:
    U = torch.linalg.qr(random(140, 2, torch.float64, 1))[0]
    V = torch.linalg.qr(random(120, 2, torch.float64, 2))[0]
    s = torch.tensor([1.0, 1e-3], dtype=torch.float64)  # squared: 1e-6
    _, S, _ = leading_svd(
        lambda X: (U * s) @ (V.T @ X), lambda X: (V * s) @ (U.T @ X), (140, 120), 2, torch.float64
    )
    assert S.tolist() == pytest.approx(s.tolist(), abs=1e-14)


def test_the_result_does_not_depend_on_the_global_generator() -> None:
    B = random(150, 150, torch.float64)
    state = torch.get_rng_state()
    first = leading_eigs(lambda X: (B + B.T) @ X, 150, 2, torch.float64)
    torch.randn(3)
    state_after_draw = torch.get_rng_state()
    second = leading_eigs(lambda X: (B + B.T) @ X, 150, 2, torch.float64)
    assert torch.equal(first[1], second[1])
    assert torch.equal(torch.get_rng_state(), state_after_draw)
    assert not torch.equal(state, state_after_draw)


@pytest.mark.parametrize("k", [0, 11])
def test_bad_input_is_named(k: int) -> None:
    with pytest.raises(ValueError, match="k must be"):
        leading_eigs(lambda X: X, 10, k, torch.float64)
    with pytest.raises(ValueError, match="k must be"):
        leading_svd(lambda X: X, lambda X: X, (10, 20), k, torch.float64)
    with pytest.raises(ValueError, match="not finite"):
        leading_eigs(lambda X: X * float("nan"), 10, 1, torch.float64)
    with pytest.raises(ValueError, match="not finite"):
        leading_eigs(lambda X: X * float("nan"), 1000, 1, torch.float64)
