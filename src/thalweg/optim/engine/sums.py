"""Sums over the entries of many tensors, collected where they lie and added up at the end."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.engine.sharding import is_sharded, local


class Sums:
    """`count` sums for each key, in double precision: one accumulator per device and layout.

    Examples
    --------
    >>> sums = Sums(1)
    >>> for x in (torch.ones(3), torch.ones(4)):
    ...     sums.of("all", x)[0].add_(x.sum())
    tensor([3.], dtype=torch.float64)
    tensor([7.], dtype=torch.float64)
    >>> sums.over("all")
    [7.0]
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._places: dict[Any, tuple[Tensor, list[Tensor], Tensor]] = {}

    def of(self, key: Hashable, p: Tensor) -> list[Tensor]:
        """The accumulators, of shape (1,), for what is summed over the entries of `p`."""
        if not self.count:
            return []
        sharded: Any = p
        layout = (sharded.device_mesh, sharded.placements) if is_sharded(p) else None
        place = (key, p.device, layout)
        if place not in self._places:
            zeros = torch.zeros(self.count, dtype=torch.float64, device=local(p).device)
            self._places[place] = (zeros, list(zeros.split(1)), p)
        return self._places[place][1]

    def over(self, key: Hashable) -> list[float]:
        """The sums for `key`; one reduction for each layout of shards."""
        totals = [0.0] * self.count
        for (known, _, layout), (sums, _, p) in self._places.items():
            if known == key:
                found = _over_shards(sums, p) if layout is not None else sums
                totals = [t + value for t, value in zip(totals, found.tolist(), strict=True)]
        return totals


def _over_shards(sums: Tensor, p: Any) -> Tensor:
    from torch.distributed.tensor import DTensor, Partial, Replicate

    pending = [Partial() if place.is_shard() else Replicate() for place in p.placements]
    total: Tensor = DTensor.from_local(sums, p.device_mesh, pending, run_check=False).full_tensor()
    return total
