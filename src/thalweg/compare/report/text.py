"""How the report writes numbers, settings and effects: one place, so every table agrees."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

MINUS = "\N{MINUS SIGN}"
NARROW = "\N{NARROW NO-BREAK SPACE}"


def number(value: Any, digits: int = 4) -> str:
    """A number as a table shows it; what is missing or not finite is a dash.

    Examples
    --------
    >>> number(0.123456), number(1234567), number(3.2e-7), number(None)
    ('0.1235', '1,234,567', '3.2e-7', '–')
    """
    if value is None or isinstance(value, bool):
        return "–" if value is None else str(value)
    if not isinstance(value, (int, float)):
        return str(value)
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}".replace("-", MINUS, 1 if value < 0 else 0)
    if float(value).is_integer() or size >= 10**digits:
        shown = f"{value:,.0f}"
    else:
        shown = f"{value:.{digits}g}"
    return shown.replace("-", MINUS)


def interval(low: Any, high: Any, digits: int = 4) -> str:
    """`[low, high]`, or nothing when neither end is known."""
    if low is None and high is None:
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def duration(seconds: Any) -> str:
    """Seconds in the unit a reader would choose.

    Examples
    --------
    >>> duration(0.0042), duration(12.3), duration(754)
    ('4.2 ms', '12.3 s', '12 min 34 s')
    """
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds == 0:
        return "0 s"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


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


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def unbroken(words: str) -> str:
    """A sentence whose numbers stay on one line with their per cent sign."""
    return words.replace(" %", f"{NARROW}%")


def breakable(name: str) -> list[str]:
    """A name in the pieces between which it may break.

    Examples
    --------
    >>> breakable("torch.optim:AdamW")
    ['torch.', 'optim:', 'AdamW']
    """
    return [part for part in re.split(r"(?<=[.:_/,\[-])", name) if part]


def plural(count: int, noun: str) -> str:
    """``1 seed``, ``10 seeds``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


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
