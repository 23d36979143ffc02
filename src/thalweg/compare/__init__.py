"""Race methods on one problem: equal tuning budget, paired seeds, one report.

The module can be called: ``thalweg.compare(problem, methods)`` is `thalweg.compare.compare`.
Everything is loaded on first use.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalweg.compare.checks import check_problem
    from thalweg.compare.errors import BadInput
    from thalweg.compare.race import Race, compare

_names = {
    "BadInput": "errors",
    "Race": "race",
    "check_problem": "checks",
    "compare": "race",
}

__all__ = ["BadInput", "Race", "check_problem", "compare"]


def __getattr__(name: str) -> Any:
    if name in _names:
        value = getattr(importlib.import_module(f"{__name__}.{_names[name]}"), name)
        globals()[name] = value
        return value
    if name == "__signature__":  # what help() and inspect show of a callable
        import inspect

        return inspect.signature(__getattr__("compare"))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Callable(types.ModuleType):
    """`thalweg.compare` is a package and a verb: whichever was imported first, both work."""

    def __call__(self, *args: Any, **kwargs: Any) -> Race:
        """`thalweg.compare.compare`."""
        race: Race = __getattr__("compare")(*args, **kwargs)
        return race


sys.modules[__name__].__class__ = _Callable
