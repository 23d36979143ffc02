"""Several problems, worked out by hand, and rliable's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from thalweg.compare.profiles import (
    algoperf_score,
    geometric_mean_ratio,
    interquartile_mean,
    interquartile_mean_interval,
    log_ratios,
    performance_profile,
    ratios_to_best,
)

INF = math.inf

# Three methods on four problems: median time to the target.
#   problem      1    2    3    4        ratio to the best   1    2    3    4
#   A           10   40  inf  inf        A                   1    2  inf  inf
#   B           20   20   30  inf        B                   2    1    2  inf
#   C           50  inf   15  inf        C                   5  inf    1  inf
#   best        10   20   15  inf
TIMES = {"A": [10, 40, INF, INF], "B": [20, 20, 30, INF], "C": [50, INF, 15, INF]}


def test_ratios_by_hand() -> None:
    r = ratios_to_best(TIMES)
    np.testing.assert_array_equal(r["A"], [1, 2, INF, INF])
    np.testing.assert_array_equal(r["B"], [2, 1, 2, INF])
    np.testing.assert_array_equal(r["C"], [5, INF, 1, INF])


def test_performance_profile_by_hand() -> None:
    rho = performance_profile(TIMES, [1, 1.99, 2, 4.99, 5, 1e9])
    np.testing.assert_array_equal(rho["A"], [0.25, 0.25, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(rho["B"], [0.25, 0.25, 0.75, 0.75, 0.75, 0.75])
    np.testing.assert_array_equal(rho["C"], [0.25, 0.25, 0.25, 0.25, 0.5, 0.5])


def test_algoperf_score_by_hand() -> None:
    # (4 - r) / 3:  A 1, 2/3, 0, 0;  B 2/3, 1, 2/3, 0;  C 0, 0, 1, 0
    score = algoperf_score(TIMES)
    assert score == pytest.approx({"A": 5 / 12, "B": 7 / 12, "C": 1 / 4}, rel=1e-15)


def test_algoperf_score_is_the_area_under_the_profile() -> None:
    generator = np.random.default_rng(1)
    times = {name: generator.lognormal(0, 1, 8) for name in "ABC"}
    taus = np.linspace(1, 4, 100)  # as the official code integrates
    rho = performance_profile(times, taus)
    for name, score in algoperf_score(times).items():
        assert abs(np.trapezoid(rho[name], taus) / 3 - score) < 0.005


def test_runs_count_by_their_median_and_half_missed_is_missed() -> None:
    runs = {"A": [[1.0, 2.0, 30.0], [1.0, INF, INF]], "B": [[4.0, 4.0, INF], [3.0, 5.0, INF]]}
    r = ratios_to_best(runs)
    np.testing.assert_array_equal(r["A"], [1, INF])
    np.testing.assert_array_equal(r["B"], [2, 1])


# Three problems, four paired seeds; in the comments log2(A / R), 0 where both missed.
A = [[2, 4, INF, 1], [1, INF, 8, 1], [2, 2, INF, 16]]
R = [[1, 1, INF, 2], [1, 2, 1, INF], [1, 4, 2, 1]]
#     1  2   0  -1    0  inf  3 -inf   1 -1 inf  4
# sorted: -inf -1 -1 | 0 0 1 1 2 3 | 4 inf inf; the middle six have the mean 7 / 6


def test_interquartile_mean_by_hand() -> None:
    x = log_ratios({"A": A, "R": R}, "R")["A"]
    np.testing.assert_allclose(
        x / math.log(2), [[1, 2, 0, -1], [0, INF, 3, -INF], [1, -1, INF, 4]], rtol=1e-15
    )
    assert interquartile_mean(x) == pytest.approx(7 / 6 * math.log(2), rel=1e-14)


def test_interquartile_mean_is_infinite_when_more_than_a_quarter_are() -> None:
    x = np.array(np.arange(12.0)).reshape(3, 4)
    x[0, :3] = INF
    assert math.isfinite(interquartile_mean(x))
    x[1, 0] = INF
    assert interquartile_mean(x) == INF
    assert math.isnan(interquartile_mean([INF, INF, 0.0, -INF, -INF]))
    with pytest.raises(ValueError, match="none of them NaN"):
        interquartile_mean([1.0, math.nan])


def test_geometric_mean_by_hand() -> None:
    a, r = (
        [[2.0, 4.0, 1.0, 1.0], [1.0, 3.0, 8.0, 1.0], [2.0, 2.0, 5.0, 16.0]],
        [
            [1.0, 1.0, 1.0, 2.0],
            [1.0, 3.0, 1.0, 1.0],
            [1.0, 4.0, 5.0, 1.0],
        ],
    )
    # log2 ratios 1 2 0 -1, 0 0 3 0, 1 -1 0 4: mean 9 / 12
    x = log_ratios({"A": a, "R": r}, "R")["A"]
    assert geometric_mean_ratio(x) == pytest.approx(2 ** (9 / 12), rel=1e-14)
    assert geometric_mean_ratio([0.0, INF]) == INF and geometric_mean_ratio([0.0, -INF]) == 0
    assert math.isnan(geometric_mean_ratio([INF, -INF]))


def test_a_miss_counts_against_the_method_for_either_goal() -> None:
    values = {"A": [[INF]], "R": [[1.0]]}
    assert log_ratios(values, "R")["A"] == INF
    assert log_ratios(values, "R", goal="max")["A"] == -INF


def test_bootstrap_resamples_seeds_within_problems() -> None:
    # problems differ, seeds do not: resampling across problems would give an interval
    x = np.repeat([[0.0], [1.0], [5.0]], 10, axis=1)
    assert interquartile_mean_interval(x) == (interquartile_mean(x),) * 2
    x = x + np.random.default_rng(0).normal(size=x.shape)
    low, high = interquartile_mean_interval(x)
    assert low < interquartile_mean(x) < high
    assert (low, high) == interquartile_mean_interval(x)
    wide = interquartile_mean_interval(x, 0.99)
    assert wide.low < low and high < wide.high


def test_bootstrap_with_misses() -> None:
    x = np.random.default_rng(0).normal(size=(3, 10))
    x[0, :7] = INF  # 7 of 30: less than a quarter, but not in every sample
    low, high = interquartile_mean_interval(x)
    assert math.isfinite(low) and high == INF
    x[1, :9] = -INF
    assert interquartile_mean_interval(x) == (-INF, INF)


def test_bootstrap_is_refused_below_ten_seeds() -> None:
    with pytest.raises(ValueError, match="x must have >= 10 seeds per problem, got 9"):
        interquartile_mean_interval(np.zeros((3, 9)))


def test_refusals_name_the_method() -> None:
    with pytest.raises(ValueError, match=r"times\['B'\] must be > 0 on the ratio scale, got 0"):
        ratios_to_best({"A": [1.0], "B": [0.0]})
    with pytest.raises(ValueError, match=r"times\['B'\] must have the problems of times\['A'\]"):
        ratios_to_best({"A": [1.0], "B": [1.0, 2.0]})
    with pytest.raises(ValueError, match="taus must be finite and >= 1"):
        performance_profile(TIMES, [0.5])
    with pytest.raises(ValueError, match=r"values\['B'\] must have shape"):
        log_ratios({"A": [[1.0, 2.0]], "B": [[1.0]]}, "A")


def test_interquartile_mean_is_that_of_rliable() -> None:
    metrics = pytest.importorskip("rliable.metrics")
    generator = np.random.default_rng(2)
    for problems, seeds in ((3, 4), (5, 7), (1, 10)):
        x = generator.normal(size=(problems, seeds))
        x.flat[: problems * seeds // 5] = INF
        assert interquartile_mean(x) == pytest.approx(metrics.aggregate_iqm(x.T), rel=1e-12)


def test_performance_profile_is_that_of_rliable() -> None:
    library = pytest.importorskip("rliable.library")  # needs the package arch
    taus = np.array([1.0, 1.5, 2.0, 3.0, 4.9, 5.1])
    rho = performance_profile(TIMES, taus)
    for name, r in ratios_to_best(TIMES).items():  # rliable counts scores above tau
        above = [library.run_score_deviation(r[None, :], tau) for tau in taus]
        np.testing.assert_allclose(rho[name], 1 - np.array(above), rtol=1e-15)
