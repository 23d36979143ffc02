"""Fisher products with labels drawn from the model (sampled) or those of the data (empirical)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.curvature import outputs
from thalweg.curvature.gauss_newton import Jacobian, OutputGraph, output_and_target
from thalweg.curvature.graphs import BatchwiseProducts
from thalweg.curvature.objective import Objective, rows


def sampled_fisher_products(
    objective: Objective, x: Tensor, samples: int, seed: int
) -> BatchwiseProducts:
    r"""Return the map of :math:`\frac{1}{nm} \sum_{i,j} s_{ij} s_{ij}^\top`, m labels per row.

    The labels of batch b are a function of (seed, b) alone: the operator is one fixed matrix.

    Parameters
    ----------
    objective
        Whose loss must be a likelihood (see `thalweg.curvature.outputs.of`).
    x
        Flat vector ``(d,)``.
    samples
        Labels drawn per row, m.
    seed
        Of the draws.

    Examples
    --------
    >>> from torch import nn
    >>> from thalweg import Training
    >>> data = [(torch.ones(9, 1), torch.zeros(9, dtype=torch.int64))]
    >>> objective = Objective(Training(nn.Linear(1, 2), nn.functional.cross_entropy, data))
    >>> F = sampled_fisher_products(objective, objective.start, samples=1, seed=0)
    >>> bool(torch.ones(4) @ F(torch.ones(4)) >= 0)
    True
    """
    likelihood = likelihood_of(objective)
    leaves = objective.leaves(x)  # of all graphs

    def build(batch: Any, weight: float, together: int) -> OutputGraph:
        z, y, jacobian = output_and_target(objective, leaves, pair(batch))
        generator = generator_of(objective, seed)
        draws = [likelihood.drawn(z, y, generator) for _ in range(samples)]

        def inner(u: Tensor) -> Tensor:
            total = torch.zeros_like(u)
            for s in draws:
                total += s * inner_products(s, u)
            return total * (weight / samples)

        return OutputGraph(objective, jacobian, inner, together)

    return BatchwiseProducts(objective, x, build)


def empirical_fisher_products(objective: Objective, x: Tensor) -> BatchwiseProducts:
    r"""Return the map of :math:`\frac1n \sum_i g_i g_i^\top`, :math:`g_i` the gradient of row i.

    Parameters
    ----------
    objective
        Whose batch loss must be the mean over the rows of the losses of the single rows.
    x
        Flat vector ``(d,)``.

    Examples
    --------
    >>> from torch import nn
    >>> from thalweg import Training
    >>> data = [(torch.eye(2), torch.ones(2, 1))]
    >>> model = nn.Linear(2, 1, bias=False)
    >>> objective = Objective(Training(model, nn.functional.mse_loss, data))
    >>> empirical_fisher_products(objective, torch.zeros(2))(torch.ones(2)).tolist()
    [2.0, 2.0]
    """

    leaves = objective.leaves(x)  # of all graphs

    def build(batch: Any, weight: float, together: int) -> OutputGraph:
        losses = row_losses(objective, leaves, batch)
        jacobian = Jacobian([losses], leaves)
        n = len(losses)
        return OutputGraph(objective, jacobian, lambda u: u * (weight / n), together)

    return BatchwiseProducts(objective, x, build)


def row_losses(objective: Objective, leaves: list[Tensor], batch: Any) -> Tensor:
    """The losses of the rows of a batch ``(n,)``, with their graph.

    One run of the model for the losses torch defines, else one run per row. Their mean must be
    the loss of the batch.
    """
    likelihood = outputs.of(objective.training.loss)
    if likelihood is not None and batch is not None and not isinstance(batch, Mapping):
        inputs, y = batch
        each = objective.call(
            leaves, lambda: likelihood.per_row(objective.training.model(inputs), y)
        )
        losses = each.reshape(len(each), -1).mean(1) if each.dim() > 1 else each.reshape(-1)
    else:
        losses = torch.stack([objective.loss(leaves, row) for row in single_rows(batch)])
    together = objective.loss(leaves, batch).detach()
    apart = (losses.detach().mean() - together).abs()
    tol = 1e-4 if losses.dtype == torch.float32 else 1e-8
    if apart > tol * torch.maximum(together.abs(), losses.detach().abs().max()):
        raise ValueError(
            "the loss of a batch must be the mean over its rows for gradients per row, got "
            f"{float(together):.6g} where the mean is {float(losses.detach().mean()):.6g} (a sum "
            "over rows, weights, ignored labels, or layers that couple rows)"
        )
    return losses


def single_rows(batch: Any) -> list[Any]:
    """The rows of a batch, each as a batch of one."""
    n = int(rows(batch))
    if batch is None or n == 1:
        return [batch]
    leaves, tree = pytree.tree_flatten(dict(batch) if isinstance(batch, Mapping) else batch)

    def row(i: int) -> list[Any]:
        return [
            t[i : i + 1] if isinstance(t, Tensor) and t.dim() > 0 and len(t) == n else t
            for t in leaves
        ]

    return [pytree.tree_unflatten(row(i), tree) for i in range(n)]


def likelihood_of(objective: Objective) -> outputs.Likelihood:
    """The likelihood the loss is; a ValueError if it is none."""
    likelihood = outputs.of(objective.training.loss)
    if likelihood is None:
        raise ValueError(
            "loss must be cross_entropy, mse_loss or binary_cross_entropy_with_logits of torch "
            "(function or module, averaged, without weights or smoothing) for labels drawn from "
            f"the model, got {objective.training.loss!r}"
        )
    return likelihood


def pair(batch: Any) -> Any:
    """`batch` if it is ``(inputs, target)``, else a TypeError."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise TypeError(f"batches must be pairs (inputs, target), got {type(batch).__name__}")
    return batch


def generator_of(objective: Objective, seed: int) -> torch.Generator:
    """The generator of the labels of the batch being read: of seed, process and position."""
    rank = 0 if objective.group is None else torch.distributed.get_rank(objective.group)
    mixed = numpy.random.SeedSequence((seed, rank, objective.position))
    state = int(mixed.generate_state(1, numpy.uint64)[0] >> 1)
    return torch.Generator(objective.device).manual_seed(state)


def inner_products(s: Tensor, u: Tensor) -> Tensor:
    """The inner product of each row of s with that of u, shaped to multiply with s."""
    if s.dim() <= 1:
        return s * u if s.dim() == 0 else (s * u).sum()
    return (s * u).flatten(1).sum(1).view(-1, *[1] * (s.dim() - 1))
