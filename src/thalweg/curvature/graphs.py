"""Products with sums over batches, from graphs that are kept while they fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from thalweg.curvature.objective import Objective

# the graph of a gradient holds about this many times what the graph of the loss holds
_OF_THE_GRADIENT = 3


class BatchGraph(Protocol):
    """What one batch contributes to a matrix, ready to be multiplied with many vectors."""

    def add_products(self, V: Tensor, total: Tensor) -> None:
        """Add the product with each row of `V` to the same row of `total`."""


Build = Callable[[Any, float], BatchGraph]
Lean = Callable[[Any, float, Tensor, Tensor], None]


class BatchwiseProducts:
    r"""The map :math:`V \mapsto \frac{1}{\sum_b w_b} \sum_b A_b V` over the batches b.

    The graph of each batch serves all vectors of a block. If the graphs of all batches fit in
    ``objective.memory`` together they are kept, and later products run no model at all; otherwise
    each is dropped before the next is built, so memory does not grow with the data.

    Parameters
    ----------
    objective
        Whose batches they are.
    x
        The flat vector they belong to.
    build
        ``build(batch, weight)``, the graph of one batch, weighted.
    lean
        ``lean(batch, weight, V, total)``, the same products with less memory, for batches whose
        graph alone does not fit. Default: there is no such way.

    Examples
    --------
    >>> from thalweg import Training
    >>> objective = Objective(Training.from_function(lambda x: x.sum(), torch.zeros(2)))
    >>> class Twice:
    ...     def add_products(self, V, total):
    ...         total += 2 * V
    >>> BatchwiseProducts(objective, objective.start, lambda batch, w: Twice())(torch.ones(2))
    tensor([2., 2.])
    """

    def __init__(
        self, objective: Objective, x: Tensor, build: Build, lean: Lean | None = None
    ) -> None:
        self.objective = objective
        self.x = x.detach().clone()
        self._build, self._lean = build, lean
        self._buffers = [b.detach().clone() for b in objective.training.model.buffers()]
        self._kept: list[BatchGraph] | None = None
        self._keeping = True
        self._rows = 0.0

    def holds(self, x: Tensor) -> bool:
        """Are these the products at `x`, and at the buffers the model holds now?"""
        now = list(self.objective.training.model.buffers())
        return torch.equal(self.x, x) and all(map(torch.equal, self._buffers, now))

    def __call__(self, v: Tensor) -> Tensor:
        """The product with ``(d,)`` or with the columns of ``(d, k)``."""
        V = v.T.contiguous() if v.ndim == 2 else v.unsqueeze(0)
        total = torch.zeros_like(V)
        if self._kept is None:
            self._pass(V, total)
        else:
            for graph in self._kept:
                graph.add_products(V, total)
        product = self.objective.summed(total).div_(self._rows)
        return product.T if v.ndim == 2 else product[0]

    def _pass(self, V: Tensor, total: Tensor) -> None:
        objective = self.objective
        kept: list[BatchGraph] = []
        spent, rows = 0.0, 0.0
        per_row: float | None = None
        with objective.measuring():
            for batch, weight in objective.batches():
                rows += weight
                if per_row is None:
                    graph_bytes = _OF_THE_GRADIENT * saved_bytes(objective, self.x, batch)
                    per_row = graph_bytes / max(weight, 1e-300)
                spent += per_row * weight
                if spent > objective.memory:
                    self._keeping = False
                    kept.clear()
                too_large = per_row * weight > objective.memory
                if too_large and self._leanly(batch, weight, V, total):
                    continue
                graph = self._build(batch, weight)
                graph.add_products(V, total)
                if self._keeping:
                    kept.append(graph)
                del graph  # before the next one is built
        summed = objective.summed(torch.tensor([rows], dtype=torch.float64))
        self._rows = objective.all_rows(float(summed))
        if self._keeping:
            self._kept = kept

    def _leanly(self, batch: Any, weight: float, V: Tensor, total: Tensor) -> bool:
        """Add the products in the lean way, if there is one and torch can go it."""
        if self._lean is None:
            return False
        part = torch.zeros_like(total)
        try:
            self._lean(batch, weight, V, part)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # an operation of the model without forward mode
            self._lean = None
            return False
        total += part
        return True


def saved_bytes(objective: Objective, x: Tensor, batch: Any) -> int:
    """Bytes that the graph of a batch's loss holds, the parameters aside."""
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
        raise RuntimeError("this graph was built to be measured, not to be used")

    with saved_tensors_hooks(pack, unpack):
        objective.loss(leaves, batch)
    return count
