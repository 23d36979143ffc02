"""Tuning: the same number of points for every method, drawn before anything runs by default."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from thalweg.compare.contender import Contender
from thalweg.core.catalogue import Axis, Choice, LogUniform, OneMinusLogUniform

SOBOL_SEED = 0


def table(contender: Contender, trials: int) -> list[tuple[tuple[float, ...], dict[str, Any]]]:
    """The trials of a method: points of a scrambled Sobol sequence and the values they stand for.

    Methods with as many axes get the same points. A method without axes has no trial.

    Parameters
    ----------
    contender
        The method; its space has d axes.
    trials
        Number of points T, >= 0.

    Returns
    -------
    list of (point in the unit cube, values)

    Examples
    --------
    >>> from thalweg.compare.methods import resolve
    >>> len(table(resolve("torch.optim:SGD")[0], 12))
    12

    References
    ----------
    Sobol (1967); Owen (1998), scrambling; ``scipy.stats.qmc``.
    """
    if trials == 0 or not contender.space:
        return []
    from scipy.stats import qmc

    sampler = qmc.Sobol(
        len(contender.space), scramble=True, rng=numpy.random.default_rng(SOBOL_SEED)
    )
    cube = sampler.random_base2(math.ceil(math.log2(trials)))[:trials]
    return [(tuple(map(float, u)), values_at(contender.space, u)) for u in cube]


def values_at(space: Mapping[str, Axis], u: Sequence[float]) -> dict[str, Any]:
    """The values of a point in the unit cube, four digits each so that they can be typed."""
    return {
        name: _rounded(axis, axis.at(float(x)))
        for (name, axis), x in zip(space.items(), u, strict=True)
    }


def best_trial(
    validation: Sequence[float | None], goal: str, steps: Sequence[int] | None = None
) -> int | None:
    """The trial that is best by validation; None if none finished.

    Of equals it is the one that took the fewest `steps` (a solver's run ends when it is solved),
    and then the first.

    Examples
    --------
    >>> best_trial([1e-8, None, 1e-8], "min", [40, 7, 25])
    2
    """
    keys = _keys(validation, goal, steps)
    best = min(range(len(keys)), key=keys.__getitem__, default=None)
    return best if best is not None and math.isfinite(keys[best][0]) else None


def ranks(
    validation: Sequence[float | None], goal: str, steps: Sequence[int] | None = None
) -> list[int]:
    """How many trials are better than each; those that did not finish share the last place.

    Examples
    --------
    >>> ranks([1e-8, None, 1e-8, 3.0, math.nan], "min", [40, 7, 25, 40, 7])
    [1, 3, 0, 2, 3]
    """
    keys = _keys(validation, goal, steps)
    return [sum(other < key for other in keys) for key in keys]


def _keys(
    validation: Sequence[float | None], goal: str, steps: Sequence[int] | None
) -> list[tuple[float, int]]:
    """What trials are ordered by, the best first."""
    sign = 1.0 if goal == "min" else -1.0
    taken = steps if steps is not None else [0] * len(validation)
    return [
        (sign * v, t) if v is not None and math.isfinite(v) else (math.inf, 0)
        for v, t in zip(validation, taken, strict=True)
    ]


def edges(
    space: Mapping[str, Axis], points: Sequence[Sequence[float]], best: int
) -> list[dict[str, Any]]:
    """Axes on which the best trial is the outermost of all: the space may be too narrow there.

    Parameters
    ----------
    space
        The axes.
    points
        The points of all trials in the unit cube.
    best
        Index of the best one.
    """
    found = []
    # So close to the end is the outermost of as many Sobol points; adaptive ones may lie elsewhere.
    reach = 0.5 ** math.floor(math.log2(max(1, len(points))))
    for i, (name, axis) in enumerate(space.items()):
        if isinstance(axis, Choice) or len(points) < 3:
            continue
        column = [float(point[i]) for point in points]
        # One minus log-uniform falls while u rises.
        rising = axis.at(0.0) < axis.at(1.0)
        first, last = min(column), max(column)
        for outermost, gap, low in ((first, first, rising), (last, 1 - last, not rising)):
            if column[best] == outermost and gap <= reach:
                value = _rounded(axis, axis.at(column[best]))
                found.append({"axis": name, "side": "low" if low else "high", "value": value})
    return found


def _rounded(axis: Axis, value: Any) -> Any:
    if isinstance(axis, OneMinusLogUniform):
        return float(f"{1.0 - float(f'{1.0 - value:.4g}'):.12g}")
    if isinstance(axis, LogUniform) or isinstance(value, float):
        return float(f"{value:.4g}")
    return value
