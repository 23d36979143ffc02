"""The methods of the catalogue that can race, and those that race by default."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from thalweg.core import catalogue

DEFAULT_METHODS = ("sgd[momentum=0.9]", "adam", "adamw", "lion", "novograd", "adamp")
_SPARE_METHODS = ("amsgrad", "rmsprop", "adagrad", "sgdp", "adagradnorm", "salsa")


@functools.cache
def entries() -> tuple[catalogue.Entry, ...]:
    """The catalogue of optimizers."""
    try:
        optim = importlib.import_module("thalweg.optim")
    except ModuleNotFoundError as error:
        if error.name != "thalweg.optim":
            raise
        return ()
    return tuple(catalogue.collect(optim)) if hasattr(optim, "__all__") else ()


@functools.cache
def solvers() -> tuple[catalogue.Entry, ...]:
    """The catalogue of solvers."""
    import thalweg.solve.recovery

    return tuple(catalogue.collect(thalweg.solve.recovery))


def default_methods() -> list[str]:
    """Six optimizers of the catalogue: the default ones, others for those it does not have."""
    known = {entry.name.lower() for entry in entries()}
    wanted = [*DEFAULT_METHODS, *_SPARE_METHODS]
    found = [spec for spec in wanted if spec.partition("[")[0] in known]
    spare = [
        e.name for e in entries() if e.name.lower() not in {s.partition("[")[0] for s in found}
    ]
    return (found + spare)[: len(DEFAULT_METHODS)]


def is_ours(target: Any) -> bool:
    """Whether it is defined in this package."""
    return target.__module__.split(".", 1)[0] == "thalweg"
