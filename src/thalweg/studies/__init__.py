"""Published claims, re-measured by one command each: one file a study.

A module of this package with a `claim` is a study; ``sgd_saddles.py`` is ``thalweg study
sgd-saddles``.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from thalweg.core import check

if TYPE_CHECKING:
    from thalweg.studies.study import Study

__all__ = ["discover", "find"]


def discover() -> dict[str, Study]:
    """Every study, by its name on the command line.

    Returns
    -------
    dict
        From name to `Study`, in alphabetical order.

    Examples
    --------
    >>> discover()["lr-perceptron"].claim.year
    2025
    """
    studies = [_study(module.name) for module in pkgutil.iter_modules(__path__)]
    return {study.name: study for study in studies if study is not None}


def find(name: str) -> Study:
    """The study of this name.

    Raises
    ------
    ValueError
        If there is none, with the nearest name.

    Examples
    --------
    >>> find("lr-perception")
    Traceback (most recent call last):
    ...
    ValueError: NAME must be a study, got 'lr-perception' (did you mean 'lr-perceptron'?); ...
    """
    modules = {
        module.name.replace("_", "-"): module.name for module in pkgutil.iter_modules(__path__)
    }
    study = _study(modules[name]) if name in modules else None
    if study is None:
        names = list(discover())
        raise ValueError(
            f"NAME must be a study, got {name!r}{check.did_you_mean(name, names)}; "
            f"studies are {', '.join(names)}"
        )
    return study


def _study(module_name: str) -> Study | None:
    from thalweg.studies.study import Study

    module = importlib.import_module(f"{__name__}.{module_name}")
    return Study.of(module) if hasattr(module, "claim") else None
