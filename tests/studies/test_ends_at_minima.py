"""The rule of the study of end points, on rows made by hand."""

from __future__ import annotations

import pytest
import torch

from thalweg.studies import ends_at_minima as study
from thalweg.studies.study import Row, Word


def rows(*, stationary: int, negative: int, polished: int, n: int = 12) -> list[Row]:
    made: list[Row] = []
    for s in range(n):
        row: Row = {"seed": s, "polish_steps": 50}
        good = {"SGD": stationary, "polished": polished}
        for point, count in good.items():
            kind = "SECOND_ORDER_STATIONARY" if s < count else "NOT_STATIONARY"
            lowest = -0.01 if point == "SGD" and s < negative else 1e-3
            row |= {
                f"{point}_kind": kind, f"{point}_gradient": 1e-3, f"{point}_lambda_min": lowest,
                f"{point}_lambda_max": 1.0, f"{point}_noise": 1e-14,
                f"{point}_loss": 0.2 if point == "SGD" else 0.1,
            }  # fmt: skip
        made.append(row)
    return made


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(stationary=12, negative=0, polished=12), Word.HOLDS),
        (rows(stationary=0, negative=0, polished=12), Word.FAILS),
        (rows(stationary=12, negative=12, polished=12), Word.FAILS),
        (rows(stationary=7, negative=0, polished=12), Word.INCONCLUSIVE),
        # a certificate that never says "minimum" would prove nothing
        (rows(stationary=0, negative=12, polished=6), Word.INCONCLUSIVE),
    ],
)
def test_the_words(made: list[Row], word: Word) -> None:
    assert study.verdict(made).word is word


def test_the_figure_draws_both_points() -> None:
    drawn = study.figure(rows(stationary=3, negative=9, polished=12))
    left, right = drawn.axes
    assert len(left.lines) == 4 and len(right.lines) == 3  # three kinds of points, two curves


def test_the_penalty_is_in_the_loss() -> None:
    torch.manual_seed(0)
    model = study.Regularized()
    x, y = torch.rand(5, 64, dtype=torch.float64), torch.arange(5)
    squares = sum(float(p.detach().square().sum()) for p in model.parameters())
    with torch.no_grad():
        plain = torch.nn.functional.cross_entropy(model.layers(x), y)
        assert float(study.loss(model(x), y) - plain) == pytest.approx(5e-4 * squares)


def test_smoke() -> None:
    (found,) = [row() if callable(row) else row for row in study.run("smoke", 0)]
    assert found["polished_loss"] < found["SGD_loss"]
    assert found["polished_gradient"] < found["SGD_gradient"]
    assert study.verdict([found]).word is Word.INCONCLUSIVE  # one network says nothing
    assert study.figure([found]).axes
