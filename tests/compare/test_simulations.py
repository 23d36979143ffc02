"""How often the verdicts are wrong, and how often they find what is there: simulated races."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from thalweg.compare.paired import alpha_at_look, paired_differences, sign_flip_test, t_interval
from thalweg.compare.profiles import interquartile_mean_interval
from thalweg.compare.statistics import compare_all


def pool(kind: str) -> np.ndarray:
    """400 stored runs of one method."""
    generator = np.random.default_rng(2024)
    losses = {
        "normal logs": 0.3 * np.exp(generator.normal(0, 0.07, 400)),
        "heavy tails": 0.3 * np.exp(0.05 * generator.standard_t(2, 400)),
        "skewed": 0.3 + generator.exponential(0.1, 400),
        "few misses": 0.3 * np.exp(generator.normal(0, 0.07, 400)),
        "many misses": 0.3 * np.exp(generator.normal(0, 0.07, 400)),
    }[kind]
    losses[: {"few misses": 20, "many misses": 160}.get(kind, 0)] = math.inf
    return losses


@pytest.mark.parametrize(
    "kind", ["normal logs", "heavy tails", "skewed", "few misses", "many misses"]
)
def test_a_method_against_itself_is_rarely_better(kind: str) -> None:
    runs, generator = pool(kind), np.random.default_rng(7)
    false_alarms = 0
    for _ in range(200):
        drawn = generator.choice(runs, size=20, replace=False)  # other seeds for the second name
        (verdict,) = compare_all({"one name": drawn[:10], "another": drawn[10:]})
        false_alarms += verdict.word == "better"
    assert false_alarms <= 17


@pytest.mark.slow
def test_six_names_of_one_method_rarely_give_any_better() -> None:
    runs, generator = pool("normal logs"), np.random.default_rng(8)
    false_alarms = 0
    for _ in range(200):
        drawn = generator.choice(runs, size=(6, 10), replace=False)
        verdicts = compare_all({str(i): row for i, row in enumerate(drawn)})
        false_alarms += any(verdict.word == "better" for verdict in verdicts)
    assert false_alarms <= 17


def test_methods_that_differ_by_the_margin_are_rarely_called_the_same() -> None:
    generator = np.random.default_rng(9)
    same = 0
    for _ in range(200):
        d = math.log(1.01) + generator.normal(0, 0.01, 20)
        (verdict,) = compare_all({"A": 0.3 * np.exp(d), "B": np.full(20, 0.3)})
        same += verdict.word == "same"
    assert same <= 17


def test_a_true_effect_of_five_per_cent_is_found_in_four_races_of_five() -> None:
    generator = np.random.default_rng(11)
    found = wrong = 0
    for _ in range(400):
        base = 0.3 * np.exp(generator.normal(0, 0.2, 20))  # what the paired seeds share
        better = base / 1.05 * np.exp(generator.normal(0, 0.07, 20))
        (verdict,) = compare_all({"A": better, "B": base})
        found += verdict.winner == "A"
        wrong += verdict.winner == "B"
    assert found >= 320 and wrong == 0


def test_power_predicted_by_the_formula_for_the_first_look() -> None:
    """At alpha = .04 the t test finds 5 % with 20 seeds in 80 % of races up to sd = .071."""
    for sd, enough in ((0.071, True), (0.073, False)):
        shift = math.log(1.05) / sd * math.sqrt(20)
        assert (stats.nct.sf(stats.t.ppf(1 - alpha_at_look(1) / 2, 19), 19, shift) >= 0.8) == enough


@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
def test_t_interval_coverage(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    covered = 0
    for d in generator.normal(0.5, 1.0, size=(2000, seeds)):
        low, high = t_interval(d, 0.95)
        covered += low <= 0.5 <= high
    assert abs(covered / 2000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_looking_three_times_stays_below_five_per_cent_and_naive_looks_do_not() -> None:
    generator = np.random.default_rng(5)
    races, spent, naive = 1500, 0, 0
    for d in generator.normal(size=(races, 40)):
        p = [sign_flip_test(d[:10])]
        p += [sign_flip_test(d[:n], draws=1999) for n in (20, 40)]  # the smallest p is 1 / 2000
        spent += any(p[k] <= alpha_at_look(k + 1) for k in range(3))
        naive += min(p) <= 0.05
    assert spent / races <= 0.05
    assert abs(naive / races - 0.12) < 4 * math.sqrt(0.12 * 0.88 / races)  # the card: 12 %


def test_coverage_of_the_interquartile_mean_interval() -> None:
    """The card's 93 % at 3 problems x 10 seeds of a nominal 95 (normal log ratios)."""
    generator = np.random.default_rng(6)
    covered = 0
    for x in generator.normal(size=(800, 3, 10)):
        low, high = interquartile_mean_interval(x, resamples=500)
        covered += low <= 0 <= high
    assert abs(covered / 800 - 0.93) < 4 * math.sqrt(0.93 * 0.07 / 800)


def test_pairing_by_seed_removes_what_the_seeds_share() -> None:
    generator = np.random.default_rng(3)
    shared = np.exp(generator.normal(0, 1.0, 12))
    d = paired_differences(0.9 * shared, shared)
    assert t_interval(d).high - t_interval(d).low < 1e-12
