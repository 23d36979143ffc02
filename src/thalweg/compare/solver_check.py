"""What a race of solvers relies on, seen on three steps of each."""

from __future__ import annotations

import json
from typing import Any

from thalweg.compare.contender import Contender
from thalweg.compare.entrants import entrants
from thalweg.compare.plan import Budget, job
from thalweg.compare.problems import Problem
from thalweg.compare.solving import DEFAULT_BUDGET, run_job

RUNS = 12 + 10 + 3
"""Of each method in the default race."""


def check_solvers(loaded: Problem) -> dict[str, Any]:
    """Three steps of every solver of a problem that was loaded, so built twice and found the same.

    Parameters
    ----------
    loaded
        The problem.

    Returns
    -------
    dict
        ``name, kind, class, metric, goal, parameters, solved, same_every_seed``, ``solvers`` (each
        with ``name, status, reason, values`` of the metric, ``step_seconds``) and
        ``race_seconds``: the longest the default race can take with one worker.
    """
    _, contenders = entrants(loaded.source or loaded.function, None)
    found = [_three_steps(loaded, contender) for contender in contenders]
    steps = Budget.parse(DEFAULT_BUDGET).amount
    told = ("kind", "class", "metric", "goal", "parameters", "solved", "same_every_seed")
    return {
        "name": loaded.name,
        **{name: loaded.facts[name] for name in told},
        "solvers": found,
        "race_seconds": RUNS * steps * sum(row["step_seconds"] or 0.0 for row in found),
    }


def _three_steps(loaded: Problem, contender: Contender) -> dict[str, Any]:
    asked = job(
        loaded, contender, "tune", 0, Budget.parse(3), 30, contender.default_values()
    )  # fmt: skip
    *points, end = map(json.loads, run_job(asked, contender, loaded).splitlines())
    spent = [point["seconds"] for point in points]
    return {
        "name": contender.name,
        "status": end["status"],
        "reason": end["reason"],
        "values": [point["validation"][loaded.facts["metric"]] for point in points],
        "step_seconds": (spent[-1] - spent[0]) / (len(spent) - 1) if len(spent) > 1 else None,
    }
