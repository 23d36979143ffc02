"""A model of awkward tensors, and gradients to go with it, for runs beside `torch.optim`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from thalweg.optim.engine.batches import SMALL
from thalweg.optim.engine.flat import EAGER_PIECE

Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]

#: Parameter number -> how its gradient lies in memory, where that is not as the parameter does.
LAYOUTS: dict[int, Callable[[Tensor], Tensor]] = {
    3: lambda g: g.t().contiguous().t(),
    4: lambda g: g[:, :1].expand(g.shape),
    6: lambda g: g.contiguous(memory_format=torch.contiguous_format),
    12: lambda g: g[:1].expand(g.shape),
}


def model() -> list[Parameter]:
    """0-d, empty, strided and packed tensors; sizes around the engine's two thresholds."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    tensors = [
        normal(),
        normal(0, 3),
        normal(7),
        normal(5, 4),
        normal(5, 4),
        normal(6, 3).t(),
        normal(2, 3, 4, 5).to(memory_format=torch.channels_last),
        normal(6, 8)[:, ::2],
        normal(SMALL - 1),
        normal(SMALL),
        normal(SMALL + 1),
        normal(EAGER_PIECE + 1),
        normal(2, EAGER_PIECE // 2 + 1).t(),
    ]
    return [Parameter(t) for t in tensors]


def twin(params: Sequence[Parameter]) -> list[Parameter]:
    """The same values, in memory of their own."""
    return [Parameter(p.detach().clone()) for p in params]


def groups(params: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Two parameter groups, the second with a step size of its own."""
    return [{"params": list(params[::2])}, {"params": list(params[1::2]), "lr": 0.03}]


def set_gradients(models: Sequence[Sequence[Parameter]], k: int) -> None:
    """The k-th gradients, equal for all models; every parameter misses some steps."""
    generator = torch.Generator().manual_seed(1000 + k)
    for i, copies in enumerate(zip(*models, strict=True)):
        g = torch.randn(copies[0].shape, generator=generator, dtype=torch.float64)
        g = LAYOUTS.get(i, lambda g: g)(g)
        for p in copies:
            p.grad = None if (k + i) % 7 == 0 else g.to(p.dtype)


def distance(a: Sequence[Parameter], b: Sequence[Parameter]) -> float:
    """The largest difference of two entries in the same place."""
    return max(float((p - q).detach().abs().max()) for p, q in zip(a, b, strict=True) if p.numel())


def run_beside(ours: Make, theirs: Make, steps: int = 100) -> float:
    """Run two optimizers on equal models and gradients: their largest distance at any step."""
    mine = model()
    reference = twin(mine)
    optimizers = [ours(groups(mine)), theirs(groups(reference))]
    largest = 0.0
    for k in range(steps):
        set_gradients([mine, reference], k)
        for optimizer in optimizers:
            optimizer.step()
        largest = max(largest, distance(mine, reference))
    return largest


def continue_from(first: Make, second: Make, steps: int = 20) -> float:
    """`second` takes over a checkpoint of `first` after 20 steps: their distance from there on."""
    a = model()
    leader = first(groups(a))
    for k in range(20):
        set_gradients([a], k)
        leader.step()
    b = twin(a)
    follower = second(groups(b))
    follower.load_state_dict(leader.state_dict())
    # torch shares what it loads: its first in-place update would reach into the other's state
    for state in follower.state.values():
        state.update({n: v.clone() for n, v in state.items() if isinstance(v, Tensor)})
    largest = 0.0
    for k in range(20, 20 + steps):
        set_gradients([a, b], k)
        leader.step()
        follower.step()
        largest = max(largest, distance(a, b))
    return largest
