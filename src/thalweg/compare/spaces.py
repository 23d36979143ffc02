"""What is tuned: the axes of a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thalweg.compare.catalogues import entries, is_ours
from thalweg.compare.signatures import defaults_of, element
from thalweg.core.catalogue import Axis, Choice, LogUniform, OneMinusLogUniform, Uniform

# Foreign optimizers that are published as having no learning rate to tune.
_PARAMETER_FREE = {"Prodigy", "DAdaptAdam", "DAdaptSGD", "DAdaptLion", "DAdaptAdaGrad", "DoG"}


def search_space(target: Any) -> dict[str, Axis]:
    """The axes `target` is tuned over: what it declares, else what its signature suggests.

    A foreign class of the name of one of ours gets our space, so that the two race fairly.
    """
    declared = getattr(target, "search_space", None)
    if isinstance(declared, Mapping) and (
        not isinstance(target, type) or is_ours(target) or _declares_itself(target)
    ):
        return dict(declared)
    if target.__name__ in _PARAMETER_FREE or not isinstance(target, type):
        return {}
    signature = defaults_of(target)
    twin = next((e for e in entries() if e.name.lower() == target.__name__.lower()), None)
    if twin is None and "betas" in signature:
        twin = next((e for e in entries() if e.name == "AdamW"), None)
    if twin is not None:
        space = {n: a for n, a in twin.search_space.items() if element(n)[0] in signature}
        if space:
            return space
    if "lr" not in signature:
        return {}
    if "betas" in signature:
        return {"lr": LogUniform(1e-4, 1e-1)}
    if "momentum" in signature:
        return {"lr": LogUniform(1e-4, 1.0), "momentum": OneMinusLogUniform(1e-2, 1.0)}
    return {"lr": LogUniform(1e-4, 1.0)}


def _declares_itself(target: type) -> bool:
    """Whether its space is its own, and not the empty one it has from our base class."""
    return any("search_space" in vars(c) for c in target.__mro__ if not is_ours(c))


def describe_axis(name: str, axis: Axis) -> dict[str, Any]:
    """The axis as it stands in summary.json."""
    kinds = {LogUniform: "log", Uniform: "linear", OneMinusLogUniform: "one_minus_log"}
    if isinstance(axis, Choice):
        return {"name": name, "kind": "choice", "low": None, "high": None, "values": [*axis.values]}
    low, high = sorted((float(axis.at(0.0)), float(axis.at(1.0))))
    kind = kinds.get(type(axis), "linear")
    return {"name": name, "kind": kind, "low": low, "high": high, "values": None}
