"""Verdicts: the three words, misses, sentences, and what may not change them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from thalweg.compare.statistics import Verdict, answer, compare_all

INF = math.inf


def race(mean: float, sd: float, seeds: int, *, base: float = 0.3) -> dict[str, list[float]]:
    """Two methods whose paired log ratios A/B have exactly this mean and sd."""
    d = stats.norm.ppf((np.arange(seeds) + 0.5) / seeds)
    d = mean + sd * d / d.std(ddof=1)
    return {"A": list(base * np.exp(d)), "B": [base] * seeds}


def only(values, **how) -> Verdict:
    (verdict,) = compare_all(values, **how)
    return verdict


def test_better() -> None:
    v = only(race(math.log(0.88), 0.05, 10), measure="test loss")
    assert (v.word, v.winner, v.loser) == ("better", "A", "B")
    assert (v.first, v.second, v.seeds, v.pairs) == ("A", "B", 10, 1)
    assert v.mean == pytest.approx(math.log(0.88)) and v.sd == pytest.approx(0.05)
    half = stats.t.ppf(0.98, 9) * 0.05 / math.sqrt(10)
    assert (v.low, v.high) == pytest.approx((v.mean - half, v.mean + half))
    assert v.p == v.p_adjusted == 2**-9 and v.test == "sign flip" and v.more_seeds is None
    assert v.sentence == (
        "A is better than B: its test loss is 12 % lower than B's "
        "(96 % interval 8.6 % to 15 %), 10 paired seeds."
    )


def test_a_significant_difference_below_the_margin_is_not_better() -> None:
    values = race(math.log(1.005), 0.001, 10)
    v = only(values)
    assert v.p <= 0.04 and v.low > 0 and v.word == "same" and v.winner is None
    assert only(values, margin=0.004).word == "better"


@pytest.mark.parametrize("scale, margin", [("ratio", 0.02), ("difference", 0.005)])
def test_same_is_two_one_sided_tests_of_scipy(scale: str, margin: float) -> None:
    generator = np.random.default_rng(3)
    tolerated = math.log1p(margin) if scale == "ratio" else margin
    words = []
    for sd in np.linspace(0.2, 2.5, 60) * tolerated:
        b = generator.uniform(0.4, 0.6, 8)
        d = generator.normal(0.0, sd, 8)
        v = only(
            {"A": b * np.exp(d) if scale == "ratio" else b + d, "B": b}, scale=scale, margin=margin
        )
        above = stats.ttest_1samp(d, -tolerated, alternative="greater").pvalue
        below = stats.ttest_1samp(d, tolerated, alternative="less").pvalue
        assert (v.word == "same") == (max(above, below) < 0.05)
        words.append(v.word)
    assert 10 < words.count("same") < 50  # both answers were put to the test


def test_same_in_words() -> None:
    v = only(race(0.002, 0.004, 10), measure="test loss")
    assert v.sentence == (
        "A and B have the same test loss within 1 %: A's test loss is 0.2 % higher "
        "(90 % interval 0.032 % lower to 0.43 % higher), 10 paired seeds."
    )


def test_cannot_tell_says_how_many_seeds_at_the_level_that_will_judge_them() -> None:
    # 20 more seeds would be the second look, at alpha = .008
    v = only(race(math.log(1.05), 0.15, 20))
    n = 20
    t = stats.t
    while (t.ppf(0.996, n - 1) + t.ppf(0.8, n - 1)) * 0.15 / math.sqrt(n) > math.log(1.05):
        n += 1
    assert v.word == "cannot tell" and v.more_seeds == 5 * math.ceil((n - 20) / 5)
    assert v.sentence == (
        f"Cannot tell A from B (about {v.more_seeds:.0f} more seeds): A's result is 5 % higher "
        "than B's (96 % interval 2.5 % lower to 13 % higher), 20 paired seeds."
    )


def test_more_than_200_seeds() -> None:
    v = only(race(0.012, 0.5, 20))
    assert v.more_seeds == INF and "(more than 200 more seeds)" in v.sentence


def test_below_the_fewest_seeds_better_is_never_printed() -> None:
    for seeds in range(1, 6):
        v = only({"A": [0.1] * seeds, "B": [0.9] * seeds})
        assert v.word == "cannot tell" and v.more_seeds == 5 and v.fewest == 6
        assert v.sentence.endswith("; the word 'better' takes at least 6.")
    assert only({"A": [0.1] * 6, "B": [0.9] * 6}).word == "better"


def test_holm_over_all_pairs_raises_the_fewest_seeds() -> None:
    values = {name: [0.1 * 2**i] * 9 for i, name in enumerate("ABCDEF")}
    assert {v.word for v in compare_all(values)} == {"cannot tell"}
    assert {v.word for v in compare_all(values, reference="A")} == {"better"}
    values = {name: [*x, x[0]] for name, x in values.items()}
    verdicts = compare_all(values)
    assert {v.word for v in verdicts} == {"better"} and len(verdicts) == 15
    assert verdicts[0].fewest == 10 and verdicts[0].p_adjusted == 15 * 2**-9


def test_later_looks_are_stricter() -> None:
    values = race(math.log(1.05), 0.055, 12)
    first, second = only(values), only(values, look=2)
    assert first.p == second.p and first.word == "better" and second.word == "cannot tell"
    assert "99.2 % interval" in second.sentence


def test_when_alpha_is_spent_no_number_of_seeds_is_promised() -> None:
    v = only(race(math.log(1.05), 0.1, 20), look=6)
    assert v.word == "cannot tell" and v.more_seeds is None
    assert "(no later look at this race can: start a new one)" in v.sentence


def test_larger_is_better_with_goal_max() -> None:
    values = {"A": [0.91, 0.92, 0.93, 0.91, 0.92, 0.93], "B": [0.88, 0.9, 0.9, 0.89, 0.89, 0.91]}
    v = only(values, scale="difference", goal="max", measure="accuracy")
    assert v.winner == "A" and v.mean == pytest.approx(0.025)
    assert v.sentence.startswith(
        "A is better than B: its accuracy is 2.5 points higher than B's (96 % interval "
    )
    assert only(values, scale="difference", goal="min").winner == "B"
    assert only({k: [1e4 * x for x in v] for k, v in values.items()}, goal="max").winner == "A"


def test_difference_margin_is_half_a_point() -> None:
    base = np.linspace(0.8, 0.9, 10)
    below, above = base + 0.0049, base + 0.0051
    assert only({"A": below, "B": base}, scale="difference").word == "same"
    assert only({"A": above, "B": base}, scale="difference").word == "better"


def test_misses_decide_by_ranks_medians_and_successes() -> None:
    a = [0.30, 0.31, 0.29, 0.33, 0.30, 0.32, 0.31, 0.30]
    b = [0.40, INF, 0.39, INF, 0.44, INF, 0.42, INF]
    v = only({"A": a, "B": b}, measure="test loss")
    assert (v.word, v.winner, v.p, v.test) == ("better", "A", 2**-7, "signed rank")
    assert v.missed and v.mean is v.low is v.high is v.sd is None
    assert v.medians == (pytest.approx(0.305), INF) and v.successes == (8, 4)
    assert v.shares[0] == pytest.approx((0.02 ** (1 / 8), 1.0))
    assert v.sentence == (
        "A is better than B: its median test loss is 0.305 with 8 of 8 runs successful "
        "(96 % interval 61 % to 100 %), against missed (half of the runs or more) with 4 of 8 "
        "runs successful (96 % interval 15 % to 85 %) for B (signed-rank p = 0.0078), "
        "8 paired seeds."
    )


def test_misses_are_never_dropped_and_never_the_same() -> None:
    runs = [0.3, 0.31, 0.29, 0.3, 0.3, 0.3, 0.31, 0.3]
    assert only({"A": runs, "B": runs}).word == "same"
    both = only({"A": [*runs, INF], "B": [*runs, INF]})
    assert both.word == "cannot tell" and both.p == 1.0 and both.more_seeds is None
    assert only({"A": [INF] * 8, "B": [INF] * 8}).word == "cannot tell"


def test_equal_medians_leave_it_to_the_successes() -> None:
    runs = [1.0] * 20
    assert only({"A": runs, "B": [INF] * 8 + runs[8:]}).winner == "A"
    assert only({"A": runs, "B": [INF] * 4 + runs[4:]}).word == "cannot tell"
    mostly_missed = [1.0] * 8 + [INF] * 12  # both medians are infinite
    assert only({"A": mostly_missed, "B": [INF] * 20}).winner == "A"
    assert only({"A": [INF] * 20, "B": mostly_missed}, goal="max").winner == "B"


def test_misses_on_one_side_and_speed_on_the_other_are_not_called() -> None:
    # A is faster wherever it arrives, and ranks say so, but it misses significantly more often
    a, b = [INF] * 8 + [1.0] * 92, [2.0] * 100
    v = only({"A": a, "B": b})
    assert v.p <= 0.04 and v.word == "cannot tell"
    assert only({"A": [INF] + [1.0] * 99, "B": b}).winner == "A"


def test_refusals_name_the_method() -> None:
    good = [0.1, 0.2]
    with pytest.raises(ValueError, match=r"values\['Lion'\] must not be NaN"):
        compare_all({"AdamW": good, "Lion": [0.1, math.nan]})
    with pytest.raises(
        ValueError, match=r"values\['Lion'\] must have the seeds of .*2 results, got 3"
    ):
        compare_all({"AdamW": good, "Lion": [0.1, 0.2, 0.3]})
    with pytest.raises(
        ValueError, match=r"values\['Lion'\] must be > 0 on the ratio scale, got -1"
    ):
        compare_all({"AdamW": good, "Lion": [0.1, -1.0]})
    with pytest.raises(ValueError, match="at least 2 methods"):
        compare_all({"AdamW": good})
    with pytest.raises(ValueError, match="did you mean 'AdamW'"):
        compare_all({"AdamW": good, "Lion": good}, reference="Adamw")
    with pytest.raises(ValueError, match="one result per seed"):
        compare_all({"AdamW": [], "Lion": []})
    with pytest.raises(ValueError, match="margin must be >= 0"):
        compare_all({"AdamW": good, "Lion": good}, margin=-1)


# --- the answer ---------------------------------------------------------------------------------


def ladder(*factors: float, seeds: int = 12) -> dict[str, np.ndarray]:
    """Methods A, B, ... whose losses differ by these factors, up to 1 % noise of their own."""
    generator = np.random.default_rng(0)
    return {
        name: 0.3 * factor * np.exp(generator.normal(0, 0.01, seeds))
        for name, factor in zip("ABCDEF", factors, strict=False)
    }


def say(values, **how) -> str:
    return answer(compare_all(values, measure="test loss", **how), values, problem="digits-mlp")


def test_answer_names_the_winner_and_the_runner_up() -> None:
    said = say(ladder(1.5, 1.0, 1.2))
    assert said.startswith("B is best on digits-mlp: its test loss is 17 % lower than C's (96 % ")
    assert said.endswith(", 12 paired seeds.")


def test_answer_without_a_winner_names_leader_and_rivals() -> None:
    generator = np.random.default_rng(5)
    values = {name: np.exp(generator.normal(0, 0.3, 10)) for name in ("A", "B")}
    values["C"] = 9 * np.exp(generator.normal(0, 0.3, 10))
    said = say(values)
    leader = min(("A", "B"), key=lambda name: np.log(values[name]).mean())
    rival = "B" if leader == "A" else "A"
    assert said.startswith(
        f"No winner on digits-mlp: {leader} leads but is not told apart from {rival} ("
    )


def test_answer_names_a_tie_for_first_place() -> None:
    base = np.linspace(0.3, 0.4, 12)
    values = {"A": base, "B": base * 1.001, "C": 2 * base}
    assert say(values) == (
        "No winner on digits-mlp: A and B tie for first place with the same test loss within 1 % "
        "(A's test loss is 0.1 % lower than B's (90 % interval 0.1 % to 0.1 %)), 12 paired seeds."
    )


def test_answer_against_a_reference() -> None:
    values = ladder(1.2, 1.0, 1.5, 0.8)
    assert say(values, reference="A").startswith(
        "D and B are better than A on digits-mlp: D's test loss is 33 % lower than A's (96 % "
    )
    said = say(values, reference="D")
    assert said.startswith("D is best on digits-mlp: its test loss is 19 % lower than B's (96 % ")
    values = ladder(1.0, 1.0, 2.0)
    assert say(values, reference="A", margin=0.5).startswith(
        "No winner on digits-mlp: no method is better than A; B's test loss is "
    )


def test_answer_with_misses_and_with_one_seed() -> None:
    values = {"A": [0.3 + 0.01 * i for i in range(8)], "B": [INF] * 8}
    assert say(values).startswith("A is best on digits-mlp: its median test loss is 0.335 with 8 ")
    one = say({"A": [0.3], "B": [0.4]})
    assert "(no interval from one seed), 1 seed; the word 'better' takes at least 6." in one


def test_answer_refuses_verdicts_of_another_race() -> None:
    values = ladder(1.0, 1.2, 1.4, 1.6)
    verdicts = compare_all(values)
    with pytest.raises(ValueError, match="verdicts must be those of compare_all"):
        answer(verdicts[:3] + verdicts[4:], values)
    with pytest.raises(ValueError, match="verdicts must be those of compare_all"):
        answer(verdicts, {**values, "E": values["A"]})
    with pytest.raises(ValueError, match="must not be empty"):
        answer([], values)


@pytest.mark.parametrize("name", ["{0}", "%s", "<b>x</b>", "a' or \"b", "\\n", "lion[lr=1e-4]", ""])
def test_names_stay_text(name: str) -> None:
    values = {name: [0.1] * 6, "other": [0.9] * 6}
    assert say(values).startswith(
        f"{name} is best on digits-mlp: its test loss is 89 % lower than o"
    )


def test_extreme_ratios_stay_readable() -> None:
    values = {"A": [1e-5] * 6, "B": [1.0] * 6}
    assert "99.9990 % lower" in say(values)
    assert only({"A": [1e-300] * 6, "B": [1e300] * 6}).winner == "A"
    assert "nan" not in only({"A": [1e-300] * 3, "B": [1e300] * 3}, goal="max").sentence


# --- invariances --------------------------------------------------------------------------------

results = st.one_of(st.integers(1, 3000).map(lambda k: k / 100), st.just(INF))
pairs = st.integers(1, 11).flatmap(
    lambda n: st.tuples(
        st.lists(results, min_size=n, max_size=n), st.lists(results, min_size=n, max_size=n)
    )
)
# margins on which no ratio or difference of the above results lies exactly
MARGIN = {"ratio": 0.0123456789, "difference": 0.0123456789}


def judged(a, b, scale, goal) -> Verdict:
    return only({"A": a, "B": b}, scale=scale, goal=goal, margin=MARGIN[scale])


def assert_equal(v: Verdict, w: Verdict) -> None:
    """The same verdict, up to rounding."""
    assert (v.word, v.winner, v.more_seeds, v.successes) == (
        w.word,
        w.winner,
        w.more_seeds,
        w.successes,
    )
    for field in ("mean", "sd", "low", "high", "p"):
        x, y = getattr(v, field), getattr(w, field)
        assert (x is None and y is None) or x == pytest.approx(y, rel=1e-9, abs=1e-9)


@given(pairs, st.sampled_from(["ratio", "difference"]), st.sampled_from(["min", "max"]))
def test_swapping_mirrors_the_verdict(ab, scale, goal) -> None:
    a, b = ab
    v, w = (
        judged(a, b, scale, goal),
        only({"B": b, "A": a}, scale=scale, goal=goal, margin=MARGIN[scale]),
    )
    negative = {
        x: None if getattr(w, x) is None else -getattr(w, x) for x in ("mean", "low", "high")
    }
    assert_equal(
        v,
        dataclasses.replace(
            w,
            mean=negative["mean"],
            low=negative["high"],
            high=negative["low"],
            successes=w.successes[::-1],
        ),
    )
    assert v.medians == w.medians[::-1] and v.shares == w.shares[::-1]


@settings(deadline=None)
@given(pairs, st.floats(1e-6, 1e6), st.sampled_from(["min", "max"]))
def test_scale_does_not_matter_on_the_ratio_scale(ab, c, goal) -> None:
    a, b = ab
    assert_equal(
        judged([c * x for x in a], [c * x for x in b], "ratio", goal), judged(a, b, "ratio", goal)
    )


@given(pairs, st.floats(-1e3, 1e3), st.sampled_from(["min", "max"]))
def test_a_constant_does_not_matter_on_the_difference_scale(ab, c, goal) -> None:
    a, b = ab
    assert_equal(
        judged([x + c for x in a], [x + c for x in b], "difference", goal),
        judged(a, b, "difference", goal),
    )


@given(pairs)
def test_maximizing_is_minimizing_the_negative(ab) -> None:
    a, b = ab
    v = judged(a, b, "difference", "max")
    w = judged([-x for x in a], [-x for x in b], "difference", "min")
    assert (v.word, v.winner, v.p, v.more_seeds) == (w.word, w.winner, w.p, w.more_seeds)


@given(pairs, st.sampled_from(["ratio", "difference"]))
def test_the_rule_of_the_card(ab, scale) -> None:
    """The word follows from the other fields, and only misses or one seed have no interval."""
    v = judged(*ab, scale, "min")
    margin = math.log1p(v.margin) if scale == "ratio" else v.margin
    assert v.missed == any(map(math.isinf, ab[0] + ab[1]))
    if not v.missed and v.seeds > 1:
        better = not v.low <= 0 <= v.high and v.p_adjusted <= v.alpha and abs(v.mean) > margin
        same = max(map(abs, v.equivalence)) < margin
        assert v.word == ("better" if better else "same" if same else "cannot tell")
    if v.word == "better":
        assert v.seeds >= v.fewest and v.more_seeds is None
    assert "nan" not in v.sentence and "None" not in v.sentence
