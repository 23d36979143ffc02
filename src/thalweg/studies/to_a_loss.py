"""Training until a loss is reached, so that minima of one loss are compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from thalweg.optim import SGD
from thalweg.studies.networks import SeededMLP, digits, losses, rows_of_steps


def trained_to(
    target: float,
    hidden: Sequence[int],
    steps: int,
    seeds: Sequence[int],
    batch: int,
    lr: float,
) -> list[tuple[nn.Sequential, int]]:
    """SGD until each seed's loss over the training digits is at the target: network, and steps.

    Parameters
    ----------
    target
        The mean cross-entropy to get to.
    hidden
        Widths of the hidden layers.
    steps
        The most steps; a network that does not get there comes with 0 steps.
    seeds
        One network each.
    batch
        Rows of a step; all of the training digits: full-batch gradient descent.
    lr
        Step size.

    Examples
    --------
    >>> ((network, steps),) = trained_to(2.0, [8], steps=200, seeds=[0], batch=32, lr=0.3)
    >>> 0 < steps < 200
    True
    """
    x, y = digits().train
    whole = tuple(t.expand(len(seeds), *t.shape) for t in (x, y))
    model = SeededMLP((64, *hidden, 10), seeds)
    optimizer = SGD(model.parameters(), lr=lr)
    every = max(1, min(16, 320 // batch))
    ends: dict[int, tuple[nn.Sequential, int]] = {}
    # full batches come in order, so that they are the whole set each time
    rows = None if batch == len(x) else rows_of_steps(len(x), batch, steps, seeds)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        inputs, labels = whole if rows is None else (x[rows[step - 1]], y[rows[step - 1]])
        losses(model(inputs), labels).sum().backward()
        optimizer.step()
        if step % every == 0:
            with torch.no_grad():
                loss = losses(model(whole[0]), whole[1])
            for s in (loss <= target).nonzero()[:, 0].tolist():
                if s not in ends:
                    ends[s] = (single(model, s), step)
            if len(ends) == len(seeds) or not torch.isfinite(loss).any():
                break
    return [ends.get(s, (single(model, s), 0)) for s in range(len(seeds))]


def single(model: SeededMLP, index: int) -> nn.Sequential:
    """The network of one seed, a copy, as an ordinary one.

    Examples
    --------
    >>> model, x = SeededMLP((64, 8, 10), seeds=[0, 1]), torch.rand(3, 64)
    >>> torch.allclose(single(model, 1)(x), model(x.expand(2, 3, 64))[1], atol=1e-6)
    True
    """
    layers: list[nn.Module] = []
    for w, b in zip(model.weights, model.biases, strict=True):
        layer = nn.Linear(*w.shape[1:])
        with torch.no_grad():
            layer.weight.copy_(w[index].T)
            layer.bias.copy_(b[index, 0])
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
