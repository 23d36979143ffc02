r"""Several problems: performance profile, AlgoPerf score, interquartile mean, geometric mean.

Several problems are summed up in two ways: by the *ratio to the best* method on each problem
(performance profile, AlgoPerf score; both depend on who races), and by *log ratios to one
reference* method, pooled over problems and seeds (interquartile mean, geometric mean). Raw losses
of different problems are never pooled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from thalweg.compare.paired import Floats, Goal, Interval, Scale, paired_differences, runs
from thalweg.core import check

FEWEST_BOOTSTRAP_SEEDS = 10


def ratios_to_best(times: Mapping[str, ArrayLike]) -> dict[str, Floats]:
    r"""Median time to the target over the best method's, per problem.

    .. math:: r_{p,m} = t_{p,m} / \min_{m'} t_{p,m'}

    Parameters
    ----------
    times
        Per method, medians of shape (problems,) or runs of shape (problems, seeds), > 0; infinite
        where the target was missed.

    Returns
    -------
    dict
        Per method r >= 1, shape (problems,). Where all methods miss, r is infinite for all.

    Examples
    --------
    >>> ratios_to_best({"a": [1.0, float("inf")], "b": [3.0, float("inf")]})
    {'a': array([ 1., inf]), 'b': array([ 3., inf])}

    References
    ----------
    Dolan and Moré (2002).
    """
    if not times:
        raise ValueError("times must hold at least one method, got none")
    medians: dict[str, Floats] = {}
    for name, values in times.items():
        array = np.abs(runs(f"times[{name!r}]", values, "ratio"))
        if array.ndim not in (1, 2) or array.size == 0:
            raise ValueError(
                f"times[{name!r}] must have shape (problems,) or (problems, seeds), "
                f"got {array.shape}"
            )
        medians[name] = array if array.ndim == 1 else np.median(array, axis=1)
        first = next(iter(medians))
        if medians[name].size != medians[first].size:
            raise ValueError(
                f"times[{name!r}] must have the problems of times[{first!r}], "
                f"{medians[first].size}, got {medians[name].size}"
            )
    best = np.min(list(medians.values()), axis=0)
    solved = np.isfinite(best)
    return {
        name: np.where(solved, median / np.where(solved, best, 1.0), math.inf)
        for name, median in medians.items()
    }


def performance_profile(times: Mapping[str, ArrayLike], taus: ArrayLike) -> dict[str, Floats]:
    r"""Share of problems a method solves within `tau` times the best method's time.

    .. math:: \rho_m(\tau) = \#\{p : r_{p,m} \le \tau\} / \#p

    Parameters
    ----------
    times
        As for `ratios_to_best`.
    taus
        Finite factors >= 1, shape (n,).

    Returns
    -------
    dict
        Per method rho, shape (n,).

    Examples
    --------
    >>> performance_profile({"a": [1.0, 4.0], "b": [3.0, 4.0]}, [1, 2, 3])
    {'a': array([1., 1., 1.]), 'b': array([0.5, 0.5, 1. ])}

    References
    ----------
    Dolan and Moré (2002).
    """
    tau = np.asarray(taus, dtype=np.float64)
    if not (np.isfinite(tau) & (tau >= 1)).all():
        raise ValueError(f"taus must be finite and >= 1, got {tau}")
    return {
        name: np.asarray((r[:, None] <= tau).mean(axis=0), dtype=np.float64)
        for name, r in ratios_to_best(times).items()
    }


def algoperf_score(times: Mapping[str, ArrayLike], r_max: float = 4.0) -> dict[str, float]:
    r"""AlgoPerf's score: the area under the performance profile, in closed form.

    .. math::
        \frac{1}{r_{\max} - 1} \int_1^{r_{\max}} \rho_m(\tau)\, d\tau
        = \frac{1}{\#p} \sum_p \frac{\max(0,\, r_{\max} - r_{p,m})}{r_{\max} - 1}

    Parameters
    ----------
    times
        As for `ratios_to_best`.
    r_max
        Slower than this factor counts nothing; > 1.

    Returns
    -------
    dict
        Per method, in [0, 1]. It depends on who races.

    Examples
    --------
    >>> algoperf_score({"a": [1.0, 4.0], "b": [2.5, 4.0]})
    {'a': 1.0, 'b': 0.75}

    References
    ----------
    Dahl et al., Benchmarking Neural Network Training Algorithms (2023), section 4.
    """
    check.number("r_max", r_max, gt=1)
    return {
        name: float(np.mean(np.maximum(0.0, r_max - r) / (r_max - 1)))
        for name, r in ratios_to_best(times).items()
    }


def log_ratios(
    values: Mapping[str, ArrayLike], reference: str, *, goal: Goal = "min"
) -> dict[str, Floats]:
    r"""Paired log ratios of every other method to the reference, ready to be pooled.

    .. math:: x_{p,i} = \log(A_{p,i} / R_{p,i})

    Parameters
    ----------
    values
        Per method, results > 0 of shape (problems, seeds); infinite where missed.
    reference
        One of the methods.
    goal
        Says which sign a miss has.

    Returns
    -------
    dict
        Per other method x, shape (problems, seeds): 0 where both missed.

    Examples
    --------
    >>> log_ratios({"a": [[1.0, float("inf")]], "b": [[1.0, 2.0]]}, "b")
    {'a': array([[ 0., inf]])}
    """
    check.choice("reference", reference, values)
    scale: Scale = "ratio"
    ratios: dict[str, Floats] = {}
    for name in values:
        results = runs(f"values[{name!r}]", values[name], scale)
        if results.ndim != 2 or results.shape != np.shape(values[reference]):
            raise ValueError(
                f"values[{name!r}] must have shape (problems, seeds), as values[{reference!r}] "
                f"has {np.shape(values[reference])}; got {results.shape}"
            )
        if name != reference:
            ratios[name] = paired_differences(results, values[reference], scale=scale, goal=goal)
    return ratios


def interquartile_mean(x: ArrayLike) -> float:
    r"""Mean of the middle half of all numbers, pooled.

    .. math:: \operatorname{IQM}(x) = \text{mean of } x_{(\lfloor n/4 \rfloor + 1)}, \dots,
        x_{(n - \lfloor n/4 \rfloor)}

    Infinite when more than a quarter of `x` are infinite on one side; NaN, because undefined, when
    that holds on both sides.

    Examples
    --------
    >>> interquartile_mean([0.0, 1.0, 2.0, float("inf")])
    1.5

    References
    ----------
    Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice (2021).
    """
    array = np.asarray(x, dtype=np.float64)
    if array.size == 0 or np.isnan(array).any():
        raise ValueError(f"x must be numbers, none of them NaN, got {array}")
    with np.errstate(invalid="ignore"):
        return float(stats.trim_mean(array.ravel(), 0.25))


def interquartile_mean_interval(
    x: ArrayLike, confidence: float = 0.95, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile interval of the interquartile mean, bootstrapping the seeds within each problem.

    It speaks of new seeds, not of new problems. A nominal 95 % covers 93 % at 3 problems x 10
    seeds and 92 % at 6 x 10; with 4 seeds 88 %, so fewer than 10 seeds are refused.

    Parameters
    ----------
    x
        Log ratios, shape (problems, seeds), at least 10 seeds.
    confidence
        In (0, 1).
    resamples
        Number of bootstrap samples.
    seed
        Of the resampling.

    Returns
    -------
    Interval
        Its ends are bootstrap values, never interpolated, so misses may make them infinite.

    Examples
    --------
    >>> interquartile_mean_interval([[2.0] * 10, [2.0] * 10])
    Interval(low=2.0, high=2.0)

    References
    ----------
    Agarwal et al. (2021).
    """
    array = np.asarray(x, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] == 0 or np.isnan(array).any():
        raise ValueError(f"x must have shape (problems, seeds) and no NaN, got {array}")
    problems, seeds = array.shape
    if seeds < FEWEST_BOOTSTRAP_SEEDS:
        raise ValueError(f"x must have >= {FEWEST_BOOTSTRAP_SEEDS} seeds per problem, got {seeds}")
    check.number("confidence", confidence, gt=0, lt=1)
    check.number("resamples", resamples, ge=1, integer=True)
    chosen = np.random.default_rng(seed).integers(0, seeds, size=(resamples, problems, seeds))
    samples = array[np.arange(problems)[None, :, None], chosen].reshape(resamples, -1)
    with np.errstate(invalid="ignore"):
        means = stats.trim_mean(samples, 0.25, axis=1)
    if np.isnan(means).any():  # a sample with too many misses of both methods says nothing
        return Interval(-math.inf, math.inf)
    tail = (1 - confidence) / 2
    return Interval(
        float(np.quantile(means, tail, method="lower")),
        float(np.quantile(means, 1 - tail, method="higher")),
    )


def geometric_mean_ratio(x: ArrayLike) -> float:
    r"""The ratio to the reference that log ratios have on average.

    .. math:: \exp\Big(\frac1n \sum_i x_i\Big)

    Infinite (or 0) with a single miss of the method (of the reference), NaN, because undefined,
    with both.

    Examples
    --------
    >>> geometric_mean_ratio([math.log(2.0), math.log(8.0)])
    4.0
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.exp(np.mean(np.asarray(x, dtype=np.float64))))
