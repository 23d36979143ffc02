"""`Estimate`: the mean, its error, Student's interval, and how it is told."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from thalweg.core.estimate import Estimate, student_quantile

samples = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


@given(samples, st.floats(0.01, 0.999))
def test_the_interval_is_scipys(values: list[float], level: float) -> None:
    estimate = Estimate.of(torch.tensor(values, dtype=torch.float64))
    error = stats.sem(values)
    expected = stats.t.interval(level, len(values) - 1, loc=estimate.value, scale=error or 1.0)
    if error == 0:
        expected = (estimate.value, estimate.value)
    size = max(map(abs, values))
    assert estimate.interval(level) == pytest.approx(expected, rel=1e-6, abs=1e-8 * size)


@given(samples)
def test_one_level_inside_another(values: list[float]) -> None:
    estimate = Estimate.of(torch.tensor(values, dtype=torch.float64))
    low, high = estimate.interval(0.5)
    lower, higher = estimate.interval(0.99)
    assert lower <= low <= estimate.value <= high <= higher


def test_the_students_quantile_is_that_of_m_minus_one_degrees_of_freedom() -> None:
    assert student_quantile(0.95, 5) == pytest.approx(2.7764451, abs=1e-6)
    assert student_quantile(0.95, 1) == math.inf


def test_the_interval_covers_at_its_level() -> None:
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(1000):
        draws = 3 + 2 * torch.randn(5, generator=generator, dtype=torch.float64)
        low, high = Estimate.of(draws).interval(0.9)
        covered += low <= 3 <= high
    assert stats.binomtest(covered, 1000, 0.9).pvalue > 1e-3  # a normal quantile gives 0.83


def test_tensors_entry_by_entry() -> None:
    draws = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = Estimate.of(draws)
    low, high = whole.interval(0.8)
    for i in range(4):
        one = Estimate.of(draws[:, i])
        assert float(whole.value[i]) == pytest.approx(one.value, abs=1e-14)
        assert (float(low[i]), float(high[i])) == pytest.approx(one.interval(0.8), abs=1e-12)
    assert str(whole) == "tensor of shape (4,), mean of 6 samples"


def test_one_sample_has_no_error_bar() -> None:
    one = Estimate.of(torch.tensor([2.0]))
    assert one.stderr == math.inf and one.interval() == (-math.inf, math.inf)
    assert str(one) == "2 (no error bar, 1 sample)"
    assert Estimate.of(torch.ones(1, 3)).interval().high.isinf().all()


@pytest.mark.parametrize(
    ("value", "stderr", "told"),
    [
        (12.3456, 0.1, "12.35 +- 0.20 (95 % interval, 1000 samples)"),
        (-1.2e-7, 1e-9, "-1.200e-07 +- 2.0e-09 (95 % interval, 1000 samples)"),
        (1234.5678, 100.0, "1.23e+03 +- 2.0e+02 (95 % interval, 1000 samples)"),
        (0.0, 0.5, "0.00 +- 0.98 (95 % interval, 1000 samples)"),
        (3.0, 0.0, "3 (exact)"),
    ],
)
def test_told_to_the_second_digit_of_the_error(value: float, stderr: float, told: str) -> None:
    assert str(Estimate(value, stderr, 1000)) == told


def test_refused() -> None:
    with pytest.raises(ValueError, match="stderr must be >= 0, got -1"):
        Estimate(0.0, -1.0, 3)
    with pytest.raises(ValueError, match="stderr must be >= 0, got nan"):
        Estimate(0.0, math.nan, 3)
    with pytest.raises(ValueError, match=r"stderr must have the shape of value, \(2,\), got \(\)"):
        Estimate(torch.zeros(2), 1.0, 3)
    with pytest.raises(ValueError, match="samples must be an integer >= 1, got 0"):
        Estimate(0.0, 1.0, 0)
    with pytest.raises(ValueError, match="samples must be finite"):
        Estimate.of(torch.tensor([1.0, math.inf]))
    with pytest.raises(ValueError, match="samples must be at least one"):
        Estimate.of(torch.zeros(0))
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), got 95"):
        Estimate(0.0, 1.0, 3).interval(95)
