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
from thalweg.compare.report import figures, text

WORDS = {
    "better": ("▲", "better"),
    "worse": ("▼", "worse"),
    "same": ("≈", "same"),
    "cannot tell": ("?", "cannot tell"),
}
WHISKER = 150.0
"""Width of a drawn interval in the table of pairs, in CSS pixels."""


def in_points(summary: Mapping[str, Any]) -> bool:
    """Whether differences are of a rate, and so shown in points (hundredths)."""
    metric = summary["problem"]["metric"]
    finals = (
        figures.final(run, metric, kind)
        for method in summary["methods"]
        for run in [*method["runs"], *method["default_runs"]]
        for kind in ("final", "test")
    )
    known = [value for value in finals if value is not None]
    inside = all(0 <= value <= 1 for value in known)
    return summary["problem"]["scale"] == "difference" and bool(known) and inside


def margin(summary: Mapping[str, Any]) -> str:
    """The smallest difference that counts, in words."""
    value = summary["protocol"]["margin"]
    if summary["problem"]["scale"] == "ratio":
        return f"{100 * value:g}{text.NARROW}%"
    if in_points(summary):
        return f"{100 * value:g} point{'' if value == 0.01 else 's'}"
    return text.number(value)


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


def pairs(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per verdict: the words, the interval, and where to draw it."""
    scale, points = summary["problem"]["scale"], in_points(summary)
    verdicts = summary["verdicts"]
    band = summary["protocol"]["margin"]
    band = math.log1p(band) if scale == "ratio" else band
    ends = [abs(v[end]) for v in verdicts for end in ("low", "high") if v[end] is not None]
    reach = max([*ends, 2 * band, 1e-12])

    def place(value: float) -> float:
        return round(WHISKER * (0.5 + 0.48 * max(-1.0, min(1.0, value / reach))), 1)

    rows = []
    for verdict in verdicts:
        drawn = None
        if verdict["mean"] is not None and verdict["low"] is not None:
            drawn = {key: place(verdict[key]) for key in ("mean", "low", "high")}
        rows.append(
            {
                **verdict,
                "drawn": drawn,
                "band": (place(-band), place(band)),
                "effect": _effect(verdict["mean"], scale, points),
                "interval": text.effect_interval(verdict["low"], verdict["high"], scale, points),
                "p_text": text.p_value(verdict["p_adjusted"]),
                "more": _more_seeds(verdict["more_seeds"]),
            }
        )
    return rows


def matrix(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of cells, best method first: what the row's method is against the column's."""
    scale, points = summary["problem"]["scale"], in_points(summary)
    names = [summary["methods"][i]["name"] for i in figures.order(summary)]
    known = {}
    for verdict in summary["verdicts"]:
        known[verdict["a"], verdict["b"]] = verdict
        known[verdict["b"], verdict["a"]] = _turned(verdict)
    missed = {row["name"]: row["runs"] - row["done"] for row in standings(summary)}
    compared = [name for name in names if any(name in pair for pair in known)]
    rows = []
    for row in compared:
        cells = []
        for column in compared:
            verdict = known.get((row, column))
            cells.append(None if verdict is None else _cell(verdict, row, scale, points, missed))
        index = next(i for i, m in enumerate(summary["methods"]) if m["name"] == row)
        rows.append({"index": index, "name": row, "cells": cells})
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
        basin = figures.good_basin(
            method, "lr", problem["goal"], problem["scale"], protocol["margin"]
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
                "trials": len(method["trials"]),
                "bad": len(bad),
                "edge": [_edge(edge) for edge in method["edge"]],
            }
        )
    return rows


def defaults(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every method at its defaults against itself tuned."""
    problem = summary["problem"]
    metric, scale, points = problem["metric"], problem["scale"], in_points(summary)
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
                "defaults": text.settings(method["defaults"]),
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
        rows.append(
            {
                "index": index,
                "name": method["name"],
                "step": text.number(spent.get("ms_per_step"), 3),
                "ratio": f"×{ratio:.2f}" if ratio is not None else "–",
                "state": text.number(spent.get("state_bytes_per_parameter"), 3),
                "compile": text.duration(spent.get("compile_seconds")),
                "gradients": text.number(spent.get("gradient_evaluations")),
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


def _turned(verdict: Mapping[str, Any]) -> dict[str, Any]:
    turned = dict(verdict, a=verdict["b"], b=verdict["a"])
    for key, source in (("mean", "mean"), ("low", "high"), ("high", "low")):
        turned[key] = None if verdict[source] is None else -verdict[source]
    return turned


def _cell(
    verdict: Mapping[str, Any], row: str, scale: str, points: bool, missed: Mapping[str, int]
) -> dict[str, Any]:
    word = verdict["word"]
    if word == "better" and verdict["winner"] != row:
        word = "worse"
    symbol, shown = WORDS[word]
    effect = _effect(verdict["mean"], scale, points)
    interval = text.effect_interval(verdict["low"], verdict["high"], scale, points)
    if verdict["mean"] is None:
        effect = f"missed {missed[verdict['a']]} : {missed[verdict['b']]}"
        interval = f"p = {text.p_value(verdict['p_adjusted'])}"
    return {
        "kind": word.replace(" ", "-"),
        "symbol": symbol,
        "word": shown,
        "effect": effect,
        "interval": interval,
        "sentence": verdict["sentence"],
        "other": verdict["b"],
    }


def _effect(mean: float | None, scale: str, points: bool) -> str:
    return "a run missed" if mean is None else text.effect(mean, scale, points)


def _more_seeds(more: Any) -> str:
    if more is None:
        return "–"
    return more if isinstance(more, str) else f"about {more:,.0f}"


def _axis(axis: Mapping[str, Any]) -> str:
    if axis["kind"] == "choice":
        return "one of " + ", ".join(text.number(v) for v in axis["values"] or [])
    shape = {"log": "logarithmic", "linear": "linear", "one_minus_log": "1−x logarithmic"}
    low, high = text.number(axis["low"], 3), text.number(axis["high"], 3)
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
