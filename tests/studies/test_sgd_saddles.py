"""The saddle study: its functions by autograd, its descent by hand, its verdict on made-up rows."""

from __future__ import annotations

import pytest
import torch

from thalweg.optim.schedules import power
from thalweg.studies import find
from thalweg.studies.sgd_saddles import (
    CHECKPOINTS,
    EXPONENTS,
    FACTORS,
    STARTS,
    gradient,
    monkey_gradient,
    noisy_descent,
    on_the_circle,
    verdict,
)
from thalweg.studies.study import Row, Word, where


def test_gradients_are_those_of_autograd() -> None:
    x = torch.randn(50, 2, dtype=torch.float64, requires_grad=True)
    f = ((x[:, 0] ** 2 - 1) ** 2 / 4 + x[:, 1] ** 2 / 2).sum()
    torch.testing.assert_close(gradient(x.detach()), torch.autograd.grad(f, x)[0])
    a, b = x.unbind(1)
    monkey = (a**3 - 3 * a * b**2 + (a**2 + b**2) ** 2 / 4).sum()
    torch.testing.assert_close(monkey_gradient(x.detach()), torch.autograd.grad(monkey, x)[0])


def test_descent_is_the_recursion_with_each_schedule() -> None:
    start = torch.tensor([[0.0, 0.0], [0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    schedules = [power(0.5, 1.0, 20.0), power(2.0, 0.5, 20.0)]
    generator = torch.Generator().manual_seed(3)
    seen = dict(noisy_descent(gradient, start, schedules, [2, 5], generator))
    generator = torch.Generator().manual_seed(3)
    x = torch.stack([start, start])
    for k in range(1, 6):
        g = gradient(x) + on_the_circle((2, 3), generator)
        x = x - torch.tensor([0.5 / (k + 20), 2.0 / (k + 20) ** 0.5])[:, None, None] * g
        if k in seen:
            torch.testing.assert_close(seen[k], x)
    assert list(seen) == [2, 5]


def test_noise_is_centred_and_excites_every_direction() -> None:
    noise = on_the_circle((20_000,), torch.Generator().manual_seed(0))
    assert noise.mean(0).abs().max() < 0.025  # 5 standard errors
    torch.testing.assert_close(
        noise.T @ noise / 20_000, 0.5 * torch.eye(2).double(), atol=0.02, rtol=0
    )


def rows(slow=(0.9, 0.5, 0.2), fast=(0.3, 0.0, 0.0), gd=1) -> list[Row]:
    made: list[Row] = []
    for start in STARTS:
        for k, share_slow, share_fast in zip(CHECKPOINTS["laptop"], slow, fast, strict=True):
            made.append({"method": "GD", "start": start, "k": k, "near": gd, "runs": 1})
            for p in EXPONENTS:
                for c in FACTORS:
                    near = int(1000 * (share_slow if p == 1 else share_fast))
                    row: Row = {"method": "SGD", "start": start, "k": k, "near": near}
                    made.append({**row, "runs": 1000, "p": p, "c": c})
    return made


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(), Word.HOLDS),
        (rows(fast=(0.3, 0.1, 0.05)), Word.FAILS),
        (rows(fast=(0.3, 0.1, 0.009)), Word.INCONCLUSIVE),
        (rows(slow=(0.9, 0.5, 0.5)), Word.HOLDS),
        (rows(slow=(0.9, 0.5, 0.51)), Word.FAILS),
        (rows(slow=(0.9, 0.2, 0.001)), Word.HOLDS),
        (rows(slow=(0.02, 0.01, 0.01)), Word.INCONCLUSIVE),
        (rows(gd=0), Word.INCONCLUSIVE),
    ],
)
def test_verdicts(made: list[Row], word: Word) -> None:
    assert verdict(made).word is word


def test_smoke_run_leaves_the_saddle_and_draws() -> None:
    study = find("sgd-saddles")
    found = list(study.run("smoke", 0))
    assert all(row["near"] == 1 for row in found if row["method"] == "GD")
    for p in EXPONENTS:
        for c in FACTORS:
            shares = [row["near"] for row in where(found, method="SGD", p=p, c=c, start="saddle")]
            assert shares[-1] < shares[0] or shares == [0] * len(shares)
    words = [part.word for part in study.verdict(found).parts]
    assert Word.FAILS not in words
    drawn = study.figure(found)
    assert len(drawn.axes) == 3
    assert {row["method"] for row in found} >= {"perturbed SGD", "SGLD", "SGD, monkey saddle"}
