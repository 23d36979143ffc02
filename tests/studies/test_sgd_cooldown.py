"""The cool-down study: the expected loss by brute force, pairing, its verdict on made-up rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from thalweg.studies import find
from thalweg.studies.sgd_cooldown import ARMS, GRID, _noisy_labels, expected_loss, train, verdict
from thalweg.studies.study import Row, Word


def test_expected_loss_is_the_mean_over_noisy_labels() -> None:
    logits = torch.randn(2, 30, 10, dtype=torch.float64)
    y = torch.arange(30) % 10
    for seed_logits, loss in zip(logits, expected_loss(logits, y), strict=True):
        clean = functional.cross_entropy(seed_logits, y)
        uniform = sum(
            functional.cross_entropy(seed_logits, torch.full((30,), c)) for c in range(10)
        )
        torch.testing.assert_close(loss, 0.6 * clean + 0.4 * uniform / 10)


def test_labels_are_replaced_with_probability_04_by_uniform_ones() -> None:
    labels = torch.zeros(50_000, dtype=torch.long)
    counts = _noisy_labels(labels, seed=1).bincount(minlength=10) / 50_000
    assert counts[0] == pytest.approx(0.64, abs=0.011)  # 5 standard errors
    np.testing.assert_allclose(counts[1:], 0.04, atol=0.005)


def test_runs_are_paired_and_a_cut_off_at_the_end_changes_nothing() -> None:
    never = train(0.1, cut=1, epochs=1, seeds=[4, 5])
    again = train(0.1, cut=1, epochs=1, seeds=[5])
    torch.testing.assert_close(never.loss[1:], again.loss)
    assert not torch.allclose(never.loss[0], never.loss[1])


def rows(
    *,
    slope_shift: float = 0.0,
    constant: float = 0.0,
    loss: float = -0.01,
    error: float = 0.0,
    spread: float = 0.001,
    tuned: float = 0.1,
) -> list[Row]:
    random = np.random.default_rng(0)
    made: list[Row] = []
    for arm, (_, p) in ARMS.items():
        for block in range(10):
            slope = (constant if p == 0 else -p + slope_shift) + 0.01 * random.normal()
            for k in (1000, 3000, 10_000):
                row: Row = {"experiment": "rate", "arm": arm, "block": block, "k": k}
                made.append({**row, "gap": k**slope})
    for lr in GRID:
        made.append({"experiment": "tuning", "lr": lr, "loss": abs(np.log(lr / tuned))})
    for seed in range(10):
        for cut in (10, 20, 30, 40):
            d = 0.0 if cut == 40 else spread * random.normal()
            row = {"experiment": "cool-down", "lr": tuned, "cut": cut, "epochs": 40, "seed": seed}
            changed = cut != 40
            made.append(
                {**row, "loss": 1 + changed * loss + d, "test_error": 0.1 + changed * error}
            )
    return made


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, Word.HOLDS),
        ({"slope_shift": -0.5}, Word.HOLDS),  # faster does not refute an upper bound
        ({"slope_shift": 0.3}, Word.FAILS),
        ({"slope_shift": 0.15}, Word.INCONCLUSIVE),
        ({"constant": -0.3}, Word.FAILS),
        ({"loss": 0.01}, Word.FAILS),
        ({"loss": 0.0, "spread": 1e-4}, Word.FAILS),
        ({"loss": 0.0, "spread": 0.02}, Word.INCONCLUSIVE),
        ({"error": 0.02}, Word.FAILS),
        ({"tuned": 1.0}, Word.INCONCLUSIVE),
    ],
)
def test_verdicts(changes: dict[str, float], word: Word) -> None:
    assert verdict(rows(**changes)).word is word


def test_smoke_run_has_the_direction_and_draws() -> None:
    study = find("sgd-cooldown")
    found = list(study.run("smoke", 0))
    slopes = [part.effect for part in study.verdict(found).parts[:4]]
    assert slopes[0] < slopes[1] < slopes[2] < slopes[3]
    assert len(study.figure(found).axes) == 3
