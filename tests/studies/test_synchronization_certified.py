"""The study of certified synchronization: its limits, its verdict, and a small run."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.studies import find
from thalweg.studies.study import Row, Word, where
from thalweg.studies.synchronization_certified import NOISES, SIZES, limit_of, verdict


def test_limits_by_hand() -> None:
    noises = np.array([0.1, 0.2, 0.3])
    assert limit_of(noises, np.array([1.0, 0.8, 0.2])) == pytest.approx(0.25)
    assert limit_of(noises, np.array([0.4, 0.8, 0.2])) == 0.1
    assert limit_of(noises, np.ones(3)) == 0.3


def rows(limits: tuple[float, float, float], draws: int = 20, spread: float = 0.02) -> list[Row]:
    """A draw is certified up to its limit."""
    return [
        {
            "n": n,
            "noise": noise,
            "draw": k,
            "certified": noise <= limit + spread * (2 * k / (draws - 1) - 1),
        }
        for n, limit in zip(SIZES["laptop"], limits, strict=True)
        for noise in NOISES["laptop"]
        for k in range(draws)
    ]


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows((0.42, 0.42, 0.42)), Word.HOLDS),
        (rows((0.47, 0.4, 0.25)), Word.FAILS),
        (rows((0.25, 0.4, 0.47)), Word.FAILS),
        (rows((0.5, 0.44, 0.38), spread=0.14), Word.INCONCLUSIVE),
        (rows((0.42, 0.42, 0.42), draws=5), Word.INCONCLUSIVE),
        (rows((0.9, 0.9, 0.9)), Word.INCONCLUSIVE),  # always certified: the control
    ],
)
def test_verdicts(made: list[Row], word: Word) -> None:
    assert verdict(made).word is word


def test_smoke_run_certifies_little_noise_only_and_draws() -> None:
    study = find("synchronization-certified")
    found = [row() if callable(row) else row for row in study.run("smoke", 0)]
    assert len(found) == 2 * 2 * 3
    assert all(row["certified"] for row in where(found, noise=0.1))
    assert not all(row["certified"] for row in where(found, n=40, noise=0.8))
    assert study.verdict(found).word is Word.INCONCLUSIVE  # three draws tell nothing
    assert len(study.figure(found).axes) == 1
