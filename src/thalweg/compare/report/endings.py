"""Where the methods ended, as cards: the verdict, its numbers, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thalweg.compare.report import figures, text
from thalweg.curvature.certificate import Verdict


def context(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the template of the section needs."""
    ending = summary.get("ending") or {}
    cards = [
        _card(index, method)
        for index in figures.order(summary)
        if (method := summary["methods"][index]).get("certificate")
    ]
    return {
        "cards": cards,
        "lines": ending.get("lines", []),
        "ending_told": _told(ending, len(cards)),
        "seeds_inspected": sorted({card["seed"] for card in cards}),
    }


def _told(ending: Mapping[str, Any], count: int) -> str:
    if count:
        return (
            f"Inspecting {text.plural(count, 'end point')} took "
            f"{text.plural(ending.get('products', 0), 'Hessian-vector product')} and "
            f"{text.duration(ending.get('seconds'))}{_limit(ending.get('budget'))}."
        )
    if not ending.get("networks", True):
        return "What kind of point it is, is said of the end points of networks alone."
    if ending.get("inspected"):
        return "No run has finished, so there is no end point to inspect."
    if ending.get("inspected") is None:
        return "End points are inspected when the race is complete."
    return (
        "The end points were not inspected: that was not asked for and would have cost more than a "
        "fifth of the race, or it was declined. The same command with --inspect does it, and keeps "
        "all runs."
    )


def _limit(budget: int | None) -> str:
    return "" if budget is None else f"; a certificate could spend {text.plural(budget, 'product')}"


def _card(index: int, method: Mapping[str, Any]) -> dict[str, Any]:
    c = method["certificate"]
    card = {
        "index": index,
        "name": method["name"],
        "seed": c["seed_of_run"],
        "checkpoint": c["checkpoint"],
        "refused": c.get("refused"),
    }
    if card["refused"]:
        return card
    verdict = Verdict[c["verdict"]]
    kind = "down" if verdict.goes_down else "open" if verdict is Verdict.INCONCLUSIVE else "stays"
    facts = [
        ("training loss", text.number(c["loss"])),
        ("gradient norm", text.number(c["gradient_norm"], 3)),
        ("smallest eigenvalue", _interval(c["lambda_min"])),
        ("largest eigenvalue", _interval(c["lambda_max"])),
        ("trace", text.with_error(c["trace"], 3)),
        ("sharpness", text.with_error(c["sharpness"], 3)),
    ]
    return {
        **card,
        "verdict": verdict.name,
        "kind": kind,
        "headline": c["headline"],
        "facts": [(term, value) for term, value in facts if value],
        "told": [c["sentence"], *c["reasons"], *c["assumptions"]],
    }


def _interval(ends: list[float | None] | None) -> str:
    return "" if ends is None else text.interval(ends[0], ends[1], 3)
