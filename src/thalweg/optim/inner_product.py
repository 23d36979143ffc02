"""Inner products that run over all parameters at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.engine.sharding import is_sharded, local, summed_over_shards
from thalweg.optim.engine.update import compute_dtype


def inner_product(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    r"""The sum :math:`\sum_i \langle l_i, r_i \rangle` over pairs of tensors of equal shapes.

    Shards are multiplied where they lie; one reduction per layout brings the sums together.

    Parameters
    ----------
    left, right
        As many tensors in each; the tensors of a pair have one shape and one layout.

    Examples
    --------
    >>> inner_product([torch.ones(2), torch.ones(3)], [torch.ones(2), 2 * torch.ones(3)])
    8.0
    """
    plain: list[Tensor] = []
    layouts: dict[object, tuple[Any, list[Tensor]]] = {}
    for a, b in zip(left, right, strict=True):
        product = _dot(local(a), local(b))
        if is_sharded(a):
            sharded: Any = a
            key = (sharded.device_mesh, sharded.placements)
            layouts.setdefault(key, (sharded, []))[1].append(product)
        else:
            plain.append(product)
    total = sum((float(value) for value in _on_host(plain)), 0.0)
    for sharded, products in layouts.values():
        total += summed_over_shards([p.double() for p in products], sharded)
    return total


def _dot(a: Tensor, b: Tensor) -> Tensor:
    working = compute_dtype(a.dtype)
    return torch.dot(a.detach().to(working).flatten(), b.detach().to(working).flatten())


def _on_host(values: list[Tensor]) -> list[float]:
    """The values of 0-d tensors, with one wait for each device."""
    devices: dict[torch.device, list[Tensor]] = {}
    for value in values:
        devices.setdefault(value.device, []).append(value.double())
    return [x for group in devices.values() for x in torch.stack(group).tolist()]
