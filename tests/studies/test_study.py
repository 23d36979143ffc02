"""Verdicts of several parts, words from intervals, and finding the studies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.numeric.intervals import clopper_pearson, t_interval
from thalweg.studies import discover, find
from thalweg.studies.intervals import (
    above,
    below,
    bootstrap_interval,
    mean_interval,
    power,
    power_sentence,
    share_interval,
    within,
)
from thalweg.studies.study import SCALES, Part, Verdict, Word, column, where


def part(word: Word, *, control: bool = False) -> Part:
    return Part("statement", word, None, None, control=control)


HOLDS, FAILS, OPEN = Word.HOLDS, Word.FAILS, Word.INCONCLUSIVE


@pytest.mark.parametrize(
    ("words", "controls", "expected"),
    [
        ([HOLDS, HOLDS], [HOLDS], HOLDS),
        ([HOLDS, OPEN], [], OPEN),
        ([HOLDS, OPEN, FAILS], [HOLDS], FAILS),
        ([HOLDS], [FAILS], OPEN),
        ([FAILS], [FAILS], OPEN),
        ([FAILS], [OPEN], OPEN),
    ],
)
def test_a_verdict_of_several_parts(words, controls, expected) -> None:
    parts = [part(word) for word in words] + [part(word, control=True) for word in controls]
    verdict = Verdict.all_of(parts, sentence="So.", pairs=3)
    assert verdict.word is expected
    assert verdict.parts == tuple(parts)
    assert (verdict.sentence, verdict.pairs) == ("So.", 3)


def test_controls_alone_are_no_claim() -> None:
    with pytest.raises(ValueError, match="at least one that is no control"):
        Verdict.all_of([part(HOLDS, control=True)], sentence="So.")


numbers = st.floats(-1e6, 1e6)


@given(numbers, numbers, numbers)
def test_words_of_an_interval(a: float, b: float, threshold: float) -> None:
    low, high = min(a, b), max(a, b)
    word = above((low, high), threshold)
    assert (word is HOLDS) == (low > threshold)
    assert (word is FAILS) == (high < threshold)
    mirrored = below((-high, -low), -threshold)
    assert mirrored is word


def test_an_interval_that_is_not_a_number_decides_nothing() -> None:
    assert above((math.nan, 1.0), 0.0) is OPEN
    assert below((-1.0, math.nan), 0.0) is OPEN


@pytest.mark.parametrize(
    ("interval", "word"),
    [((-0.1, 0.1), HOLDS), ((0.1, 0.3), OPEN), ((0.3, 0.4), FAILS), ((-0.4, -0.3), FAILS)]
    + [((-1.0, 1.0), OPEN)],
)
def test_within(interval: tuple[float, float], word: Word) -> None:
    assert within(interval, -0.2, 0.2) is word


def test_the_intervals_are_those_of_the_races() -> None:
    d = [0.1, 0.4, 0.2, -0.1]
    assert mean_interval(d, 0.9) == t_interval(d, 0.9)
    assert share_interval(3, 40) == clopper_pearson(3, 40)


def test_bootstrap_of_a_mean_is_about_the_normal_interval() -> None:
    samples = np.random.default_rng(0).normal(2.0, 3.0, 400)
    low, high = bootstrap_interval(np.mean, samples, seed=1)
    half = 1.96 * samples.std() / 20
    assert low == pytest.approx(samples.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(samples.mean() + half, abs=0.1 * half)
    assert bootstrap_interval(np.mean, samples, seed=1) == (low, high)


def test_bootstrap_draws_whole_seeds() -> None:
    pairs = np.stack([np.arange(20.0), np.arange(20.0) + 5], axis=1)
    low, high = bootstrap_interval(lambda s: (s[:, 1] - s[:, 0]).mean(), pairs, seed=0)
    assert (low, high) == (5.0, 5.0)


def test_bootstrap_wants_twenty_seeds() -> None:
    with pytest.raises(ValueError, match="samples must be at least 20, got 19"):
        bootstrap_interval(np.mean, np.ones(19), seed=0)


def test_power_is_what_simulation_finds() -> None:
    n, generator = 10, np.random.default_rng(0)
    d = generator.normal(power(n), 1.0, (4000, n))
    found = np.mean([mean_interval(row).low > 0 for row in d])
    assert found == pytest.approx(0.8, abs=0.03)  # 5 standard errors; the formula itself is 1 % off
    assert "with 10 pairs an effect of 0.99 standard deviations" in power_sentence(n)


def test_rows_by_value_and_by_column() -> None:
    rows = [{"arm": "a", "k": 1, "x": 0.5}, {"arm": "b", "k": 1, "x": 2}, {"arm": "b", "k": 2}]
    assert where(rows, arm="b", k=1) == [rows[1]]
    assert where(rows, absent=1) == []
    np.testing.assert_array_equal(column(rows[:2], "x"), [0.5, 2.0])


def test_every_study_is_complete() -> None:
    studies = discover()
    assert "lr-perceptron" in studies
    for name, study in studies.items():
        assert name == name.lower().replace("_", "-")
        claim = study.claim
        assert claim.year > 1950
        assert str(claim.year) in claim.paper
        for text in (claim.title, claim.sentence, claim.expected, claim.refuted_by):
            assert text.strip()
        for call in (study.run, study.verdict, study.figure):
            assert callable(call)


def test_an_unknown_study_and_a_module_that_is_none() -> None:
    with pytest.raises(ValueError, match="did you mean 'lr-perceptron'"):
        find("lr_perceptron")
    with pytest.raises(ValueError, match="NAME must be a study, got 'intervals'"):
        find("intervals")


def test_scales_are_named_from_small_to_large() -> None:
    assert SCALES == ("smoke", "laptop", "full")
