"""The rule of the study of the samples a low-rank matrix needs, on rows made by hand."""

from __future__ import annotations

import pytest
import torch

from thalweg.studies import completion_samples as study
from thalweg.studies.study import Row, Word

RATIOS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
CHANGES = {study.SENSING: (1.5, 1.5), study.COMPLETION: (2.5, 2.5), study.ALTERNATING: (2.5, 2.5)}


def rows(changes: dict[str, tuple[float, float]] | None = None, count: int = 20) -> list[Row]:
    """Every method succeeds from a number of samples on, one for each size."""
    made: list[Row] = []
    for arm, points in {**CHANGES, **(changes or {})}.items():
        for n, point in zip((study.SMALL, study.LARGE), points, strict=True):
            for ratio in RATIOS:
                made += [
                    {"arm": arm, "n": n, "ratio": ratio, "matrix": k, "determined": True,
                     "error": 0.0, "success": ratio >= point, "steps": 9}
                    for k in range(count)
                ]  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, Word.HOLDS),
        ({study.SENSING: (1.5, 2.5)}, Word.FAILS),  # measurements grow 3.5 times
        ({study.COMPLETION: (2.5, 4.5)}, Word.FAILS),  # like a share of the entries
        ({study.ALTERNATING: (2.5, 4.5)}, Word.FAILS),
        ({study.SENSING: (3.5, 3.5)}, Word.FAILS),  # entries tell more than measurements
        ({study.COMPLETION: (0.5, 2.5)}, Word.INCONCLUSIVE),  # never fails: no 50 % point
    ],
)
def test_the_word_follows_the_points(changes: dict[str, tuple[float, float]], word: Word) -> None:
    assert study.verdict(rows(changes)).word is word


def test_few_matrices_decide_nothing() -> None:
    assert study.verdict(rows(count=5)).word is Word.INCONCLUSIVE


def test_growth_is_told_in_samples() -> None:
    growth = study.verdict(rows()).parts[0].effect
    # 1.5 samples for each degree of freedom at both sizes: 124 degrees against 60.
    assert growth == pytest.approx(124 / 60)


def test_a_row_with_too_few_entries_counts_as_a_failure() -> None:
    row = study.solved(study.ALTERNATING, 12, 1.0, 0, 50)
    assert (row["determined"], row["success"]) == (False, False)


def test_exactly_so_many_entries_are_seen() -> None:
    problem = study.entries(12, 90, torch.Generator().manual_seed(0))
    assert problem is not None
    assert len(problem.values) == 90
    assert len({(int(i), int(j)) for i, j in zip(problem.rows, problem.cols, strict=True)}) == 90
    assert problem.residual(problem.truth) < 1e-14


def test_smoke_run_finds_matrices_from_many_samples_only_and_draws() -> None:
    made = [make() for make in study.run("smoke", 0)]  # type: ignore[operator]
    assert len(made) == 2 * 2 * 2 * 3
    few = [row["success"] for row in made if row["ratio"] == study.RATIOS["smoke"][0]]
    many = [row["success"] for row in made if row["ratio"] == study.RATIOS["smoke"][-1]]
    assert sum(few) < sum(many)
    assert len(study.figure(made).axes) == 2
