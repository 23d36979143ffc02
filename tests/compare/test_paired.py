"""One pair of methods: each test and interval against scipy or by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from thalweg.compare.paired import (
    alpha_at_look,
    clopper_pearson,
    fewest_seeds,
    holm,
    paired_differences,
    seeds_needed,
    sign_flip_test,
    signed_rank_test,
    signed_ranks,
    t_interval,
)

INF = math.inf


def test_differences_on_both_scales() -> None:
    np.testing.assert_allclose(
        paired_differences([2.0, 1.0], [1.0, 4.0]), [math.log(2), -math.log(4)]
    )
    np.testing.assert_allclose(
        paired_differences([0.9, -1.0], [0.8, 1.0], scale="difference", goal="max"), [0.1, -2.0]
    )


@pytest.mark.parametrize("goal, worse", [("min", INF), ("max", -INF)])
@pytest.mark.parametrize("miss", [INF, -INF])
@pytest.mark.parametrize("scale", ["ratio", "difference"])
def test_a_miss_is_the_worst_result_whatever_its_sign(goal, worse, miss, scale) -> None:
    d = paired_differences([miss, 1.0, miss], [1.0, miss, miss], scale=scale, goal=goal)
    np.testing.assert_array_equal(d, [worse, -worse, 0.0])


def test_differences_refuse_what_would_become_nan() -> None:
    with pytest.raises(ValueError, match="a must not be NaN"):
        paired_differences([1.0, math.nan], [1.0, 1.0])
    with pytest.raises(ValueError, match="b must be > 0 on the ratio scale, got 0"):
        paired_differences([1.0, 1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match=r"b must have the shape of a, \(2,\), got \(1,\)"):
        paired_differences([1.0, 1.0], [1.0])


@pytest.mark.parametrize("seeds", [2, 5, 11, 40])
def test_t_interval_is_that_of_scipy(seeds: int) -> None:
    d = np.random.default_rng(seeds).normal(0.3, 2.0, seeds)
    expected = stats.ttest_1samp(d, 0.0).confidence_interval(0.96)
    np.testing.assert_allclose(t_interval(d, 0.96), (expected.low, expected.high), rtol=1e-12)


@pytest.mark.parametrize("seeds", [1, 2, 5, 9, 13, 16])
def test_sign_flip_is_scipys_permutation_test(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    for d in (generator.normal(0.5, 1.0, seeds), generator.integers(-2, 3, seeds).astype(float)):
        expected = 1.0
        if seeds > 1:
            expected = stats.permutation_test(
                (d,),
                lambda x, axis: x.mean(axis=axis),
                permutation_type="samples",
                vectorized=True,
                n_resamples=np.inf,
            ).pvalue
        assert sign_flip_test(d) == pytest.approx(expected, rel=1e-12)


def test_smallest_sign_flip_p() -> None:
    for seeds in range(1, 17):
        assert sign_flip_test(np.arange(1.0, seeds + 1)) == 2.0 ** (1 - seeds)


def test_random_signs_agree_with_all_signs() -> None:
    d = np.random.default_rng(4).normal(0.35, 1.0, 18)
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=17)))
    sums = np.abs(d[0] + signs @ d[1:])
    exact = float(np.mean(sums >= abs(d.sum()) - 1e-12))
    error = math.sqrt(exact * (1 - exact) / 99_999)
    assert abs(sign_flip_test(d) - exact) < 4 * error
    assert sign_flip_test(d) == sign_flip_test(d)
    assert sign_flip_test(d, seed=1) != sign_flip_test(d, seed=2)


def test_random_signs_count_the_observed_one() -> None:
    assert sign_flip_test(np.ones(60)) == 1 / 100_000
    assert sign_flip_test(np.zeros(60)) == 1.0


def test_sign_flip_refuses_misses() -> None:
    with pytest.raises(ValueError, match="finite"):
        sign_flip_test([1.0, INF])


def test_signed_ranks_by_hand() -> None:
    # sizes: inf inf | 3 | 1 1 | 0 0, so the ranks are 6.5 6.5 | 5 | 3.5 3.5 | 1.5 1.5
    d = [INF, 0.0, -1.0, 3.0, -INF, 1.0, 0.0]
    np.testing.assert_array_equal(signed_ranks(d), [6.5, 0.0, -3.5, 5.0, -6.5, 3.5, 0.0])


@pytest.mark.parametrize("zeros", [0, 2])
@pytest.mark.parametrize("misses", [0, 3])
def test_signed_rank_is_scipys_wilcoxon(zeros: int, misses: int) -> None:
    generator = np.random.default_rng(10 * zeros + misses)
    d = np.concatenate((np.zeros(zeros), generator.normal(0.3, 1.0, 7), np.full(misses, 99.0)))
    expected = stats.wilcoxon(
        d, zero_method="pratt", method=stats.PermutationMethod(n_resamples=np.inf)
    ).pvalue
    assert signed_rank_test(np.where(d == 99.0, INF, d)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("successes, trials", [(0, 10), (3, 10), (10, 10), (1, 1)])
def test_clopper_pearson_from_its_definition(successes: int, trials: int) -> None:
    low, high = clopper_pearson(successes, trials, 0.9)
    if successes > 0:
        assert stats.binom.sf(successes - 1, trials, low) == pytest.approx(0.05)
    else:
        assert low == 0
    if successes < trials:
        assert stats.binom.cdf(successes, trials, high) == pytest.approx(0.05)
    else:
        assert high == 1


def test_holm_by_hand() -> None:
    # sorted .01 .02 .02 .04: times 4 3 2 1 = .04 .06 .04 .04, never falling: .04 .06 .06 .06
    np.testing.assert_allclose(holm([0.02, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.5]), [1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_lies_between_none_and_bonferroni_and_ignores_order(p, random) -> None:
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, len(p) * np.array(p))).all()
    shuffled = random.sample(range(len(p)), len(p))
    np.testing.assert_array_equal(holm([p[i] for i in shuffled]), adjusted[shuffled])


@pytest.mark.parametrize("alpha", [0.05, 0.04])
def test_fewest_seeds_of_the_card(alpha: float) -> None:
    assert [fewest_seeds(m, alpha) for m in (1, 5, 15, 28)] == [6, 8, 10, 11]


def test_fewest_seeds_can_just_reach_alpha() -> None:
    for pairs in range(1, 40):
        seeds = fewest_seeds(pairs, 0.04)
        assert pairs * sign_flip_test(np.ones(min(seeds, 16))) <= 0.04
        assert pairs * sign_flip_test(np.ones(seeds - 1)) > 0.04


def test_seeds_needed_is_the_cards_check() -> None:
    assert seeds_needed(math.log(1.05), 0.073, alpha=0.05, pairs=1, margin=math.log(1.01)) == 20


def test_seeds_needed_is_the_smallest_that_satisfies_its_inequality() -> None:
    def enough(n: float, mean: float, level: float, goal: float) -> bool:
        t = stats.t.ppf(level, n - 1) + stats.t.ppf(0.8, n - 1)
        return bool(t * 0.1 / math.sqrt(n) <= goal)

    n = seeds_needed(-0.06, 0.1, alpha=0.04, pairs=3, margin=0.01)
    assert enough(n, -0.06, 1 - 0.04 / 6, 0.06) and not enough(n - 1, -0.06, 1 - 0.04 / 6, 0.06)
    n = seeds_needed(0.01, 0.1, alpha=0.04, pairs=3, margin=0.05)
    assert enough(n, 0.01, 0.95, 0.04) and not enough(n - 1, 0.01, 0.95, 0.04)


def test_seeds_needed_at_its_ends() -> None:
    assert seeds_needed(5.0, 0.01, alpha=0.05, pairs=15, margin=0.01) == fewest_seeds(15, 0.05)
    assert seeds_needed(0.02, 1.0, alpha=0.05, margin=0.01, most=200) == INF
    assert seeds_needed(0.01, 0.1, alpha=0.05, margin=0.01) == INF  # on the margin: never


def test_all_looks_together_spend_five_per_cent() -> None:
    levels = [alpha_at_look(k) for k in range(1, 60)]
    assert levels[:3] == pytest.approx([0.04, 0.008, 0.0016])
    assert all(math.fsum(levels[:k]) <= 0.05 for k in range(1, 60))
    with pytest.raises(ValueError, match="look must be an integer >= 1, got 0"):
        alpha_at_look(0)
