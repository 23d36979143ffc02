"""A long run that survives a kill: the best point so far, in a file, every few seconds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.core import Result, Trace

ROWS = 2000
"""Of the trace, kept in the file: of longer ones every second row, fourth row ..."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a file holds: a point, and the trace up to it.

    Parameters
    ----------
    point
        Tensors by name.
    value
        The measure at the point.
    trace
        Columns of the trace of all runs so far; ``"step"`` and ``"seconds"`` among them.
    """

    point: Mapping[str, Tensor]
    value: float
    trace: Mapping[str, list[float]]

    @property
    def steps(self) -> int:
        """Steps made so far."""
        return int(self.trace["step"][-1])

    @property
    def seconds(self) -> float:
        """Seconds spent so far."""
        return float(self.trace["seconds"][-1])


class Keeper:
    """The callback of a run: keeps the best point, and writes it every few seconds.

    Parameters
    ----------
    path
        The safetensors file.
    of
        What identifies the problem: a file of another one is not taken up.
    take_apart
        A point as tensors by name.
    every
        Seconds between two writings, >= 0.
    before
        What an earlier run has left.
    also
        Called with each result, as a callback.
    """

    def __init__(
        self,
        path: Path,
        of: str,
        take_apart: Callable[[Any], Mapping[str, Tensor]],
        *,
        every: float = 5.0,
        before: Saved | None = None,
        also: Callable[[Result[Any]], object] | None = None,
    ) -> None:
        self.path, self.of, self.take_apart, self.every = path, of, take_apart, every
        self.before, self.also = before, also
        self.best: Any = None
        self.value = before.value if before else math.inf
        self._written = time.monotonic()

    def __call__(self, result: Result[Any]) -> None:
        if math.isfinite(result.value) and (self.best is None or result.value < self.value):
            self.best, self.value = result.x, result.value
        if time.monotonic() - self._written >= self.every:
            self.write(result.trace)
        if self.also is not None:
            self.also(result)

    def write(self, trace: Trace) -> None:
        """Write the best point and the trace, at once or not at all."""
        if self.best is None:
            return
        from safetensors.torch import save_file

        tensors = {}
        for name, tensor in self.take_apart(self.best).items():
            plain = tensor.detach().cpu().resolve_conj().contiguous().clone()
            if plain.is_complex():  # which safetensors does not hold in double precision
                tensors[f"complex.{name}"] = torch.view_as_real(plain).contiguous()
            else:
                tensors[f"point.{name}"] = plain
        for name, column in joined(self.before, trace).items():
            tensors[f"trace.{name}"] = torch.tensor(column, dtype=torch.float64)
        part = self.path.with_name(f"{self.path.name}.part-{os.getpid()}")
        save_file(tensors, part, metadata={"of": self.of, "value": repr(self.value)})
        os.replace(part, self.path)
        self._written = time.monotonic()


def read(path: Path, of: str) -> Saved | None:
    """What an earlier run of the same problem has left; None if there is none.

    Parameters
    ----------
    path
        The file.
    of
        What identifies the problem.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            if told.get("of") != of:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    parts: dict[str, dict[str, Tensor]] = {"point": {}, "trace": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "complex":
            parts["point"][rest] = torch.view_as_complex(tensor)
        else:
            parts[kind][rest] = tensor
    trace = {name: column.tolist() for name, column in parts["trace"].items()}
    return Saved(parts["point"], float(told["value"]), trace)


def joined(before: Saved | None, trace: Trace) -> dict[str, list[float]]:
    """The trace of a run after that of the runs before it, thinned to `ROWS` rows.

    Examples
    --------
    >>> first = Saved({}, 0.5, {"step": [0, 1], "seconds": [0.0, 2.0], "residual": [1.0, 0.5]})
    >>> joined(first, Trace({"step": [0, 1], "seconds": [0.1, 1.0], "residual": [0.5, 0.2]}))
    {'step': [0, 1, 1, 2], 'seconds': [0.0, 2.0, 2.1, 3.0], 'residual': [1.0, 0.5, 0.5, 0.2]}
    """
    columns = {name: list(column) for name, column in trace.columns.items()}
    if before is not None:
        columns["step"] = [before.steps + k for k in columns["step"]]
        columns["seconds"] = [before.seconds + t for t in columns["seconds"]]
        columns = {
            name: [*before.trace.get(name, [math.nan] * len(before.trace["step"])), *column]
            for name, column in columns.items()
        }
    length = len(columns["step"])
    stride = max(1, math.ceil(length / ROWS))
    kept = [*range(0, length - 1, stride), length - 1]
    return {name: [column[i] for i in kept] for name, column in columns.items()}


def identity(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """A hash of the numbers and the facts of a problem.

    Examples
    --------
    >>> identity({"y": torch.ones(2)}, {"rank": 1}) == identity({"y": torch.ones(2)}, {"rank": 2})
    False
    """
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True, default=str).encode())
    for name, tensor in tensors.items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.detach().cpu().resolve_conj().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
