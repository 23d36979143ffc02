"""Scope *global*: the rule needs numbers that depend on all parameters at once, such as a norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.engine.base import Active
from thalweg.optim.engine.elementwise import Elementwise
from thalweg.optim.engine.sharding import is_sharded, local, summed_over_shards
from thalweg.optim.engine.update import compute_dtype


class Global(Elementwise):
    """An elementwise rule fed by reductions over all parameters.

    A subclass overrides `common`, which sees every parameter that has a gradient before any of
    them moves, and returns the numbers each one's rule receives. What it remembers goes into the
    slots named in ``shared``: 0-d float64 tensors, one value for all, kept with every parameter so
    that any checkpoint format carries them.
    """

    def common(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, float]] | None:
        """The numbers of each parameter's rule; they may differ from tensor to tensor."""
        raise NotImplementedError

    def read_shared(self, name: str, params: Iterable[Tensor], first: float = 0.0) -> float:
        """A shared number as its `params` remember it; `first` before their first step."""
        for p in params:
            if p in self.state and name in self.state[p]:
                return float(self.state[p][name])
        return first

    def write_shared(self, name: str, value: float, params: Iterable[Tensor]) -> None:
        """Store a shared number with those of `params` that have taken a step."""
        tensor = torch.tensor(value, dtype=torch.float64)
        for p in params:
            if p in self.state:
                self.state[p][name] = tensor

    def all_params(self) -> list[Tensor]:
        """The parameters of all groups."""
        return [p for group in self.param_groups for p in group["params"]]


def tensor_norms(tensors: Sequence[Tensor]) -> list[float]:
    r"""The Euclidean norm :math:`\|t_i\|_2` of every tensor, in the precision of its rule."""
    norms = [0.0] * len(tensors)
    plain: dict[torch.dtype, list[int]] = {}
    for i, tensor in enumerate(tensors):
        if is_sharded(tensor) or tensor.numel() == 0:
            norms[i] = math.sqrt(squared_norm([tensor]))
        else:
            plain.setdefault(compute_dtype(tensor.dtype), []).append(i)
    for dtype, places in plain.items():
        found = torch._foreach_norm([tensors[i] for i in places], 2, dtype=dtype)
        for i, norm in zip(places, torch.stack(found).tolist(), strict=True):
            # Squares can leave the range of a short format where their root does not.
            norms[i] = norm if 1e-15 < norm < 1e15 else math.sqrt(squared_norm([tensors[i]]))
    return norms


def squared_norm(tensors: Sequence[Tensor]) -> float:
    r"""The sum of squares :math:`\sum_i \|t_i\|_2^2` over all tensors, without overflow.

    Shards are summed where they lie; one reduction per layout brings the sums together.
    """
    if not tensors:
        return 0.0
    plain: list[Tensor] = []
    layouts: dict[object, list[Any]] = {}
    for tensor in tensors:
        if is_sharded(tensor):
            sharded: Any = tensor
            layouts.setdefault((sharded.device_mesh, sharded.placements), []).append(sharded)
        else:
            plain.append(tensor)
    total = _sum_of_squares(plain)
    for members in layouts.values():
        device = local(members[0]).device
        mine = _sum_of_squares([local(t) for t in members])
        total += summed_over_shards(
            [torch.tensor(mine, dtype=torch.float64, device=device)], members[0]
        )
    return total


def _sum_of_squares(tensors: Sequence[Tensor]) -> float:
    tensors = [t for t in tensors if t.numel()]
    if not tensors:
        return 0.0
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for t in tensors:
        kinds.setdefault(compute_dtype(t.dtype), []).append(t)
    total = 0.0
    for dtype, members in kinds.items():
        norms = torch._foreach_norm(members, 2, dtype=dtype)
        total += float(torch.stack(norms).double().square().sum())
    if math.isfinite(total) and total > 1e-25:
        return total
    # Squares can leave the range of float32 (or lose digits at its lower end), not float64's.
    return float(sum(t.double().square().sum() for t in tensors))
