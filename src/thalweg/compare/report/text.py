"""How the report of a race writes settings, effects and budgets; numbers as every page does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from thalweg.page.text import (
    MINUS,
    NARROW,
    breakable,
    duration,
    interval,
    listed,
    number,
    plural,
    unbroken,
    with_error,
)

__all__ = [
    "MINUS",
    "NARROW",
    "breakable",
    "budget",
    "duration",
    "effect",
    "effect_interval",
    "far",
    "interval",
    "listed",
    "number",
    "p_value",
    "plural",
    "settings",
    "unbroken",
    "with_error",
]


def settings(values: Mapping[str, Any] | None) -> str:
    """Hyper-parameters on one line: ``lr 0.0012, betas[0] 0.93``."""
    if not values:
        return "nothing to set"
    return ", ".join(f"{name}{NARROW}={NARROW}{number(v, 3)}" for name, v in values.items())


def effect(mean: float, scale: str, points: bool = False, factors: bool | None = None) -> str:
    r"""A paired difference in words a reader can check.

    On the ratio scale `mean` is :math:`\log(A/B)` and is shown as a percentage, or as a factor
    once percentages stop being readable (`factors` decides otherwise); on the difference scale it
    is shown as it is, or in points (hundredths) for a rate.

    Examples
    --------
    >>> effect(math.log(4), "ratio"), effect(0.005, "difference"), effect(0.005, "difference", True)
    ('×4.00', '+0.005', '+0.5 points')
    >>> effect(math.log(0.9), "ratio").split()
    ['−10.0', '%']
    """
    if scale == "ratio":
        ratio = math.exp(min(mean, 700.0))
        if far(mean) if factors is None else factors:
            return f"×{ratio:.2f}" if 1 <= ratio < 100 else f"×{number(ratio, 3)}"
        return _signed(100 * (ratio - 1), f"{NARROW}%")
    if points:
        return _signed(100 * mean, " points")
    return f"{'+' if mean > 0 else ''}{number(mean, 3)}"


def far(*logarithms: float | None) -> bool:
    """Whether one of the ratios is more than two, or less than a half."""
    return any(value is not None and abs(value) > math.log(2) for value in logarithms)


def effect_interval(
    low: float | None,
    high: float | None,
    scale: str,
    points: bool = False,
    factors: bool | None = None,
) -> str:
    """The interval of a paired difference, in the same unit as `effect`, named once."""
    if low is None or high is None:
        return "no interval"
    factors = far(low, high) if factors is None else factors
    ends = [effect(end, scale, points, factors) for end in (low, high)]
    if all(end.startswith("×") for end in ends):
        return f"×[{', '.join(end[1:] for end in ends)}]"
    for unit in (f"{NARROW}%", " points"):
        if all(end.endswith(unit) for end in ends):
            return f"[{', '.join(end.removesuffix(unit) for end in ends)}]{unit}"
    return f"[{ends[0]}, {ends[1]}]"


def _signed(value: float, unit: str) -> str:
    digits = 1 if abs(value) < 100 else 0
    if abs(value) < 0.1:
        digits = 2
    sign = MINUS if value < 0 else "+" if value > 0 else ""
    return f"{sign}{abs(value):.{digits}f}{unit}"


def p_value(p: float | None) -> str:
    """A p value with two significant digits; tiny ones as a power of ten."""
    if p is None or not math.isfinite(p):
        return "–"
    return f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}".replace("e-0", "e-")


def budget(words: str) -> str:
    """A budget as words.

    Examples
    --------
    >>> budget("420steps"), budget("1epochs"), budget("30s")
    ('420 steps', '1 epoch', '30 s')
    """
    count = words.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = words[len(count) :].strip()
    if count == "1":
        unit = unit.removesuffix("s") or unit
    return f"{count} {unit}".strip()
