"""Inspect a point: what kind it is, its spectrum, sharpness and landscape, on one page.

The module can be called: ``thalweg.inspect(training)`` is `thalweg.inspect.inspect`. Everything is
loaded on first use.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalweg.inspect.callbacks import lightning_callback, transformers_callback
    from thalweg.inspect.checkpoint import load_checkpoint
    from thalweg.inspect.inspection import Inspection, inspect
    from thalweg.inspect.tracker import Tracker

_names = {
    "Inspection": "inspection",
    "inspect": "inspection",
    "Tracker": "tracker",
    "lightning_callback": "callbacks",
    "load_checkpoint": "checkpoint",
    "transformers_callback": "callbacks",
}

__all__ = [
    "Inspection",
    "Tracker",
    "inspect",
    "lightning_callback",
    "load_checkpoint",
    "transformers_callback",
]


def __getattr__(name: str) -> Any:
    if name in _names:
        value = getattr(importlib.import_module(f"{__name__}.{_names[name]}"), name)
        globals()[name] = value
        return value
    if name == "__signature__":  # what help() and the standard library's inspect show
        import inspect as standard

        return standard.signature(__getattr__("inspect"))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Callable(types.ModuleType):
    """`thalweg.inspect` is a package and a verb: whichever was imported first, both work."""

    def __call__(self, *args: Any, **kwargs: Any) -> Inspection:
        """`thalweg.inspect.inspect`."""
        found: Inspection = __getattr__("inspect")(*args, **kwargs)
        return found


sys.modules[__name__].__class__ = _Callable
