"""Tuning curves against all subsets, median intervals against their exact coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.compare.curves import median_interval, tuning_curve, tuning_curve_median

INF = math.inf
trial = st.one_of(st.integers(-50, 50).map(float), st.just(INF))


def test_the_cards_example() -> None:
    assert tuning_curve([4.0, 1.0, 3.0, 2.0])[1] == pytest.approx(5 / 3)


@given(st.lists(trial, min_size=1, max_size=7))
def test_tuning_curve_is_the_mean_over_all_subsets(values) -> None:
    expected = [
        np.mean([min(subset) for subset in itertools.combinations(values, k)])
        for k in range(1, len(values) + 1)
    ]
    np.testing.assert_allclose(tuning_curve(values), expected, rtol=1e-12, atol=1e-12)
    diverged = sum(map(math.isinf, values))
    np.testing.assert_array_equal(
        np.isinf(tuning_curve(values)), np.arange(1, len(values) + 1) <= diverged
    )


@given(st.lists(trial, min_size=1, max_size=7))
def test_tuning_curve_median_is_the_lower_median_over_all_subsets(values) -> None:
    for k, median in enumerate(tuning_curve_median(values), start=1):
        best = sorted(min(subset) for subset in itertools.combinations(values, k))
        assert median == best[(len(best) - 1) // 2]


def test_the_median_curve_is_finite_where_the_mean_is_not() -> None:
    values = [1.0, 2.0, 3.0, INF]
    assert tuning_curve(values)[0] == INF and tuning_curve_median(values)[0] == 2.0


def test_tuning_curves_for_the_larger_the_better() -> None:
    values = [0.1, 0.4, -INF, 0.3]
    for curve in (tuning_curve, tuning_curve_median):
        np.testing.assert_array_equal(
            curve(values, goal="max"), -curve([-0.1, -0.4, INF, -0.3], goal="min")
        )


def test_many_trials_do_not_overflow() -> None:
    # the expected smallest of k of 1 ... T is (T + 1) / (k + 1)
    trials = 3000
    curve = tuning_curve(np.arange(1.0, trials + 1))
    np.testing.assert_allclose(curve, (trials + 1) / (np.arange(1, trials + 1) + 1), rtol=1e-9)
    diverged = tuning_curve(np.where(np.arange(trials) < 1000, 1.0, INF))
    assert np.isinf(diverged[:2000]).all() and np.isfinite(diverged[2000:]).all()


def test_tuning_curve_refusals() -> None:
    with pytest.raises(ValueError, match="values must not be NaN"):
        tuning_curve([1.0, math.nan])
    with pytest.raises(ValueError, match=r"values must have shape \(trials,\)"):
        tuning_curve([])


@pytest.mark.parametrize("seeds", range(1, 31))
def test_median_interval_has_the_coverage_it_states(seeds: int) -> None:
    ranks = np.arange(1.0, seeds + 1)
    low, median, high, coverage = median_interval(ranks, 0.95)
    assert low + high == seeds + 1 and median == (seeds + 1) / 2
    # v_(l) <= median < v_(u) when l to u - 1 of the runs fall below it: exact, by counting
    below = range(int(low), int(high))
    assert coverage == pytest.approx(sum(math.comb(seeds, j) for j in below) / 2**seeds)
    if seeds >= 6:
        inner = sum(math.comb(seeds, j) for j in range(int(low) + 1, int(high) - 1)) / 2**seeds
        assert coverage >= 0.95 > inner
    else:
        assert (low, high) == (1, seeds) and coverage < 0.95


def test_median_interval_at_every_point_of_a_curve() -> None:
    curves = np.random.default_rng(0).exponential(size=(10, 4))
    curves[:6, 3] = INF
    result = median_interval(curves)
    for point in range(4):
        low, median, high, coverage = median_interval(curves[:, point])
        assert (result.low[point], result.median[point], result.high[point]) == (low, median, high)
        assert coverage == result.coverage == pytest.approx(1 - 22 / 1024)  # v_(2) to v_(9)
    assert result.median[3] == result.high[3] == INF
    with pytest.raises(ValueError, match="NaN"):
        median_interval([[1.0, math.nan]])
