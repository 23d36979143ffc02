"""The perceptron study: its steps by hand, its verdict on made-up rows."""

from __future__ import annotations

import pytest
import torch

from thalweg.studies import find
from thalweg.studies.lr_perceptron import (
    STEP_SIZES,
    distance_to_perceptron,
    hard_set,
    perceptron_step,
    planted,
    separate,
    verdict,
)
from thalweg.studies.study import Row, Word


def test_a_planted_set_can_be_separated() -> None:
    ya = planted(seed=5)
    theta = torch.zeros(20, dtype=torch.float64)
    for _ in range(2000):
        theta = perceptron_step(ya, theta)
    assert (ya @ theta > 0).all()
    after = perceptron_step(ya, theta)
    torch.testing.assert_close(after, theta, rtol=0, atol=0)


def test_perceptron_step_adds_the_misclassified_points() -> None:
    ya = torch.randn(30, 4, dtype=torch.float64)
    theta = torch.randn(4, dtype=torch.float64)
    wrong = sum(z for z in ya if z @ theta < 0) / 30
    torch.testing.assert_close(perceptron_step(ya, theta), theta + wrong)


@pytest.mark.parametrize(("n", "plain"), [(10, 3), (100, 21), (1000, 201)])
def test_steps_on_the_hard_set_are_the_published_ones(n: int, plain: int) -> None:
    assert separate(hard_set(n), step_size=1e4, normalize=False)[0] == plain
    assert separate(hard_set(n), step_size=1e4, normalize=True)[0] == 2


def test_a_small_step_is_far_from_the_perceptron(monkeypatch: pytest.MonkeyPatch) -> None:
    ya = planted(seed=0)
    assert distance_to_perceptron(ya) < 1e-12
    monkeypatch.setattr("thalweg.studies.lr_perceptron.LIMIT", 10.0)
    assert distance_to_perceptron(ya) > 1e-3


def rows(
    *,
    difference: float = 1e-15,
    gain: float = 8.0,
    spread: float = 1.2,
    loss_power: float = 1.0,
    plain: float = 1.0,
    normalized: float = 0.0,
) -> list[Row]:
    made: list[Row] = []
    for number in range(8):
        made.append({"experiment": "limit", "set": number, "difference": difference})
        for step_size in STEP_SIZES:
            steps = 100.0 * gain * spread ** (number - 3.5) if step_size == 1.0 else 100.0
            row: Row = {"experiment": "step size", "set": number, "step_size": step_size}
            made.append({**row, "steps": steps, "max_loss": step_size**loss_power})
    for n in (10, 100, 1000):
        for method, power in (("plain", plain), ("normalized", normalized)):
            row = {"experiment": "hard set", "method": method, "n": n, "steps": 2 * n**power}
            made.append(row)
    return made


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, Word.HOLDS),
        ({"difference": 1e-5}, Word.FAILS),
        ({"gain": 1.2}, Word.FAILS),
        ({"gain": 2.2, "spread": 2.0}, Word.INCONCLUSIVE),
        ({"loss_power": -1.0}, Word.FAILS),
        ({"plain": 1.3}, Word.FAILS),
        ({"normalized": 0.2}, Word.FAILS),
    ],
)
def test_verdicts(changes: dict[str, float], word: Word) -> None:
    assert verdict(rows(**changes)).word is word


def test_smoke_run_holds_and_draws() -> None:
    study = find("lr-perceptron")
    found = list(study.run("smoke", 0))
    assert study.verdict(found).word is Word.HOLDS
    assert len(study.figure(found).axes) == 3
