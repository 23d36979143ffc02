"""Step-size schedules against their card: the law of the last iterate, continuity, resuming."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Parameter

from thalweg.optim import SGD, as_lr_scheduler, cooldown, power, sqrt_horizon
from thalweg.optim.schedules import Schedule


def second_moments(c: float, steps: int, chains: int, a: float = 1.0, s: float = 1.0) -> Any:
    """Means of x_k^2 under SGD on a x^2/2 with noise s and step c/k, k = 1 first."""
    generator = torch.Generator().manual_seed(0)
    x = Parameter(torch.ones(chains))
    optimizer = SGD([x], lr=c)
    scheduler = as_lr_scheduler(optimizer, power(c))
    moments = []
    for _ in range(steps):
        x.grad = a * x.detach() + s * torch.randn(chains, generator=generator)
        optimizer.step()
        scheduler.step()
        moments.append(float(x.detach().square().mean()))
    return np.array(moments)


def exact_second_moments(c: float, steps: int, a: float = 1.0, s: float = 1.0) -> Any:
    """The same expectation, by its recursion."""
    schedule, moment, moments = power(c), 1.0, []
    for k in range(1, steps + 1):
        moment = (1 - a * schedule(k)) ** 2 * moment + (schedule(k) * s) ** 2
        moments.append(moment)
    return np.array(moments)


def slope(moments: Any, first: int) -> float:
    k = np.arange(first, len(moments) + 1)
    return float(np.polyfit(np.log(k), np.log(moments[first - 1 :]), 1)[0])


# ---- Must hold ----


def test_1_last_iterate_of_1_over_k_reduced() -> None:
    moments = second_moments(1.0, steps=1000, chains=20_000)
    assert 1000 * moments[-1] == pytest.approx(1.0, rel=0.05)


def test_1_slow_rate_when_2ac_is_below_1_reduced() -> None:
    moments = second_moments(0.25, steps=1000, chains=20_000)
    assert slope(moments, 300) == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize(("c", "limit"), [(1.0, 1.0), (2.0, 4 / 3)])
def test_1_last_iterate_of_1_over_k_by_its_recursion(c: float, limit: float) -> None:
    moments = exact_second_moments(c, 10_000)
    assert 10_000 * moments[-1] == pytest.approx(limit, rel=0.05)


def test_1_slow_rate_by_its_recursion() -> None:
    assert slope(exact_second_moments(0.25, 10_000), 1000) == pytest.approx(-0.5, abs=0.05)


@pytest.mark.slow
def test_1_last_iterate_of_1_over_k() -> None:
    fast = second_moments(1.0, steps=10_000, chains=20_000)
    assert 10_000 * fast[-1] == pytest.approx(1.0, rel=0.05)
    slow = second_moments(0.25, steps=10_000, chains=20_000)
    assert slope(slow, 1000) == pytest.approx(-0.5, abs=0.05)


@given(
    start=st.integers(1, 10_000),
    p=st.floats(0.1, 1.0),
    offset=st.one_of(st.none(), st.floats(1.0, 1e4)),
)
def test_2_cooldown_is_continuous(start: int, p: float, offset: float | None) -> None:
    schedule = cooldown(0.5, start, p, offset)
    m = start if offset is None else offset
    assert schedule(1) == schedule(start) == 0.5
    assert schedule(start + 1) == pytest.approx(0.5 * (m / (m + 1)) ** p, rel=1e-12)
    assert schedule(start + 1) < 0.5


@given(start=st.integers(1, 1000), k=st.integers(1, 100_000))
def test_2_cooldown_by_default_is_a0_start_over_k(start: int, k: int) -> None:
    assert cooldown(0.5, start)(k) == pytest.approx(0.5 * min(1, start / k), rel=1e-12)


SCHEDULES: list[Callable[[], Schedule]] = [
    lambda: power(0.5, p=0.6, offset=3),
    lambda: power(0.5),
    lambda: cooldown(0.5, start=7),
    lambda: cooldown(0.5, start=0, offset=5.0, p=0.75),
]


@pytest.mark.parametrize("make", SCHEDULES)
def test_3_resuming_gives_the_same_steps(make: Callable[[], Schedule]) -> None:
    def fresh() -> tuple[SGD, Any]:
        optimizer = SGD([Parameter(torch.zeros(1))], lr=0.5)
        return optimizer, as_lr_scheduler(optimizer, make())

    def follow(optimizer: SGD, scheduler: Any, steps: int) -> list[float]:
        used = []
        for _ in range(steps):
            used.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return used

    expected = [make()(k) for k in range(1, 31)]
    whole = follow(*fresh(), 30)
    assert whole == pytest.approx(expected, rel=1e-12)
    optimizer, scheduler = fresh()
    first = follow(optimizer, scheduler, 12)
    second, other = fresh()
    second.load_state_dict(optimizer.state_dict())
    other.load_state_dict(scheduler.state_dict())
    assert first + follow(second, other, 18) == whole


def test_4_p_0_is_constant() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = power(0.3, p=0.0, offset=2)
    assert {schedule(k) for k in (1, 2, 10, 10**6)} == {0.3}


# ---- The formulas, the adapter ----


@given(p=st.floats(0.01, 1.0), offset=st.floats(0, 1e3), k=st.integers(1, 10**6))
def test_power_formula(p: float, offset: float, k: int) -> None:
    assert power(0.5, p, offset)(k) == pytest.approx(0.5 / (k + offset) ** p, rel=1e-12)


def test_sqrt_horizon_is_constant() -> None:
    schedule = sqrt_horizon(smoothness=4.0, steps=25)
    assert [schedule(k) for k in (1, 25)] == [0.05, 0.05]


def test_adapter_keeps_the_ratio_of_the_groups() -> None:
    x, y = Parameter(torch.zeros(1)), Parameter(torch.zeros(1))
    optimizer = SGD([{"params": [x]}, {"params": [y], "lr": 0.2}], lr=1.0)
    scheduler = as_lr_scheduler(optimizer, power(1.0, p=0.5))
    for k in range(1, 6):
        assert scheduler.get_last_lr() == pytest.approx([k**-0.5, 0.2 * k**-0.5], rel=1e-12)
        optimizer.step()
        scheduler.step()


# ---- Headline: cooling down pays where noise dominates ----


class NoisyDigits:
    """Softmax regression on digits, a fifth of the labels random, lam = 1e-3."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        rng = np.random.default_rng(0)
        data, labels = load_digits(return_X_y=True)
        rows = rng.permutation(len(data))[:1297]
        self.A, y = torch.tensor(data[rows] / 16), labels[rows]
        flip = rng.random(len(y)) < 0.2
        self.y = torch.tensor(np.where(flip, rng.integers(0, 10, len(y)), y))
        self.one_hot = torch.nn.functional.one_hot(self.y, 10).double()
        self.minimum = self._minimum()

    def value(self, W: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(self.A @ W, self.y)
        return loss + 0.5e-3 * W.square().sum()

    def _minimum(self) -> float:
        W = torch.zeros(64, 10, dtype=torch.float64, requires_grad=True)
        solver = torch.optim.LBFGS(
            [W], max_iter=2000, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
        )

        def closure() -> torch.Tensor:
            solver.zero_grad()
            loss = self.value(W)
            loss.backward()
            return loss

        solver.step(closure)
        return float(self.value(W.detach()))

    def excess(self, schedule: Schedule, steps: int, seed: int) -> float:
        """F - F* after SGD with batches of 8."""
        W = Parameter(torch.zeros(64, 10, dtype=torch.float64))
        optimizer = SGD([W], lr=schedule.lr0)
        scheduler = as_lr_scheduler(optimizer, schedule)
        batches = np.random.default_rng(seed).integers(0, len(self.y), (steps, 8))
        for batch in torch.from_numpy(batches):
            at, rows = W.detach(), self.A[batch]
            residual = torch.softmax(rows @ at, 1) - self.one_hot[batch]
            W.grad = rows.T @ residual / 8 + 1e-3 * at
            optimizer.step()
            scheduler.step()
        return float(self.value(W.detach())) - self.minimum


def test_headline_cooldown_pays_under_noise_reduced() -> None:
    """A fifth of the card's steps, one seed; the factor of m = 200 needs all of them."""
    problem = NoisyDigits()
    constant = problem.excess(power(0.5, p=0.0), 4000, seed=0)
    assert problem.excess(cooldown(0.5, start=1000), 4000, seed=0) < constant / 3


@pytest.mark.slow
def test_headline_cooldown_pays_under_noise() -> None:
    """Means over 3 seeds: the last iterate of a constant step varies by a factor of 3."""
    problem = NoisyDigits()

    def excess(schedule: Schedule) -> float:
        return float(np.mean([problem.excess(schedule, 20_000, seed) for seed in range(3)]))

    constant = excess(power(0.5, p=0.0))
    assert excess(cooldown(0.5, start=5000)) < constant / 3
    assert excess(cooldown(0.5, start=5000, offset=200)) < constant / 10


# ---- Bad input ----


@pytest.mark.parametrize("p", [1.5, 2.0])
def test_p_outside_the_theory_warns(p: float) -> None:
    with pytest.warns(UserWarning, match=rf"p: the theory .* is for \(0, 1\], got {p}"):
        power(0.1, p)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: power(-0.1), "lr0 must be >= 0, got -0.1"),
        (lambda: power(0.1, p=-0.5), "p must be >= 0, got -0.5"),
        (lambda: power(0.1, offset=-1), "offset must be >= 0, got -1"),
        (lambda: cooldown(0.1, start=0), r"offset must be given \(> 0\) if start is 0"),
        (lambda: cooldown(0.1, start=10, offset=0), "offset must be > 0, got 0"),
        (lambda: cooldown(0.1, start=10, offset=-2.0), "offset must be > 0, got -2.0"),
        (lambda: cooldown(0.1, start=-1), "start must be an integer >= 0, got -1"),
        (lambda: cooldown(0.1, start=1, p=0), "p must be > 0, got 0"),
        (lambda: sqrt_horizon(0.0, 10), "smoothness must be > 0, got 0.0"),
        (lambda: sqrt_horizon(1.0, 0), "steps must be an integer >= 1, got 0"),
        (lambda: power(0.1)(0), "k must be an integer >= 1, got 0"),
    ],
)
def test_bad_input(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_3_the_state_of_a_scheduler_loads_with_weights_only(tmp_path: Path) -> None:
    def fresh() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        return optimizer, as_lr_scheduler(optimizer, cooldown(0.5, start=2))

    optimizer, scheduler = fresh()
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    torch.save(scheduler.state_dict(), tmp_path / "scheduler.pt")
    _, resumed = fresh()
    resumed.load_state_dict(torch.load(tmp_path / "scheduler.pt", weights_only=True))
    assert resumed.get_last_lr() == scheduler.get_last_lr()
