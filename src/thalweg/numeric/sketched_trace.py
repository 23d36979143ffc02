"""Traces of operators whose spectrum decays: Hutch++, XTrace, and the choice among estimators."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.core.estimate import Estimate
from thalweg.numeric.estimate import (
    LEAST_SAMPLES,
    OperatorEstimate,
    StoppingRule,
    block,
    column_dots,
    computable,
    exact_diagonal,
    finite,
    hutchinson,
    rademacher,
    sample_until,
)
from thalweg.numeric.krylov.block import inner, norms, orthonormalize
from thalweg.numeric.krylov.ritz import relative_noise
from thalweg.numeric.operator import LinearOperator

Method = Literal["auto", "hutchinson", "hutch++", "xtrace", "exact"]
PILOT, SKETCH = 15, 10  # products of the pilot; how many of them span the sketch


def trace(
    operator: LinearOperator,
    rtol: float = 0.05,
    atol: float = 0.0,
    max_products: int = 100,
    *,
    method: Method = "auto",
    memory: int = 2**31,
    generator: torch.Generator | None = None,
) -> OperatorEstimate:
    r"""Trace of a symmetric operator, with a 95 % interval.

    ``method="auto"`` begins with 15 Hutchinson probes. If they are not precise enough, the span Q
    of the first 10 products tells from the other 5 how much of the operator few directions carry:

    .. math:: Q = \operatorname{orth}(A v_1, \dots, A v_{10}), \qquad \mathrm{share} =
        \frac{\sum_{i=11}^{15} \|Q^T A v_i\|^2}{\sum_{i=11}^{15} \|A v_i\|^2}

    More than half: XTrace, from new probes (the 15 are not pooled). Else Hutchinson goes on. The n
    products with the unit vectors are made instead where they are fewer: for n <= 15, and where
    the pilot predicts that Hutchinson would need n more or cannot finish, if they are allowed.

    Parameters
    ----------
    operator
        Real symmetric, float32 or float64, of order n.
    rtol, atol, max_products
        As for `hutchinson`.
    method
        ``"auto"`` (default), ``"hutchinson"``, ``"hutch++"``, ``"xtrace"`` or ``"exact"`` (n
        products, whatever `max_products`).
    memory
        Bytes for vectors. Default 2 GiB. ``"auto"`` is Hutchinson if 30 vectors do not fit.
    generator
        Source of the probes. Default: a new one of seed 0; the global generators are not used.

    Returns
    -------
    OperatorEstimate
        `method` tells which it was; `converged` is False if `max_products` came first.

    Raises
    ------
    TypeError
        If the operator is complex or of half precision.
    ValueError
        For an argument out of range, or a product that is not finite.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> v = torch.linspace(-1, 1, 400, dtype=torch.float64)
    >>> found = trace(as_operator(torch.outer(v, v)))  # one direction carries everything
    >>> found.method, found.converged, abs(found.value - float(v @ v)) < 1e-9
    ('hutch++', True, True)

    References
    ----------
    Hutchinson 1989; Meyer et al. 2021 (arXiv 2010.09649); Epperly, Tropp & Webber 2024 (arXiv
    2301.07825).
    """
    check.choice("method", method, ("auto", "hutchinson", "hutch++", "xtrace", "exact"))
    computable(operator)
    rule = StoppingRule(rtol, atol, max_products)
    size, n = block(operator, memory), operator.shape[0]
    generator = generator or torch.Generator().manual_seed(0)
    if method == "auto" and n > PILOT:
        fits = 2 * PILOT * n * operator.dtype.itemsize <= memory
        method = "auto" if fits and max_products >= PILOT + 2 * LEAST_SAMPLES else "hutchinson"
    if method == "exact" or (method == "auto" and n <= PILOT):
        return exact_trace(operator, memory=memory)
    if method == "hutchinson":
        return hutchinson(operator, rtol, atol, max_products, memory=memory, generator=generator)
    if method == "hutch++":
        return hutchpp(operator, rtol, atol, max_products, memory=memory, generator=generator)
    if method == "xtrace":
        return xtrace(operator, rtol, atol, max_products, memory=memory, generator=generator)

    V = rademacher(operator, PILOT, generator)
    AV = multiply(operator, V, size)
    samples = column_dots(V, AV)
    pilot = Estimate.of(samples)
    if rule.met(pilot):
        return rule.told(pilot, "hutchinson", PILOT)
    left = max_products - PILOT
    if n <= left and _predicted(pilot, rule) > n:
        return _spent(exact_trace(operator, memory=memory), PILOT)
    if _share(AV) > 0.5:
        found = xtrace(operator, rtol, atol, left, memory=memory, generator=generator)
        return _spent(found, PILOT)

    def draw(k: int) -> Tensor:
        V = rademacher(operator, k, generator)
        return column_dots(V, finite(operator @ V))

    del V, AV
    samples = sample_until(rule, draw, max_products, size, samples=samples)
    return rule.told(Estimate.of(samples), "hutchinson", len(samples))


def _share(AV: Tensor) -> float:
    """How much of the squared products the span of the first ten holds; 0 for a zero operator."""
    Q, _, _ = orthonormalize(AV[:, :SKETCH])
    total = float((norms(AV[:, SKETCH:]) ** 2).sum())
    return float((inner(Q, AV[:, SKETCH:]) ** 2).sum()) / total if total > 0 else 0.0


def _predicted(estimate: Estimate, rule: StoppingRule) -> float:
    """How many products Hutchinson will need in all, by the variance so far."""
    wanted = rule.wanted(estimate.value)
    half = float(estimate.half_width())
    return estimate.samples * (half / wanted) ** 2 if wanted > 0 else float("inf")


def _spent(found: OperatorEstimate, more: int) -> OperatorEstimate:
    return OperatorEstimate(
        found.value,
        found.stderr,
        found.samples,
        found.method,
        found.n_products + more,
        found.converged,
        found.wanted,
    )


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
    N = min(max_products // 3, _fitting(operator, memory, 3))
    if n <= min(2 * N + LEAST_SAMPLES, max_products):
        return exact_trace(operator, memory=memory)
    generator = generator or torch.Generator().manual_seed(0)
    Y = multiply(operator, rademacher(operator, N, generator), size)
    Q, _, _ = orthonormalize(Y, _negligible(Y))
    captured = float(column_dots(Q, multiply(operator, Q, size)).sum())
    return _hutchinson_on_the_rest(operator, Q, captured, rule, N + Q.shape[1], generator, size)


def _hutchinson_on_the_rest(
    operator: LinearOperator,
    Q: Tensor,
    captured: float,
    rule: StoppingRule,
    spent: int,
    generator: torch.Generator,
    size: int,
) -> OperatorEstimate:
    def draw(k: int) -> Tensor:
        G = rademacher(operator, k, generator)
        G = G - Q @ inner(Q, G).to(Q)
        return captured + column_dots(G, finite(operator @ G))

    samples = sample_until(rule, draw, int(rule.max_products) - spent, size)
    return rule.told(Estimate.of(samples), "hutch++", spent + len(samples))


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
    most = min(max_products // 2, n, _fitting(operator, memory, 4))
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
            return _hutchinson_on_the_rest(operator, Q, captured, rule, spent, generator, size)
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
    negligible = _negligible(Y)
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


def _negligible(Y: Tensor) -> float:
    """What is left of products at or below this is rounding."""
    return 10 * relative_noise(Y.dtype) * float(norms(Y).max())


def _fitting(operator: LinearOperator, memory: int, copies: int) -> int:
    fitting = memory // (copies * operator.shape[0] * operator.dtype.itemsize)
    if fitting < 2:
        least = 2 * copies * operator.shape[0] * operator.dtype.itemsize
        raise ValueError(f"memory must be >= {least} bytes for a sketch, got {memory}")
    return int(fitting)


def multiply(operator: LinearOperator, V: Tensor, size: int) -> Tensor:
    """``A @ V``, `size` columns at a time, refused if not finite.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> multiply(as_operator(2 * torch.eye(2)), torch.ones(2, 3), size=2).tolist()
    [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    """
    return torch.cat([finite(operator @ part) for part in V.split(size, dim=1)], dim=1)
