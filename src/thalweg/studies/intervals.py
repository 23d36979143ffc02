"""Intervals of effects, and the rules that turn them into words."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from thalweg.core import check
from thalweg.numeric.intervals import Interval, clopper_pearson, t_interval
from thalweg.studies.study import Word

FEWEST_FOR_BOOTSTRAP = 20
"""With fewer seeds the percentile interval covers too little."""


def mean_interval(differences: ArrayLike, level: float = 0.95) -> Interval:
    r"""Student's interval for the mean of paired differences, one per seed.

    .. math:: \bar d \pm t_{(1+c)/2,\,n-1}\, \mathrm{sd}(d) / \sqrt n

    Parameters
    ----------
    differences
        `d`, shape (n,), n >= 2; of logarithms for positive quantities.
    level
        `c` in (0, 1). Default 0.95.

    Returns
    -------
    Interval

    Examples
    --------
    >>> low, high = mean_interval([1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    return t_interval(differences, level)


def share_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Clopper and Pearson's exact interval for a share.

    Examples
    --------
    >>> low, high = share_interval(0, 2000)
    >>> round(100 * high, 2)
    0.18
    """
    return clopper_pearson(successes, n, level)


def bootstrap_interval(
    statistic: Callable[[NDArray[np.float64]], float],
    samples: ArrayLike,
    seed: int,
    *,
    level: float = 0.95,
    draws: int = 2000,
) -> Interval:
    r"""Percentile interval of a statistic, the seeds drawn again with replacement.

    Parameters
    ----------
    statistic
        A function of samples of the shape of `samples`.
    samples
        Shape (n, ...), one entry per seed, n >= 20: with fewer, the interval covers too little.
    seed
        Of the draws, so that the interval is a function of its arguments.
    level
        In (0, 1). Default 0.95.
    draws
        How many. Default 2000.

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        For fewer than 20 samples.

    Examples
    --------
    >>> low, high = bootstrap_interval(np.median, np.arange(40.0), seed=0)
    >>> bool(low < 19.5 < high)
    True

    References
    ----------
    Efron (1979).
    """
    array = np.asarray(samples, dtype=np.float64)
    check.number("level", level, gt=0, lt=1)
    check.number("draws", draws, ge=1, integer=True)
    if array.ndim == 0 or len(array) < FEWEST_FOR_BOOTSTRAP:
        got = len(array) if array.ndim else 0
        raise ValueError(f"samples must be at least {FEWEST_FOR_BOOTSTRAP}, got {got}")
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(array), size=(draws, len(array)))
    values = [float(statistic(array[indices])) for indices in drawn]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def above(interval: tuple[float, float], threshold: float) -> Word:
    """The word for "the effect is above the threshold".

    Holds if the interval lies wholly above, does not hold if it lies wholly below.

    Examples
    --------
    >>> above((0.1, 0.3), 0.0).value, above((-0.1, 0.3), 0.0).value, above((-2, -1), 0.0).value
    ('holds', 'inconclusive', 'does not hold')
    """
    low, high = interval
    if math.isnan(low) or math.isnan(high):
        return Word.INCONCLUSIVE
    if low > threshold:
        return Word.HOLDS
    return Word.FAILS if high < threshold else Word.INCONCLUSIVE


def below(interval: tuple[float, float], threshold: float) -> Word:
    """The word for "the effect is below the threshold": `above`, mirrored.

    Examples
    --------
    >>> below((0.1, 0.3), 1.0).value, below((0.1, 0.3), 0.2).value, below((0.1, 0.3), 0.0).value
    ('holds', 'inconclusive', 'does not hold')
    """
    low, high = interval
    return above((-high, -low), -threshold)


def within(interval: tuple[float, float], low: float, high: float) -> Word:
    """The word for "the effect lies in [low, high]": wholly inside, wholly outside, or neither.

    Examples
    --------
    >>> within((0.9, 1.1), 0.8, 1.2).value, within((1.3, 1.4), 0.8, 1.2).value
    ('holds', 'does not hold')
    """
    words = {above(interval, low), below(interval, high)}
    if words == {Word.HOLDS}:
        return Word.HOLDS
    return Word.FAILS if Word.FAILS in words else Word.INCONCLUSIVE


def power(n: int) -> float:
    r"""The smallest effect, in standard deviations of the differences, found 80 % of the time.

    .. math:: (t_{.975,\,n-1} + t_{.8,\,n-1}) / \sqrt n

    Examples
    --------
    >>> [round(power(n), 2) for n in (5, 10, 15, 20, 30)]
    [1.66, 0.99, 0.78, 0.66, 0.53]
    """
    check.number("n", n, ge=2, integer=True)
    return float((stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)) / math.sqrt(n))


def power_sentence(n: int) -> str:
    """What `n` pairs can find.

    Examples
    --------
    >>> print(power_sentence(10))
    with 10 pairs an effect of 0.99 standard deviations of the differences is found 80 % of the
    time
    """
    return (
        f"with {n} pairs an effect of {power(n):.2f} standard deviations of the differences "
        "is found 80 % of the time"
    )
