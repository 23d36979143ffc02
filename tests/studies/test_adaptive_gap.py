"""The gap of adaptive methods: the construction by its own arithmetic, the verdict."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thalweg import optim
from thalweg.studies import find
from thalweg.studies.adaptive_gap import (
    GRID,
    METHODS,
    classification_error,
    construct,
    fit,
    noisy_labels,
    verdict,
)
from thalweg.studies.study import Row, Word, where


def test_the_construction() -> None:
    data = construct(4)
    for x, y, own in ((data.x, data.y, 0), (data.x_test, data.y_test, 100)):
        for i in range(100):
            block = x[i, 3 + 5 * (own + i) : 8 + 5 * (own + i)]
            assert block.tolist() == ([1, 0, 0, 0, 0] if y[i] > 0 else [1] * 5)
            assert x[i, :3].tolist() == [y[i], 1, 1]
        assert float(x.sum()) == float((y + 2 + torch.where(y > 0, 1, 5)).sum())
    share = torch.stack([construct(s).y for s in range(20)]).gt(0).double().mean()
    assert float(share) == pytest.approx(0.75, abs=0.05)


def test_the_sign_vector_fits_the_training_points_and_calls_the_others_plus_one() -> None:
    data = construct(0)
    direction = (data.x.T @ data.y).sign()
    torch.testing.assert_close(data.x @ direction, 4 * data.y)
    assert (data.x_test @ direction > 0).all()


def test_the_solution_of_smallest_norm_has_no_test_error() -> None:
    data = construct(0)
    w = torch.linalg.pinv(data.x) @ data.y
    assert classification_error(data.x_test, data.y_test, w) == 0
    descended = fit(data, lambda params: optim.SGD(params, lr=0.3), steps=4000)
    torch.testing.assert_close(descended, w, atol=1e-3, rtol=0)


def test_adam_moves_along_the_sign_vector_until_epsilon_is_large() -> None:
    data = construct(0)
    direction = (data.x.T @ data.y).sign()
    negatives = float((data.y_test < 0).double().mean())
    w = fit(data, lambda params: optim.Adam(params, lr=1e-3, eps=1e-12), steps=300)
    assert float(w @ direction / w.norm() / direction.norm()) == pytest.approx(1, abs=1e-9)
    assert classification_error(data.x_test, data.y_test, w) == negatives > 0
    w = fit(data, lambda params: optim.Adam(params, lr=1e-3, eps=1.0), steps=4000)
    assert classification_error(data.x_test, data.y_test, w) == 0


def test_a_fifth_of_the_labels_is_wrong() -> None:
    y = torch.arange(20_000) % 10
    noisy = noisy_labels(y, seed=3)
    wrong = noisy != y
    assert float(wrong.double().mean()) == pytest.approx(0.2, abs=0.015)  # 5 deviations
    shift = (noisy - y)[wrong] % 10
    assert set(shift.tolist()) == set(range(1, 10))


def rows(
    *,
    gap: float = 0.007,
    spread: float = 0.005,
    construction: float = 0.25,
    edge: float = 0.1,
    train_error: float = 0.0,
) -> list[Row]:
    random = np.random.default_rng(0)
    made: list[Row] = []
    for method in ("gradient descent", "AdaGrad", "RMSProp", "Adam"):
        row: Row = {"experiment": "construction", "method": method, "negatives": 0.25}
        error = 0.0 if method == "gradient descent" else construction
        made.append({**row, "train_error": train_error, "test_error": error})
    for position, (method, (_, _, adaptive)) in enumerate(METHODS.items()):
        for lr in GRID:
            error = abs(np.log(lr / edge)) + 0.001 * position
            row = {"experiment": "tuning", "method": method, "lr": lr, "seed": 0}
            made.append({**row, "validation_error": error})
        for seed in range(20):
            row = {"experiment": "digits", "method": method, "lr": edge, "seed": seed}
            error = 0.1 + adaptive * gap + spread * random.normal()
            made.append({**row, "test_error": error})
    return made


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, Word.HOLDS),
        ({"gap": 0.001, "spread": 0.0001}, Word.HOLDS),  # small but clear
        ({"gap": 0.0, "spread": 0.002}, Word.FAILS),
        ({"gap": -0.01}, Word.FAILS),
        ({"gap": 0.0, "spread": 0.02}, Word.INCONCLUSIVE),
        ({"construction": 0.0}, Word.FAILS),
        ({"edge": 3.0}, Word.INCONCLUSIVE),
        ({"train_error": 0.1}, Word.INCONCLUSIVE),
    ],
)
def test_verdicts(changes: dict[str, float], word: Word) -> None:
    assert verdict(rows(**changes)).word is word


def test_the_best_of_each_kind_is_named_by_validation() -> None:
    statement = verdict(rows()).parts[1].statement
    assert "(AdaGrad)" in statement
    assert "(SGD)" in statement


def test_smoke_run_has_the_construction_and_draws() -> None:
    study = find("adaptive-gap")
    found = list(study.run("smoke", 0))
    assert study.verdict(found).parts[0].word is Word.HOLDS
    assert len(where(found, experiment="digits")) == 3 * len(METHODS)
    assert len(study.figure(found).axes) == 3
