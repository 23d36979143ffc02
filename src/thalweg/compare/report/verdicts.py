"""The verdicts of a race as a matrix and as a list: words, effects, intervals, from either side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

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
        if verdict["winner"] == verdict["b"]:  # the sentence starts with the winner, and so do we
            verdict = _turned(verdict)
        effect, interval = _effect(verdict, scale, points)
        drawn = None
        if verdict["mean"] is not None and verdict["low"] is not None:
            drawn = {key: place(verdict[key]) for key in ("mean", "low", "high")}
        rows.append(
            {
                **verdict,
                "drawn": drawn,
                "band": (place(-band), place(band)),
                "effect": effect,
                "interval": interval,
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
    metric, kind = summary["problem"]["metric"], figures.labels(summary)["kind"]
    missed = {
        method["name"]: sum(figures.final(run, metric, kind) is None for run in method["runs"])
        for method in summary["methods"]
    }
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
    effect, interval = _effect(verdict, scale, points)
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


def _effect(verdict: Mapping[str, Any], scale: str, points: bool) -> tuple[str, str]:
    """Mean and interval in one unit."""
    mean, low, high = verdict["mean"], verdict["low"], verdict["high"]
    if mean is None:
        return "a run missed", "no interval"
    factors = text.far(mean, low, high)
    return (
        text.effect(mean, scale, points, factors),
        text.effect_interval(low, high, scale, points, factors),
    )


def _more_seeds(more: Any) -> str:
    if more is None:
        return "–"
    return more if isinstance(more, str) else f"about {more:,.0f}"
