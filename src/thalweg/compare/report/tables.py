"""The tables of the report: plain rows of strings and small numbers, ready for the templates."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thalweg.compare.curves import median_interval
from thalweg.compare.paired import clopper_pearson
from thalweg.compare.report import figures, text, verdicts


def standings(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per method, best first: its final values over seeds and its success."""
    metric, goal = summary["problem"]["metric"], summary["problem"]["goal"]
    kind = figures.labels(summary)["kind"]
    worst = math.inf if goal == "min" else -math.inf
    ranking = {row["name"]: row for row in summary["ranking"]}
    rows = []
    for index in figures.order(summary):
        method = summary["methods"][index]
        runs = method["runs"]
        values = [figures.final(run, metric, kind) for run in runs]
        filled = np.array([worst if v is None else v for v in values], dtype=float)
        known = [v for v in values if v is not None]
        low = high = coverage = median = None
        if runs:
            lower, middle, upper, coverage = median_interval(filled)
            median, low, high = float(middle), float(lower), float(upper)
        checks = [figures.final(run, metric) for run in runs]
        rank = ranking.get(method["name"], {})
        rows.append(
            {
                "index": index,
                "name": method["name"],
                "median": _infinite(median),
                "interval": _enclosing(low, high),
                "coverage": coverage,
                "best": text.number(_best(known, goal)),
                "worst": text.number(_best(known, "max" if goal == "min" else "min")),
                "validation": _median_text(checks, worst) if runs else "–",
                "done": len(known),
                "runs": len(runs),
                "success": rank.get("success"),
                "success_low": rank.get("success_low"),
                "success_high": rank.get("success_high"),
                "values": [
                    (run["seed"], run["status"], text.number(value))
                    for run, value in zip(runs, values, strict=True)
                ],
            }
        )
    return rows


