"""Trace, diagonal and Frobenius norm of a linear operator from random products, with error bars."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.core.estimate import Estimate
from thalweg.numeric.operator import LinearOperator

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


def rademacher(operator: LinearOperator, k: int, generator: torch.Generator) -> Tensor:
    """``(n, k)`` entries +1 or -1 with equal odds; the first columns do not depend on `k`.

    They are drawn where the generator is (usually the CPU), so that all devices and processes get
    the same.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> A, seed = as_operator(torch.eye(4)), torch.Generator().manual_seed
    >>> bool((rademacher(A, 2, seed(0)) == rademacher(A, 3, seed(0))[:, :2]).all())
    True
    """
    V = torch.empty(k, operator.shape[0], dtype=operator.dtype, device=operator.device)
    for v in V:
        v.copy_(torch.randint(2, v.shape, generator=generator, device=generator.device))
    return V.mul_(2).sub_(1).T


def column_dots(X: Tensor, Y: Tensor) -> Tensor:
    """The inner products of the columns of X with those of Y, in float64 on the CPU.

    Examples
    --------
    >>> column_dots(torch.ones(3, 2), torch.ones(3, 2)).tolist()
    [3.0, 3.0]
    """
    return torch.stack([(x * y).sum(dtype=torch.float64) for x, y in zip(X.T, Y.T)]).cpu()


def block(operator: LinearOperator, memory: int, most: int = 10) -> int:
    """How many vectors to multiply at once: `most`, or what fits (each with product and work)."""
    check.number("memory", memory, gt=0)
    return int(max(1, min(most, memory // (4 * operator.shape[0] * operator.dtype.itemsize))))


def computable(operator: LinearOperator) -> None:
    """Refuse operators that are complex or of half precision: their sums would mean nothing."""
    if operator.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"operator must be of float32 or float64, got {operator.dtype}")


def finite(product: Tensor) -> Tensor:
    """Return a product of the operator, if all of it is finite."""
    if not bool(product.isfinite().all()):
        bad = int((~product.isfinite()).sum())
        raise ValueError(
            "the products of operator must be finite, got NaN or infinity in "
            f"{bad} of {product.numel()} elements"
        )
    return product
