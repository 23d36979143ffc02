"""What is particular to the outcome of a race of solvers: when it is time that decides.

Runs end when they are solved. Where every run of every method is, their final errors are all the
same by definition, and the verdicts are about the time to get there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

FACTS = ("kind", "class", "train", "solved", "decided_by", "same_every_seed")
"""Of the problem, what summary.json tells on top."""

NEARLY = 1.01
"""The target of an unsolved race: this much above the median result, which few runs hit exactly."""

Runs = Sequence[Mapping[str, Any]]


def by_all(facts: Mapping[str, Any], values: Mapping[str, Sequence[float]]) -> bool:
    """Whether every run of every method ended at the tolerance.

    Examples
    --------
    >>> by_all({"solved": 1e-8}, {"a": [1e-8, 1e-8], "b": [1e-8, 2e-8]})
    False
    """
    return facts["solved"] > 0 and all(
        v <= facts["solved"] for column in values.values() for v in column
    )


def answer(
    facts: Mapping[str, Any], methods: Sequence[Mapping[str, Any]], target: float | None
) -> str:
    """Sentences that follow the answer: the times to the target, and what the seeds tell.

    Parameters
    ----------
    facts
        Of the problem, as `thalweg.compare.solving.facts_of` has them.
    methods
        As in summary.json: every one with its measured ``runs``.
    target
        The value of the deciding metric that counts as there.

    Returns
    -------
    str
        Empty where no method got there.
    """
    told = []
    rows = [(median(m["runs"], target), m["name"]) for m in methods] if target else []
    arrived = sorted(row for row in rows if math.isfinite(row[0][0]))
    late = [name for (seconds, _), name in rows if not math.isfinite(seconds)]
    if target and arrived:
        parts = [
            f"{name} {_time(seconds)} ({steps:g} step{'' if steps == 1 else 's'})"
            for (seconds, steps), name in arrived
        ]
        told.append(f"Median time to {named(facts, target)}: {', '.join(parts)}.")
        if late:
            told.append(f"On half of the seeds or more, {_listed(late)} did not get there.")
    if facts["same_every_seed"]:
        told.append(
            "The problem is the same for every seed, so the seeds tell only of the methods' own "
            "random numbers."
        )
    return "".join(f" {sentence}" for sentence in told)


def named(facts: Mapping[str, Any], value: float) -> str:
    """``an error of 1e-08``."""
    article = "an" if facts["metric"].startswith("e") else "a"
    return f"{article} {facts['metric']} of {value:.2g}"


def note_arrivals(method: Mapping[str, Any], target: float) -> list[float]:
    """When each measured run reached `target`, noted in all its rows as ``"arrival"``.

    Examples
    --------
    >>> curve = {"validation": [1.0, 1e-3, 1e-9], "seconds": [0.1, 0.2, 0.3], "step": [0, 5, 10]}
    >>> note_arrivals({"runs": [{"curve": curve}], "default_runs": []}, 1e-8)
    [0.3]
    """
    for run in [*method["default_runs"], *method["runs"]]:
        ((when, _),) = _arrivals([run], target)
        run["arrival"] = when if math.isfinite(when) else None
    return [when for when, _ in _arrivals(method["runs"], target)]


def median(runs: Runs, target: float) -> tuple[float, float]:
    """The median seconds and steps to `target` over the runs, infinite where half do not arrive."""
    if not runs:
        return math.inf, math.inf
    when, steps = zip(*_arrivals(runs, target), strict=True)
    return statistics.median(when), statistics.median(steps)


def _arrivals(runs: Runs, target: float) -> list[tuple[float, float]]:
    found = []
    for run in runs:
        curve = run["curve"]
        hits = (i for i, v in enumerate(curve["validation"]) if v is not None and v <= target)
        first = next(hits, None)
        missed = (math.inf, math.inf)
        found.append(
            missed if first is None else (float(curve["seconds"][first]), curve["step"][first])
        )
    return found


def _time(value: float) -> str:
    """Seconds with two digits.

    Examples
    --------
    >>> _time(0.0123), _time(0.0996), _time(1.26)
    ('12 ms', '0.1 s', '1.3 s')
    """
    return f"{1e3 * value:.2g} ms" if value < 0.0995 else f"{value:.2g} s"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