def targets(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Steps to the default target: the table before the browser moves the target."""
    goal, target = summary["problem"]["goal"], (summary.get("target") or {}).get("value")
    if target is None:
        return []
    rows = []
    for index in figures.order(summary):
        method = summary["methods"][index]
        times = figures.time_to_target(method["runs"], "step", target, goal)
        if not times:
            continue
        hits = sum(time is not None for time in times)
        low, high = clopper_pearson(hits, len(times), 1 - summary["protocol"]["alpha"])
        middle = float(np.median([math.inf if time is None else time for time in times]))
        rows.append(
            {
                "index": index,
                "name": method["name"],
                "reached": f"{hits} of {len(times)}",
                "interval": f"[{100 * low:.0f}, {100 * high:.0f}] %",
                "median": middle,
                "median_text": _infinite(middle),
            }
        )
    rows.sort(key=lambda row: row["median"])
    for row in rows:
        ratio = row["median"] / rows[0]["median"] if rows[0]["median"] > 0 else math.nan
        row["ratio"] = f"×{ratio:.2f}" if math.isfinite(ratio) else row["median_text"]
    return rows


def tuning(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per method: its best setting, the space searched and the good basin of lr."""
    problem, protocol = summary["problem"], summary["protocol"]
    rows = []
    for index in figures.order(summary):
        method = summary["methods"][index]
        # Of a solver, the basin of whichever parameter it declares first.
        solver = problem.get("kind") == "solver"
        axis = method["axes"][0]["name"] if solver and method["axes"] else "lr"
        basin = figures.good_basin(
            method, axis, problem["goal"], problem["scale"], protocol["margin"]
        )
        bad = [trial for trial in method["trials"] if trial["status"] != "done"]
        rows.append(
            {
                "index": index,
                "name": method["name"],
                "parameter_free": method["parameter_free"],
                "tuned": text.settings(method["tuned"]),
                "space": [f"{axis['name']}: {_axis(axis)}" for axis in method["axes"]],
                "basin": _basin(basin),
                "axis": axis,
                "trials": len(method["trials"]),
                "bad": len(bad),
                "edge": [_edge(edge) for edge in method["edge"]],
            }
        )
    return rows


def defaults(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every method at its defaults against itself tuned."""
    problem = summary["problem"]
    metric, scale, points = problem["metric"], problem["scale"], verdicts.in_points(summary)
    kind = figures.labels(summary)["kind"]
    worst = math.inf if problem["goal"] == "min" else -math.inf
    rows = []
    for index in figures.order(summary):
        method = summary["methods"][index]
        medians = []
        for runs in (method["default_runs"], method["runs"]):
            values = [figures.final(run, metric, kind) for run in runs]
            filled = [worst if value is None else value for value in values]
            medians.append(float(np.median(filled)) if filled else None)
        change = None
        before, after = medians
        if before is not None and after is not None and math.isfinite(before + after):
            if scale == "difference":
                change = text.effect(after - before, scale, points)
            elif before > 0 and after > 0:
                change = text.effect(math.log(after / before), scale)
        bad = sum(figures.final(run, metric, kind) is None for run in method["default_runs"])
        rows.append(
            {
                "index": index,
                "name": method["name"],
                "defaults": text.settings(method["defaults"])
                if method["defaults"] or not method["axes"]
                else "as the problem asks",
                "tuned": text.settings(method["tuned"]),
                "parameter_free": method["parameter_free"],
                "before": _infinite(before),
                "after": _infinite(after),
                "change": change or "–",
                "bad": bad,
                "runs": len(method["default_runs"]),
            }
        )
    return rows


def cost(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per method, cheapest step first where known."""
    rows = []
    for index, method in enumerate(summary["methods"]):
        spent = method.get("cost") or {}
        ratio = spent.get("ratio_to_fused_adamw")
        ends = [run["curve"]["seconds"][-1] for run in method["runs"] if run["curve"]["seconds"]]
        rows.append(
            {
                "index": index,
                "name": method["name"],
                "step": text.number(spent.get("ms_per_step"), 3),
                "ratio": f"×{ratio:.2f}" if ratio is not None else "–",
                "state": text.number(spent.get("state_bytes_per_parameter"), 3),
                "compile": text.duration(spent.get("compile_seconds")),
                "gradients": text.number(spent.get("gradient_evaluations")),
                "seconds": text.duration(float(np.median(ends)) if ends else None),
                "memory": method.get("memory") or "–",
                "sort": spent.get("ms_per_step") or math.inf,
            }
        )
    return sorted(rows, key=lambda row: row["sort"])


def failures(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Failures grouped by method, stage and reason, the most frequent first."""

    def key(failure: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(failure[k]) for k in ("method", "stage", "status", "reason"))

    groups = []
    for _, group in itertools.groupby(sorted(summary["failures"], key=key), key=key):
        members = list(group)
        groups.append({**members[0], "count": len(members), "members": members})
    return sorted(groups, key=lambda group: -group["count"])


def csv_text(summary: Mapping[str, Any]) -> str:
    """Every measured run as one CSV line, so that the page alone carries its numbers."""
    stages = (("measure", "runs", "tuned"), ("default", "default_runs", "defaults"))
    names = sorted(
        {
            name
            for method in summary["methods"]
            for _, runs, _ in stages
            for run in method[runs]
            for name in run.get("final") or {}
        }
    )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = ["method", "stage", "seed", "status", "reason", "settings", "id"]
    writer.writerow([*header, *names, *(f"test_{name}" for name in names)])
    for method in summary["methods"]:
        for stage, runs, values in stages:
            for run in method[runs]:
                final, test = run.get("final") or {}, run.get("test") or {}
                setting = " ".join(f"{k}={v}" for k, v in (method[values] or {}).items())
                fixed = [method["name"], stage, run["seed"], run["status"], run.get("reason")]
                numbers = [final.get(n) for n in names] + [test.get(n) for n in names]
                writer.writerow([*fixed, setting, run["id"], *numbers])
    return out.getvalue()


def _axis(axis: Mapping[str, Any]) -> str:
    if axis["kind"] == "choice":
        return "one of " + ", ".join(text.number(v) for v in axis["values"] or [])
    shape = {"log": "logarithmic", "linear": "linear", "one_minus_log": "1−x logarithmic"}
    low, high = (text.number(round(axis[end], 12), 3) for end in ("low", "high"))
    return f"{low} … {high}, {shape.get(axis['kind'], axis['kind'])}"


def _edge(edge: Mapping[str, Any]) -> str:
    side = {"low": "lowest", "high": "highest"}.get(edge["side"], edge["side"])
    return (
        f"best {edge['axis']} = {text.number(edge['value'], 3)} lies at the {side} end of the "
        "range that was searched: widen it, the method may do better beyond"
    )


def _basin(basin: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if basin is None:
        return None
    width = "one point"
    if basin["good"] > 1 and basin["factor"] is not None:
        factor = basin["factor"]
        width = f"a factor of {text.number(factor, 2)} ({math.log10(factor):.1f} decades)"
    elif basin["good"] > 1:
        width = text.number(basin["high"] - basin["low"], 3)
    ends = f"{text.number(basin['low'], 2)} … {text.number(basin['high'], 2)}"
    return {**basin, "width": width, "ends": ends}


def _best(values: Sequence[float], goal: str) -> float | None:
    if not values:
        return None
    return min(values) if goal == "min" else max(values)


def _median_text(values: Sequence[float | None], worst: float) -> str:
    return _infinite(float(np.median([worst if v is None else v for v in values])))


def _infinite(value: float | None) -> str:
    if value is None or math.isfinite(value):
        return text.number(value)
    return "∞" if value > 0 else f"{text.MINUS}∞"


def _enclosing(low: float | None, high: float | None) -> str:
    return "" if low is None else f"[{_infinite(low)}, {_infinite(high)}]"
