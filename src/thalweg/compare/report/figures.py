"""What the charts of the report draw: medians, intervals, basins and times to target.

The browser only draws (and, for the movable target, counts). Runs that diverged or failed are
infinitely bad from their last point on, and are never dropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.compare.curves import median_interval
from thalweg.compare.paired import clopper_pearson

Array = NDArray[np.float64]
AXES = ("step", "evaluations", "seconds")
SERIES = ("validation", "train")
GRID = 150
TARGETS = 401


def labels(summary: Mapping[str, Any]) -> dict[str, str]:
    """How the page calls its three quantities, and whether there is a test metric.

    ``deciding`` is what the verdicts are about: the test metric where there is one, and the time
    to the tolerance where every solver reaches it.
    """
    metric = summary["problem"]["metric"]
    if summary["problem"].get("kind") == "solver":
        decided_by = summary["problem"]["decided_by"]
        return {
            "deciding": f"{decided_by} (seconds)" if decided_by else metric,
            "validation": metric,
            "train": summary["problem"]["train"],
            "kind": "arrival" if decided_by else "final",
        }
    runs = [run for method in summary["methods"] for run in method["runs"]]
    if any((run.get("test") or {}).get(metric) is not None for run in runs):
        return {
            "deciding": f"test {metric}",
            "validation": f"validation {metric}",
            "train": "training loss",
            "kind": "test",
        }
    # Without held-out data the metric is read on the training data.
    held_in = f"training {metric}" if any(run["status"] == "done" for run in runs) else metric
    return {
        "deciding": held_in,
        "validation": held_in,
        "train": "minibatch loss",
        "kind": "final",
    }


def final(run: Mapping[str, Any], metric: str, kind: str = "final") -> float | None:
    """The last value of a run, ``"final"`` (validation) or ``"test"``; null if the run missed.

    ``"arrival"`` is the time a solver took to the tolerance.
    """
    value: Any = run.get(kind) if kind == "arrival" else (run.get(kind) or {}).get(metric)
    finite = _is_number(value) and math.isfinite(value)
    return float(value) if run["status"] == "done" and finite else None


def median_ranks(n: int) -> tuple[int, int, float]:
    """Ranks (from 0) of the order statistics that enclose the median of n, and their coverage.

    Examples
    --------
    >>> low, high, coverage = median_ranks(10)
    >>> low, high, round(coverage, 3)
    (1, 8, 0.979)
    """
    low, _, high, coverage = median_interval(np.arange(n, dtype=float))
    return int(low), int(high), coverage


def median_curve(
    runs: Sequence[Mapping[str, Any]], axis: str, series: str, goal: str
) -> dict[str, list[float | None]]:
    """Median and interval over seeds on one grid of `axis`; null where it is infinite.

    Between two points of a run its value is interpolated linearly; a finished run keeps its last
    value, an unfinished one is infinitely bad after it.
    """
    worst = math.inf if goal == "min" or series == "train" else -math.inf
    curves = [(*_points(run, axis, series, worst), run["status"] == "done") for run in runs]
    pooled = np.concatenate([x for x, _, _ in curves]) if curves else np.empty(0)
    if not pooled.size:
        return {"x": [], "median": [], "low": [], "high": []}
    grid = np.unique(pooled)
    if grid.size > 2 * GRID or axis == "seconds":
        grid = np.unique(np.quantile(pooled, np.linspace(0, 1, GRID)))
    started = max(x[0] for x, _, _ in curves if x.size)
    grid = grid[grid >= started]
    values = np.stack([_at(grid, x, y, done, worst) for x, y, done in curves])
    low, median, high, _ = median_interval(values)
    return {"x": plain(grid), "median": plain(median), "low": plain(low), "high": plain(high)}


def time_to_target(
    runs: Sequence[Mapping[str, Any]], axis: str, target: float, goal: str
) -> list[float | None]:
    """First recorded `axis` value of each run whose validation reaches `target`; null if none."""
    reached: list[float | None] = []
    worst = math.inf if goal == "min" else -math.inf
    for run in runs:
        x, y = _points(run, axis, "validation", worst)
        hits = np.flatnonzero(y <= target if goal == "min" else y >= target)
        reached.append(float(x[hits[0]]) if hits.size else None)
    return reached


def good_basin(
    method: Mapping[str, Any], axis: str, goal: str, scale: str, margin: float
) -> dict[str, Any] | None:
    """The span of `axis` over which trials came close to the method's best trial.

    Close means within 10 % of it, or within two margins where plain differences are compared.
    Null when the axis is not searched or no trial finished.
    """
    trials = [
        (trial["values"][axis], trial["validation"])
        for trial in method["trials"]
        if trial["validation"] is not None and _is_number(trial["values"].get(axis))
    ]
    if not trials:
        return None
    best = min(v for _, v in trials) if goal == "min" else max(v for _, v in trials)
    slack = 0.1 * abs(best) if scale == "ratio" else 2 * margin
    good = [x for x, v in trials if abs(v - best) <= slack]
    low, high = min(good), max(good)
    factor = high / low if low > 0 else None
    return {
        "low": low,
        "high": high,
        "factor": factor,
        "good": len(good),
        "trials": len(method["trials"]),
    }


def data(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the page's charts need, as plain JSON values."""
    problem, protocol = summary["problem"], summary["protocol"]
    goal, scale = problem["goal"], problem["scale"]
    named = labels(summary)
    methods = [_method(m, problem, protocol["margin"], named["kind"]) for m in summary["methods"]]
    counts = sorted({len(m["runs"]) for m in methods} - {0})
    target = (summary.get("target") or {}).get("value")
    return {
        "labels": named,
        "goal": goal,
        "scale": scale,
        "methods": methods,
        "order": order(summary),
        "success": {
            str(n): [plain(clopper_pearson(k, n, 1 - protocol["alpha"])) for k in range(n + 1)]
            for n in counts
        },
        "target": _target_range(methods, goal, target),
        "jobs": protocol["jobs"],
        "unit": "iterations" if problem.get("kind") == "solver" else "steps",
        "lines": _lines(summary),
    }


