"""Verdicts in plain English. Names of methods and problems are quoted as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from thalweg.compare.verdict import Question, Verdict


def verdict(v: Verdict) -> str:
    """One pair in one sentence."""
    seeds = _seeds(v)
    if v.word == "better":
        assert v.winner is not None and v.loser is not None
        return f"{v.winner} is better than {v.loser}: its {_evidence(v, v.winner)}, {seeds}."
    if v.word == "same":
        return (
            f"{v.first} and {v.second} have the same {v.measure} within {margin(v)}: "
            f"{v.first}'s {_evidence(v, v.first, named=False)}, {seeds}."
        )
    return (
        f"Cannot tell {v.first} from {v.second}{_more(v)}: "
        f"{v.first}'s {_evidence(v, v.first)}, {seeds}{_too_few(v)}."
    )


def answer(verdicts: Sequence[Verdict], best_first: Sequence[str], problem: str | None) -> str:
    """A race in one sentence; `best_first` are all its methods in the order of their results."""
    where = "" if problem is None else f" on {problem}"
    against = {name: [v for v in verdicts if name in (v.first, v.second)] for name in best_first}
    for name in best_first:
        if len(against[name]) == len(best_first) - 1 and all(
            v.winner == name for v in against[name]
        ):
            closest = _closest(against[name])
            return f"{name} is best{where}: its {_evidence(closest, name)}, {_seeds(closest)}."
    reference = _reference(verdicts, best_first)
    if reference is not None:
        return _against_reference(verdicts, best_first, reference, where)
    losers = {v.loser for v in verdicts}
    leader = next((name for name in best_first if name not in losers), best_first[0])
    level = [v for v in against[leader] if v.winner != leader]
    rivals = [name for name in best_first if any(name in (v.first, v.second) for v in level)]
    rivals = [name for name in rivals if name != leader]
    closest = _closest(level)
    if all(v.word == "same" for v in level):
        tied = _listed([leader, *rivals])
        within = f"the same {closest.measure} within {margin(closest)}"
        return (
            f"No winner{where}: {tied} tie for first place with {within} "
            f"({leader}'s {_evidence(closest, leader)}), {_seeds(closest)}."
        )
    if any(v.loser == leader for v in level):
        return f"No winner{where}: every method is beaten by another one, {_seeds(closest)}."
    return (
        f"No winner{where}: {leader} leads but is not told apart from {_listed(rivals)}"
        f"{_more(closest)}: its {_evidence(closest, leader)}, {_seeds(closest)}{_too_few(closest)}."
    )


def margin(question: Question) -> str:
    """The margin in words: ``1 %``, ``0.5 point``."""
    return _amount(question.tolerated, question.scale)


def _against_reference(
    verdicts: Sequence[Verdict], best_first: Sequence[str], reference: str, where: str
) -> str:
    better = [name for name in best_first if any(v.winner == name for v in verdicts)]
    better = [name for name in better if name != reference]
    named = better[0] if better else next(name for name in best_first if name != reference)
    shown = next(v for v in verdicts if named in (v.first, v.second))
    evidence = f"{named}'s {_evidence(shown, named)}, {_seeds(shown)}"
    if better:
        verb = "is" if len(better) == 1 else "are"
        return f"{_listed(better)} {verb} better than {reference}{where}: {evidence}."
    return f"No winner{where}: no method is better than {reference}; {evidence}{_too_few(shown)}."


def _reference(verdicts: Sequence[Verdict], names: Sequence[str]) -> str | None:
    """The one method all pairs share, if not all pairs were compared."""
    if len(verdicts) == len(names) * (len(names) - 1) // 2:
        return None
    shared = [name for name in names if all(name in (v.first, v.second) for v in verdicts)]
    return shared[0] if shared else None


def _closest(verdicts: Sequence[Verdict]) -> Verdict:
    """The pair with the smallest difference; pairs with misses come last, by their p."""
    return min(verdicts, key=lambda v: (math.inf if v.mean is None else abs(v.mean), -v.p))


def _evidence(v: Verdict, name: str, *, named: bool = True) -> str:
    """``test loss is 12 % lower than Lion's (96 % interval 8 % to 16 %)``, seen from `name`."""
    sign, other = (1, v.second) if name == v.first else (-1, v.first)
    if v.mean is None:
        mine, theirs = (0, 1) if name == v.first else (1, 0)
        return (
            f"median {v.measure} is {_result(v, mine)} with {_success(v, mine)}, against "
            f"{_result(v, theirs)} with {_success(v, theirs)} for {other} "
            f"(signed-rank p = {_p(v.p)}{_adjusted(v)})"
        )
    than = f" than {other}'s" if named else ""
    change = _change(sign * v.mean, v.scale)
    if change == "equal":
        than = f" to {other}'s" if named else ""
    if v.low is None or v.high is None:
        return f"{v.measure} is {change}{than} (no interval from one seed)"
    low, high, confidence = v.low, v.high, v.confidence
    if v.word == "same" and v.equivalence is not None:
        (low, high), confidence = v.equivalence, 0.9
    low, high = sorted((sign * low, sign * high), key=abs)
    if low * high > 0:
        ends = f"{_amount(low, v.scale)} to {_amount(high, v.scale)}"
    else:
        low, high = sorted((low, high))
        ends = f"{_change(low, v.scale)} to {_change(high, v.scale)}"
    return f"{v.measure} is {change}{than} ({_percent(confidence)} interval {ends})"


def _change(difference: float, scale: str) -> str:
    if difference == 0:
        return "equal"
    return f"{_amount(difference, scale)} {'lower' if difference < 0 else 'higher'}"


def _amount(difference: float, scale: str) -> str:
    """Size of a difference: per cent of the other's result, or points."""
    if scale == "ratio":
        with np.errstate(over="ignore"):
            return f"{_digits(100 * abs(float(np.expm1(difference))), ceiling=difference < 0)} %"
    points = _digits(100 * abs(difference))
    return f"{points} {'point' if abs(difference) <= 0.01 else 'points'}"


def _digits(x: float, *, ceiling: bool = False) -> str:
    """Two significant digits; of the distance to 100 where that is a ceiling (99.97 % lower)."""
    if ceiling and 99 <= x < 100:
        return f"{x:.{min(9, 1 - math.floor(math.log10(100 - x) + 1e-6))}f}"
    if 10 <= x < 1e6:
        return f"{x:.0f}"
    return f"{x:.2g}"


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def _result(v: Verdict, index: int) -> str:
    median = v.medians[index]
    return f"{median:.3g}" if math.isfinite(median) else "missed (half of the runs or more)"


def _success(v: Verdict, index: int) -> str:
    low, high = v.shares[index]
    interval = f"{_percent(v.confidence)} interval {100 * low:.0f} % to {100 * high:.0f} %"
    return f"{v.successes[index]} of {v.seeds} runs successful ({interval})"


def _p(p: float) -> str:
    return f"{p:.2g}"


def _adjusted(v: Verdict) -> str:
    return f", {_p(v.p_adjusted)} after Holm over {v.pairs} pairs" if v.pairs > 1 else ""


def _seeds(v: Question) -> str:
    return "1 seed" if v.seeds == 1 else f"{v.seeds} paired seeds"


def _more(v: Verdict) -> str:
    if v.more_seeds is None:
        return " (no later look at this race can: start a new one)" if v.exhausted else ""
    if v.more_seeds == math.inf:
        return " (more than 200 more seeds)"
    return f" (about {v.more_seeds:.0f} more seeds)"


def _too_few(v: Verdict) -> str:
    if v.seeds >= v.fewest:
        return ""
    return f"; the word 'better' takes at least {v.fewest}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
