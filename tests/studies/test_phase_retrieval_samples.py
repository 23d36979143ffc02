"""The study of the samples of phase retrieval: its 50 % points, its verdict, and a small run."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.studies import find
from thalweg.studies.phase_retrieval_samples import (
    ARMS,
    BETTER_START,
    ER,
    RATIOS,
    TAF,
    WF,
    half_point,
    verdict,
)
from thalweg.studies.study import Row, Word, where


def test_half_points_by_hand() -> None:
    ratios = np.array([2.0, 3.0, 4.0, 5.0])
    assert half_point(ratios, np.array([0.0, 0.2, 0.6, 1.0])) == pytest.approx(3.75)
    assert half_point(ratios, np.array([0.4, 0.2, 0.6, 0.1])) == pytest.approx(3.5)  # monotone
    assert half_point(ratios, np.array([0.5, 0.2, 0.6, 1.0])) == 2.0
    assert half_point(ratios, np.zeros(4)) == 5.0


def rows(points: dict[str, float], signals: int = 20, spread: float = 0.0) -> list[Row]:
    """Every signal is found from the method's point on, shifted by up to `spread`."""
    made: list[Row] = []
    for ratio in RATIOS["laptop"]:
        for k in range(signals):
            for arm in ARMS:
                found = ratio >= points[arm] + spread * (2 * k / (signals - 1) - 1)
                made.append({"ratio": ratio, "signal": k, "method": arm, "success": found})
    return made


CLEAR = {WF: 6.0, BETTER_START: 6.0, TAF: 3.0, ER: 3.0}


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(CLEAR), Word.HOLDS),
        (rows({**CLEAR, TAF: 5.0}), Word.FAILS),
        (rows({**CLEAR, BETTER_START: 2.0}), Word.FAILS),
        (rows({**CLEAR, WF: 4.6}, spread=1.5), Word.INCONCLUSIVE),
        (rows(CLEAR, signals=5), Word.INCONCLUSIVE),
        (rows({**CLEAR, WF: 9.0}), Word.INCONCLUSIVE),  # never crosses: the control
    ],
)
def test_verdicts(made: list[Row], word: Word) -> None:
    assert verdict(made).word is word


def test_smoke_run_fails_with_few_measurements_succeeds_with_many_and_draws() -> None:
    study = find("phase-retrieval-samples")
    found = [row() if callable(row) else row for row in study.run("smoke", 0)]
    assert len(found) == 2 * 3 * len(ARMS)
    assert not any(row["success"] for row in where(found, method=WF, ratio=3.0))
    assert all(row["success"] for row in where(found, method=TAF, ratio=8.0))
    assert study.verdict(found).word is Word.INCONCLUSIVE  # three signals tell nothing
    assert len(study.figure(found).axes) == 1
