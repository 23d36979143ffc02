"""The rule of the study of SALSA, on rows made by hand."""

from __future__ import annotations

import pytest

from thalweg.studies import salsa_schedules as study
from thalweg.studies.study import Row, Word


def rows(points: float, scatter: float, *, edge: bool = False) -> list[Row]:
    """Ten seeds on which SALSA's accuracy differs by `points` plus or minus `scatter`."""
    made: list[Row] = []
    for s in range(10):
        for method in study.METHODS:
            own = (points + (scatter if s % 2 else -scatter)) / 100 if method == "SALSA" else 0.0
            made.append(
                {
                    "method": method, "seed": s, "lr": 0.1, "edge": edge and method == "schedule",
                    "test_accuracy": 0.95 + own, "train_loss": 0.01, "epochs": 100,
                    "drops": int(s < 4),
                }
            )  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(-0.3, 0.3), Word.HOLDS),
        (rows(0.3, 0.3), Word.HOLDS),
        (rows(-2.0, 0.3), Word.FAILS),
        (rows(2.0, 0.3), Word.FAILS),
        (rows(-1.0, 0.3), Word.INCONCLUSIVE),
        (rows(-0.3, 0.3, edge=True), Word.INCONCLUSIVE),
    ],
)
def test_the_word_follows_the_equivalence(made: list[Row], word: Word) -> None:
    found = study.verdict(made)
    assert found.word is word
    assert "on 4 of 10 seeds" in found.sentence


def test_the_interval_is_that_of_level_90() -> None:
    low, high = study.verdict(rows(0.0, 0.3)).parts[0].interval or (0.0, 0.0)
    spread = 0.003 * (10 / 9) ** 0.5 / 10**0.5
    assert high == pytest.approx(1.8331 * spread, rel=1e-3)
    assert low == pytest.approx(-high)


def test_the_schedule_drops_twice() -> None:
    values = [study.drops(step, 100) for step in (0, 49, 50, 74, 75, 99)]
    assert values == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]


def test_smoke() -> None:
    found = [row() if callable(row) else row for row in study.run("smoke", 0)]
    assert len(found) == 4
    salsa = [r for r in found if r["method"] == "SALSA"]
    assert all(r[f"lr_{study.POINTS - 1}"] > 10 * r["lr_0"] for r in salsa)  # the search raises it
    assert study.verdict(found).parts
    assert study.figure(found).axes
