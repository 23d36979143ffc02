"""Hutchinson, diagonal, Frobenius norm: variance, coverage, stopping, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from thalweg.numeric.diagonal import diagonal
from thalweg.numeric.hutchinson import frobenius_norm, hutchinson
from thalweg.numeric.operator import Counted, as_operator


def seed(n: int) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def symmetric(d: int, n: int = 0, shift: float = 0.0) -> Tensor:
    A = torch.randn(d, d, dtype=torch.float64, generator=seed(n))
    return (A + A.T) / 2 + shift * torch.eye(d, dtype=torch.float64)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20))
@settings(deadline=None)
def test_hutchinson_is_exact_for_diagonal_matrices(entries: list[float]) -> None:
    A = torch.diag(torch.tensor(entries, dtype=torch.float64))
    found = hutchinson(as_operator(A))
    assert found.value == pytest.approx(sum(entries), abs=1e-10)
    assert found.stderr <= 1e-12 and found.n_products == 10


def test_the_interval_covers_at_a_fixed_number_of_products() -> None:
    A = symmetric(200)  # what is added to the diagonal changes no error: any trace will do
    truth, operator = float(A.trace()), as_operator(A)
    covered = 0
    for n in range(500):
        low, high = hutchinson(operator, rtol=0, max_products=30, generator=seed(n)).interval()
        covered += low <= truth <= high
    assert 0.92 <= covered / 500 <= 0.98


def test_coverage_at_the_stopping_time_is_slightly_less() -> None:
    A = symmetric(200, shift=1.0)
    found = [hutchinson(as_operator(A), rtol=0.2, generator=seed(n)) for n in range(200)]
    converged = [f for f in found if f.converged]
    assert len(converged) > 100
    assert len({f.n_products for f in converged}) > 3  # it does stop at different moments
    covered = [f.interval().low <= float(A.trace()) <= f.interval().high for f in found]
    assert 0.88 <= sum(covered) / 200 <= 0.97


def test_the_standard_error_is_that_of_the_formula() -> None:
    A = symmetric(50)
    variance = 2 * float((A**2).sum() - (A.diag() ** 2).sum())
    values, stderrs = [], []
    for n in range(400):
        found = hutchinson(as_operator(A), rtol=0, max_products=20, generator=seed(n))
        values.append(found.value)
        stderrs.append(found.stderr**2)
    assert torch.tensor(values).var().item() == pytest.approx(variance / 20, rel=0.2)
    assert torch.tensor(stderrs).mean().item() == pytest.approx(variance / 20, rel=0.05)
    z = (sum(values) / 400 - float(A.trace())) / math.sqrt(variance / 20 / 400)
    assert abs(z) < 4


def test_it_stops_by_the_interval_and_tells_when_it_could_not() -> None:
    A = symmetric(200, shift=5.0)
    found = hutchinson(as_operator(A), rtol=0.05)
    assert found.converged and found.half_width() <= 0.05 * abs(found.value)
    assert 10 <= found.n_products < 100
    tight = hutchinson(as_operator(A), rtol=1e-4, max_products=23)
    assert not tight.converged and tight.n_products == tight.samples == 23
    assert "not converged, the half-width wanted is" in tight.message
    predicted = int(tight.message.split("about ")[1].split()[0])
    assert predicted == pytest.approx(23 * (tight.half_width() / tight.wanted) ** 2, rel=1e-3)


def test_an_absolute_tolerance_serves_a_zero_trace() -> None:
    A = symmetric(100)
    A -= A.trace() / 100 * torch.eye(100, dtype=torch.float64)
    assert not hutchinson(as_operator(A), max_products=50).converged
    assert hutchinson(as_operator(A), atol=60.0).converged
    assert hutchinson(as_operator(torch.zeros(4, 4))).message.startswith("0 (exact)")


def pyhessians_trace(samples: list[float], tol: float = 1e-3) -> int:
    """After how many probes the published test of PyHessian 0.1 stops."""
    mean = 0.0
    for m in range(1, len(samples) + 1):
        new = sum(samples[:m]) / m
        if abs(new - mean) / (mean + 1e-6) < tol:
            return m
        mean = new
    return len(samples)


@given(st.lists(st.floats(-1e6, -1e-3), min_size=3, max_size=50))
def test_a_test_on_the_change_of_the_mean_stops_at_once_for_negative_traces(
    samples: list[float],
) -> None:
    # the mathematics of PyHessian's failure: a negative denominator is below any tolerance
    assert pyhessians_trace(samples) == 2


def test_the_rule_here_does_not() -> None:
    A = symmetric(200, shift=-0.4)
    found = hutchinson(as_operator(A), rtol=0.2, max_products=1000)
    assert found.converged and found.n_products > 50
    assert abs(found.value - float(A.trace())) < 3 * found.half_width()


def test_one_eigenvalue_far_out_does_not_stop_early() -> None:
    # the change of a running mean shrinks as 1/m whatever the error is
    for n in range(20):
        v = torch.randn(200, dtype=torch.float64, generator=seed(n))
        A = 50 * torch.outer(v, v) / v.square().sum()
        found = hutchinson(as_operator(A), rtol=0.1, max_products=60, generator=seed(n))
        assert not found.converged  # sd is 1.4 times the trace: 10 % needs about 800 products


@pytest.mark.parametrize("d", [30, 120])  # 30: the unit vectors are cheaper
def test_diagonal(d: int) -> None:
    A = symmetric(d)
    operator = Counted(as_operator(A))
    found = diagonal(operator, products=60)
    assert operator.n_products == min(d, 60) == found.samples
    if d <= 60:
        assert torch.allclose(found.value, A.diag(), atol=1e-14)
        assert bool((found.stderr == 0).all())
        return
    formula = (((A**2).sum(1) - A.diag() ** 2) / 60).sqrt()
    assert torch.allclose(found.stderr.mean(), formula.mean(), rtol=0.1)
    z = (found.value - A.diag()) / found.stderr
    low, high = found.interval()
    assert abs(float(z.mean())) < 4 / math.sqrt(d) and 0.8 < float(z.std()) < 1.2
    assert 0.88 < float(((low <= A.diag()) & (A.diag() <= high)).double().mean()) < 1


def test_the_diagonal_is_the_quotient_of_sums() -> None:
    A = symmetric(40)
    products: list[tuple[Tensor, Tensor]] = []

    def product(V: Tensor) -> Tensor:
        products.append((V.clone(), A @ V))
        return A @ V

    found = diagonal(as_operator(product, 40, torch.float64), products=23)
    V = torch.cat([v for v, _ in products], dim=1)
    AV = torch.cat([av for _, av in products], dim=1)
    assert torch.allclose(found.value, (V * AV).sum(1) / (V * V).sum(1), atol=1e-13)
    assert torch.allclose(found.stderr, (V * AV).std(1) / math.sqrt(23), atol=1e-13)


def test_frobenius_norm() -> None:
    A = symmetric(200)
    truth, covered = float(torch.linalg.matrix_norm(A)), 0
    for n in range(200):
        found = frobenius_norm(as_operator(A), rtol=0, max_products=30, generator=seed(n))
        covered += found.interval().low <= truth <= found.interval().high
    assert 0.9 <= covered / 200 <= 0.99
    assert frobenius_norm(as_operator(torch.zeros(5, 5))).value == 0
    found = frobenius_norm(as_operator(A), rtol=0.1)
    assert found.converged and found.value == pytest.approx(truth, rel=0.1)


@given(st.sampled_from([hutchinson, frobenius_norm]), st.floats(1e-8, 1e8))
@settings(max_examples=20, deadline=None)
def test_scaling_scales(estimator: type[hutchinson], c: float) -> None:
    A = symmetric(30, shift=3.0)
    plain, scaled = estimator(as_operator(A)), estimator(as_operator(c * A))
    assert scaled.n_products == plain.n_products
    assert scaled.value == pytest.approx(c * plain.value, rel=1e-12)
    assert scaled.stderr == pytest.approx(c * plain.stderr, rel=1e-9)


@pytest.mark.parametrize("estimator", [hutchinson, frobenius_norm, diagonal])
def test_little_memory_changes_the_blocks_and_nothing_else(estimator: type[hutchinson]) -> None:
    A = symmetric(150, shift=2.0)
    widths = []

    def product(V: Tensor) -> Tensor:
        widths.append(V.shape[1])
        return A @ V

    operator = as_operator(product, 150, torch.float64)
    many, one = estimator(operator), estimator(operator, memory=4 * 150 * 8)
    assert max(widths) > 1 and widths[-1] == 1
    assert torch.allclose(torch.as_tensor(many.value), torch.as_tensor(one.value), rtol=1e-12)


def test_single_precision_is_summed_in_double() -> None:
    n = 3_000_000
    found = hutchinson(as_operator(lambda v: 0.1 * v, n, torch.float32), max_products=2)
    assert found.value == pytest.approx(0.1 * n, rel=1e-7)


def test_seeds_and_the_global_generator() -> None:
    A = as_operator(symmetric(60))
    state = torch.get_rng_state()
    first, second = hutchinson(A), hutchinson(A)
    assert first == second
    assert hutchinson(A, generator=seed(1)).value != first.value
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("estimator", [hutchinson, frobenius_norm, diagonal])
def test_refused(estimator: type[hutchinson]) -> None:
    with pytest.raises(TypeError, match=r"operator must be of float32 or float64, got torch\.bfl"):
        estimator(as_operator(torch.eye(3, dtype=torch.bfloat16)))
    with pytest.raises(TypeError, match=r"operator must be of float32 or float64, got torch\.comp"):
        estimator(as_operator(torch.eye(3, dtype=torch.complex64)))
    with pytest.raises(ValueError, match="products of operator must be finite, got NaN or infini"):
        estimator(as_operator(torch.full((3, 3), math.inf)))
    with pytest.raises(ValueError, match="products must be an integer >= 2, got 1"):
        keyword = "products" if estimator is diagonal else "max_products"
        estimator(as_operator(torch.eye(3)), **{keyword: 1})
    with pytest.raises(ValueError, match="memory must be > 0, got 0"):
        estimator(as_operator(torch.eye(3)), memory=0)


def test_tolerances_refused() -> None:
    with pytest.raises(ValueError, match="rtol must be >= 0, got -1"):
        hutchinson(as_operator(torch.eye(3)), rtol=-1)
    with pytest.raises(ValueError, match="atol must be >= 0, got nan"):
        hutchinson(as_operator(torch.eye(3)), atol=math.nan)


def test_students_quantile_is_used_and_not_the_normals() -> None:
    found = hutchinson(as_operator(symmetric(50)), rtol=0, max_products=5)
    assert found.half_width() == pytest.approx(stats.t.ppf(0.975, 4) * found.stderr)
