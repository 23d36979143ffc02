"""Small networks of the studies: many seeds in one batch dimension, batches, and a grid tuner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.data import load, split


class Digits(NamedTuple):
    """Digits (1797 images of 8x8, pixels in [0, 1]), 60/20/20 per class; always the same split."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def digits() -> Digits:
    """The one split all studies use: what varies over seeds is the network and the batches.

    Examples
    --------
    >>> [len(x) for x, y in digits()]
    [1078, 360, 359]
    """
    data = load("digits")
    train, validation, test = split(
        (data.inputs / 16, data.targets), (0.6, 0.2, 0.2), stratify=data.targets
    )
    return Digits((train[0], train[1]), (validation[0], validation[1]), (test[0], test[1]))


class SeededMLP(nn.Module):
    r"""Fully connected ReLU networks of one shape, one for each seed, evaluated together.

    Layer l holds weights of shape (seeds, in, out). Entries are uniform in
    :math:`\pm 1/\sqrt{in}` (torch's own start of a linear layer), drawn by a generator of the
    network's seed alone: a network does not depend on those beside it. Elementwise optimizers
    train each as if it were alone, since the gradient of the sum of the losses does not mix them.

    Examples
    --------
    >>> SeededMLP((64, 32, 10), seeds=range(5))(torch.zeros(5, 7, 64)).shape
    torch.Size([5, 7, 10])
    """

    def __init__(self, sizes: Sequence[int], seeds: Sequence[int]) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        for before, after in pairwise(sizes):
            bound = 1 / math.sqrt(before)
            drawn = [
                torch.empty(before + 1, after).uniform_(-bound, bound, generator=generator)
                for generator in generators
            ]
            together = torch.stack(drawn)
            self.weights.append(nn.Parameter(together[:, :before].clone()))
            self.biases.append(nn.Parameter(together[:, before:].clone()))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (seeds, rows, classes) from inputs of shape (seeds, rows, features)."""
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = torch.baddbmm(b, x, w).relu()
        return torch.baddbmm(self.biases[-1], x, self.weights[-1])


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of each seed: logits (seeds, rows, classes), targets (seeds, rows)."""
    each = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return each.view(targets.shape).mean(1)


@torch.no_grad()
def evaluate(model: Callable[[Tensor], Tensor], part: tuple[Tensor, Tensor], seeds: int) -> Scores:
    """Each seed's mean cross-entropy and accuracy on all rows of a part of the data."""
    x, y = (t.expand(seeds, *t.shape) for t in part)
    logits = model(x)
    return Scores(losses(logits, y), (logits.argmax(-1) == y).double().mean(1))


class Scores(NamedTuple):
    """Per seed, both of shape (seeds,)."""

    loss: Tensor
    accuracy: Tensor


def rows_of_steps(n: int, batch: int, steps: int, seeds: Sequence[int]) -> Tensor:
    """Which rows each step takes: (steps, seeds, batch), every seed's own shuffled epochs in a row.

    A batch may straddle two epochs, so that any batch size sees every row equally often.

    Examples
    --------
    >>> rows = rows_of_steps(n=6, batch=4, steps=3, seeds=[0, 1])
    >>> rows.shape, rows[:, 0].flatten().bincount().tolist()
    (torch.Size([3, 2, 4]), [2, 2, 2, 2, 2, 2])
    """
    epochs = -(-batch * steps // n)
    orders = []
    for s in seeds:
        generator = torch.Generator().manual_seed(s)
        order = torch.cat([torch.randperm(n, generator=generator) for _ in range(epochs)])
        orders.append(order[: batch * steps].view(steps, batch))
    return torch.stack(orders, dim=1)


def cosine(step: int, steps: int) -> float:
    """Cosine decay from 1 at step 0 to 0 at `steps`."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    part: tuple[Tensor, Tensor],
    rows: Tensor,
    schedule: Callable[[int, int], float] = lambda step, steps: 1.0,
) -> None:
    """Train the networks of all seeds, step by step, each on its own rows."""
    x, y = part
    first = [float(group["lr"]) for group in optimizer.param_groups]
    for step, chosen in enumerate(rows):
        for group, lr in zip(optimizer.param_groups, first, strict=True):
            group["lr"] = lr * schedule(step, len(rows))
        optimizer.zero_grad()
        losses(model(x[chosen]), y[chosen]).sum().backward()
        optimizer.step()


class Tuned(NamedTuple):
    """The best value of a grid, and whether a better one may lie outside it."""

    value: float
    edge: bool


def tune(grid: Sequence[float], score: Callable[[float], float]) -> Tuned:
    """The value with the lowest score; it is an edge if the first or the last.

    Scores that are not finite count as infinite: divergence is never chosen.

    Examples
    --------
    >>> tune([0.1, 1.0, 10.0], lambda lr: (lr - 2) ** 2)
    Tuned(value=1.0, edge=False)
    >>> tune([0.1, 1.0], lambda lr: (lr - 2) ** 2).edge
    True
    """
    return best({value: score(value) for value in grid})


def best(scores: Mapping[float, float]) -> Tuned:
    """`tune` for scores that are there already, by ascending value."""
    finite = {v: s if math.isfinite(s) else math.inf for v, s in scores.items()}
    value = min(finite, key=lambda v: finite[v])
    ends = (min(finite), max(finite))
    return Tuned(value, value in ends or finite[value] == math.inf)


def geometric_grid(low: float, high: float, points: int) -> tuple[float, ...]:
    """Points at equal ratios from `low` to `high`, rounded to three digits as they are printed.

    Examples
    --------
    >>> geometric_grid(0.001, 1.0, 4)
    (0.001, 0.01, 0.1, 1.0)
    """
    ratio = (high / low) ** (1 / (points - 1))
    return tuple(float(f"{low * ratio**i:.3g}") for i in range(points))
