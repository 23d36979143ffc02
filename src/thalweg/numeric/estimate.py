"""A number of an operator estimated from random products, and when there are enough of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.core.estimate import Estimate

LEAST_SAMPLES = 10  # before the stopping rule may speak: the sd of few samples can be 0 by chance


@dataclass(frozen=True)
class OperatorEstimate(Estimate):
    """An estimate of a number of an operator, with what it cost and whether it is as wanted.

    Attributes
    ----------
    method
        ``"hutchinson"``, ``"hutch++"``, ``"xtrace"``, ``"exact"`` or ``"frobenius"``.
    n_products
        Matrix-vector products spent.
    converged
        Whether the 95 % interval became as narrow as `wanted` within the products allowed.
    wanted
        The half-width asked for, ``max(atol, rtol |value|)``.
    """

    method: str
    n_products: int
    converged: bool
    wanted: float

    @property
    def message(self) -> str:
        """One sentence: the value, what it cost, and what to do if it is not as wanted.

        Examples
        --------
        >>> OperatorEstimate(50.0, 2.0, 40, "hutchinson", 40, False, 2.5).message
        '50.0 +- 4.0 (95 % interval, 40 samples), hutchinson, 40 products: not converged, the
        half-width wanted is 2.5; about 105 products would do'
        """
        told = f"{self}, {self.method}, {self.n_products} products: "
        if self.converged:
            return told + "converged"
        told += f"not converged, the half-width wanted is {self.wanted:.2g}"
        if self.wanted == 0 or not math.isfinite(self.half_width()):
            return told
        if self.samples < LEAST_SAMPLES:
            return told + f" from {LEAST_SAMPLES} samples or more"
        more = self.samples * ((self.half_width() / self.wanted) ** 2 - 1)
        per_sample = 2 if self.method == "xtrace" else 1
        return told + f"; about {math.ceil(self.n_products + per_sample * more)} products would do"


@dataclass(frozen=True)
class StoppingRule:
    r"""Stop when Student's 95 % interval is narrow enough, and never on a change of the mean.

    .. math:: m \ge 10 \quad\text{and}\quad
        t_{0.975,\,m-1}\, \mathrm{sd} / \sqrt m \le \max(a, r\, |\bar x|)

    Coverage of the interval at a stopping time is slightly less than 95 %: the rule picks moments
    at which the standard deviation happens to be small.

    Parameters
    ----------
    rtol, atol
        `r` and `a`, >= 0. Both 0: all products are spent.
    max_products
        The most products, >= 2 (one sample has no error bar).
    """

    rtol: float = 0.05
    atol: float = 0.0
    max_products: int = 100

    def __post_init__(self) -> None:
        check.number("rtol", self.rtol, ge=0)
        check.number("atol", self.atol, ge=0)
        check.number("max_products", self.max_products, ge=2, integer=True)

    def wanted(self, value: float) -> float:
        """The half-width that is enough.

        Examples
        --------
        >>> StoppingRule(rtol=0.1).wanted(-50.0)
        5.0
        """
        return max(self.atol, self.rtol * abs(value))

    def met(self, estimate: Estimate) -> bool:
        """Whether the estimate is precise enough.

        Examples
        --------
        >>> StoppingRule(rtol=0.1).met(Estimate(-50.0, 1.0, samples=30))
        True
        >>> StoppingRule(rtol=0.1).met(Estimate(-50.0, 0.0, samples=9))
        False
        """
        enough = estimate.samples >= LEAST_SAMPLES
        return enough and bool(estimate.half_width() <= self.wanted(estimate.value))

    def told(self, estimate: Estimate, method: str, n_products: int) -> OperatorEstimate:
        """`estimate` with the verdict of the rule; 0 standard error of exact values converges."""
        met = self.met(estimate) or method == "exact"
        return OperatorEstimate(
            estimate.value,
            estimate.stderr,
            estimate.samples,
            method,
            n_products,
            met,
            self.wanted(estimate.value),
        )


def sample_until(
    rule: StoppingRule,
    draw: Callable[[int], Tensor],
    most: int,
    block: int,
    estimate: Callable[[Tensor], Estimate] = Estimate.of,
    samples: Tensor | None = None,
) -> Tensor:
    """Draw samples until the rule is met by their estimate, or there are `most` of them.

    Parameters
    ----------
    rule
        Looked at after 10 samples and after every 5 more.
    draw
        ``draw(k)`` gives k samples.
    most
        The most samples, >= 1.
    block
        The most at a time, >= 1.
    estimate
        Of all samples so far. Default: their mean.
    samples
        Those there are already. Default: none.

    Examples
    --------
    >>> len(sample_until(StoppingRule(), lambda k: torch.ones(k), most=100, block=4))
    10
    """
    samples = torch.empty(0, dtype=torch.float64) if samples is None else samples
    while len(samples) < most:
        look = min(most, max(LEAST_SAMPLES, len(samples) + 5))
        while len(samples) < look:
            samples = torch.cat([samples, draw(min(block, look - len(samples)))])
        if rule.met(estimate(samples)):
            break
    return samples
