r"""Verdicts: which of two methods is better, the same within the margin, or not told apart.

A race holds S runs per method, paired by seed. Every pair gets one of three words:

- **better**: the interval of the mean difference excludes 0, the Holm-adjusted p is at most
  alpha, and the mean difference exceeds the margin;
- **same**: the 90 % interval (two one-sided 5 % tests) lies inside the margin;
- **cannot tell**: neither.

A pair with misses (infinite results) has no mean difference. It is *better* when the signed-rank
p, Holm-adjusted with all others, is at most alpha and the side it favours has the better median by
more than the margin (infinite where half of the runs miss). Where the medians do not differ by
that much, the successes decide: by the exact sign-flip test of the seeds on which one of the two
missed. Medians and successes that decide for opposite sides cancel, and misses are never *same*.

A look at a race too small to say *better* (fewer than `fewest_seeds`) cannot raise a false alarm,
so it spends none of alpha and need not be counted as a look.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from thalweg.compare import sentences
from thalweg.compare.curves import median_interval, tuning_curve, tuning_curve_median
from thalweg.compare.paired import (
    Floats,
    Goal,
    Scale,
    alpha_at_look,
    clopper_pearson,
    fewest_seeds,
    holm,
    paired_differences,
    runs,
    seeds_needed,
    sign_flip_test,
    signed_rank_test,
    signed_ranks,
    t_interval,
)
from thalweg.compare.verdict import Question, Verdict, Word
from thalweg.core import check

__all__ = [
    "Verdict",
    "alpha_at_look",
    "answer",
    "compare_all",
    "fewest_seeds",
    "median_interval",
    "tuning_curve",
    "tuning_curve_median",
]

MOST_SEEDS = 200
"""Predictions of more additional seeds than this are not worth a number."""
DEFAULT_MARGIN: dict[str, float] = {"ratio": 0.01, "difference": 0.005}


def compare_all(
    values: Mapping[str, Sequence[float] | ArrayLike],
    *,
    scale: Scale = "ratio",
    margin: float | None = None,
    look: int = 1,
    reference: str | None = None,
    goal: Goal = "min",
    measure: str = "result",
    seed: int = 0,
) -> list[Verdict]:
    """Verdicts for all pairs of methods, or for all against one.

    Parameters
    ----------
    values
        ``values[name][i]`` is the result of the method on seed `i`: one length for all. Infinite
        (of either sign) where the run missed.
    scale
        ``"ratio"`` for losses and times > 0, ``"difference"`` for rates and results <= 0.
    margin
        Smallest difference that matters, >= 0: relative on the ratio scale (default 0.01: 1 %),
        in the unit of the results on the difference scale (default 0.005: 0.5 point).
    look
        1 at the first look at this race, 2 after seeds were added once, ...
    reference
        Name of the one method all others are compared with; None for all pairs.
    goal
        ``"min"`` if smaller is better, ``"max"`` if larger is.
    measure
        What the results are, for the sentences: ``"test loss"``.
    seed
        Of the random sign flips (more than 16 seeds).

    Returns
    -------
    list of Verdict
        In the order of `values`; with a reference, it is the second of every pair.

    Raises
    ------
    ValueError
        For fewer than two methods, no seeds, unequal lengths, NaN, or results <= 0 on the ratio
        scale; the message names the method.

    Examples
    --------
    >>> lion = [0.50, 0.52, 0.48, 0.51, 0.49, 0.53]
    >>> adamw = [0.40, 0.43, 0.39, 0.40, 0.38, 0.42]
    >>> (verdict,) = compare_all({"Lion": lion, "AdamW": adamw}, measure="test loss")
    >>> verdict.word, verdict.winner, verdict.p
    ('better', 'AdamW', 0.03125)

    References
    ----------
    Holm (1979); Schuirmann (1987), two one-sided tests.
    """
    check.choice("scale", scale, ("ratio", "difference"))
    check.choice("goal", goal, ("min", "max"))
    margin = DEFAULT_MARGIN[scale] if margin is None else margin
    check.number("margin", margin, ge=0)
    results = _results(values, scale)
    if reference is None:
        pairs = list(itertools.combinations(results, 2))
    else:
        check.choice("reference", reference, results)
        pairs = [(name, reference) for name in results if name != reference]
    question = Question(
        scale=scale,
        goal=goal,
        margin=margin,
        measure=measure,
        look=look,
        pairs=len(pairs),
        seeds=next(iter(results.values())).size,
    )
    differences, p = [], []
    for first, second in pairs:
        d = paired_differences(results[first], results[second], scale=scale, goal=goal)
        # Where both missed d is 0, so the results say whether there is a miss, not d.
        missed = _missed(results[first], results[second])
        differences.append(d)
        p.append((signed_rank_test if missed else sign_flip_test)(d, seed=seed))
    return [
        _verdict(question, pair, (results[pair[0]], results[pair[1]]), d, alone, float(adjusted))
        for pair, d, alone, adjusted in zip(pairs, differences, p, holm(p), strict=True)
    ]


def answer(
    verdicts: Sequence[Verdict],
    values: Mapping[str, Sequence[float] | ArrayLike],
    *,
    problem: str | None = None,
) -> str:
    """The race in one sentence, with its interval.

    A method is best if it is *better* than every other one; else there is no winner, and the
    sentence names who leads or who ties for first place.

    Parameters
    ----------
    verdicts, values
        What `compare_all` returned and got.
    problem
        Name of the problem, for the sentence.

    Returns
    -------
    str

    Examples
    --------
    >>> values = {"Lion": [0.50, 0.52, 0.48, 0.51, 0.49, 0.53],
    ...           "AdamW": [0.40, 0.43, 0.39, 0.40, 0.38, 0.42]}
    >>> verdicts = compare_all(values, measure="test loss")
    >>> print(answer(verdicts, values, problem="digits"))  # doctest: +NORMALIZE_WHITESPACE
    AdamW is best on digits: its test loss is 20 % lower than Lion's
    (96 % interval 18 % to 22 %), 6 paired seeds.
    """
    if not verdicts:
        raise ValueError("verdicts must not be empty")
    shared = set.intersection(*({v.first, v.second} for v in verdicts))
    complete = len(values) * (len(values) - 1) // 2
    if {name for v in verdicts for name in (v.first, v.second)} != set(values) or not (
        len(verdicts) == complete or (shared and len(verdicts) == len(values) - 1)
    ):
        raise ValueError(
            f"verdicts must be those of compare_all for {list(values)}, "
            f"got {[(v.first, v.second) for v in verdicts]}"
        )
    scale, goal = verdicts[0].scale, verdicts[0].goal
    names = _best_first(_results(values, scale), scale, goal)
    return sentences.answer(verdicts, names, problem)


def _results(values: Mapping[str, Sequence[float] | ArrayLike], scale: Scale) -> dict[str, Floats]:
    if len(values) < 2:
        raise ValueError(f"values must hold at least 2 methods, got {list(values)}")
    results = {name: runs(f"values[{name!r}]", v, scale) for name, v in values.items()}
    first = next(iter(results))
    for name, array in results.items():
        if array.ndim != 1 or array.size == 0:
            raise ValueError(
                f"values[{name!r}] must be one result per seed, got shape {array.shape}"
            )
        if array.size != results[first].size:
            raise ValueError(
                f"values[{name!r}] must have the seeds of values[{first!r}], "
                f"{results[first].size} results, got {array.size}"
            )
    return results


def _verdict(
    question: Question,
    names: tuple[str, str],
    results: tuple[Floats, Floats],
    d: Floats,
    p: float,
    p_adjusted: float,
) -> Verdict:
    margin, missed = question.tolerated, _missed(*results)
    medians = (_median(results[0], question.goal), _median(results[1], question.goal))
    mean = sd = low = high = equivalence = None
    side = 0  # sign of d that the evidence favours, the p value aside
    if missed:
        side = _side_with_misses(question, d, medians)
    else:
        mean = float(d.mean())
        if d.size >= 2:
            sd = float(d.std(ddof=1))
            low, high = t_interval(d, question.confidence)
            equivalence = t_interval(d, 0.9)
            if not low <= 0 <= high and abs(mean) > margin:
                side = int(np.sign(mean))
    word: Word = "cannot tell"
    winner = loser = more_seeds = None
    if side != 0 and p_adjusted <= question.alpha:
        word = "better"
        winner, loser = names if (side < 0) == (question.goal == "min") else names[::-1]
    elif equivalence is not None and -margin < equivalence.low and equivalence.high < margin:
        word = "same"
    else:
        more_seeds = _more_seeds(question, mean, sd)
    successes = (int(np.isfinite(results[0]).sum()), int(np.isfinite(results[1]).sum()))
    verdict = Verdict(
        **vars(question),
        word=word,
        first=names[0],
        second=names[1],
        winner=winner,
        loser=loser,
        mean=mean,
        sd=sd,
        low=low,
        high=high,
        equivalence=equivalence,
        p=p,
        p_adjusted=p_adjusted,
        test="signed rank" if missed else "sign flip",
        more_seeds=more_seeds,
        medians=medians,
        successes=successes,
        shares=(
            clopper_pearson(successes[0], d.size, question.confidence),
            clopper_pearson(successes[1], d.size, question.confidence),
        ),
    )
    return dataclasses.replace(verdict, sentence=sentences.verdict(verdict))


def _missed(*results: Floats) -> bool:
    return not all(np.isfinite(r).all() for r in results)


def _median(results: Floats, goal: Goal) -> float:
    """The median, where a miss is the worst result."""
    worst = math.inf if goal == "min" else -math.inf
    return float(np.median(np.where(np.isinf(results), worst, results)))


def _side_with_misses(question: Question, d: Floats, medians: tuple[float, float]) -> int:
    """Sign of d that ranks and medians (or else successes) agree on; 0 if they do not."""
    ranks = int(np.sign(signed_ranks(d).sum()))
    scale, goal = question.scale, question.goal
    gap = float(paired_differences(medians[:1], medians[1:], scale=scale, goal=goal)[0])
    by_median = int(np.sign(gap)) if abs(gap) > question.tolerated else 0
    one_missed = np.sign(d[np.isinf(d)])
    told_apart = one_missed.size > 0 and sign_flip_test(one_missed) <= question.alpha
    by_success = int(np.sign(one_missed.sum())) if told_apart else 0
    return ranks if ranks == int(np.sign(by_median + by_success)) else 0


def _more_seeds(question: Question, mean: float | None, sd: float | None) -> float | None:
    """How many more seeds settle a pair, at the level of the look that will judge them."""
    alpha, pairs, seeds = question.next_alpha, question.pairs, question.seeds
    margin = question.tolerated
    if question.exhausted and (mean is None or abs(mean) > margin):  # else heading for "same"
        return None
    if mean is None or sd is None:
        return _up_to_five(question.fewest - seeds) if seeds < question.fewest else None
    most = seeds + MOST_SEEDS
    needed = seeds_needed(mean, sd, alpha=alpha, pairs=pairs, margin=margin, most=most)
    return _up_to_five(needed - seeds)


def _up_to_five(seeds: float) -> float:
    return 5.0 * max(1, math.ceil(seeds / 5)) if seeds <= MOST_SEEDS else math.inf


def _best_first(results: Mapping[str, Floats], scale: Scale, goal: Goal) -> list[str]:
    """Names by mean (of logs on the ratio scale), or by median and successes after misses."""
    sign = 1 if goal == "min" else -1
    missed = _missed(*results.values())

    def key(name: str) -> tuple[float, ...]:
        r = results[name]
        if missed:
            return (sign * _median(r, goal), -float(np.isfinite(r).sum()))
        return (sign * float((np.log(r) if scale == "ratio" else r).mean()),)

    return sorted(results, key=key)