def _lines(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The losses between end points, the methods as positions."""
    names = [method["name"] for method in summary["methods"]]
    return [
        {
            "a": names.index(line["a"]),
            "b": names.index(line["b"]),
            "x": plain(line["positions"]),
            "y": plain(line["values"]),
        }
        for line in (summary.get("ending") or {}).get("lines", [])
        if line["a"] in names and line["b"] in names
    ]


def order(summary: Mapping[str, Any]) -> list[int]:
    """Positions of the methods, best first as ranked; unranked ones keep their place at the end."""
    names = [method["name"] for method in summary["methods"]]
    ranked = [names.index(row["name"]) for row in summary["ranking"] if row["name"] in names]
    return ranked + [i for i in range(len(names)) if i not in ranked]


def plain(values: Any, digits: int = 6) -> Any:
    """Arrays and numbers as JSON: six significant digits, null for what is not finite."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, (list, tuple)):
        return [plain(value, digits) for value in values]
    if isinstance(values, (float, np.floating)):
        return float(f"{values:.{digits}g}") if math.isfinite(values) else None
    return values


def _method(
    method: Mapping[str, Any], problem: Mapping[str, Any], margin: float, kind: str
) -> dict[str, Any]:
    runs, goal, scale = method["runs"], problem["goal"], problem["scale"]
    low, high, coverage = median_ranks(len(runs)) if runs else (0, 0, 0.0)
    return {
        "name": method["name"],
        "axes": method["axes"],
        "tuned": method["tuned"],
        "defaults": method["defaults"],
        "trials": [
            {key: trial[key] for key in ("values", "validation", "status")}
            for trial in method["trials"]
        ],
        "tuning_curve": method["tuning_curve"],
        "basin": {
            axis["name"]: good_basin(method, axis["name"], goal, scale, margin)
            for axis in method["axes"]
        },
        "ranks": [low, high],
        "coverage": round(coverage, 3),
        "median": {
            axis: {series: median_curve(runs, axis, series, goal) for series in SERIES}
            for axis in AXES
        },
        "runs": [_run(run, problem["metric"], kind) for run in runs],
    }


def _run(run: Mapping[str, Any], metric: str, kind: str) -> dict[str, Any]:
    curve = run.get("curve") or {}
    columns = {name: plain(curve.get(name) or []) for name in (*AXES, *SERIES)}
    if columns["evaluations"] == columns["step"]:
        columns["evaluations"] = None
    return {
        "seed": run["seed"],
        "status": run["status"],
        "final": plain(final(run, metric, kind)),
        **columns,
    }


def _points(run: Mapping[str, Any], axis: str, series: str, worst: float) -> tuple[Array, Array]:
    curve = run.get("curve") or {}
    x = np.array([np.nan if v is None else v for v in curve.get(axis) or []], dtype=float)
    y = np.array([worst if v is None else v for v in curve.get(series) or []], dtype=float)
    n = min(x.size, y.size)
    keep = np.isfinite(x[:n])
    return x[:n][keep], np.where(np.isfinite(y[:n]), y[:n], worst)[keep]


def _at(grid: Array, x: Array, y: Array, done: bool, worst: float) -> Array:
    if not x.size:
        return np.full(grid.shape, worst)
    finite = np.isfinite(y)
    values = np.interp(grid, x, np.where(finite, y, 0.0))
    spoiled = np.interp(grid, x, (~finite).astype(float)) > 0
    after = grid > x[-1]
    return np.where(spoiled | (after & (not done)), worst, values)


def _target_range(
    methods: Sequence[Mapping[str, Any]], goal: str, value: float | None
) -> dict[str, Any]:
    """The default target, and the targets a slider can reach: quantiles of all that was recorded.

    From the easiest to the hardest, so that the slider is finest where the curves are flat.
    """
    seen = [v for m in methods for run in m["runs"] for v in run["validation"] if v is not None]
    if not seen:
        return {"value": value, "reachable": []}
    levels = np.linspace(1, 0, TARGETS) if goal == "min" else np.linspace(0, 1, TARGETS)
    reachable = plain(np.quantile(seen, levels))
    value = plain(float(np.median(seen)) if value is None else value)
    return {"value": value, "reachable": reachable}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
