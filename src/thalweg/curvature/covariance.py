"""Noise of the gradient: the covariance over rows, and the Gram matrix of the rows' gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, Unpack

import torch
from torch import Tensor, nn

from thalweg.core.problem import Training
from thalweg.curvature.fisher import empirical_fisher_products, row_losses, single_rows
from thalweg.curvature.gauss_newton import Jacobian
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import How, Operator, prepared

T = TypeVar("T")


def gradient_covariance(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    centered: bool = True,
    **how: Unpack[How],
) -> Operator:
    r"""Return the covariance of the gradient of one row.

    .. math:: C = \frac1n \sum_i g_i g_i^\top - \bar g \bar g^\top

    A gradient over a random batch of m rows, drawn with replacement, has covariance :math:`C / m`.

    Parameters
    ----------
    training
        The network, its loss (a mean over rows) and its data; or an `Objective`.
    parameters
        The unknowns. Default: all with ``requires_grad``.
    centered
        False: leave the second term out (the empirical Fisher matrix). Default True.
    **how
        See `Objective`.

    Returns
    -------
    Operator
        Symmetric, positive semidefinite.

    Raises
    ------
    ValueError
        If the loss of a batch is not the mean over its rows.

    Examples
    --------
    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.ones_(model.weight)
    >>> data = [(torch.ones(2, 1), torch.tensor([[0.0], [2.0]]))]  # gradients 2 and -2
    >>> C = gradient_covariance(Training(model, nn.functional.mse_loss, data))
    >>> (C @ torch.ones(1)).tolist()
    [4.0]
    """
    objective = prepared(training, parameters, how)
    x = objective.start
    moment = empirical_fisher_products(objective, x)
    if not centered:
        return Operator(objective, moment, "second moment of the gradient")
    mean = objective.gradient(x)

    def product(v: Tensor) -> Tensor:
        along = mean @ v
        return moment(v) - (mean * along if v.ndim == 1 else torch.outer(mean, along))

    return Operator(objective, product, "gradient covariance")


def gradient_gram(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    **how: Unpack[How],
) -> Gram:
    r"""Return the Gram matrix of the gradients of the rows.

    .. math:: K = \frac1n \Gamma \Gamma^\top, \qquad \Gamma = (g_1, \dots, g_n)^\top

    It has the non-zero eigenvalues of the empirical Fisher matrix :math:`\frac1n \Gamma^\top
    \Gamma`, and order n instead of d.

    Parameters
    ----------
    training
        The network, its loss (a mean over rows) and its data; or an `Objective`.
    parameters
        The unknowns. Default: all with ``requires_grad``.
    **how
        See `Objective`; all data in one process.

    Returns
    -------
    Gram
        An operator over vectors with an entry per row of the data, in their order.

    Raises
    ------
    ValueError
        If the loss of a batch is not the mean over its rows, or over several processes.

    Examples
    --------
    >>> data = [(torch.eye(2), torch.ones(2, 1))]
    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> K = gradient_gram(Training(model, nn.functional.mse_loss, data))
    >>> K.dense().tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    return Gram(prepared(training, parameters, how))


class Gram(Operator):
    """The operator of `gradient_gram`."""

    def __init__(self, objective: Objective) -> None:
        super().__init__(objective, self._multiply, "gradient Gram matrix")
        if objective.group is not None:
            raise ValueError("the data of a Gram matrix must be in one process, got a group")
        n = sum(len(part) for part in self._each(lambda losses, _: losses.detach()))
        self.shape = (n, n)

    @torch.inference_mode(False)
    def _multiply(self, v: Tensor) -> Tensor:
        n = self.shape[0]
        v = v.clone() if v.is_inference() else v
        V = v.unsqueeze(1) if v.ndim == 1 else v
        objective = self.objective
        combined = torch.zeros(V.shape[1], objective.d, dtype=self.dtype, device=self.device)
        start = 0
        for size, J in self._jacobians():
            for u, out in zip(V[start : start + size].T, combined):
                for part, g in zip(objective.split(out), J.transposed_times([u.contiguous()])):
                    if g is not None:
                        part.add_(g)
            start += size
        product = [
            torch.stack([J.times(objective.split(t))[0] for t in combined], dim=1)
            for _, J in self._jacobians()
        ]
        return (torch.cat(product) / n).view(v.shape)

    @torch.inference_mode(False)
    def gradients(self) -> Tensor:
        r"""The matrix :math:`\Gamma` of the rows' gradients, ``(n, d)``."""
        objective = self.objective
        found = []
        leaves = objective.leaves(self.x)
        with objective.measuring():
            for batch, _ in objective.batches():
                for row in single_rows(batch):
                    f = objective.loss(leaves, row)
                    found.append(objective.flat(objective.derivative(f, leaves)))
        return torch.stack(found)

    def dense(self) -> Tensor:
        """The matrix ``(n, n)``, by the rows' gradients if they fit in ``objective.memory``."""
        n, itemsize = self.shape[0], torch.empty(0, dtype=self.dtype).element_size()
        if n * self.objective.d * itemsize > self.objective.memory:
            return super().dense()
        gradients = self.gradients()
        return gradients @ gradients.T / n

    def _jacobians(self) -> Iterator[tuple[int, Jacobian]]:
        return self._each(lambda losses, leaves: (len(losses), Jacobian([losses], leaves)))

    def _each(self, what: Callable[[Tensor, list[Tensor]], T]) -> Iterator[T]:
        objective = self.objective
        with objective.measuring():
            for batch, _ in objective.batches():
                leaves = objective.leaves(self.x)
                yield what(row_losses(objective, leaves, batch), leaves)
