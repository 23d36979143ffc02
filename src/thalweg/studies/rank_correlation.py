"""Rank correlation of two numbers over runs that are alike in groups."""

from __future__ import annotations

import numpy as np
from scipy import stats


def tau_interval(table: np.ndarray, seed: int = 0, draws: int = 2000) -> tuple[float, float, float]:
    """Kendall's tau of two numbers and its interval, seeds and cells drawn again.

    Parameters
    ----------
    table
        Both numbers of each run, shape (cells, seeds, 2); NaN where a run is missing. Runs of a
        cell are not independent.
    seed, draws
        Of what is drawn again, and how often. Default 2000 times.

    Examples
    --------
    >>> values = np.arange(12.0).reshape(4, 3)
    >>> round(tau_interval(np.stack((values, values), axis=2))[0], 6)
    1.0
    """

    def tau(part: np.ndarray) -> float:
        pairs = part.reshape(-1, 2)
        pairs = pairs[np.isfinite(pairs).all(1)]
        return float(stats.kendalltau(pairs[:, 0], pairs[:, 1]).statistic)

    generator = np.random.default_rng(seed)
    cells, seeds = table.shape[:2]
    drawn = []
    for _ in range(draws):
        some = table[generator.integers(cells, size=cells)]
        drawn.append(tau(some[:, generator.integers(seeds, size=seeds)]))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return tau(table), float(low), float(high)
