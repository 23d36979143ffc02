"""Diagonal of an operator, estimated or by unit vectors, and the trace that is its sum."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.core.estimate import Estimate
from thalweg.numeric.estimate import OperatorEstimate, StoppingRule
from thalweg.numeric.operator import LinearOperator
from thalweg.numeric.probes import block, computable, finite, rademacher


def diagonal(
    operator: LinearOperator,
    products: int = 100,
    *,
    memory: int = 2**31,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Diagonal, by the estimator of Bekas, Kokiopoulou and Saad.

    .. math:: D = \frac{\sum_k v_k \odot A v_k}{\sum_k v_k \odot v_k}, \qquad
        \operatorname{Var} D_i = \frac1m \sum_{j \ne i} A_{ij}^2

    with entries of v +1 or -1; the denominator is then m.

    Parameters
    ----------
    operator
        Real, float32 or float64, of order n.
    products
        m >= 2. From n on, n products with the unit vectors give the diagonal exactly. Default 100.
    memory, generator
        As for `hutchinson`.

    Returns
    -------
    Estimate
        `value` and `stderr` are tensors (n,), float64.

    Raises
    ------
    TypeError, ValueError
        As `hutchinson`.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> diagonal(as_operator(torch.tensor([[2.0, 1.0], [1.0, -3.0]]))).value.tolist()
    [2.0, -3.0]

    References
    ----------
    Bekas, Kokiopoulou & Saad, An estimator for the diagonal of a matrix, Applied Numerical
    Mathematics 57, 2007.
    """
    computable(operator)
    check.number("products", products, ge=2, integer=True)
    n, size = operator.shape[0], block(operator, memory)
    if products >= n:
        exact = exact_diagonal(operator, size)
        return Estimate(exact, torch.zeros_like(exact), n)
    generator = generator or torch.Generator().manual_seed(0)
    mean = torch.zeros(n, dtype=torch.float64, device=operator.device)
    squares = torch.zeros_like(mean)  # sum of squared deviations from the mean (Welford)
    for m in range(products):
        if m % size == 0:
            V = rademacher(operator, min(size, products - m), generator)
            sample = V.mul_(finite(operator @ V))
        deviation = sample[:, m % size].double() - mean
        mean += deviation / (m + 1)
        squares += deviation * (sample[:, m % size].double() - mean)
    return Estimate(mean, (squares / (products - 1) / products).sqrt(), products)


def exact_diagonal(operator: LinearOperator, size: int) -> Tensor:
    """The diagonal (n,) from products with the n unit vectors, `size` at a time, in float64.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> exact_diagonal(as_operator(torch.diag(torch.tensor([1.0, 2.0, 3.0]))), size=2).tolist()
    [1.0, 2.0, 3.0]
    """
    n = operator.shape[0]
    parts = []
    for first in range(0, n, size):
        k = min(size, n - first)
        units = torch.zeros(n, k, dtype=operator.dtype, device=operator.device)
        units[first : first + k].fill_diagonal_(1.0)
        parts.append(finite(operator @ units)[first : first + k].diagonal().double())
    return torch.cat(parts)


def exact_trace(operator: LinearOperator, *, memory: int = 2**31) -> OperatorEstimate:
    r"""Trace from the n products with the unit vectors, :math:`\sum_i e_i^T A e_i`.

    Parameters
    ----------
    operator
        Real, float32 or float64.
    memory
        Bytes for vectors. Default 2 GiB.

    Returns
    -------
    OperatorEstimate
        With standard error 0.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> print(exact_trace(as_operator(torch.tensor([[2.0, 1.0], [1.0, -3.0]]))).message)
    -1 (exact), exact, 2 products: converged
    """
    computable(operator)
    n = operator.shape[0]
    value = float(exact_diagonal(operator, block(operator, memory)).sum())
    return StoppingRule().told(Estimate(value, 0.0, n), "exact", n)
