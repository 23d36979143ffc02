"""The outcome of a race: from the result of every seed to verdicts, answer and ranking."""

from __future__ import annotations

import math
import re
import statistics as plain
from collections.abc import Mapping, Sequence
from typing import Any

from thalweg.compare import paired, statistics
from thalweg.compare.plan import Plan

# Metrics that are shares or scores: a difference in points means more than a ratio.
_RATE = re.compile(r"acc|err|rate|f1|auc|score|precision|recall|r2|top.?\d", re.IGNORECASE)


def deciding(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> list[float]:
    """The result of each seed: the test metric where there is one; a miss is infinitely bad."""
    worst = math.inf if facts["goal"] == "min" else -math.inf
    values = []
    for row in rows:
        metrics = row["test"] if facts["has_test"] else row["final"]
        value = (metrics or {}).get(facts["metric"]) if row["status"] == "done" else None
        values.append(worst if value is None else float(value))
    return values


def scale(facts: Mapping[str, Any], values: Mapping[str, Sequence[float]]) -> str:
    """Ratios for losses > 0; differences for rates, scores and what can be <= 0.

    The relative error of a solver is no rate: 1e-3 against 1e-6 is a factor of a thousand.
    """
    positive = all(v > 0 for column in values.values() for v in column)
    solved = facts.get("kind") == "solver"
    loss = facts["goal"] == "min" and (solved or not _RATE.search(facts["metric"]))
    return "ratio" if loss and positive and facts["positive"] else "difference"


def verdicts(
    plan: Plan, facts: Mapping[str, Any], values: Mapping[str, Sequence[float]], scale: Any,
    complete: bool, done: int, total: int,
) -> tuple[list[dict[str, Any]], str, dict[str, Any]]:  # fmt: skip
    """Verdicts, the answer, and ``look, alpha, fewest_seeds`` of the protocol."""
    names = list(values)
    reference = plan.asked["reference"]
    pairs = len(names) - 1 if reference else len(names) * (len(names) - 1) // 2
    number = plan.next_look()
    alpha = statistics.alpha_at_look(number)
    fewest = statistics.fewest_seeds(pairs, alpha) if pairs else 1
    look = {"look": number, "alpha": alpha, "fewest_seeds": fewest}
    if not complete:
        # No verdict on part of the seeds: that would be a look, and the next one would pay for it.
        told = f"No verdict yet: {done} of {total} runs are done; the same command goes on."
        return [], told, look
    if not pairs:
        shown = plain.median(next(iter(values.values())))
        ending = f"{measure(facts)} {shown:.4g}" if math.isfinite(shown) else "no finite result"
        return [], f"{names[0]} raced alone on {facts['title']}: median {ending}.", look
    if all(math.isinf(v) for column in values.values() for v in column):
        return [], f"No method finished a run on {facts['title']}; the failures say why.", look
    plan.look(counts=plan.seeds >= fewest)
    verdicts = statistics.compare_all(
        values,
        scale=scale,
        margin=plan.asked["margin"],
        look=number,
        reference=reference,
        goal=facts["goal"],
        measure=measure(facts),
    )
    answer = statistics.answer(verdicts, values, problem=facts["title"])
    return [_told(v) for v in verdicts], answer, look


def _told(verdict: Any) -> dict[str, Any]:
    more = verdict.more_seeds
    if more is not None:
        more = "more than 200" if math.isinf(more) else int(more)
    return {
        "word": verdict.word,
        "a": verdict.first,
        "b": verdict.second,
        "winner": verdict.winner,
        "mean": number(verdict.mean),
        "sd": number(verdict.sd),
        "low": number(verdict.low),
        "high": number(verdict.high),
        "p": float(verdict.p),
        "p_adjusted": float(verdict.p_adjusted),
        "more_seeds": more,
        "sentence": verdict.sentence,
    }


def margin(plan: Plan, scale: str) -> float:
    """The smallest difference that matters, in the unit of `scale`."""
    asked = plan.asked["margin"]
    return float(statistics.DEFAULT_MARGIN[scale] if asked is None else asked)


def ranking(
    values: Mapping[str, Sequence[float]], facts: Mapping[str, Any], alpha: float
) -> list[dict[str, Any]]:
    """Best median of the deciding metric first."""
    sign = 1 if facts["goal"] == "min" else -1
    rows = []
    for name, column in values.items():
        if not column:
            continue
        done = sum(math.isfinite(v) for v in column)
        share = paired.clopper_pearson(done, len(column), 1 - alpha)
        middle = median(column)
        rows.append(
            (
                sign * middle,
                {
                    "name": name,
                    "median_final": number(middle),
                    "success": done / len(column),
                    "success_low": share.low,
                    "success_high": share.high,
                },
            )
        )
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def median_validation(method: Mapping[str, Any], facts: Mapping[str, Any]) -> float | None:
    """The median final validation metric of a method, infinite where half of the runs miss."""
    values = deciding(method["runs"], {**facts, "has_test": False})
    return median(values) if values else None


def median(values: Sequence[float]) -> float:
    """The median; the mean of two where one is infinite is infinite."""
    return float(plain.median(values))


def measure(facts: Mapping[str, Any]) -> str:
    """What decides, in words: ``test loss``."""
    if facts.get("kind") == "solver":
        return str(facts.get("decided_by") or facts["metric"])
    return f"{'test' if facts['has_test'] else 'training'} {facts['metric']}"


def number(value: Any) -> float | None:
    """`value`, or None where it is infinite or NaN."""
    return None if value is None or not math.isfinite(value) else float(value)
