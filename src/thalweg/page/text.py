"""How pages write numbers and names: one place, so every table agrees."""

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


def with_error(row: Mapping[str, Any], digits: int = 4) -> str:
    """A value with half its 95 % interval.

    Examples
    --------
    >>> with_error({"value": 9.7123, "low": 5.4, "high": 14.0}), with_error({"value": 3.0})
    ('9.7 ± 4.3', '3')
    """
    value, low, high = row["value"], row.get("low"), row.get("high")
    half = None if value is None or low is None or high is None else (high - low) / 2
    if half is None or half <= 1e-9 * abs(value):
        return number(value, digits)
    # two digits of the error, and the value to the same place
    place = 1 - math.floor(math.log10(half))
    return f"{number(round(value, place), 10)} ± {number(half, 2)}"
