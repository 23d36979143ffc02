"""Generalized Gauss-Newton products: Jacobian, a curvature in the outputs, Jacobian transposed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.curvature import outputs
from thalweg.curvature.graphs import BatchGraph, BatchwiseProducts
from thalweg.curvature.objective import Objective


class Jacobian:
    r"""The Jacobian J of tensors z in the leaves they were computed from; products with J and Jᵀ.

    :math:`J^\top u` is a backward pass. It is linear in u, so differentiating it in u gives
    :math:`J v = \partial_u \langle J^\top u, v \rangle`: two backward passes through kept graphs
    and no forward mode.

    Parameters
    ----------
    z
        Tensors with a graph to the leaves.
    leaves
        The parameters.

    Examples
    --------
    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> J = Jacobian([x**2], [x])
    >>> J.times([torch.ones(2)])[0].tolist(), J.transposed_times([torch.ones(2)])[0].tolist()
    ([2.0, 4.0], [2.0, 4.0])
    """

    def __init__(self, z: Sequence[Tensor], leaves: Sequence[Tensor]) -> None:
        self.z, self.leaves = list(z), list(leaves)
        self._u = [torch.zeros_like(t).requires_grad_() for t in self.z]
        self._flows = any(t.requires_grad for t in self.z)
        backward: Sequence[Tensor | None] = [None] * len(self.leaves)
        if self._flows:
            backward = torch.autograd.grad(
                self.z, self.leaves, self._u, create_graph=True, allow_unused=True
            )
        self._used = [i for i, g in enumerate(backward) if g is not None and g.requires_grad]
        self._backward = [g for g in backward if g is not None and g.requires_grad]

    def times(self, v: Sequence[Tensor], batched: bool = False) -> list[Tensor]:
        """``J v``, shaped like z; `batched`: for many v, in a dimension in front."""
        found: Sequence[Tensor | None] = [None] * len(self.z)
        if self._used:
            found = torch.autograd.grad(
                self._backward,
                self._u,
                [v[i] for i in self._used],
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=batched,
            )
        lead = v[0].shape[:1] if batched else ()
        return [t.new_zeros(*lead, *t.shape) if p is None else p for t, p in zip(self.z, found)]

    def transposed_times(self, u: Sequence[Tensor], batched: bool = False) -> list[Tensor | None]:
        """``Jᵀ u``, shaped like the leaves; None for those z does not depend on."""
        if not self._flows:
            return [None] * len(self.leaves)
        return list(
            torch.autograd.grad(
                self.z,
                self.leaves,
                u,
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=batched,
            )
        )

    def release(self) -> None:
        """Let go of the graphs: there will be no more products."""
        self.z, self._u, self._backward = [], [], []


class OutputGraph(BatchGraph):
    """The products ``Jᵀ B J v`` of one batch, B a symmetric map in one output."""

    def __init__(
        self,
        objective: Objective,
        jacobian: Jacobian,
        inner: Callable[[Tensor], Tensor],
        together: int = 1,
    ) -> None:
        super().__init__(objective, together)
        self.jacobian, self.inner = jacobian, inner

    def products(self, v: Sequence[Tensor], batched: bool) -> Sequence[Tensor | None]:
        (Jv,) = self.jacobian.times(v, batched)
        u = torch.vmap(self.inner)(Jv) if batched else self.inner(Jv)
        return self.jacobian.transposed_times([u], batched)

    def release(self) -> None:
        self.jacobian.release()


class _AnyLoss(BatchGraph):
    r"""The products of one batch for a loss :math:`\ell(z, x)` torch must differentiate itself.

    The loss may use the parameters directly too (a penalty): they count as outputs whose Jacobian
    is the identity.
    """

    def __init__(
        self,
        objective: Objective,
        leaves: list[Tensor],
        direct: list[Tensor],
        batch: Any,
        weight: float,
        together: int = 1,
    ) -> None:
        super().__init__(objective, together)
        z, tree, floating = _outputs(objective, leaves, batch)
        self.jacobian = Jacobian([z[i] for i in floating], leaves) if floating else None
        held = [t.detach() if isinstance(t, Tensor) else t for t in z]
        for i in floating:
            held[i].requires_grad_()
        self.inputs = [*(held[i] for i in floating), *direct]
        again = pytree.tree_unflatten(held, tree)
        f = objective.scalar(objective.call(direct, lambda: _loss(objective, again, batch)))
        gradient = objective.derivative(f * weight, self.inputs, create_graph=True)
        self.rows = [i for i, g in enumerate(gradient) if g.requires_grad]
        self.gradient = [gradient[i] for i in self.rows]
        self.count = len(floating)
        if self.count and f.requires_grad and not any(i < self.count for i in self.rows):
            raise ValueError(
                "the loss is linear in the model's outputs, so that its Gauss-Newton matrix is "
                "zero: return the outputs from the model and compute the loss from them in `loss`"
            )

    def products(self, v: Sequence[Tensor], batched: bool) -> Sequence[Tensor | None]:
        if not self.rows:
            return [None] * len(v)
        u = [*(self.jacobian.times(v, batched) if self.jacobian else []), *v]
        curved = torch.autograd.grad(
            self.gradient,
            self.inputs,
            [u[i] for i in self.rows],
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=batched,
        )
        direct = curved[self.count :]
        if self.jacobian is None:
            return direct
        inner = [torch.zeros_like(t) if c is None else c for t, c in zip(u, curved[: self.count])]
        through = self.jacobian.transposed_times(inner, batched)
        return [b if a is None else a if b is None else a + b for a, b in zip(through, direct)]

    def release(self) -> None:
        self.gradient = []
        if self.jacobian is not None:
            self.jacobian.release()


def gauss_newton_products(objective: Objective, x: Tensor) -> BatchwiseProducts:
    r"""Return the map :math:`V \mapsto G V`, :math:`G = \frac1n \sum_i J_i^\top H_i J_i`.

    Parameters
    ----------
    objective
        Whose outputs and loss they are.
    x
        Flat vector ``(d,)``.

    Examples
    --------
    >>> from torch import nn
    >>> from thalweg import Training
    >>> model = nn.Linear(1, 1, bias=False)
    >>> training = Training(model, nn.functional.mse_loss, [(torch.ones(4, 1), torch.zeros(4, 1))])
    >>> objective = Objective(training)
    >>> gauss_newton_products(objective, objective.start)(torch.ones(1)).tolist()
    [2.0]
    """
    likelihood = outputs.of(objective.training.loss)
    leaves, direct = objective.leaves(x), objective.leaves(x)  # of all graphs

    def build(batch: Any, weight: float, together: int) -> BatchGraph:
        if likelihood is None or batch is None or isinstance(batch, Mapping):
            return _AnyLoss(objective, leaves, direct, batch, weight, together)
        z, y, jacobian = output_and_target(objective, leaves, batch)

        def inner(u: Tensor) -> Tensor:
            return weight * likelihood.hessian_product(z, y, u)

        return OutputGraph(objective, jacobian, inner, together)

    return BatchwiseProducts(objective, x, build)


def output_and_target(
    objective: Objective, leaves: list[Tensor], batch: Any
) -> tuple[Tensor, Tensor, Jacobian]:
    """The output tensor of a batch ``(inputs, target)``, detached, its target, its Jacobian."""
    inputs, y = batch
    z = objective.call(leaves, lambda: objective.training.model(inputs))
    if not isinstance(z, Tensor):
        raise TypeError(
            f"{objective.training.loss} needs a model that returns a tensor, got {type(z).__name__}"
        )
    objective.scalar(objective.training.loss(z.detach(), y))
    return z.detach(), y, Jacobian([z], leaves)


def _outputs(
    objective: Objective, leaves: Sequence[Tensor], batch: Any
) -> tuple[list[Any], Any, list[int]]:
    model = objective.training.model

    def run() -> Any:
        if batch is None:
            return model()
        return model(**batch) if isinstance(batch, Mapping) else model(batch[0])

    z, tree = pytree.tree_flatten(objective.call(leaves, run))
    return z, tree, [i for i, t in enumerate(z) if isinstance(t, Tensor) and t.requires_grad]


def _loss(objective: Objective, output: Any, batch: Any) -> Tensor:
    if batch is None or isinstance(batch, Mapping):
        return objective.training.loss(output, batch)
    return objective.training.loss(output, batch[1])
