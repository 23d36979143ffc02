"""Exact intervals: for a mean difference (Student), for a share (Clopper and Pearson)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from thalweg.core import check


class Interval(NamedTuple):
    """An interval ``low <= value <= high``."""

    low: float
    high: float


def t_interval(differences: ArrayLike, confidence: float = 0.95) -> Interval:
    r"""Student's interval for the mean difference.

    .. math:: \bar d \pm t_{(1+c)/2,\,S-1}\, \mathrm{sd}(d) / \sqrt S

    Parameters
    ----------
    differences
        `d`, shape (S,), S >= 2, finite.
    confidence
        `c`, in (0, 1).

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        For fewer than two differences, or one that is not finite.

    Examples
    --------
    >>> low, high = t_interval([1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)

    References
    ----------
    Student (1908).
    """
    d = finite_differences(differences, at_least=2)
    check.number("confidence", confidence, gt=0, lt=1)
    quantile = stats.t.ppf((1 + confidence) / 2, d.size - 1)
    half = float(quantile * d.std(ddof=1) / math.sqrt(d.size))
    return Interval(float(d.mean()) - half, float(d.mean()) + half)


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    r"""Exact interval for a success share, from quantiles of the beta distribution.

    .. math:: \bigl[B_{(1-c)/2}(k, n - k + 1),\ B_{(1+c)/2}(k + 1, n - k)\bigr]

    Parameters
    ----------
    successes, trials
        `k` of `n`, 0 <= k <= n, n >= 1.
    confidence
        `c`, in (0, 1).

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        For a number out of range.

    Examples
    --------
    >>> low, high = clopper_pearson(10, 10)
    >>> round(low, 3), round(high, 3)
    (0.692, 1.0)

    References
    ----------
    Clopper and Pearson (1934).
    """
    check.number("successes", successes, ge=0, le=trials, integer=True)
    check.number("confidence", confidence, gt=0, lt=1)
    share = stats.binomtest(int(successes), int(trials)).proportion_ci(confidence, method="exact")
    return Interval(float(share.low), float(share.high))


def finite_differences(differences: ArrayLike, *, at_least: int) -> NDArray[np.float64]:
    """Return `differences` as floats: one dimension, finite, not fewer than `at_least`.

    Examples
    --------
    >>> finite_differences([1, 2], at_least=2)
    array([1., 2.])
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or d.size < at_least or not np.isfinite(d).all():
        raise ValueError(
            f"differences must be at least {at_least} finite numbers in one dimension, "
            f"got {differences!r}"
        )
    return d
