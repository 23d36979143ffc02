r"""Has a training run come to rest? Queues of the newest samples, and tests on their means.

The long-run variance of a sequence Y is :math:`s^2 = \lim N \operatorname{Var}(\bar Y_N)`: larger
than the variance of one sample where samples are positively correlated.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Variance = Literal["olbm", "bm", "iid"]

#: Samples a queue holds at first; it grows by doubling.
CAPACITY = 256


def kept(seen: int, leak: int) -> int:
    """How many of `seen` samples a leaky queue keeps: the newest ``ceil(seen / leak)``."""
    return -(-seen // leak)


def push(ring: Tensor, seen: int, value: float, leak: int) -> Tensor:
    """The ring with the sample number `seen` (from 0) in it; twice as large if it was full.

    Sample i lies at place ``i % len(ring)``.
    """
    size = len(ring)
    if kept(seen + 1, leak) > size:
        old = torch.arange(seen - size, seen)
        larger = torch.zeros(2 * size, dtype=ring.dtype)
        larger[old % (2 * size)] = ring[old % size]
        ring = larger
    ring[seen % len(ring)] = value
    return ring


def newest(ring: Tensor, seen: int, leak: int) -> Tensor:
    """The samples kept, oldest first.

    Examples
    --------
    >>> ring = torch.zeros(2, dtype=torch.float64)
    >>> for i in range(7):
    ...     ring = push(ring, i, float(i), leak=2)
    >>> newest(ring, 7, leak=2).tolist()
    [3.0, 4.0, 5.0, 6.0]
    """
    return ring[torch.arange(seen - kept(seen, leak), seen) % len(ring)]


def long_run_variance(samples: Tensor, kind: Variance) -> tuple[float, int]:
    r"""Estimate :math:`s^2` (the variance of the mean is :math:`s^2/N`); with degrees of freedom.

    With windows of :math:`b = \lfloor \sqrt N \rfloor` samples and their means
    :math:`\bar Y_j`,

    .. math::
        \text{bm: } \frac{b}{B - 1} \sum_{j \le B} (\bar Y_j - \bar Y)^2, \quad
        \text{olbm: } \frac{N b}{(N - b + 1)(N - b)} \sum_{j \le N - b + 1} (\bar Y_j - \bar Y)^2

    over B disjoint windows, or all overlapping ones; *iid* is the sample variance, which is too
    small if samples are positively correlated.

    Parameters
    ----------
    samples
        At least 4 numbers.
    kind
        ``"olbm"``, ``"bm"`` or ``"iid"``.

    Examples
    --------
    >>> long_run_variance(torch.tensor([1.0, 1.0, 3.0, 3.0]), "bm")
    (4.0, 1)
    """
    n = len(samples)
    mean = samples.mean()
    if kind == "iid":
        return float(samples.var()), n - 1
    b = math.isqrt(n)
    if kind == "bm":
        means = samples.unfold(0, b, b).mean(dim=1)
        return float(b / (len(means) - 1) * (means - mean).square().sum()), b - 1
    means = samples.unfold(0, b, 1).mean(dim=1)
    return float(n * b / ((n - b + 1) * (n - b)) * (means - mean).square().sum()), n - b


class MeanTest(NamedTuple):
    """A confidence interval for a mean, and whether the mean may be zero."""

    stationary: bool
    mean: float
    low: float
    high: float


def mean_is_zero(
    samples: Tensor, significance: float, kind: Variance, *, composite: bool = False
) -> MeanTest:
    r"""Test whether a correlated sequence has mean zero and no drift.

    The interval is :math:`\bar Y \pm t_{1 - \delta/2}\, s / \sqrt N`. Stationary: it contains 0,
    and both halves' means have the same sign. *Composite*: instead, each half's mean with that half
    width contains 0 (a mean that crosses zero on its way is no rest).

    Parameters
    ----------
    samples
        The sequence, at least 4 numbers.
    significance
        :math:`\delta` in (0, 1).
    kind
        How s is estimated, see `long_run_variance`.
    composite
        Test the halves. Default False.

    Examples
    --------
    >>> rest = torch.tensor([1.0, -1.0, 2.0, -1.0] * 50, dtype=torch.float64)
    >>> mean_is_zero(rest, 0.05, "iid").stationary
    False
    >>> mean_is_zero(rest - 0.2, 0.05, "iid").stationary
    True
    """
    from scipy.special import stdtrit

    variance, freedom = long_run_variance(samples, kind)
    width = float(stdtrit(freedom, 1 - significance / 2)) * math.sqrt(variance / len(samples))
    mean = float(samples.mean())
    half = len(samples) // 2
    halves = (float(samples[:half].mean()), float(samples[half:].mean()))
    inside = all(abs(m) < width for m in (halves if composite else (mean,)))
    same_side = halves[0] * halves[1] > 0
    return MeanTest(inside and same_side, mean, mean - width, mean + width)


def still_falls(samples: Tensor, significance: float) -> bool:
    r"""Whether the slope of a sequence is significantly negative.

    With r the correlation of :math:`Y_k` and k, :math:`T = r \sqrt{(N-2)/(1-r^2)}` follows
    Student's law with N-2 degrees of freedom if the slope is 0; falling means
    :math:`P(t \le T) < \delta`.

    Parameters
    ----------
    samples
        The sequence, at least 3 numbers.
    significance
        :math:`\delta` in (0, 1).

    Examples
    --------
    >>> still_falls(-torch.arange(10.0).double(), 0.05), still_falls(torch.ones(10).double(), 0.05)
    (True, False)
    """
    from scipy.special import stdtr

    n = len(samples)
    k = torch.arange(n, dtype=samples.dtype) - (n - 1) / 2
    y = samples - samples.mean()
    norms = float(k.norm() * y.norm())
    r = min(max(float(k @ y) / norms, -1.0), 1.0) if norms > 0 else 0.0
    t = r * math.sqrt((n - 2) / max((1 - r) * (1 + r), 1e-20))
    return bool(stdtr(n - 2, t) < significance)
