"""Scope *global*: the rule needs numbers that depend on all parameters at once, such as a norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate

from thalweg.optim.engine.base import Active
from thalweg.optim.engine.elementwise import Elementwise


class Global(Elementwise):
    """An elementwise rule fed by reductions over all parameters.

    A subclass overrides `common`, which sees every parameter that has a gradient before any of
    them moves, and returns the numbers each one's rule receives. What it remembers goes into the
    slots named in ``shared``: 0-d float64 tensors, one value for all, kept with every parameter so that
    any checkpoint format carries them.
    """

    def common(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, float]] | None:
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


def squared_norm(tensors: Sequence[Tensor]) -> float:
    r"""The sum of squares :math:`\sum_i \|t_i\|_2^2` over all tensors, without overflow.

    Shards are summed where they lie; one reduction per layout brings the sums together.
    """
    if not tensors:
        return 0.0
    plain: list[Tensor] = []
    sharded: dict[object, list[DTensor]] = {}
    for tensor in tensors:
        if isinstance(tensor, DTensor):
            sharded.setdefault((tensor.device_mesh, tensor.placements), []).append(tensor)
        else:
            plain.append(tensor)
    total = _sum_of_squares(plain)
    for group in sharded.values():
        mesh, placements = group[0].device_mesh, group[0].placements
        mine = torch.tensor(
            _sum_of_squares([t._local_tensor for t in group]),
            dtype=torch.float64,
            device=group[0]._local_tensor.device,
        )
        pending = [Partial() if place.is_shard() else Replicate() for place in placements]
        total += float(DTensor.from_local(mine, mesh, pending, run_check=False).full_tensor())
    return total


def _sum_of_squares(tensors: Sequence[Tensor]) -> float:
    tensors = [t for t in tensors if t.numel()]
    if not tensors:
        return 0.0
    norms = torch.stack([n.double().cpu() for n in torch._foreach_norm(list(tensors))])
    total = float(norms.square().sum())
    if math.isfinite(total) and total > 1e-60:
        return total
    # Squares can leave the range of a short format where the sum does not leave float64's.
    return float(sum(t.double().square().sum() for t in tensors))
