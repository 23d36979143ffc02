"""The counter-examples: the published end points, the recursion by hand, the verdict."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thalweg.studies import find
from thalweg.studies.adam_counterexamples import descend, period, rare, verdict
from thalweg.studies.study import Row, Word


def by_hand(amsgrad: bool, gradients, a: float, betas: tuple[float, float], x: float) -> float:
    """The recursion of the paper; Adam with bias correction, without it for AMSGrad."""
    b1, b2 = betas
    m = v = largest = 0.0
    for k, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        largest = max(largest, v)
        if amsgrad:
            step = m / math.sqrt(largest)
        else:
            step = m / (1 - b1**k) / math.sqrt(v / (1 - b2**k))
        x = min(1.0, max(-1.0, x - a / math.sqrt(k) * step))
    return x


@pytest.mark.parametrize("method", ["Adam", "AMSGrad"])
@pytest.mark.parametrize(
    ("length", "once", "else_", "lr", "betas", "x"),
    [(3, 3.0, -1.0, 0.2, (0.0, 0.1), 1.0), (101, 1010.0, -10.0, 0.5, (0.9, 0.99), 0.0)],
)
def test_descent_is_the_recursion(method, length, once, else_, lr, betas, x) -> None:
    gradient = period(length, once, else_)
    start = torch.full((1,), x, dtype=torch.float64)
    *_, (k, end) = descend(method, start, gradient, lr, betas, 500)
    gradients = [float(gradient(k)) for k in range(1, 501)]
    assert k == 500
    assert float(end) == pytest.approx(by_hand(method == "AMSGrad", gradients, lr, betas, x))


def test_period_3_ends_where_the_paper_says() -> None:
    start = torch.ones(1, dtype=torch.float64)
    for method, expected in (("Adam", 1.0), ("AMSGrad", -1.0)):
        *_, (_, x) = descend(method, start, period(3, 3.0, -1.0), 0.2, (0.0, 0.1), 3000)
        assert float(x) == pytest.approx(expected, abs=0.01)


def test_mean_gradients_are_positive_so_that_minus_one_is_best() -> None:
    gradient = period(101, 1010.0, -10.0)
    assert sum(float(gradient(k)) for k in range(1, 102)) == 10
    random = rare(2000, torch.Generator().manual_seed(0))
    drawn = torch.cat([random(k)[1:] for k in range(1, 101)])
    assert set(drawn.tolist()) == {1010.0, -10.0}
    assert float((drawn > 0).double().mean()) == pytest.approx(0.01, abs=0.0012)  # 5 deviations


def rows(
    *,
    adam: float = 0.99,
    amsgrad: float = -0.99,
    adam_random: float = 0.97,
    fall: float = -0.4,
    spread: float = 0.02,
) -> list[Row]:
    random = np.random.default_rng(0)
    made: list[Row] = []
    for k in (100, 1000, 10_000):
        for method, end in (("Adam", adam), ("AMSGrad", amsgrad)):
            for problem in ("period 3", "period 101"):
                row: Row = {"method": method, "problem": problem, "run": 0, "k": k}
                made.append({**row, "x": end})
            for i in range(20):
                x = adam_random if method == "Adam" else fall * math.log10(k / 100)
                row = {"method": method, "problem": "random", "run": i, "k": k}
                made.append({**row, "x": x + spread * random.normal()})
    return made


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, Word.HOLDS),
        ({"adam": -0.99}, Word.FAILS),
        ({"amsgrad": -0.5}, Word.FAILS),
        ({"adam_random": 0.5}, Word.FAILS),
        ({"adam_random": 0.9}, Word.INCONCLUSIVE),
        ({"fall": 0.4}, Word.FAILS),
        ({"fall": 0.0}, Word.INCONCLUSIVE),
    ],
)
def test_verdicts(changes: dict[str, float], word: Word) -> None:
    assert verdict(rows(**changes)).word is word


def test_smoke_run_separates_the_two_and_draws() -> None:
    study = find("adam-counterexamples")
    found = list(study.run("smoke", 0))
    effects = [part.effect for part in study.verdict(found).parts]
    assert effects[0] > effects[1] + 1
    assert effects[2] > effects[3] + 0.5
    assert len(study.figure(found).axes) == 3
