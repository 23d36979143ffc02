"""Input checks: every error names the argument, what was got and what is accepted."""

from __future__ import annotations

import difflib
import math
import numbers
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import torch


def number(
    name: str,
    value: Any,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    integer: bool = False,
    finite: bool = True,
) -> Any:
    """Return `value` if it is a number in the accepted range, else raise.

    Parameters
    ----------
    name
        The argument's name, as the user wrote it.
    value
        An int, a float, a numpy scalar or a tensor with one element.
    ge, gt, le, lt
        Bounds: ``>=``, ``>``, ``<=``, ``<``.
    integer
        Accept whole numbers only.
    finite
        Refuse infinities (NaN is always refused).

    Raises
    ------
    TypeError
        If `value` is not a number.
    ValueError
        If it is outside the accepted range.

    Examples
    --------
    >>> number("lr", 0.1, ge=0)
    0.1
    >>> number("lr", -0.1, gt=0)
    Traceback (most recent call last):
    ...
    ValueError: lr must be > 0, got -0.1
    """
    accepted = _accepted(ge, gt, le, lt, integer)
    scalar = isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex()
    if scalar or (isinstance(value, numbers.Real) and not isinstance(value, bool)):
        real = float(value)
    else:
        raise TypeError(f"{name} must be {accepted}, got {value!r} of type {type(value).__name__}")
    inside = (
        not math.isnan(real)
        and (not finite or not math.isinf(real))
        and (not integer or real.is_integer())
        and (ge is None or real >= ge)
        and (gt is None or real > gt)
        and (le is None or real <= le)
        and (lt is None or real < lt)
    )
    if not inside:
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
    return value


def _accepted(
    ge: float | None, gt: float | None, le: float | None, lt: float | None, integer: bool
) -> str:
    noun = "an integer " if integer else ""
    low = ge if ge is not None else gt
    high = le if le is not None else lt
    if low is not None and high is not None:
        left = "[" if ge is not None else "("
        right = "]" if le is not None else ")"
        return f"{noun}in {left}{low:g}, {high:g}{right}"
    if low is not None:
        return f"{noun}{'>=' if ge is not None else '>'} {low:g}"
    if high is not None:
        return f"{noun}{'<=' if le is not None else '<'} {high:g}"
    return "an integer" if integer else "a finite number"


def choice(name: str, value: Any, accepted: Iterable[Any]) -> Any:
    """Return `value` if it is one of `accepted`, else raise a ValueError with the nearest name.

    Examples
    --------
    >>> choice("goal", "maxx", ("min", "max"))
    Traceback (most recent call last):
    ...
    ValueError: goal must be one of 'min', 'max', got 'maxx' (did you mean 'max'?)
    """
    options = list(accepted)
    if value in options:
        return value
    listed = ", ".join(repr(option) for option in options)
    raise ValueError(f"{name} must be one of {listed}, got {value!r}{did_you_mean(value, options)}")


def did_you_mean(value: Any, options: Iterable[Any]) -> str:
    """The nearest of `options` to what was typed, as `` (did you mean 'x'?)``, or nothing."""
    words = [str(option) for option in options]
    near = difflib.get_close_matches(str(value).lower(), [word.lower() for word in words], n=1)
    if not near:
        return ""
    return f" (did you mean '{next(w for w in words if w.lower() == near[0])}'?)"


def floating(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` if it is real and floating point, else raise a TypeError."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.is_complex() or not tensor.is_floating_point():
        raise TypeError(
            f"{name} must be a real floating-point tensor, "
            f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    return tensor


def warn(message: str) -> None:
    """Warn at the line of the user's that led here: the first one outside thalweg and torch."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and _ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _ours(module: str) -> bool:
    return module.partition(".")[0] in ("thalweg", "torch")
