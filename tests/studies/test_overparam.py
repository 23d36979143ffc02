"""The rule of the study of over-parametrized networks, on rows made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thalweg.studies import overparam as study
from thalweg.studies.study import Row, Word


def rows(
    *, fitted: bool = True, correct: int = 130, epochs: tuple[int, int] = (50, 300),
    crossed_at: int = 0, width: int = 512,
) -> list[Row]:  # fmt: skip
    made: list[Row] = []
    for m in (3, 1000, 10_000):
        made.append({
            "experiment": "bound", "m": m, "seed": 0, "crossings": int(m in (3, crossed_at)),
            "rate": -0.06, "rate_bound": -0.016, "rate_linear": -0.065,
        })  # fmt: skip
    for labels, taken in zip(study.LABELS, epochs, strict=True):
        for s in range(5):
            made.append({
                "experiment": "labels", "width": width, "parameters": 75 * width + 10,
                "labels": labels, "seed": s, "fitted": fitted or labels == "true",
                "epochs": taken + s, "correct": correct, "unseen": 1297, "true_accuracy": 0.1,
            })  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(), Word.HOLDS),
        (rows(fitted=False), Word.FAILS),
        (rows(fitted=False, width=128), Word.INCONCLUSIVE),  # 9,610 parameters: not 20 an image
        (rows(correct=250), Word.FAILS),  # 19 % of fresh labels
        (rows(correct=153), Word.INCONCLUSIVE),  # 11.8 +- 0.8 %
        (rows(epochs=(300, 50)), Word.FAILS),
        (rows(crossed_at=10_000), Word.FAILS),
        (rows(crossed_at=1000), Word.INCONCLUSIVE),
    ],
)
def test_the_words(made: list[Row], word: Word) -> None:
    assert study.verdict(made).word is word


def test_the_limiting_gram_matrix_is_the_mean_over_random_neurons() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    x = x / x.norm(dim=1, keepdim=True)
    w = torch.randn(200_000, 3, generator=generator, dtype=torch.float64)
    active = (x @ w.T > 0).double()
    mean = (x @ x.T) * (active @ active.T) / len(w)
    assert torch.allclose(study.limiting_gram(x), mean, atol=0.01)


def test_the_rate_stops_before_the_floor_of_rounding() -> None:
    squares = np.maximum(0.9 ** np.arange(2000), 1e-28)
    assert study.decay_rate(squares) == pytest.approx(math.log(0.9), rel=1e-6)


def test_smoke() -> None:
    found = [row() if callable(row) else row for row in study.run("smoke", 0)]
    wide = [r for r in found if r["experiment"] == "bound" and r["m"] == 1000]
    assert wide and all(r["crossings"] == 0 and r["final"] < 1e-6 for r in wide)
    assert study.verdict(found).parts
    assert len(study.figure(found).axes) == 3
