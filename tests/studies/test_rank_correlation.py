"""Kendall's tau over cells and seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from thalweg.studies.rank_correlation import tau_interval


def test_it_is_kendalls_tau_of_all_runs_with_an_interval_around_it() -> None:
    table = np.random.default_rng(0).standard_normal((8, 5, 2))
    table[..., 1] += table[..., 0]
    tau, low, high = tau_interval(table, draws=300)
    known = stats.kendalltau(table[..., 0].ravel(), table[..., 1].ravel()).statistic
    assert tau == pytest.approx(known, abs=1e-12)
    assert low < tau < high


def test_missing_runs_are_left_out() -> None:
    table = np.stack([np.arange(12.0).reshape(4, 3)] * 2, axis=2)
    table[0, 0] = np.nan, -100.0
    table[3, 2] = 100.0, np.nan
    assert tau_interval(table, draws=50)[0] == pytest.approx(1.0, abs=1e-12)


def test_runs_of_a_cell_are_drawn_together() -> None:
    # only cells differ: with as many runs in each, the interval is no narrower than of one run
    cells = np.random.default_rng(1).standard_normal((8, 1, 2))
    one, many = (tau_interval(np.repeat(cells, n, axis=1), draws=300) for n in (1, 20))
    assert many[2] - many[1] > 0.8 * (one[2] - one[1])
