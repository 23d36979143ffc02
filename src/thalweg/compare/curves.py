r"""Curves of a race: the tuning curve, and the interval for a median over seeds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from thalweg.compare.paired import Floats, Goal, runs
from thalweg.core import check


def tuning_curve(values: ArrayLike, *, goal: Goal = "min") -> Floats:
    r"""Expected best validation value after k of the T trials, k = 1 ... T.

    .. math:: \sum_{i=1}^{T-k+1} v_{(i)} \binom{T-i}{k-1} \Big/ \binom{T}{k}

    Trials are drawn without replacement, and treated as exchangeable (Sobol points are, nearly).

    Parameters
    ----------
    values
        Validation values of all trials, shape (T,); infinite where one diverged.
    goal
        ``"min"`` or ``"max"``.

    Returns
    -------
    numpy.ndarray
        Shape (T,); infinite while k <= number of diverged trials.

    Examples
    --------
    >>> tuning_curve([1.0, 2.0, 3.0, 4.0])
    array([2.5       , 1.66666667, 1.25      , 1.        ])

    References
    ----------
    Dodge et al., Show Your Work (2019), there with replacement.
    """
    sign, v = _ordered(values, goal)
    beaten = _none_of_the_best(v.size)
    weights = beaten[:, :-1] - beaten[:, 1:]
    finite = np.isfinite(v)
    curve = weights[:, finite] @ v[finite]
    curve[: np.count_nonzero(~finite)] = math.inf
    return np.asarray(sign * curve, dtype=np.float64)


def tuning_curve_median(values: ArrayLike, *, goal: Goal = "min") -> Floats:
    r"""Median best validation value after k of the T trials: finite earlier than the mean.

    .. math:: \min\Big\{v_{(i)} : 1 - \binom{T-i}{k} \Big/ \binom{T}{k} \ge \frac12\Big\}

    Arguments and result are those of `tuning_curve`.

    Examples
    --------
    >>> tuning_curve_median([1.0, 2.0, 3.0, float("inf")])
    array([2., 1., 1., 1.])
    """
    sign, v = _ordered(values, goal)
    reached = _none_of_the_best(v.size)[:, 1:] <= 0.5 + 1e-12  # the slack is for rounding only
    return np.asarray(sign * v[np.argmax(reached, axis=1)], dtype=np.float64)


class MedianInterval(NamedTuple):
    """Interval for a median, and the confidence it really has."""

    low: Floats
    median: Floats
    high: Floats
    coverage: float


def median_interval(values: ArrayLike, confidence: float = 0.95) -> MedianInterval:
    r"""Interval for the median over seeds from two order statistics, at every point of a curve.

    .. math::
        [v_{(l)},\, v_{(S+1-l)}], \qquad
        l = \max\{l \ge 1 : 1 - 2\, P(\mathrm{Bin}(S, \tfrac12) < l) \ge c\}

    No assumption but independent seeds. Below 6 seeds no pair of order statistics reaches 95 %:
    the extremes are returned, with the coverage they have.

    Parameters
    ----------
    values
        Shape (S, P) or (S,): seeds first; infinite where a run diverged (+ if smaller is better).
    confidence
        Wanted coverage `c`, in (0, 1).

    Returns
    -------
    MedianInterval
        ``(low, median, high, coverage)``, the first three of shape (P,) or ().

    Examples
    --------
    >>> low, median, high, coverage = median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
    >>> float(low), float(median), float(high), coverage
    (1.0, 3.5, 6.0, 0.96875)

    References
    ----------
    David and Nagaraja, Order Statistics (2003), section 7.1.
    """
    check.number("confidence", confidence, gt=0, lt=1)
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[0] == 0 or np.isnan(array).any():
        raise ValueError(f"values must have shape (seeds, points) and no NaN, got {array}")
    seeds = array.shape[0]
    # coverage[l - 1] belongs to the l-th smallest and l-th largest; it falls with l
    coverage = 1 - 2 * stats.binom.cdf(np.arange((seeds + 1) // 2), seeds, 0.5)
    enough = int(np.count_nonzero(coverage >= confidence))
    chosen = max(enough, 1) - 1
    ordered = np.sort(array, axis=0)
    return MedianInterval(
        ordered[chosen],
        np.asarray(np.median(array, axis=0)),
        ordered[seeds - 1 - chosen],
        max(0.0, float(coverage[chosen])),
    )


def _ordered(values: ArrayLike, goal: Goal) -> tuple[int, Floats]:
    """Sign that makes smaller better, and the values from best to worst, misses last."""
    check.choice("goal", goal, ("min", "max"))
    v = runs("values", values, "difference")
    if v.ndim != 1 or v.size == 0:
        raise ValueError(f"values must have shape (trials,), got {v.shape}")
    sign = 1 if goal == "min" else -1
    return sign, np.sort(np.where(np.isinf(v), math.inf, sign * v))


def _none_of_the_best(trials: int) -> Floats:
    r"""C(T-i, k) / C(T, k): k trials miss the i best; row k = 1 ... T, column i = 0 ... T."""
    k = np.arange(1, trials + 1)[:, None]
    i = np.arange(trials)
    factors = np.maximum(0.0, (trials - i - k) / (trials - i))
    return np.cumprod(np.hstack((np.ones((trials, 1)), factors)), axis=1)
