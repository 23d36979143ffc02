"""Hutch++, XTrace and the automatic choice: against brute force, curvlinops, and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thalweg.numeric.diagonal import exact_trace
from thalweg.numeric.hutchinson import hutchinson
from thalweg.numeric.hutchpp import hutchpp
from thalweg.numeric.operator import Counted, as_operator
from thalweg.numeric.probes import rademacher
from thalweg.numeric.trace import trace
from thalweg.numeric.xtrace import xtrace, xtrace_terms

curvlinops_trace = {
    "hutchinson": pytest.importorskip("curvlinops.trace.hutchinson"),
    "hutchpp": pytest.importorskip("curvlinops.trace.meyer2020hutch"),
    "xtrace": pytest.importorskip("curvlinops.trace.epperly2024xtrace"),
}


def seed(n: int) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def rotated(eigenvalues: Tensor, n: int = 0) -> Tensor:
    d = len(eigenvalues)
    U, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=seed(n)))
    A = U @ torch.diag(eigenvalues.double()) @ U.T
    return (A + A.T) / 2


FAST = rotated(1 / torch.arange(1, 201, dtype=torch.float64) ** 2)
FLAT = rotated(0.5 + torch.rand(200, dtype=torch.float64, generator=seed(1)))
OUTLIERS = rotated(
    torch.cat(
        [
            torch.tensor([10.0, 8.0, 6.0, 4.0]),
            0.1 * torch.randn(196, dtype=torch.float64, generator=seed(2)),
        ]
    )
)


def rms(estimator: Callable[..., object], A: Tensor, products: int = 60, runs: int = 40) -> float:
    errors = [
        estimator(as_operator(A), rtol=0, max_products=products, generator=seed(n)).value
        - float(A.trace())
        for n in range(runs)
    ]
    return math.sqrt(sum(e**2 for e in errors) / runs)


@pytest.mark.parametrize("estimator", [hutchpp, xtrace])
def test_five_times_better_than_hutchinson_on_a_decaying_spectrum(estimator: object) -> None:
    assert rms(estimator, FAST) < rms(hutchinson, FAST) / 5


def test_at_most_three_times_worse_on_a_flat_one() -> None:
    assert rms(hutchinson, FLAT) < rms(hutchpp, FLAT) < 3 * rms(hutchinson, FLAT)


@pytest.mark.parametrize("estimator", [hutchpp, xtrace])
@pytest.mark.parametrize("A", [FAST, FLAT, OUTLIERS], ids=["fast", "flat", "outliers"])
def test_unbiased(estimator: Callable[..., object], A: Tensor) -> None:
    runs = 200
    values = torch.tensor(
        [
            estimator(as_operator(A), rtol=0, max_products=24, generator=seed(n)).value
            for n in range(runs)
        ]
    ).double()
    z = float((values.mean() - A.trace()) / (values.std() / math.sqrt(runs)))
    assert abs(z) < 4


def leave_one_out(A: Tensor, Omega: Tensor, orth: Callable[[Tensor, int], Tensor]) -> Tensor:
    """XTrace as it is defined."""
    Y, terms = A @ Omega, []
    for i in range(Omega.shape[1]):
        Q, omega = orth(Y, i), Omega[:, i]
        rest = omega - Q @ (Q.T @ omega)
        terms.append((Q.T @ A @ Q).trace() + rest @ A @ rest)
    return torch.stack(terms)


def without(Y: Tensor, i: int) -> Tensor:
    return torch.linalg.qr(torch.cat([Y[:, :i], Y[:, i + 1 :]], dim=1))[0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_the_cheap_form_of_xtrace_is_the_definition(n: int, N: int) -> None:
    A = rotated(torch.randn(40, dtype=torch.float64, generator=seed(n)), n)
    Omega = rademacher(as_operator(A), N, seed(n + 1))
    Q, R = torch.linalg.qr(A @ Omega)
    forms = (Omega * (A @ Omega)).sum(0)
    terms = xtrace_terms(Q.T @ A @ Q, R, Q.T @ Omega, forms)
    assert torch.allclose(terms, leave_one_out(A, Omega, without), rtol=1e-10, atol=1e-10)


def test_leaving_out_a_column_of_q_is_another_estimator() -> None:
    A = FAST
    Omega = rademacher(as_operator(A), 10, seed(0))

    def column_of_q(Y: Tensor, i: int) -> Tensor:
        Q, _ = torch.linalg.qr(Y)
        return torch.cat([Q[:, :i], Q[:, i + 1 :]], dim=1)

    right = leave_one_out(A, Omega, without).mean()
    wrong = leave_one_out(A, Omega, column_of_q).mean()
    assert abs(right - A.trace()) < 0.2 < abs(wrong - A.trace())


@pytest.mark.parametrize("A", [FAST, FLAT, OUTLIERS], ids=["fast", "flat", "outliers"])
def test_grown_block_by_block_xtrace_is_the_definition(A: Tensor) -> None:
    found = xtrace(as_operator(A), rtol=0, max_products=47)
    Omega = rademacher(as_operator(A), 23, seed(0))
    terms = leave_one_out(A, Omega, without)
    assert found.n_products == 46 and found.samples == 23
    assert found.value == pytest.approx(float(terms.mean()), rel=1e-10)
    assert found.stderr == pytest.approx(float(terms.std() / math.sqrt(23)), rel=1e-8)


def test_hutchpp_is_its_formula() -> None:
    A, N = OUTLIERS, 20
    S = rademacher(as_operator(A), N, generator := seed(0))
    G = rademacher(as_operator(A), N, generator)
    Q, _ = torch.linalg.qr(A @ S)
    P = torch.eye(200, dtype=torch.float64) - Q @ Q.T
    rest = (G * (P @ A @ P @ G)).sum(0)
    found = hutchpp(as_operator(A), rtol=0, max_products=60)
    assert found.value == pytest.approx(float((Q.T @ A @ Q).trace() + rest.mean()), rel=1e-12)
    assert found.stderr == pytest.approx(float(rest.std() / math.sqrt(N)), rel=1e-10)
    assert found.n_products == 60 and found.samples == N


@pytest.mark.parametrize("A", [FAST, FLAT, OUTLIERS], ids=["fast", "flat", "outliers"])
def test_curvlinops_gives_the_same_from_the_same_probes(
    A: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, function: str, products: int) -> float:
        module, generator = curvlinops_trace[name], seed(0)
        monkeypatch.setattr(
            module, "random_vector", lambda *_: rademacher(as_operator(A), 1, generator)[:, 0]
        )
        return float(getattr(module, function)(A, products))

    def ours(estimator: Callable[..., object]) -> float:
        return float(estimator(as_operator(A), rtol=0, max_products=60).value)

    assert ours(hutchinson) == pytest.approx(run("hutchinson", "hutchinson_trace", 60), rel=1e-12)
    assert ours(hutchpp) == pytest.approx(run("hutchpp", "hutchpp_trace", 60), rel=1e-10)
    assert ours(xtrace) == pytest.approx(run("xtrace", "xtrace", 60), rel=1e-10)


def test_the_automatic_choice() -> None:
    # precise at once; few directions; none; unit vectors cheaper
    assert trace(as_operator(FLAT)).method == "hutchinson"
    assert trace(as_operator(FLAT)).n_products == 15
    few = trace(as_operator(FAST))
    assert few.method == "xtrace" and few.converged and 35 <= few.n_products <= 60
    A = torch.randn(500, 500, dtype=torch.float64, generator=seed(0))
    many = trace(as_operator((A + A.T) / 2), max_products=100)
    assert many.method == "hutchinson" and not many.converged and many.n_products == 100
    small = (A + A.T)[:60, :60]
    exact = trace(as_operator(small))
    assert exact.method == "exact" and exact.converged and exact.n_products == 75
    assert exact.value == pytest.approx(float(small.trace()), rel=1e-12)
    assert trace(as_operator(small[:15, :15])).n_products == 15


def test_what_auto_goes_on_with_is_hutchinson_from_the_start() -> None:
    A = torch.randn(500, 500, dtype=torch.float64, generator=seed(0))
    A = as_operator((A + A.T) / 2)
    assert trace(A).value == pytest.approx(hutchinson(A).value, rel=1e-12)


@pytest.mark.parametrize("method", ["auto", "hutchinson", "hutch++", "xtrace", "exact"])
@pytest.mark.parametrize("A", [FAST, FLAT, OUTLIERS], ids=["fast", "flat", "outliers"])
def test_products_are_counted_and_capped(A: Tensor, method: str) -> None:
    operator = Counted(as_operator(A))
    found = trace(operator, rtol=1e-9, max_products=80, method=method)
    assert found.n_products == operator.n_products
    assert found.n_products == 200 if method == "exact" else 75 <= found.n_products <= 80
    assert found.converged == (method == "exact")


@pytest.mark.parametrize("rank", [0, 1, 3, 7, 10, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("products", [4, 20, 60])
def test_xtrace_of_a_low_rank_operator(rank: int, dtype: torch.dtype, products: int) -> None:
    eigenvalues = torch.zeros(100, dtype=torch.float64)
    eigenvalues[:rank] = torch.arange(1.0, rank + 1) - 3.5
    A = rotated(eigenvalues).to(dtype)
    operator = Counted(as_operator(A))
    found = xtrace(operator, rtol=1e-3, max_products=products)
    assert found.n_products == operator.n_products <= products
    if rank < min(10, products // 2 - 1) or (rank < 20 and products == 60):
        assert found.value == pytest.approx(float(eigenvalues.sum()), abs=1e-4)
        assert found.converged == (found.samples >= 10)
    else:
        assert abs(found.value - float(eigenvalues.sum())) < 10 * found.half_width()


def test_ill_conditioned_sketches_do_no_harm() -> None:
    A = rotated(10.0 ** -torch.linspace(0, 30, 200, dtype=torch.float64))
    found = xtrace(as_operator(A), rtol=1e-12, max_products=150)
    assert found.value == pytest.approx(float(A.trace()), rel=1e-9)
    assert abs(found.value - float(A.trace())) < 10 * max(found.half_width(), 1e-12)


def test_the_interval_of_xtrace_covers_fairly() -> None:
    # its terms share probes: no guarantee, but it must not be a fiction
    covered = 0
    for n in range(200):
        found = xtrace(as_operator(OUTLIERS), rtol=0, max_products=40, generator=seed(n))
        covered += found.interval().low <= float(OUTLIERS.trace()) <= found.interval().high
    assert covered / 200 > 0.85


def test_the_interval_of_hutchpp_covers() -> None:
    covered = 0
    for n in range(200):
        found = hutchpp(as_operator(OUTLIERS), rtol=0, max_products=45, generator=seed(n))
        covered += found.interval().low <= float(OUTLIERS.trace()) <= found.interval().high
    assert 0.9 <= covered / 200 <= 0.995


@given(st.floats(1e-8, 1e8), st.sampled_from(["auto", "hutch++", "xtrace"]))
@settings(max_examples=20, deadline=None)
def test_scaling_scales(c: float, method: str) -> None:
    plain = trace(as_operator(FAST), method=method)
    scaled = trace(as_operator(c * FAST), method=method)
    assert scaled.value == pytest.approx(c * plain.value, rel=1e-9)
    assert (scaled.n_products, scaled.method) == (plain.n_products, plain.method)


def test_small_operators_are_measured_exactly() -> None:
    A = rotated(torch.linspace(-1, 2, 20))
    for estimator in (hutchpp, xtrace):
        found = estimator(as_operator(A))
        assert found.method == "exact" and found.n_products == 20 and found.stderr == 0
    one = torch.tensor([[-2.5]])
    assert trace(as_operator(one)).value == exact_trace(as_operator(one)).value == -2.5


def test_little_memory() -> None:
    vector = 200 * 8
    assert trace(as_operator(FAST), memory=20 * vector).method == "hutchinson"
    small = hutchpp(as_operator(FAST), rtol=0, max_products=60, memory=15 * vector)
    assert small.n_products == 60 and small.samples == 50
    assert xtrace(as_operator(FAST), rtol=0, memory=48 * vector).samples == 12
    with pytest.raises(ValueError, match="memory must be >= 9600 bytes for a sketch, got 1600"):
        hutchpp(as_operator(FAST), memory=vector)


def test_refused() -> None:
    A = as_operator(FAST)
    with pytest.raises(ValueError, match=r"method must be one of .*got 'xtrac' \(did you mean"):
        trace(A, method="xtrac")
    with pytest.raises(ValueError, match="max_products must be an integer >= 6, got 5"):
        hutchpp(A, max_products=5)
    with pytest.raises(ValueError, match="max_products must be an integer >= 4, got 3"):
        xtrace(A, max_products=3)
    for method in ("auto", "hutch++", "xtrace", "exact"):
        with pytest.raises(ValueError, match="products of operator must be finite"):
            trace(as_operator(torch.full((30, 30), math.nan)), method=method)
        with pytest.raises(TypeError, match="operator must be of float32 or float64"):
            trace(as_operator(torch.eye(30).half()), method=method)
