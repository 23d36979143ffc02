"""The study of joint alignment's limit: its limits, its verdict, and a small run."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.studies import find
from thalweg.studies.alignment_success import GRID, UNITS, limit_of, unit, verdict
from thalweg.studies.study import Row, Word, where


def test_limits_by_hand() -> None:
    units = np.array([1.0, 2.0, 3.0])
    assert limit_of(units, np.array([0.0, 0.2, 0.8])) == pytest.approx(2.5)
    assert limit_of(units, np.array([0.6, 0.2, 0.8])) == 1.0
    assert limit_of(units, np.zeros(3)) == 3.0
    assert unit(100, 40) == pytest.approx(unit(100, 10) / 2)


def rows(limits: tuple[float, ...] = (2.4,) * 5, draws: int = 20, spread: float = 0.1) -> list[Row]:
    """A draw is solved from its limit on; one limit for each pair (n, m)."""
    return [
        {
            "n": n,
            "m": m,
            "units": units,
            "draw": k,
            "exact": units >= limit + spread * (2 * k / (draws - 1) - 1),
        }
        for (n, m), limit in zip(GRID["laptop"], limits, strict=True)
        for units in UNITS["laptop"]
        for k in range(draws)
    ]


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(), Word.HOLDS),
        (rows((2.0, 2.4, 3.1, 2.0, 2.0)), Word.FAILS),  # n does not help enough
        (rows((3.0, 2.4, 2.0, 3.0, 3.0)), Word.FAILS),  # it helps more than is said
        (rows((2.4, 2.4, 2.4, 1.8, 3.2)), Word.FAILS),  # m does not help enough
        (rows((2.4, 2.4, 2.4, 3.1, 1.8)), Word.FAILS),
        (rows((2.0, 2.2, 2.45, 2.0, 2.0), spread=0.6), Word.INCONCLUSIVE),
        (rows(draws=5), Word.INCONCLUSIVE),
        (rows((9.0,) * 5), Word.INCONCLUSIVE),  # never solved: the control
    ],
)
def test_verdicts(made: list[Row], word: Word) -> None:
    assert verdict(made).word is word


def test_smoke_run_needs_right_differences_and_draws() -> None:
    study = find("alignment-success")
    found = [row() if callable(row) else row for row in study.run("smoke", 0)]
    assert len(found) == 3 * 2 * 3
    few, many = where(found, units=0.5), where(found, units=4.0)
    assert sum(bool(row["exact"]) for row in few) < sum(bool(row["exact"]) for row in many)
    assert study.verdict(found).word is Word.INCONCLUSIVE  # three draws tell nothing
    assert len(study.figure(found).axes) == 2
