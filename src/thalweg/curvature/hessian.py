"""Hessian-vector products of one batch: reverse over reverse, or forward over reverse."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from thalweg.curvature.graphs import BatchGraph, BatchwiseProducts
from thalweg.curvature.objective import Objective


def hessian_products(objective: Objective, x: Tensor) -> BatchwiseProducts:
    r"""Return the map :math:`V \mapsto \nabla^2 f(x)\, V`.

    Reverse over reverse, :math:`H v = \nabla \langle \nabla f, v \rangle`: the graph of the
    gradient is built once per batch and serves all vectors; after sixteen of them a kept graph is
    replaced by a record of its backward pass (see `thalweg.curvature.tape`). For batches whose
    graph exceeds ``objective.memory``, forward over reverse,
    :math:`H v = \partial_t \nabla f(x + t v)`, which frees its graph as it goes.

    Parameters
    ----------
    objective
        What is differentiated.
    x
        Flat vector ``(d,)``.

    Examples
    --------
    >>> from thalweg import Training
    >>> x = torch.tensor([2.0, 3.0])
    >>> objective = Objective(Training.from_function(lambda x: x.prod(), x))
    >>> hessian_products(objective, x)(torch.eye(2)).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    leaves = objective.leaves(x)  # of all graphs
    return BatchwiseProducts(
        objective,
        x,
        functools.partial(GradientGraph, objective, leaves),
        functools.partial(forward_over_reverse, objective, x),
    )


class GradientGraph(BatchGraph):
    """The gradient of one batch's weighted loss, with its graph."""

    def __init__(
        self,
        objective: Objective,
        leaves: list[Tensor],
        batch: Any,
        weight: float,
        together: int = 1,
    ) -> None:
        super().__init__(objective, together)
        self.leaves = leaves
        loss = objective.loss(self.leaves, batch) * weight
        gradient = objective.derivative(loss, self.leaves, create_graph=True)
        # a gradient without a graph is constant: its rows of the Hessian are zero
        self.rows = [i for i, g in enumerate(gradient) if g.requires_grad]
        self.gradient = [gradient[i] for i in self.rows]

    def products(self, v: Sequence[Tensor], batched: bool) -> Sequence[Tensor | None]:
        if not self.rows:
            return [None] * len(v)
        return torch.autograd.grad(
            self.gradient,
            self.leaves,
            [v[i] for i in self.rows],
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=batched,
        )

    def release(self) -> None:
        self.gradient = []


def forward_over_reverse(
    objective: Objective, x: Tensor, batch: Any, weight: float, V: Tensor, total: Tensor
) -> None:
    """Add ``weight * H v`` of one batch for each row v of `V`, one after another."""
    for v, out in zip(V, total):
        leaves = objective.leaves(x)
        with forward_ad.dual_level():
            dual = [forward_ad.make_dual(p, t) for p, t in zip(leaves, objective.split(v))]
            gradient = objective.derivative(objective.loss(dual, batch), leaves)
            for part, g in zip(objective.split(out), gradient):
                tangent = forward_ad.unpack_dual(g).tangent
                if tangent is not None:
                    part.add_(tangent, alpha=weight)
