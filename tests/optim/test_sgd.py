"""SGD against its card: torch's three modes, QHM, stationary spread, heavy ball, the rate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from thalweg.optim import SGD, sqrt_horizon

MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "heavy ball": {"momentum": 0.9},
    "dampened": {"momentum": 0.9, "dampening": 0.3},
    "nesterov": {"momentum": 0.9, "nesterov": True},
}
Make = Callable[[list[Parameter]], torch.optim.Optimizer]


def rosenbrock(x: Tensor) -> Tensor:
    return ((1 - x[:-1]) ** 2 + 10 * (x[1:] - x[:-1] ** 2) ** 2).sum()


def trajectory(make: Make, steps: int = 100) -> Tensor:
    x = Parameter(torch.linspace(-0.5, 0.5, 6, dtype=torch.float64))
    optimizer = make([x])
    points = []
    for _ in range(steps):
        optimizer.zero_grad()
        rosenbrock(x).backward()
        optimizer.step()
        points.append(x.detach().clone())
    return torch.stack(points)


def difference(first: Make, second: Make) -> float:
    return float((trajectory(first) - trajectory(second)).abs().max())


# ---- Must hold ----


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_1_agrees_with_torch(mode: dict[str, Any]) -> None:
    assert (
        difference(
            lambda x: SGD(x, lr=1e-3, **mode),
            lambda x: torch.optim.SGD(x, lr=1e-3, **mode),
        )
        < 1e-12
    )


def test_2_qhm_with_nu_0_is_plain_sgd() -> None:
    assert (
        difference(lambda x: SGD(x, lr=1e-3, momentum=0.9, nu=0.0), lambda x: SGD(x, lr=1e-3))
        < 1e-12
    )


def test_2_qhm_buffer_is_the_momentum_buffer_times_1_minus_b() -> None:
    b, x, y = 0.9, Parameter(torch.zeros(5)), Parameter(torch.zeros(5))
    x.data, y.data = x.data.double(), y.data.double()
    qhm, momentum = SGD([x], momentum=b, nu=0.7), SGD([y], momentum=b)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        x.grad = y.grad = torch.randn(5, generator=generator, dtype=torch.float64)
        qhm.step()
        momentum.step()
        h, v = qhm.state[x]["momentum_buffer"], momentum.state[y]["momentum_buffer"]
        assert float((h - (1 - b) * v).abs().max()) < 1e-15


@settings(max_examples=8, deadline=None)
@given(b=st.floats(0.01, 0.99), lr=st.floats(1e-5, 2e-3))
def test_2_qhm_with_nu_1_is_heavy_ball(b: float, lr: float) -> None:
    assert (
        difference(
            lambda x: SGD(x, lr=lr, momentum=b, nu=1.0),
            lambda x: torch.optim.SGD(x, lr=lr * (1 - b), momentum=b),
        )
        < 1e-12
    )


@settings(max_examples=8, deadline=None)
@given(b=st.floats(0.01, 0.99), lr=st.floats(1e-5, 2e-3))
def test_2_qhm_with_nu_b_is_nesterov(b: float, lr: float) -> None:
    assert (
        difference(
            lambda x: SGD(x, lr=lr, momentum=b, nu=b),
            lambda x: torch.optim.SGD(x, lr=lr * (1 - b), momentum=b, nesterov=True),
        )
        < 1e-12
    )


def test_2_dampening_b_is_not_qhm() -> None:
    """torch does not damp the first step, so that QHM differs from it from the first step on."""
    gap = trajectory(lambda x: SGD(x, lr=1e-3, momentum=0.9, nu=1.0), 1) - trajectory(
        lambda x: torch.optim.SGD(x, lr=1e-3, momentum=0.9, dampening=0.9), 1
    )
    assert float(gap.abs().max()) > 1e-3


@settings(max_examples=6, deadline=None)
@given(b=st.floats(0.1, 0.99), nu=st.floats(0, 1), decay=st.sampled_from([0.0, 0.1]))
def test_2_agrees_with_statopt(b: float, nu: float, decay: float) -> None:
    statopt = pytest.importorskip("statopt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls add_ as torch 1.4 did
        gap = difference(
            lambda x: SGD(x, lr=1e-3, momentum=b, nu=nu, weight_decay=decay),
            lambda x: statopt.QHM(x, lr=1e-3, momentum=b, qhm_nu=nu, weight_decay=decay),
        )
    assert gap < 1e-12


@pytest.mark.parametrize(("a", "c", "s"), [(1.0, 0.1, 1.0), (2.0, 0.5, 0.7)])
def test_3_stationary_spread_on_20000_chains(a: float, c: float, s: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = Parameter(torch.zeros(20_000, dtype=torch.float64))
    optimizer = SGD([x], lr=c)
    second_moments = []
    for k in range(300):
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x.grad = a * x.detach() + s * noise
        optimizer.step()
        if k >= 100:
            second_moments.append(float(x.detach().square().mean()))
    expected = c * s**2 / (a * (2 - c * a))
    assert float(np.mean(second_moments)) == pytest.approx(expected, rel=0.03)


def test_4_heavy_ball_has_the_factor_sqrt_momentum() -> None:
    low, high = 1.0, 100.0
    spectrum = torch.linspace(low, high, 20, dtype=torch.float64)
    roots = math.sqrt(high) + math.sqrt(low)
    momentum = ((math.sqrt(high) - math.sqrt(low)) / roots) ** 2
    x = Parameter(torch.ones(20, dtype=torch.float64))
    optimizer = SGD([x], lr=4 / roots**2, momentum=momentum)
    norms = []
    for _ in range(800):
        x.grad = spectrum * x.detach()
        optimizer.step()
        norms.append(float(x.detach().norm()))
    # The double root makes the norm k rho^k: divide the k out.
    factor = (norms[799] / norms[399] * 400 / 800) ** (1 / 400)
    assert factor == pytest.approx(math.sqrt(momentum), rel=1e-3)


class Cosines:
    r"""f(x) = mean_i cos(w_i . x + b_i) + q |x|^2 / 2, in 5 dimensions; gradients of one term."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.w = torch.randn(50, 5, generator=self.generator, dtype=torch.float64)
        self.b = 6 * torch.rand(50, generator=self.generator, dtype=torch.float64)
        self.q = 0.05
        self.smoothness = float(self.w.square().sum(1).mean()) + self.q

    def value(self, x: Tensor) -> Tensor:
        return torch.cos(x @ self.w.T + self.b).mean(-1) + self.q / 2 * x.square().sum(-1)

    def terms(self, x: Tensor) -> Tensor:
        """The gradients of all 50 terms, without the quadratic all of them share."""
        return -torch.sin(x @ self.w.T + self.b)[..., None] * self.w

    def minimum(self) -> float:
        x = 3 * torch.randn(400, 5, generator=self.generator, dtype=torch.float64)
        for _ in range(400):
            x = x - (self.terms(x).mean(-2) + self.q * x) / self.smoothness
        return float(self.value(x).min())

    def run(self, steps: int, chains: int) -> tuple[float, float, float]:
        """Mean of |grad f(x_k)|^2, largest variance met, f(x_0)."""
        x = Parameter(torch.full((chains, 5), 0.5, dtype=torch.float64))
        start = float(self.value(x.detach())[0])
        optimizer = SGD([x], lr=sqrt_horizon(self.smoothness, steps)(1))
        squares, variance = 0.0, 0.0
        everyone = torch.arange(chains)
        for _ in range(steps):
            terms = self.terms(x.detach())
            mean = terms.mean(-2)
            squares += float((mean + self.q * x.detach()).square().sum(-1).mean()) / steps
            spread = (terms - mean[:, None]).square().sum(-1).mean(-1)
            variance = max(variance, float(spread.max()))
            drawn = torch.randint(50, (chains,), generator=self.generator)
            x.grad = terms[everyone, drawn] + self.q * x.detach()
            optimizer.step()
        return squares, variance, start


