"""XTrace: every probe serves as sketch and, left out, as test."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.core.estimate import Estimate
from thalweg.numeric.diagonal import exact_trace
from thalweg.numeric.estimate import LEAST_SAMPLES, OperatorEstimate, StoppingRule
from thalweg.numeric.krylov.block import inner, orthonormalize
from thalweg.numeric.operator import LinearOperator
from thalweg.numeric.probes import block, column_dots, computable, multiply, rademacher
from thalweg.numeric.sketch import hutchinson_on_the_rest, most_columns, rounding_of


def xtrace(
    operator: LinearOperator,
    rtol: float = 0.05,
    atol: float = 0.0,
    max_products: int = 100,
    *,
    memory: int = 2**31,
    generator: torch.Generator | None = None,
) -> OperatorEstimate:
    r"""Trace by XTrace: Hutch++ where every probe serves as sketch and, left out, as test.

    .. math:: \operatorname{tr} A \approx \frac1N \sum_{i=1}^N \bigl[
        \operatorname{tr}(Q_{(i)}^T A Q_{(i)}) + \omega_i^T (I - Q_{(i)} Q_{(i)}^T) A
        (I - Q_{(i)} Q_{(i)}^T) \omega_i \bigr]

    with :math:`Q_{(i)}` an orthonormal basis of :math:`A \Omega` without its i-th column, from 2 N
    products. The
    error bar is the standard deviation of the N terms over :math:`\sqrt N`: the terms share
    probes, so it is a good guess and not a Student interval of independent samples.

    Parameters
    ----------
    operator
        Real symmetric, float32 or float64, of order n.
    rtol, atol
        N grows from 10 by 5 until the interval is narrow enough, see `hutchinson`.
    max_products
        2 N, >= 4. For n <= 20, n products give the exact trace if allowed. Default 100.
    memory
        Bytes for vectors: N stays below what fits, 4 N. Default 2 GiB.
    generator
        Source of the probes. Default: a new one of seed 0.

    Returns
    -------
    OperatorEstimate
        Of method ``"hutch++"`` if :math:`A \Omega` turned out to be of lower rank than N: no column
        can be left out then, so the sketch is kept and new probes test it.

    Raises
    ------
    TypeError, ValueError
        As `hutchinson`; ValueError too if not even two probes fit in `memory`.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> decaying = 1 / torch.arange(1, 301, dtype=torch.float64) ** 2
    >>> U, _ = torch.linalg.qr(torch.randn(300, 300, dtype=torch.float64))
    >>> found = xtrace(as_operator(U @ torch.diag(decaying) @ U.T), rtol=0.01)
    >>> bool(abs(found.value - decaying.sum()) < 0.02), found.converged, found.n_products <= 60
    (True, True, True)

    References
    ----------
    Epperly, Tropp & Webber, XTrace: making the most of every sample in stochastic trace
    estimation, SIAM J. Matrix Anal. Appl. 45(1), 2024 (arXiv 2301.07825).
    """
    computable(operator)
    rule = StoppingRule(rtol, atol, max_products)
    check.number("max_products", max_products, ge=4, integer=True)
    n, size = operator.shape[0], block(operator, memory)
    if n <= min(2 * LEAST_SAMPLES, max_products):
        return exact_trace(operator, memory=memory)
    generator = generator or torch.Generator().manual_seed(0)
    most = min(max_products // 2, n, most_columns(operator, memory, 4))
    Omega = Q = torch.empty(n, 0, dtype=operator.dtype, device=operator.device)
    forms = torch.empty(0, dtype=torch.float64)  # omega_i^T A omega_i
    R = T = torch.empty(0, 0, dtype=torch.float64)
    while True:
        k = min(LEAST_SAMPLES if not len(forms) else 5, most - len(forms))
        fresh = rademacher(operator, k, generator)
        Y = multiply(operator, fresh, size)
        forms = torch.cat([forms, column_dots(fresh, Y)])
        C, U, S = _orthogonal_part(Q, Y)
        spent = 2 * Q.shape[1] + k
        if len(S) < k:
            U = U[:, : max(0, max_products - spent - 2)]  # two samples are left for the rest
            captured = float(T.trace())
            if U.shape[1]:
                captured += float(column_dots(U, multiply(operator, U, size)).sum())
            Q, spent = torch.cat([Q, U], dim=1), spent + U.shape[1]
            return hutchinson_on_the_rest(operator, Q, captured, rule, spent, generator, size)
        AU = multiply(operator, U, size)
        corner = inner(Q, AU).cpu()
        T = torch.cat([torch.cat([T, corner], 1), torch.cat([corner.T, inner(U, AU).cpu()], 1)])
        R = torch.cat([torch.cat([R, C], 1), torch.cat([S.new_zeros(k, len(R)), S], 1)])
        Q, Omega = torch.cat([Q, U], dim=1), torch.cat([Omega, fresh], dim=1)
        found = Estimate.of(xtrace_terms(T, R, inner(Q, Omega).cpu(), forms))
        if rule.met(found) or len(forms) == most:
            return rule.told(found, "xtrace", 2 * len(forms))


def xtrace_terms(T: Tensor, R: Tensor, W: Tensor, forms: Tensor) -> Tensor:
    r"""The N terms of XTrace, without forming any :math:`Q_{(i)}`.

    .. math:: s_i = \frac{R^{-T} e_i}{\|R^{-T} e_i\|}, \quad
        Q_{(i)} Q_{(i)}^T = Q (I - s_i s_i^T) Q^T, \quad g_i = w_i - s_i s_i^T w_i,

    .. math:: \text{term}_i = \operatorname{tr} T - s_i^T T s_i + \omega_i^T A \omega_i
        - 2\, r_i^T g_i + g_i^T T g_i

    (:math:`Q_{(i)}` is *not* Q without its i-th column.)

    Parameters
    ----------
    T, R, W
        :math:`Q^T A Q`, upper triangular R of :math:`A \Omega = Q R`, :math:`Q^T \Omega`; (N, N).
    forms
        :math:`\omega_i^T A \omega_i`, (N,).

    Returns
    -------
    Tensor
        (N,).

    Examples
    --------
    >>> one = torch.eye(2)  # A = Omega = I: leaving a column out leaves that diagonal entry to it
    >>> xtrace_terms(one, one, one, torch.ones(2)).tolist()
    [2.0, 2.0]
    """
    S = torch.linalg.solve_triangular(R.T, torch.eye(len(R), dtype=R.dtype), upper=False)
    S = S / torch.linalg.vector_norm(S, dim=0)
    G = W - S * (S * W).sum(0)
    captured = T.trace() - (S * (T @ S)).sum(0)
    return captured + forms - 2 * (R * G).sum(0) + (G * (T @ G)).sum(0)


def _orthogonal_part(Q: Tensor, Y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``Y = Q C + U S``: U orthonormal and orthogonal to Q, S triangular unless rank is missing."""
    negligible = rounding_of(Y)
    C = inner(Q, Y)
    Y = Y - Q @ C.to(Y)
    again = inner(Q, Y)
    U, S, _ = orthonormalize(Y - Q @ again.to(Y), negligible)
    leak = inner(Q, U)  # small columns were divided by small numbers
    U, fixed, _ = orthonormalize(U - Q @ leak.to(Y))
    C = (C + again + leak @ S.to(leak)).cpu()
    S = fixed @ S
    if S.shape[0] == S.shape[1]:
        Z, S = torch.linalg.qr(S)
        U = U @ Z.to(U)
    return C, U, S
