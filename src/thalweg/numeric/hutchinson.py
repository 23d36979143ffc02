"""Trace and Frobenius norm of an operator from random products: Hutchinson's estimators."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thalweg.core.estimate import Estimate
from thalweg.numeric.estimate import OperatorEstimate, StoppingRule, sample_until
from thalweg.numeric.operator import LinearOperator
from thalweg.numeric.probes import block, column_dots, computable, finite, rademacher


def hutchinson(
    operator: LinearOperator,
    rtol: float = 0.05,
    atol: float = 0.0,
    max_products: int = 100,
    *,
    memory: int = 2**31,
    generator: torch.Generator | None = None,
) -> OperatorEstimate:
    r"""Trace by Hutchinson's estimator, until Student's 95 % interval is narrow enough.

    .. math:: \operatorname{tr} A \approx \frac1m \sum_{i=1}^m v_i^T A v_i, \qquad
        \operatorname{Var} = \frac{2}{m} \Bigl(\|A\|_F^2 - \sum_i A_{ii}^2\Bigr)

    with entries of :math:`v_i` +1 or -1, each with probability 1/2 (the variance is that of a
    symmetric A).

    Parameters
    ----------
    operator
        Real, float32 or float64.
    rtol, atol, max_products
        Stop when the half-width is at most ``max(atol, rtol |value|)`` (`StoppingRule`; looked at
        after 10 products and every 5 more), or after `max_products`. ``rtol=0`` spends them all,
        unless every product gave the same. Defaults 0.05, 0, 100.
    memory
        Bytes for vectors: products are made in blocks of 10 where they fit. Default 2 GiB.
    generator
        Source of the probes. Default: a new one of seed 0; the global generators are not used.

    Returns
    -------
    OperatorEstimate
        `converged` is False if `max_products` came first.

    Raises
    ------
    TypeError
        If the operator is complex or of half precision.
    ValueError
        For an argument out of range, or a product that is not finite.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> A = as_operator(torch.diag(torch.tensor([3.0, -1.0, 0.5])))
    >>> print(hutchinson(A).message)  # of a diagonal matrix, one probe says it all
    2.5 (exact), hutchinson, 10 products: converged

    References
    ----------
    Hutchinson, A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
    splines, Communications in Statistics 18, 1989.
    """
    computable(operator)
    rule = StoppingRule(rtol, atol, max_products)
    generator = generator or torch.Generator().manual_seed(0)

    def draw(k: int) -> Tensor:
        V = rademacher(operator, k, generator)
        return column_dots(V, finite(operator @ V))

    samples = sample_until(rule, draw, most=rule.max_products, block=block(operator, memory))
    return rule.told(Estimate.of(samples), "hutchinson", len(samples))


def frobenius_norm(
    operator: LinearOperator,
    rtol: float = 0.05,
    atol: float = 0.0,
    max_products: int = 100,
    *,
    memory: int = 2**31,
    generator: torch.Generator | None = None,
) -> OperatorEstimate:
    r"""Frobenius norm, as the root of the mean squared length of random products.

    .. math:: \|A\|_F^2 = E\, \|A v\|^2, \qquad
        \mathrm{stderr}(\|A\|_F) = \frac{\mathrm{stderr}(\|A\|_F^2)}{2 \|A\|_F}

    The square is estimated without bias; the root is low by about :math:`\mathrm{stderr}^2 / (2
    \|A\|_F)`, far less than the error bar.

    Parameters
    ----------
    operator, rtol, atol, max_products, memory, generator
        As for `hutchinson`; the rule looks at the norm, not at its square.

    Returns
    -------
    OperatorEstimate

    Raises
    ------
    TypeError, ValueError
        As `hutchinson`.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> frobenius_norm(as_operator(torch.diag(torch.tensor([3.0, -4.0])))).value
    5.0
    """
    computable(operator)
    rule = StoppingRule(rtol, atol, max_products)
    generator = generator or torch.Generator().manual_seed(0)

    def draw(k: int) -> Tensor:
        AV = finite(operator @ rademacher(operator, k, generator))
        return torch.linalg.vector_norm(AV, dim=0, dtype=torch.float64).cpu() ** 2

    samples = sample_until(rule, draw, rule.max_products, block(operator, memory), _root)
    return rule.told(_root(samples), "frobenius", len(samples))


def _root(squares: Tensor) -> Estimate:
    square = Estimate.of(squares)
    norm = math.sqrt(square.value)
    return Estimate(norm, square.stderr / (2 * norm) if norm else 0.0, square.samples)
