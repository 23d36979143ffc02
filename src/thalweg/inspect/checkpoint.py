"""Parameters from a file, as tensors and nothing else: no pickled object is ever run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.core.check import did_you_mean

WRAPPERS = ("model", "state_dict", "model_state_dict")
"""Keys under which training scripts keep the parameters beside the optimizer's state."""
SHOWN = 5
"""Differing keys that are written out."""


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a checkpoint into a model, all of it or nothing.

    Parameters
    ----------
    model
        Its parameters and buffers are overwritten; types and devices stay the model's.
    path
        ``.safetensors``, or what ``torch.save`` has written: a state dict, or a mapping that holds
        one under ``"model"``, ``"state_dict"`` or ``"model_state_dict"``. A prefix ``"module."``
        of all keys (a model trained in parallel) is taken off.

    Raises
    ------
    ValueError
        If the file cannot be read, holds anything but tensors and plain values (which is refused
        unread: such a file can run code), or does not fit the model; the keys that differ are
        listed.

    Examples
    --------
    >>> import tempfile
    >>> model = nn.Linear(2, 1)
    >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
    ...     torch.save({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, file.name)
    ...     load_checkpoint(model, file.name)
    >>> model.weight.tolist()
    [[1.0, 1.0]]
    """
    path = Path(path)
    state = _state_dict(_read(path), path)
    wanted = model.state_dict()
    differing = _differences(state, wanted)
    if differing:
        raise ValueError(f"checkpoint {path} does not fit the model: {differing}")
    model.load_state_dict(state)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"checkpoint must be a file, got {str(path)!r}, which is none")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint {path} must hold tensors and plain values only, got pickled objects, "
            "which can run code and are refused: save model.state_dict() instead"
        ) from error
    except Exception as error:  # each format has errors of its own for a damaged file
        told = str(error).strip().split("\n", 1)[0] or type(error).__name__
        raise ValueError(f"checkpoint {path} cannot be read: {told}") from error


def _state_dict(found: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what was read."""
    for key in WRAPPERS:
        inner = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(inner, Mapping) and inner:
            found = inner
            break
    if not isinstance(found, Mapping) or not found:
        kind = type(found).__name__ if not isinstance(found, Mapping) else "nothing"
        raise ValueError(
            f"checkpoint {path} must hold a state dict, plain or under "
            f"{', '.join(map(repr, WRAPPERS))}, got {kind}"
        )
    if all(str(key).startswith("module.") for key in found):
        found = {key.removeprefix("module."): value for key, value in found.items()}
    return {str(key): value for key, value in found.items()}


def _differences(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What does not fit, in words; empty if all does."""
    missing = [key for key in wanted if key not in state]
    unknown = [key for key in state if key not in wanted]
    shapes = [
        f"{key} ({_shape(state[key])} there, {_shape(wanted[key])} in the model)"
        for key in wanted
        if key in state and _shape(state[key]) != _shape(wanted[key])
    ]
    told = []
    if missing:
        told.append(f"it lacks {_some(missing)}")
    if unknown:
        near = did_you_mean(unknown[0], missing) if len(unknown) == 1 else ""
        told.append(f"it has {_some(unknown)}, which the model has not{near}")
    if shapes:
        told.append(f"of another shape are {_some(shapes)}")
    return "; ".join(told)


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
