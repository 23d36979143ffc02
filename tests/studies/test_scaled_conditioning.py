"""The rule of the study of ScaledGD and the condition number, on rows made by hand."""

from __future__ import annotations

import pytest

from thalweg.studies import scaled_conditioning as study
from thalweg.studies.study import Row, Word


def rows(
    *, scaled: float = 1.0, power: float = 1.0, wobble: float = 0.0, best: float = 0.5,
    near: bool = True,
) -> list[Row]:  # fmt: skip
    """80 steps at kappa = 1: `scaled` is what ScaledGD takes at 20 relative to it."""
    made: list[Row] = []
    for name in study.PROBLEMS:
        for method in study.METHODS:

            def row(
                steps: float, kappa: int, seed: int, eta: float, tuning: bool,
                name: str = name, method: str = method,
            ) -> Row:  # fmt: skip
                return {"problem": name, "method": method, "kappa": kappa, "step_size": eta,
                        "seed": seed, "tuning": tuning, "steps": steps, "near": near}  # fmt: skip

            made += [row(100 + 1000 * (eta != best), 20, 0, eta, tuning=True) for eta in study.GRID]
            for kappa in (1, 5, 20):
                for s in range(6):
                    growth = kappa**power if method == "GD" else scaled ** (kappa == 20)
                    noise = 1 + 0.01 * s + wobble * (kappa == 20) * (s % 2)
                    made.append(row(80 * growth * noise, kappa, s, best, tuning=False))
    return made


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, Word.HOLDS),
        ({"scaled": 1.1}, Word.HOLDS),
        ({"scaled": 1.5}, Word.FAILS),
        ({"scaled": 0.7}, Word.FAILS),
        ({"power": 0.5}, Word.FAILS),
        ({"power": 0.72}, Word.FAILS),  # 8.6 times, but not like a power above .75
        ({"wobble": 0.5}, Word.INCONCLUSIVE),
        ({"best": 0.25}, Word.INCONCLUSIVE),
        ({"best": 1.0}, Word.INCONCLUSIVE),
        ({"near": False}, Word.INCONCLUSIVE),
    ],
)
def test_the_word_follows_the_steps(changed: dict[str, float], word: Word) -> None:
    assert study.verdict(rows(**changed)).word is word  # type: ignore[arg-type]


def test_steps_are_in_the_order_of_the_seeds() -> None:
    backwards = rows()[::-1]
    found = [row for row in backwards if not row["tuning"]]
    assert list(study.steps(found, "sensing", "GD", 1)) == pytest.approx(
        [80 * (1 + 0.01 * s) for s in range(6)]
    )


def test_a_run_that_never_is_near_is_counted_as_such() -> None:
    row = study.solved("smoke", "sensing", "GD", 10, 5.0, 0)  # diverges
    assert not row["near"]
    assert row["steps"] == study.MAX_STEPS + 1


def test_smoke_run_has_gradient_descent_slow_down_and_draws() -> None:
    made = [row if isinstance(row, dict) else row() for row in study.run("smoke", 0)]
    assert len(made) == 2 * 2 * 2 * study.SEEDS["smoke"]
    for name in study.PROBLEMS:
        growth = {
            method: study.steps(made, name, method, 10).mean()
            / study.steps(made, name, method, 1).mean()
            for method in study.METHODS
        }
        assert growth["GD"] > 2 * growth["ScaledGD"]
    assert len(study.figure(made).axes) == 2
