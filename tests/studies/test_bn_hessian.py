"""The rule of the study of batch normalization, on rows made by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from thalweg.studies import bn_hessian as study
from thalweg.studies.study import Row, Word


def rows(
    logs: dict[int, float], *, spread: float = 0.05, edge: bool = False, train: float = 0.3
) -> list[Row]:
    """Rows whose log ratio at each depth is given; a depth of NaN did not train without."""
    made: list[Row] = []
    for depth, log in logs.items():
        for normalized in (True, False):
            made.append({"measure": "step", "depth": depth, "normalized": normalized, "lr": 0.05,
                         "edge": edge, "grid": "(0.01, 0.05)"})  # fmt: skip
        for s in range(5):
            ratio = math.exp(log + spread * (s - 2)) if math.isfinite(log) else 1.0
            common: Row = {"measure": "curvature", "depth": depth, "seed": s}
            made += [
                {**common, "normalized": True, "reached": True, "lambda_max_eval": 2 * ratio,
                 "lambda_max_train": 2 * train},
                {**common, "normalized": False, "reached": math.isfinite(log),
                 "lambda_max_eval": 2.0, "lambda_max_train": 2.0},
            ]  # fmt: skip
    return made


FALLS = {1: 0.6, 2: 0.3, 4: 0.0, 6: -0.3}


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(FALLS), Word.HOLDS),
        (rows({1: -0.6, 2: -0.7, 4: -0.8, 6: -0.9}), Word.FAILS),  # smoother at depth 1
        (rows({1: 0.3, 2: 0.5, 4: 0.7, 6: 0.9}), Word.FAILS),  # rises
        (rows({1: 0.05, 2: 0.0, 4: -0.2, 6: -0.3}), Word.INCONCLUSIVE),
        (rows({1: 0.6, 2: 0.3, 4: math.nan, 6: math.nan}), Word.INCONCLUSIVE),  # two depths
        (rows(FALLS, edge=True), Word.INCONCLUSIVE),
    ],
)
def test_the_words(made: list[Row], word: Word) -> None:
    assert study.verdict(made).word is word


def test_the_sentence_tells_the_sign_of_the_other_mode() -> None:
    assert "smaller at depth 1" in study.verdict(rows(FALLS, train=0.3)).sentence
    assert "larger at depth 1" in study.verdict(rows(FALLS, train=3.0)).sentence


def test_networks_that_do_not_train_are_left_out() -> None:
    made = rows({1: 0.6, 2: 0.3, 4: 0.0, 6: math.nan})
    assert sorted(study.log_ratios(made, "lambda_max_eval")) == [1, 2, 4]
    assert "5 networks did not get to the loss" in study.verdict(made).parts[1].note


def test_smoke() -> None:
    found = [row() if callable(row) else row for row in study.run("smoke", 0)]
    assert len(found) == 2 * (1 + 2)
    assert all(r["lambda_max_eval"] > 0 for r in found if r.get("reached"))
    assert any(r.get("reached") for r in found)
    assert study.verdict(found).word is Word.INCONCLUSIVE  # one depth
    assert len(study.figure(found).axes) == 2


@pytest.mark.parametrize("winner", [0.002, 0.06, 2.0])
def test_the_tuned_step_is_that_of_networks_trained_to_the_end(
    winner: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(depth: int, normalized: bool, lr: float, seed: int, epochs: int) -> Iterator[Any]:
        needed = 40 + int(4 * abs(math.log(lr / winner)))
        for check in range(1, 81):
            yield check, 0.04 if check >= needed else 1.0, None

    monkeypatch.setattr(study, "trained", trained)
    tuned = study._tuned(1, True, study.SIZES["laptop"])
    assert tuned == (winner, winner in (study.GRID[0], study.GRID[-1]))
