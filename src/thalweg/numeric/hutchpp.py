"""Hutch++: the trace of an operator whose spectrum decays, exact on a sketch of its range."""

from __future__ import annotations

import torch

from thalweg.core import check
from thalweg.numeric.diagonal import exact_trace
from thalweg.numeric.estimate import LEAST_SAMPLES, OperatorEstimate, StoppingRule
from thalweg.numeric.krylov.block import orthonormalize
from thalweg.numeric.operator import LinearOperator
from thalweg.numeric.probes import block, column_dots, computable, multiply, rademacher
from thalweg.numeric.sketch import hutchinson_on_the_rest, most_columns, rounding_of


def hutchpp(
    operator: LinearOperator,
    rtol: float = 0.05,
    atol: float = 0.0,
    max_products: int = 100,
    *,
    memory: int = 2**31,
    generator: torch.Generator | None = None,
) -> OperatorEstimate:
    r"""Trace by Hutch++: exact on a sketch of the range, Hutchinson on the rest.

    .. math:: Q = \operatorname{qr}(A S), \qquad \operatorname{tr} A \approx
        \operatorname{tr}(Q^T A Q) + \frac1N \sum_{i=1}^N g_i^T (I - QQ^T) A (I - QQ^T) g_i

    with N = ``max_products // 3`` columns of S, and entries of S and g +1 or -1. The error bar is
    that of the second term. On a flat spectrum it is worse than Hutchinson: two thirds of the
    products go elsewhere.

    Parameters
    ----------
    operator
        Real, float32 or float64 (symmetric, for the sketch to fit).
    rtol, atol
        The second term is sampled until the interval is narrow enough, see `hutchinson`.
    max_products
        3 N, >= 6. Where n products are no more than the fewest of these, they give the exact trace.
        Default 100.
    memory
        Bytes for vectors: a smaller sketch if 3 N do not fit. Default 2 GiB.
    generator
        Source of the probes. Default: a new one of seed 0.

    Returns
    -------
    OperatorEstimate

    Raises
    ------
    TypeError, ValueError
        As `hutchinson`; ValueError too if not even two vectors of sketch fit in `memory`.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> decaying = 1 / torch.arange(1, 301, dtype=torch.float64) ** 2
    >>> U, _ = torch.linalg.qr(torch.randn(300, 300, dtype=torch.float64))
    >>> A = as_operator(U @ torch.diag(decaying) @ U.T)
    >>> bool(abs(hutchpp(A, rtol=0, max_products=60).value - decaying.sum()) < 0.02)
    True

    References
    ----------
    Meyer, Musco, Musco & Woodruff, Hutch++: optimal stochastic trace estimation, SOSA 2021 (arXiv
    2010.09649).
    """
    computable(operator)
    rule = StoppingRule(rtol, atol, max_products)
    check.number("max_products", max_products, ge=6, integer=True)
    n, size = operator.shape[0], block(operator, memory)
    N = min(max_products // 3, most_columns(operator, memory, 3))
    if n <= min(2 * N + LEAST_SAMPLES, max_products):
        return exact_trace(operator, memory=memory)
    generator = generator or torch.Generator().manual_seed(0)
    Y = multiply(operator, rademacher(operator, N, generator), size)
    Q, _, _ = orthonormalize(Y, rounding_of(Y))
    captured = float(column_dots(Q, multiply(operator, Q, size)).sum())
    return hutchinson_on_the_rest(operator, Q, captured, rule, N + Q.shape[1], generator, size)
