"""Products with sums over batches, from graphs that are kept while they fit in memory."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from thalweg.curvature.objective import Objective
from thalweg.curvature.tape import Record, record

# the graph of a gradient holds about this many times what the graph of the loss holds
_OF_THE_GRADIENT = 3


# below this size (bytes of the loss's graph, on a CPU) the calls cost more than the arithmetic, and
# vectors are sent through a graph together; above it one at a time is faster (measured: on the
# digits network they are equal at 300 rows, and at 1,797 together takes 1.6 times as long)
_SMALL = 2**18
_TOGETHER = 16
# a record costs about as much as three products and saves a fifth of each that follows: it is made
# when so many vectors have been multiplied that more are likely to come
_WORTH_RECORDING = 16


class BatchGraph(ABC):
    """What one batch contributes to a matrix, ready to be multiplied with many vectors.

    A kept graph that vectors go through one at a time is replaced by a record of what it does
    (see `thalweg.curvature.tape`) after sixteen of them.

    Parameters
    ----------
    objective
        Whose batch it is.
    together
        How many vectors go through the graph at once.
    """

    def __init__(self, objective: Objective, together: int = 1) -> None:
        self.objective = objective
        self.together = together
        self.kept = False  # for further products, and there is memory left for as much again
        self._served = 0
        self._record: Record | None = None

    @abstractmethod
    def products(self, v: Sequence[Tensor], batched: bool) -> Sequence[Tensor | None]:
        """The products with `v`, shaped like the parameters; `batched`: a dimension in front."""

    @abstractmethod
    def release(self) -> None:
        """Let go of the graph: `products` will not be called any more."""

    def add_products(self, V: Tensor, total: Tensor) -> None:
        """Add the product with each row of `V` to the same row of `total`."""
        for V_, total_ in zip(V.split(_TOGETHER), total.split(_TOGETHER)):
            if self._record is None or self.together > 1:
                self._add_products(V_, total_)
            else:
                self._replay(self._record, V_, total_)

    def _replay(self, record: Record, V: Tensor, total: Tensor) -> None:
        arguments, results = self.objective.split(V), self.objective.split(total)
        vectors = zip(*(t.unbind() for t in arguments))
        memory = record.memory()
        for v, parts in zip(vectors, zip(*(t.unbind() for t in results))):
            found = [(part, p) for part, p in zip(parts, record(v, memory)) if p is not None]
            torch._foreach_add_([part for part, _ in found], [product for _, product in found])
        record.add_folded(arguments, results)
        self._served += len(V)
        after = record.pays_after
        if after is not None and self._served >= _WORTH_RECORDING + after:
            record.fold()

    def _add_products(self, V: Tensor, total: Tensor) -> None:
        start = 0
        while start < len(V):
            stop = min(start + self.together, len(V))
            rows = slice(start, stop) if stop > start + 1 else start
            try:
                found = self._quietly(V[rows])
            except (RuntimeError, UserWarning):
                if stop == start + 1:
                    raise
                self.together = 1  # an operation that cannot be batched
                continue
            for part, product in zip(self.objective.split(total[rows]), found):
                if product is not None:
                    part.add_(product)
            start = stop

    def _quietly(self, v: Tensor) -> Sequence[Tensor | None]:
        parts = self.objective.split(v)
        if v.ndim == 1:
            return self._one(parts)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*batching rule.*")
            return self.products(parts, batched=True)

    def _one(self, v: list[Tensor]) -> Sequence[Tensor | None]:
        if self._record is not None:
            return self._record(v)
        self._served += self.kept
        if self._served == _WORTH_RECORDING:
            self._record = record(lambda v: self.products(v, batched=False), v)
            if self._record is not None and self.together == 1:
                self.release()
                return self._record(v)
        return self.products(v, batched=False)


Build = Callable[[Any, float, int], BatchGraph]
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
        ``build(batch, weight, together)``, the graph of one batch, weighted, through which so
        many vectors go at once.
    lean
        ``lean(batch, weight, V, total)``, the same products with less memory, for batches whose
        graph alone does not fit. Default: there is no such way.

    Examples
    --------
    >>> from thalweg import Training
    >>> objective = Objective(Training.from_function(lambda x: x.sum(), torch.zeros(2)))
    >>> class Twice(BatchGraph):
    ...     def products(self, v, batched):
    ...         return [2 * part for part in v]
    ...     def release(self):
    ...         pass
    >>> build = lambda batch, weight, together: Twice(objective, together)
    >>> BatchwiseProducts(objective, objective.start, build)(torch.ones(2))
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

    @torch.inference_mode(False)
    def __call__(self, v: Tensor) -> Tensor:
        """The product with ``(d,)`` or with the columns of ``(d, k)``."""
        v = v.clone() if v.is_inference() else v
        V = v.T.contiguous() if v.ndim == 2 else v.unsqueeze(0)
        total = torch.zeros_like(V)
        if self._kept is None:
            self._pass(V, total)
        else:
            with torch.autocast(self.objective.device.type, enabled=False):
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
                    per_row = saved_bytes(objective, self.x, batch) / max(weight, 1e-300)
                # the graph, and the gradient with what it is made of
                here = _OF_THE_GRADIENT * per_row * weight + 2 * self.x.nbytes
                spent += here
                if spent > objective.memory:
                    self._keeping = False
                    kept.clear()
                if here > objective.memory and self._leanly(batch, weight, V, total):
                    continue
                small = per_row * weight < _SMALL or objective.device.type != "cpu"
                fits = _TOGETHER * here <= objective.memory
                graph = self._build(batch, weight, _TOGETHER if small and fits else 1)
                graph.add_products(V, total)
                if self._keeping:
                    kept.append(graph)
                    graph.kept = spent + here <= objective.memory
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
