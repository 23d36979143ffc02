"""Trace, diagonal and Frobenius norm of a curvature operator, each with its error."""

from __future__ import annotations

import torch

from thalweg.core.estimate import Estimate
from thalweg.numeric.diagonal import diagonal as diagonal_of
from thalweg.numeric.estimate import OperatorEstimate
from thalweg.numeric.hutchinson import frobenius_norm as frobenius_norm_of
from thalweg.numeric.operator import LinearOperator
from thalweg.numeric.trace import Method
from thalweg.numeric.trace import trace as trace_of


def trace(
    H: LinearOperator,
    rtol: float = 0.05,
    atol: float = 0.0,
    max_products: int = 100,
    *,
    method: Method = "auto",
    memory: int = 2**31,
    generator: torch.Generator | None = None,
) -> OperatorEstimate:
    r"""Trace of a curvature operator: the sum of its eigenvalues, with a 95 % interval.

    .. math:: \operatorname{tr} H = E\, v^T H v = \sum_i \lambda_i

    Parameters
    ----------
    H
        A curvature operator (`thalweg.curvature.hessian`), or any symmetric `LinearOperator` of
        float32 or float64.
    rtol, atol
        Products are made until the half-width of the interval is at most ``max(atol, rtol
        |trace|)``. Defaults 0.05 and 0. Of a trace near 0 only `atol` can be reached.
    max_products
        The most products, >= 2. Default 100.
    method
        ``"hutchinson"``, ``"hutch++"``, ``"xtrace"``, ``"exact"``, or ``"auto"`` (default), which
        chooses by how much of H few directions carry (`thalweg.numeric.trace.trace`).
    memory
        Bytes for vectors. Default 2 GiB.
    generator
        Source of the probes. Default: a new one of seed 0; the global generators are not used.

    Returns
    -------
    OperatorEstimate
        `value`, `stderr`, `interval`, `n_products`, `method`; `converged` is False, and `message`
        says how many products would do, if `max_products` came first.

    Raises
    ------
    TypeError
        If H is complex or of half precision.
    ValueError
        For an argument out of range, or a product that is not finite.

    Examples
    --------
    >>> from thalweg.core.problem import Training
    >>> from thalweg.curvature import hessian
    >>> H = hessian(Training.from_function(lambda x: (x**4).sum(), torch.tensor([1.0, -2.0])))
    >>> print(trace(H).message)
    60 (exact), exact, 2 products: converged

    References
    ----------
    Hutchinson 1989; Meyer et al. 2021 (arXiv 2010.09649); Epperly, Tropp & Webber 2024 (arXiv
    2301.07825).
    """
    return trace_of(H, rtol, atol, max_products, method=method, memory=memory, generator=generator)


def diagonal(
    H: LinearOperator,
    products: int = 100,
    *,
    memory: int = 2**31,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Diagonal of a curvature operator, entry by entry with its standard error.

    .. math:: D = \frac{\sum_k v_k \odot H v_k}{\sum_k v_k \odot v_k}

    Parameters
    ----------
    H
        As for `trace`.
    products
        >= 2; from d on, d products give the diagonal exactly. Default 100.
    memory, generator
        As for `trace`.

    Returns
    -------
    Estimate
        `value` and `stderr` are tensors (d,), float64.

    Raises
    ------
    TypeError, ValueError
        As `trace`.

    Examples
    --------
    >>> from thalweg.core.problem import Training
    >>> from thalweg.curvature import hessian
    >>> H = hessian(Training.from_function(lambda x: (x**4).sum(), torch.tensor([1.0, -2.0])))
    >>> diagonal(H).value.tolist()
    [12.0, 48.0]

    References
    ----------
    Bekas, Kokiopoulou & Saad 2007.
    """
    return diagonal_of(H, products, memory=memory, generator=generator)


def frobenius(
    H: LinearOperator,
    rtol: float = 0.05,
    atol: float = 0.0,
    max_products: int = 100,
    *,
    memory: int = 2**31,
    generator: torch.Generator | None = None,
) -> OperatorEstimate:
    r"""Frobenius norm of a curvature operator, :math:`\|H\|_F = \sqrt{\sum_i \lambda_i^2}`.

    .. math:: \|H\|_F^2 = E\, \|H v\|^2

    Parameters
    ----------
    H, rtol, atol, max_products, memory, generator
        As for `trace`.

    Returns
    -------
    OperatorEstimate

    Raises
    ------
    TypeError, ValueError
        As `trace`.

    Examples
    --------
    >>> from thalweg.core.problem import Training
    >>> from thalweg.curvature import hessian
    >>> f = Training.from_function(lambda x: x**2 @ x.new_tensor([1.5, 2.0]), torch.ones(2))
    >>> frobenius(hessian(f)).value
    5.0
    """
    return frobenius_norm_of(H, rtol, atol, max_products, memory=memory, generator=generator)
