"""The ReLU boundary study: its gradients, its verdict on made-up rows, a smoke run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from thalweg.curvature.relu.expansion import KinkedPoint
from thalweg.studies import find
from thalweg.studies.relu_boundary import FIRST_STEP, trained, verdict
from thalweg.studies.study import Row, Word


def test_training_follows_the_gradient() -> None:
    def after(steps: int) -> Any:
        return trained(3, 2, 30, runs=2, steps=steps, generator=torch.Generator().manual_seed(0))

    for start, end in zip(after(0), after(1)):
        on_no_kink = np.zeros((30, 2), dtype=bool)
        gradient = KinkedPoint(start, on_no_kink).first_order()
        moved = end.difference(start)  # Adam's first step: lr times the sign
        np.testing.assert_allclose(moved.v, -FIRST_STEP * np.sign(gradient.v), rtol=1e-4)
        np.testing.assert_allclose(moved.u, -FIRST_STEP * np.sign(gradient.u), rtol=1e-4)
        assert np.sign(moved.delta2) == -np.sign(gradient.delta2)


def rows(*, M: int = 7, L: tuple[int, ...] = (), word: str = "LOCAL_MINIMUM") -> list[Row]:
    made: list[Row] = []
    for run in range(10):
        flat = L[run] if run < len(L) else 0
        row: Row = {"d_x": 10, "d_h": 1, "m": 1000, "run": run, "M": M + run % 2 if M else 0}
        made.append({**row, "L": flat, "K": 0, "verdict": word})
    return made


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, Word.HOLDS),
        ({"M": 0}, Word.FAILS),
        ({"L": (3, 3, 3, 3, 3, 3, 3)}, Word.FAILS),
        ({"L": (4,)}, Word.FAILS),
        ({"L": (2, 2, 2)}, Word.INCONCLUSIVE),
        ({"word": "DESCENT_FIRST_ORDER"}, Word.INCONCLUSIVE),
        ({"word": "DEGENERATE"}, Word.INCONCLUSIVE),
    ],
)
def test_verdicts(changes: dict[str, Any], word: Word) -> None:
    assert verdict(rows(**changes)).word is word


def test_smoke_run_counts_kinks_and_draws() -> None:
    study = find("relu-boundary")
    found = list(study.run("smoke", 0))
    assert len(found) == 6
    assert sum(int(row["M"]) for row in found if not callable(row)) > 6
    study.verdict(found)
    assert len(study.figure(found).axes) == 2
