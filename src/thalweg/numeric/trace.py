"""Trace of an operator: the choice among its estimators."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.core.estimate import Estimate
from thalweg.numeric.diagonal import exact_trace
from thalweg.numeric.estimate import LEAST_SAMPLES, OperatorEstimate, StoppingRule, sample_until
from thalweg.numeric.hutchinson import hutchinson
from thalweg.numeric.hutchpp import hutchpp
from thalweg.numeric.krylov.block import inner, norms, orthonormalize
from thalweg.numeric.operator import LinearOperator
from thalweg.numeric.probes import block, column_dots, computable, finite, multiply, rademacher
from thalweg.numeric.xtrace import xtrace

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
    return replace(found, n_products=found.n_products + more)
