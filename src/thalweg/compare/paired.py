r"""One pair of methods, paired by seed: differences, tests, intervals and the seeds they need."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from thalweg.core import check
from thalweg.numeric.intervals import Interval as Interval
from thalweg.numeric.intervals import clopper_pearson as clopper_pearson
from thalweg.numeric.intervals import finite_differences
from thalweg.numeric.intervals import t_interval as t_interval

Scale = Literal["ratio", "difference"]
Goal = Literal["min", "max"]
Floats = NDArray[np.float64]

EXACT_SEEDS = 16
"""Up to here all sign patterns are enumerated."""
DRAWS = 99_999
"""Random sign patterns beyond; with them no p is smaller than 1 / (1 + DRAWS)."""
# Sums of the same numbers in another order differ by rounding. Such a near tie counts as a tie,
# which can only make p larger.
_TIE = 1e-10


def runs(name: str, values: ArrayLike, scale: Scale) -> Floats:
    """Return the results of `name` as floats: no NaN, and > 0 on the ratio scale."""
    array: Floats = np.asarray(values, dtype=np.float64)
    if np.isnan(array).any():
        raise ValueError(f"{name} must not be NaN, got {array}: record a failed run as infinity")
    finite = array[np.isfinite(array)]
    if scale == "ratio" and (finite <= 0).any():
        raise ValueError(
            f"{name} must be > 0 on the ratio scale, got {finite.min():g}; "
            "use scale='difference' for results that can be <= 0"
        )
    return array


def paired_differences(
    a: ArrayLike, b: ArrayLike, *, scale: Scale = "ratio", goal: Goal = "min"
) -> Floats:
    r"""Differences of paired runs.

    .. math:: d_i = \log(A_i / B_i) \quad\text{or}\quad d_i = A_i - B_i

    Parameters
    ----------
    a, b
        Results of two methods on the same seeds, same shape. Any infinite value is a miss
        (diverged, target not reached): the worst possible result, whatever its sign.
    scale
        ``"ratio"`` for losses and times > 0, ``"difference"`` for rates and metrics that can be
        <= 0.
    goal
        ``"min"`` if smaller is better, ``"max"`` if larger is.

    Returns
    -------
    numpy.ndarray
        `d`; infinite where one of the two missed, 0 where both did.

    Raises
    ------
    ValueError
        For NaN, unequal shapes, or results <= 0 on the ratio scale.

    Examples
    --------
    >>> paired_differences([2.0, 3.0, float("inf")], [1.0, float("inf"), float("inf")])
    array([0.69314718,       -inf, 0.        ])
    """
    check.choice("scale", scale, ("ratio", "difference"))
    check.choice("goal", goal, ("min", "max"))
    x, y = runs("a", a, scale), runs("b", b, scale)
    if x.shape != y.shape:
        raise ValueError(f"b must have the shape of a, {x.shape}, got {y.shape}")
    x_missed, y_missed = np.isinf(x), np.isinf(y)
    x, y = np.where(x_missed, 1.0, x), np.where(y_missed, 1.0, y)
    d = np.log(x) - np.log(y) if scale == "ratio" else x - y
    worse = math.inf if goal == "min" else -math.inf
    d[x_missed & ~y_missed] = worse
    d[y_missed & ~x_missed] = -worse
    d[x_missed & y_missed] = 0.0
    return d


def sign_flip_test(differences: ArrayLike, *, seed: int = 0, draws: int = DRAWS) -> float:
    r"""Two-sided p of the mean difference when every sign is a fair coin.

    .. math:: p = 2^{-S}\, \#\{s \in \{-1, 1\}^S : |\textstyle\sum s_i d_i| \ge |\sum d_i|\}

    Exact for S <= 16; beyond, `draws` random sign patterns and p = (1 + hits) / (1 + draws).

    Parameters
    ----------
    differences
        `d`, shape (S,), finite (with misses, use `signed_rank_test`).
    seed
        Of the random signs, so that p is a function of its arguments.
    draws
        Number of random sign patterns.

    Returns
    -------
    float
        p, at least 2^(1-S).

    Examples
    --------
    >>> sign_flip_test([1.0, 2.0, 3.0])
    0.25

    References
    ----------
    Fisher, The Design of Experiments (1935), section 21. Phipson and Smyth (2010) for the 1 + hits.
    """
    d = finite_differences(differences, at_least=1)
    threshold = abs(d.sum()) - _TIE * np.abs(d).sum()
    if d.size <= EXACT_SEEDS:
        sums = d[:1]  # the first sign may stay: the mirrored pattern has the same |sum|
        for value in d[1:]:
            sums = np.concatenate((sums + value, sums - value))
        return float(np.mean(np.abs(sums) >= threshold))
    check.number("draws", draws, ge=1, integer=True)
    generator = np.random.default_rng(seed)
    hits, rows = 0, max(1, 2**21 // d.size)
    for start in range(0, draws, rows):
        shape = (min(rows, draws - start), d.size)
        kept = generator.integers(0, 2, size=shape, dtype=np.int8).astype(np.float64)
        hits += int(np.count_nonzero(np.abs(2 * (kept @ d) - d.sum()) >= threshold))
    return (1 + hits) / (1 + draws)


def signed_ranks(differences: ArrayLike) -> Floats:
    r"""The sign of each difference times the rank of its size.

    .. math:: \operatorname{sign}(d_i)\, \operatorname{rank}(|d_i|)

    Infinite differences share the top ranks; a zero difference gives 0 (Pratt 1959: zeros are
    ranked, then lose their sign). Equal sizes share the mean of their ranks.

    Examples
    --------
    >>> signed_ranks([0.5, float("-inf"), 0.0, -0.1])
    array([ 3., -4.,  0., -2.])
    """
    d = np.asarray(differences, dtype=np.float64)
    return np.asarray(np.sign(d) * stats.rankdata(np.abs(d)), dtype=np.float64)


def signed_rank_test(differences: ArrayLike, *, seed: int = 0, draws: int = DRAWS) -> float:
    """Sign-flip test of the signed ranks: two-sided p for differences with misses.

    Examples
    --------
    >>> signed_rank_test([-0.1, -0.2, float("-inf"), float("-inf")])
    0.125

    References
    ----------
    Wilcoxon (1945), Pratt (1959) for the zeros.
    """
    return sign_flip_test(signed_ranks(differences), seed=seed, draws=draws)


def holm(p: ArrayLike) -> Floats:
    r"""Holm's adjusted p values: all `m` conclusions hold together at the stated level.

    .. math:: \tilde p_{(j)} = \max_{i \le j} \min(1, (m - i + 1)\, p_{(i)})

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])

    References
    ----------
    Holm (1979).
    """
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    factor = np.arange(raw.size, 0, -1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factor * raw[order]))
    return adjusted


def fewest_seeds(pairs: int, alpha: float = 0.05) -> int:
    r"""Smallest number of seeds with which Holm over `pairs` can reach `alpha`.

    .. math:: \min\{S : 2^{1-S} \le \alpha / m\}

    Examples
    --------
    >>> [fewest_seeds(m, 0.05) for m in (1, 5, 15, 28)]
    [6, 8, 10, 11]
    """
    check.number("pairs", pairs, ge=1, integer=True)
    check.number("alpha", alpha, gt=0, lt=1)
    seeds = 1
    while 2.0 ** (1 - seeds) > alpha / pairs:
        seeds += 1
    return seeds


def seeds_needed(
    mean: float, sd: float, *, alpha: float, pairs: int = 1, margin: float, most: int = 1000
) -> float:
    r"""Smallest number of seeds that settles a pair with 80 % probability, if `mean` is the truth.

    .. math::
        (t_{1-\alpha/2m,\,n-1} + t_{.8,\,n-1})\, \mathrm{sd}/\sqrt n \le |\bar d|
            \quad\text{if } |\bar d| > \text{margin}, \\
        (t_{.95,\,n-1} + t_{.8,\,n-1})\, \mathrm{sd}/\sqrt n \le \text{margin} - |\bar d|
            \quad\text{otherwise}

    Parameters
    ----------
    mean, sd
        Of the paired differences.
    alpha, pairs
        Level and number `m` of pairs it is shared by.
    margin
        Differences up to here count as none, >= 0, in the unit of `mean`.
    most
        Largest number tried.

    Returns
    -------
    float
        n, at least `fewest_seeds`; infinite if more than `most`.

    Examples
    --------
    >>> import math
    >>> seeds_needed(math.log(1.05), 0.073, alpha=0.05, margin=math.log(1.01))
    20.0
    """
    check.number("sd", sd, ge=0)
    check.number("margin", margin, ge=0)
    differ = abs(mean) > margin
    n = np.arange(max(2, fewest_seeds(pairs, alpha)), most + 1)
    if n.size == 0:
        return math.inf
    level: Any = 1 - alpha / (2 * pairs) if differ else 0.95
    quantiles = stats.t.ppf(level, n - 1) + stats.t.ppf(0.8, n - 1)
    goal = abs(mean) if differ else margin - abs(mean)
    enough = quantiles * sd / np.sqrt(n) <= goal
    return float(n[np.argmax(enough)]) if enough.any() else math.inf


def alpha_at_look(look: int) -> float:
    r"""Level of the k-th look at a race that grows; all looks together spend 0.05.

    .. math:: \alpha_k = 0.04 \cdot 0.2^{k-1}

    Examples
    --------
    >>> alpha_at_look(1), round(alpha_at_look(2), 4)
    (0.04, 0.008)
    """
    check.number("look", look, ge=1, integer=True)
    return 0.04 * 0.2 ** (look - 1)
