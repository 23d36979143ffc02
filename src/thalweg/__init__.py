"""Non-convex optimization for machine learning: descend, certify, compare.

Everything is loaded on first use, so that ``import thalweg`` costs next to nothing on top of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalweg import (
        compare,
        core,
        curvature,
        data,
        inspect,
        learn,
        nn,
        numeric,
        optim,
        solve,
        testing,
    )
    from thalweg.core import Reason, Result, Training, iterate
    from thalweg.curvature import certify, escape
    from thalweg.optim.param_groups import param_groups

__version__ = "0.1.0"

_modules = (
    "compare",
    "core",
    "curvature",
    "data",
    "inspect",
    "learn",
    "nn",
    "numeric",
    "optim",
    "solve",
    "testing",
)
_names = {
    "Training": "thalweg.core",
    "Result": "thalweg.core",
    "Reason": "thalweg.core",
    "iterate": "thalweg.core",
    "param_groups": "thalweg.optim",
    "certify": "thalweg.curvature",
    "escape": "thalweg.curvature",
}

__all__ = [
    "Reason",
    "Result",
    "Training",
    "certify",
    "compare",
    "core",
    "curvature",
    "data",
    "escape",
    "inspect",
    "iterate",
    "learn",
    "nn",
    "numeric",
    "optim",
    "param_groups",
    "solve",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name in _modules:
        return importlib.import_module(f"thalweg.{name}")
    if name in _names:
        return getattr(importlib.import_module(_names[name]), name)
    raise AttributeError(f"module 'thalweg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
