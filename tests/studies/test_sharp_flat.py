"""The rules of the study of sharp and flat minima, on rows made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.curvature import Objective, hessian
from thalweg.studies import sharp_flat as study
from thalweg.studies.study import Row, Word


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "DRAWS", 300)


def rows(
    *, same: float = 1.0, fastest: float = 0.4, exponent: float = 2.0, adaptive: float = 0.0,
    slope: float = 1.0, edge: bool = False,
) -> list[Row]:  # fmt: skip
    """Log ratios of both readings, the exponent of alpha, and how the error goes with sharpness."""
    made: list[Row] = [
        {"experiment": "step", "batch": b, "lr": 0.3, "edge": edge, "grid": "(0.1, 0.3)"}
        for b in study.BATCHES
    ]
    for reading, log in zip(study.READINGS, (same, fastest), strict=True):
        for s in range(5):
            for batch, value in (("small", 2.0), ("large", 2.0 * math.exp(log + 0.05 * s))):
                made.append({"experiment": "batch", "reading": reading, "batch": batch, "seed": s,
                             "lr": 0.3, "reached": True, "lambda_max": value})  # fmt: skip
    for alpha in study.ALPHAS:
        made.append({"experiment": "rescaled", "seed": 0, "alpha": alpha, "reached": True,
                     "lambda_max": alpha**exponent, "adaptive": 1 + adaptive * math.log2(alpha) / 4,
                     "difference": 1e-15})  # fmt: skip
    noise = np.random.default_rng(0).standard_normal((len(study.CELLS), 5))
    for i, (batch, lr) in enumerate(study.CELLS):
        for s in range(5):
            sharpness = 10.0 + i + 0.1 * s
            made.append({"experiment": "relation", "batch": batch, "lr": lr, "seed": s,
                         "reached": True, "lambda_max": sharpness,
                         "error": slope * sharpness + noise[i, s]})  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(), Word.HOLDS),
        (rows(same=-1.0, fastest=-1.0), Word.FAILS),
        (rows(fastest=-1.0), Word.INCONCLUSIVE),  # the step decides
        (rows(exponent=1.5), Word.FAILS),
        (rows(adaptive=0.1), Word.FAILS),
        (rows(slope=-1.0), Word.FAILS),
        (rows(slope=0.06), Word.INCONCLUSIVE),
        (rows(edge=True), Word.INCONCLUSIVE),
    ],
)
def test_the_words(made: list[Row], word: Word) -> None:
    assert study.verdict(made).word is word


def test_runs_that_did_not_get_to_the_loss_are_left_out() -> None:
    made = rows()
    for row in made:
        if row["experiment"] == "relation" and row["seed"] == 0:
            row["reached"] = False
    assert "48 runs of 12 cells" in study.verdict(made).parts[3].note


def test_the_hessian_is_rescaled_as_the_parameters_are() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10)).double()
    H, scaled = (
        hessian(study._objective(m, torch.float64)).dense()
        for m in (model, study.rescaled(model, 4.0))
    )
    objective: Objective = study._objective(model, torch.float64)
    D = objective.flatten({
        "0.weight": torch.full((4, 64), 0.25), "0.bias": torch.full((4,), 0.25),
        "2.weight": torch.full((10, 4), 4.0), "2.bias": torch.ones(10),
    })  # fmt: skip
    assert torch.allclose(scaled, D[:, None] * H * D, atol=1e-10)


def test_smoke() -> None:
    found = [row() if callable(row) else row for row in study.run("smoke", 0)]
    assert {r["experiment"] for r in found} == {"step", "batch", "rescaled", "relation"}
    parts = study.verdict(found).parts
    assert parts[1].effect is not None and 1.5 < parts[1].effect < 2.1  # towards alpha^2
    assert parts[2].word is Word.HOLDS
    assert len(study.figure(found).axes) == 3


@pytest.mark.parametrize("winner", [0.05, 0.4, 1.6])
def test_the_fastest_step_is_that_of_runs_followed_to_the_end(
    winner: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {lr: 100 + int(800 * abs(math.log(lr / winner))) for lr in study.GRIDS["small"]}

    def trained_to(
        target: float, hidden: object, steps: int, seeds: object, batch: int, lr: float
    ) -> list[tuple[None, int]]:
        return [(None, needed[lr] if needed[lr] <= steps else 0)]

    monkeypatch.setattr(study, "trained_to", trained_to)
    tuned = study._fastest("small", study.SIZES["laptop"])
    assert tuned == (winner, winner in (study.GRIDS["small"][0], study.GRIDS["small"][-1]))
