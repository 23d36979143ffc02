"""What a method takes: names of arguments and their defaults."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any


def parameters_of(target: Any) -> Mapping[str, inspect.Parameter]:
    """The arguments of the constructor without self and the parameters; without the problem."""
    if not isinstance(target, type):
        return dict(list(inspect.signature(target).parameters.items())[1:])
    names = list(inspect.signature(target.__init__).parameters.items())[2:]  # type: ignore[misc]
    return dict(names)


@functools.cache
def defaults_of(target: Any) -> dict[str, Any]:
    """Argument to default; None where there is no default."""
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: None if p.default is p.empty else p.default
        for name, p in parameters_of(target).items()
        if p.kind not in variadic
    }


def element(name: str) -> tuple[str, int | None]:
    """``"betas[0]"`` -> ``("betas", 0)``; ``"lr"`` -> ``("lr", None)``."""
    match = re.fullmatch(r"(\w+)\[(\d+)\]", name)
    return (match.group(1), int(match.group(2))) if match else (name, None)


def is_plain(value: Any) -> bool:
    """Whether it can stand in a report: a number, a word, or a tuple of such."""
    if isinstance(value, tuple | list):
        return all(is_plain(part) for part in value)
    return isinstance(value, bool | int | float | str)
