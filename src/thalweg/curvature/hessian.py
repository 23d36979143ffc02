"""Hessian-vector products over the whole data set: double backward, with kept graphs."""

from __future__ import annotations

from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from thalweg.curvature.objective import Objective

_DOUBLE = 3  # a graph of the gradient holds about this many times what the loss's graph holds


class HessianProducts:
    r"""The map :math:`V \mapsto \nabla^2 f(x)\, V` at one point x.

    Reverse over reverse, :math:`H v = \nabla \langle \nabla f, v \rangle`: the graph of the
    gradient is built once per batch and serves all vectors; if the graphs of all batches fit in
    ``objective.memory`` together they are kept, and later products run no model at all. If that of
    a single batch does not fit, forward over reverse, :math:`H v = \partial_t \nabla f(x + t v)`,
    which frees its graph as it goes.

    Parameters
    ----------
    objective
        What is differentiated.
    x
        Flat vector ``(d,)``.

    Examples
    --------
    >>> from thalweg import Training
    >>> training = Training.from_function(lambda x: x.prod(), torch.tensor([2.0, 3.0]))
    >>> products = HessianProducts(Objective(training), torch.tensor([2.0, 3.0]))
    >>> products(torch.eye(2)).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """

    def __init__(self, objective: Objective, x: Tensor) -> None:
        self.objective = objective
        self.x = x.detach().clone()
        self._buffers = [b.detach().clone() for b in objective.training.model.buffers()]
        self._kept: list[_GradientGraph] | None = None
        self._keeping = True
        self._rows = 0.0

    def holds(self, x: Tensor) -> bool:
        """Are these the products at `x` and at the buffers the model holds now?"""
        now = list(self.objective.training.model.buffers())
        return torch.equal(self.x, x) and all(map(torch.equal, self._buffers, now))

    def __call__(self, v: Tensor) -> Tensor:
        """``H v`` for ``(d,)`` or ``(d, k)``."""
        V = v.T.contiguous() if v.ndim == 2 else v.unsqueeze(0)
        total = torch.zeros_like(V)
        if self._kept is not None:
            for graph in self._kept:
                graph.add_products(V, total)
        else:
            self._pass(V, total)
        product = self.objective.summed(total).div_(self._rows)
        return product.T if v.ndim == 2 else product[0]

    def _pass(self, V: Tensor, total: Tensor) -> None:
        objective = self.objective
        kept: list[_GradientGraph] = []
        spent, rows = 0.0, 0.0
        per_row: float | None = None
        with objective.measuring():
            for batch, weight in objective.batches():
                rows += weight
                if per_row is None:
                    per_row = _DOUBLE * saved_bytes(objective, self.x, batch) / max(weight, 1e-300)
                here = per_row * weight
                if here > objective.memory:
                    forward_over_reverse(objective, self.x, batch, weight, V, total)
                    self._keeping, kept = False, []
                    continue
                graph = _GradientGraph(objective, self.x, batch, weight)
                graph.add_products(V, total)
                spent += here
                if spent > objective.memory:
                    self._keeping, kept = False, []
                if self._keeping:
                    kept.append(graph)
        summed = objective.summed(torch.tensor([rows], dtype=torch.float64))
        self._rows = objective.all_rows(float(summed))
        if self._keeping:
            self._kept = kept


class _GradientGraph:
    """The gradient of one batch's weighted loss with its graph; gives Hessian products."""

    def __init__(self, objective: Objective, x: Tensor, batch: Any, weight: float) -> None:
        self.objective = objective
        self.leaves = objective.leaves(x)
        loss = objective.loss(self.leaves, batch) * weight
        gradient = objective.derivative(loss, self.leaves, create_graph=True)
        # a gradient without a graph is constant: its rows of the Hessian are zero
        self.rows = [i for i, g in enumerate(gradient) if g.requires_grad]
        self.gradient = [gradient[i] for i in self.rows]

    def add_products(self, V: Tensor, total: Tensor) -> None:
        """Add ``H v`` for each row v of `V` to the rows of `total`."""
        if not self.rows:
            return
        for v, out in zip(V, total):
            parts = self.objective.split(v)
            products = torch.autograd.grad(
                self.gradient,
                self.leaves,
                [parts[i] for i in self.rows],
                retain_graph=True,
                allow_unused=True,
            )
            for part, product in zip(self.objective.split(out), products):
                if product is not None:
                    part.add_(product)


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


def saved_bytes(objective: Objective, x: Tensor, batch: Any) -> int:
    """Bytes the graph of a batch's loss holds, parameters and data aside."""
    leaves = objective.leaves(x)
    seen = {leaf.untyped_storage().data_ptr() for leaf in leaves}
    count = 0

    def pack(t: Tensor) -> None:
        nonlocal count
        storage = t.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            count += storage.nbytes()

    def unpack(_: None) -> Tensor:
        raise RuntimeError("the graph was built to be measured, not to be used")

    with saved_tensors_hooks(pack, unpack):
        objective.loss(leaves, batch)
    return count
