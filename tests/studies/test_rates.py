"""The study of rates: the constants by definition, its descent by hand, its verdict."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thalweg.studies import find
from thalweg.studies.rates import (
    FLOOR_LR,
    RUNS,
    descend,
    descend_with_noise,
    least_squares,
    verdict,
)
from thalweg.studies.study import Row, Word, column, where


def test_constants_of_the_published_problem() -> None:
    problem = least_squares((50, 80), 0.0, seed=0)
    torch.testing.assert_close(problem.a.norm(dim=1), torch.ones(50).double())
    eigenvalues = torch.linalg.eigvalsh(problem.a @ problem.a.T / 50)
    assert problem.smoothness == pytest.approx(float(eigenvalues[-1]))
    assert problem.mu == pytest.approx(float(eigenvalues[0]))
    assert 0.03 < problem.smoothness < 0.1  # 0.0614 and 1.03e-3 in another random stream
    assert 1e-4 < problem.mu < 3e-3
    assert problem.minimum < 1e-25


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_minimum_is_that_of_least_squares(noise: float) -> None:
    problem = least_squares((60, 7), noise, seed=1)
    x = torch.linalg.pinv(problem.a) @ problem.b
    f = ((problem.a @ x - problem.b) ** 2).mean() / 2
    assert problem.minimum == pytest.approx(float(f), abs=1e-14)


def test_with_interpolation_the_gradients_of_rows_have_square_2f_and_strong_growth() -> None:
    problem = least_squares((20, 40), 0.0, seed=2)
    x = torch.randn(40, dtype=torch.float64)
    rows = (problem.a @ x - problem.b)[:, None] * problem.a
    f = ((problem.a @ x - problem.b) ** 2).mean() / 2
    torch.testing.assert_close(rows.square().sum(1).mean(), 2 * f)
    assert rows.square().sum(1).mean() <= rows.mean(0).square().sum() / problem.mu


def test_descent_is_sgd_on_the_rows_drawn() -> None:
    problem = least_squares((6, 9), 0.0, seed=3)
    looks = {k: (gap, square) for k, gap, square in descend(problem, 0.7, [0, 3], seed=5)}
    generator = torch.Generator().manual_seed(5)
    x = torch.zeros(RUNS, 9, dtype=torch.float64)
    for _ in range(3):
        for run, i in enumerate(torch.randint(6, (RUNS,), generator=generator).tolist()):
            x[run] -= 0.7 * (problem.a[i] @ x[run] - problem.b[i]) * problem.a[i]
    residual = x @ problem.a.T - problem.b
    torch.testing.assert_close(looks[3][0], residual.square().mean(1) / 2 - problem.minimum)
    gradient = residual @ problem.a / 6
    torch.testing.assert_close(looks[3][1], gradient.square().sum(1))
    assert looks[0][0].std() == 0


def test_noise_of_variance_one_keeps_the_bound_of_ghadimi_and_lan() -> None:
    problem = least_squares((200, 20), 0.5, seed=0)
    start = float((problem.b**2).mean() / 2 - problem.minimum)
    for horizon in (30, 300):
        bound = (2 * problem.smoothness * start + 1) / horizon**0.5
        assert descend_with_noise(problem, horizon, seed=0).mean() < bound


def rows(
    *,
    smooth: float = -0.5,
    growth: float = -1.2,
    linear: float = 1.0,
    drift: float = 0.0,
    floor_power: float = 1.0,
    scale: float = 0.1,
) -> list[Row]:
    random = np.random.default_rng(0)
    made: list[Row] = [{"experiment": "constants", "mu": 0.01, "smoothness": 0.1, "growth": 100.0}]
    for horizon in (100, 1000, 10_000):
        for i in range(RUNS):
            value = horizon**smooth * np.exp(0.01 * random.normal())
            made.append(
                {"experiment": "smooth", "run": i, "horizon": horizon, "gradient_square": value}
            )
    for k in range(0, 6001, 100):
        for i in range(RUNS):
            noise = float(np.exp(0.01 * random.normal()))
            row: Row = {"run": i, "k": k}
            gap = 1.0 if k == 0 else scale * 0.999**k
            square = scale * (1.0 if k == 0 else float(k) ** growth) * noise
            made.append(
                {**row, "experiment": "strong growth", "gap": gap, "gradient_square": square}
            )
            straight = float(np.exp(-0.005 * 6000 * (k / 6000) ** linear))
            made.append({**row, "experiment": "linear", "gap": straight * noise})
            for lr in FLOOR_LR:
                value = lr**floor_power * noise * np.exp(drift * k)
                made.append({**row, "experiment": f"floor {lr:g}", "gap": value})
    return made


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, Word.HOLDS),
        ({"smooth": -1.0}, Word.FAILS),
        ({"smooth": -0.65}, Word.INCONCLUSIVE),
        ({"growth": -0.5}, Word.FAILS),
        ({"linear": 0.4}, Word.FAILS),
        ({"drift": -1e-3}, Word.FAILS),
        ({"floor_power": 0.0}, Word.FAILS),
        ({"scale": 1e6}, Word.FAILS),
    ],
)
def test_verdicts(changes: dict[str, float], word: Word) -> None:
    assert verdict(rows(**changes)).word is word


def test_smoke_run_meets_the_bounds_and_draws() -> None:
    study = find("rates")
    found = list(study.run("smoke", 0))
    words = [part.word for part in study.verdict(found).parts]
    assert words[2:5] == [Word.HOLDS] * 3
    ends = column(where(found, experiment="linear", k=2000), "gap")
    assert ends.max() < 1e-8
    assert len(study.figure(found).axes) == 4
