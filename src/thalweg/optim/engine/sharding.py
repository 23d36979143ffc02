"""Sharded parameters (FSDP2, tensor parallelism): what this process holds, and what all hold."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """True for a DTensor. Its module takes a second to import, so it is asked only if loaded."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: itself, or the shard of a DTensor."""
    return tensor._local_tensor if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """The entire tensor: itself, or the shards of a DTensor gathered (a collective)."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def sharded_like(value: Tensor, p: Any) -> Tensor:
    """The part of `value` that belongs to this process, given how `p` is laid out."""
    if not is_sharded(p):
        return value
    from torch.distributed.tensor import distribute_tensor

    placed: Any = distribute_tensor(value, p.device_mesh, p.placements, src_data_rank=None)
    return local(placed)


def wrapped_like(value: Tensor, p: Any) -> Tensor:
    """This process's part `value` of a tensor, as a tensor laid out like `p`."""
    if not is_sharded(p):
        return value
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        value, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
    )


def summed_over_shards(values: Sequence[Tensor], sharded: Any) -> float:
    """The sum over all processes of local `values`, each one's part of a tensor like `sharded`."""
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mine = torch.stack(list(values)).sum()
    pending = [Partial() if place.is_shard() else Replicate() for place in sharded.placements]
    total = DTensor.from_local(mine, sharded.device_mesh, pending, run_check=False)
    return float(total.full_tensor())
