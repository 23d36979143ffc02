"""The study of the sources of demixing: its capacities, its verdict, and a small run."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.studies import find
from thalweg.studies.demixing_sources import (
    ARMS,
    FLOW,
    RANDOM,
    REGULARIZED,
    SOURCES,
    capacity_of,
    verdict,
)
from thalweg.studies.study import Row, Word, where


def test_capacities_by_hand() -> None:
    numbers = np.array([1.0, 2.0, 3.0, 4.0])
    assert capacity_of(numbers, np.array([1.0, 0.8, 0.2, 0.0])) == pytest.approx(2.5)
    assert capacity_of(numbers, np.array([1.0, 0.6, 0.9, 0.0])) == pytest.approx(3 + 1 / 6)
    assert capacity_of(numbers, np.zeros(4)) == 1.0
    assert capacity_of(numbers, np.ones(4)) == 4.0


def rows(points: dict[str, float], gain: float = 2.0, mixtures: int = 20, spread: float = 0.2):
    """A mixture comes apart up to the method's point (m = 120), times gain (m = 240)."""
    made: list[Row] = []
    for m, factor in ((120, 1.0), (240, gain)):
        for s in SOURCES["laptop"][m]:
            for k in range(mixtures):
                for arm in ARMS:
                    point = factor * (points[arm] + spread * (2 * k / (mixtures - 1) - 1))
                    made.append(
                        {
                            "measurements": m,
                            "sources": s,
                            "mixture": k,
                            "method": arm,
                            "success": s <= point,
                        }
                    )
    return made


CLEAR = {FLOW: 3.5, RANDOM: 3.5, REGULARIZED: 3.5}


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(CLEAR), Word.HOLDS),
        (rows({**CLEAR, REGULARIZED: 4.6}), Word.FAILS),
        (rows({**CLEAR, RANDOM: 2.5}), Word.FAILS),
        (rows({**CLEAR, FLOW: 3.5}, gain=1.2), Word.FAILS),
        (rows(CLEAR, mixtures=5), Word.INCONCLUSIVE),
        (rows({**CLEAR, RANDOM: 9.0}), Word.INCONCLUSIVE),  # never fails: the control
    ],
)
def test_verdicts(made: list[Row], word: Word) -> None:
    assert verdict(made).word is word


def test_smoke_run_takes_one_source_apart_and_draws() -> None:
    study = find("demixing-sources")
    found = [row() if callable(row) else row for row in study.run("smoke", 0)]
    assert len(found) == 4 * len(ARMS)
    assert all(row["success"] for row in where(found, measurements=120, sources=1))
    assert not any(row["success"] for row in where(found, measurements=60, sources=4))
    assert study.verdict(found).word is Word.INCONCLUSIVE  # one mixture tells nothing
    assert len(study.figure(found).axes) == 2
