"""The gradient over the whole data set in double precision, and how well it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.curvature.objective import Objective, rows

# a difference beyond this, relative, is no rounding: the loss is no mean over rows
_COUPLED = {torch.float64: 1e-9, torch.float32: 1e-3}


@dataclass(frozen=True)
class MeasuredGradient:
    r"""A gradient with its error.

    Attributes
    ----------
    vector
        g, ``(d,)``, in the dtype of the objective.
    norm
        :math:`\|g\|`.
    noise
        :math:`\nu_g`: the distance between the gradients of two groupings of the rows, at least
        the rounding unit times `mean_batch_norm`.
    mean_batch_norm, largest_batch_norm
        Of the gradients of the single batches.
    """

    vector: Tensor
    norm: float
    noise: float
    mean_batch_norm: float
    largest_batch_norm: float


def measured_gradient(objective: Objective) -> MeasuredGradient:
    r"""Sum the gradient in double precision, twice: by whole batches and by their halves.

    .. math:: g = \frac{\sum_b w_b g_b}{\sum_b w_b}, \qquad
              \nu_g = \max(\|g - g'\|,\ u \operatorname{mean}_b \|g_b\|)

    Where the two differ by more than rounding can explain (a loss that is no mean over rows, or
    batch statistics), the second grouping says nothing and is left out.

    Parameters
    ----------
    objective
        f, at the parameters the model holds.

    Examples
    --------
    >>> from thalweg import Training
    >>> training = Training.from_function(lambda x: (x**2).sum() / 2, torch.tensor([3.0, 4.0]))
    >>> measured_gradient(Objective(training)).norm
    5.0
    """
    leaves = objective.leaves()
    whole = torch.zeros(objective.d, dtype=torch.float64, device=objective.device)
    halved = torch.zeros_like(whole)
    total, total_halved, norms, largest = 0.0, 0.0, 0.0, 0.0
    with objective.measuring():
        for batch, weight in objective.batches():
            g = objective.flat(objective.derivative(objective.loss(leaves, batch), leaves))
            norm = float(g.norm())
            whole.add_(g, alpha=weight)
            total, norms, largest = total + weight, norms + weight * norm, max(largest, norm)
            parts = halves(batch) if objective.mode == "eval" else None
            for part in parts or (batch,):
                share = weight if parts is None else weight * rows(part) / rows(batch)
                if parts is not None:
                    f = objective.loss(leaves, part)
                    g = objective.flat(objective.derivative(f, leaves))
                halved.add_(g, alpha=share)
                total_halved += share
    sums = objective.summed(torch.tensor([total, norms], dtype=torch.float64))
    total, norms = sums.tolist()
    total = objective.all_rows(total)
    if objective.group is not None:
        most = torch.tensor(largest, dtype=torch.float64, device=objective.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX, group=objective.group)
        largest = float(most)
    g = objective.summed(whole).div_(total)
    apart = float((g - objective.summed(halved).div_(total)).norm())
    scale = norms / total
    floor = torch.finfo(objective.dtype).eps * scale
    if apart > _COUPLED[objective.dtype] * scale:
        apart = 0.0
    return MeasuredGradient(
        g.to(objective.dtype), float(g.norm()), max(apart, floor), scale, largest
    )


def halves(batch: Any) -> tuple[Any, Any] | None:
    """A batch in two parts along its rows; None for a batch that has no rows to part.

    Examples
    --------
    >>> halves((torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])))
    ((tensor([1]), tensor([4])), (tensor([2, 3]), tensor([5, 6])))
    """
    n = int(rows(batch)) if batch is not None else 1
    if n < 2:
        return None
    leaves, tree = pytree.tree_flatten(dict(batch) if isinstance(batch, Mapping) else batch)
    if not all(isinstance(t, Tensor) and t.dim() > 0 and len(t) == n for t in leaves):
        return None
    first = pytree.tree_unflatten([t[: n // 2] for t in leaves], tree)
    return first, pytree.tree_unflatten([t[n // 2 :] for t in leaves], tree)