@pytest.mark.parametrize("steps", [100, 1000])
def test_5_non_convex_bound(steps: int) -> None:
    f = Cosines()
    squares, variance, start = f.run(steps, chains=32)
    bound = (2 * f.smoothness * (start - f.minimum()) + variance) / math.sqrt(steps)
    assert squares <= bound


# ---- Headline: the mean squared gradient falls as 1 / sqrt N ----


def rate(horizons: list[int], chains: int) -> float:
    squares = [Cosines().run(steps, chains)[0] for steps in horizons]
    return float(np.polyfit(np.log(horizons), np.log(squares), 1)[0])


def test_headline_rate_reduced() -> None:
    assert -0.65 <= rate([100, 300, 1000, 3000], chains=16) <= -0.35


@pytest.mark.slow
def test_headline_rate() -> None:
    assert -0.65 <= rate([100, 1000, 10_000, 100_000], chains=8) <= -0.35


# ---- Bad input ----


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"lr": -0.1}, "lr must be >= 0, got -0.1"),
        ({"lr": float("nan")}, "lr must be >= 0, got nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": -0.1}, r"momentum must be in \[0, 1\), got -0.1"),
        ({"dampening": 1.1}, r"dampening must be in \[0, 1\], got 1.1"),
        ({"weight_decay": -1}, "weight_decay must be >= 0, got -1"),
        ({"nesterov": True}, "nesterov must be False unless momentum > 0"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov .* dampening=0.1"),
        ({"nu": 1.1, "momentum": 0.9}, r"nu must be in \[0, 1\], got 1.1"),
        ({"nu": -0.1, "momentum": 0.9}, r"nu must be in \[0, 1\], got -0.1"),
        ({"nu": 0.5, "momentum": 0.9, "nesterov": True}, r"nu \(QHM\) must be None"),
        ({"nu": 0.5, "momentum": 0.9, "dampening": 0.5}, r"nu \(QHM\) must be None"),
    ],
)
def test_bad_input(hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SGD([Parameter(torch.zeros(2))], **hyper)


def test_plain_sgd_keeps_no_buffer() -> None:
    x = Parameter(torch.zeros(3))
    optimizer = SGD([x])
    x.grad = torch.ones(3)
    optimizer.step()
    assert set(optimizer.state[x]) == {"step"}


def test_lr_0_and_a_zero_gradient_leave_x_bitwise() -> None:
    x = Parameter(torch.tensor([-0.0, 1e-40, 3.0]))
    before = x.detach().clone().view(torch.int32)
    optimizer = SGD([x], lr=0.0, momentum=0.9)
    for _ in range(3):
        x.grad = torch.zeros(3)
        optimizer.step()
    assert torch.equal(x.detach().view(torch.int32), before)
