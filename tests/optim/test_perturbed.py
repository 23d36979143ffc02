"""PerturbedSGD against its card: the growth of its variance, the sphere, escape from a saddle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from thalweg.optim import SGD, PerturbedSGD


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def second_moments(d: int, seed: int, lr: float = 0.05, steps: int = 60) -> tuple[float, float]:
    """Means of x_i^2 over the unstable (lambda = -1) and stable (+1) halves of d coordinates."""
    eigenvalues = torch.ones(d, dtype=torch.float64)
    eigenvalues[: d // 2] = -1
    x = Parameter(torch.zeros(d, dtype=torch.float64))
    optimizer = PerturbedSGD([x], lr=lr, generator=seeded(seed))
    for _ in range(steps):
        x.grad = eigenvalues * x.detach()
        optimizer.step()
    squares = x.detach().square()
    return float(squares[: d // 2].mean()), float(squares[d // 2 :].mean())


# ---- Must hold ----


def test_1_variance_on_a_quadratic() -> None:
    """E x_i^2 is proportional to 1/d: one run in 20 000 dimensions averages over 10 000."""
    unstable, stable = second_moments(20_000, seed=0)
    assert unstable * 20_000 / 10 == pytest.approx(0.8486, rel=0.08)
    assert stable * 20_000 / 10 == pytest.approx(0.002559, rel=0.08)


@pytest.mark.slow
def test_1_variance_on_a_quadratic_in_10_dimensions() -> None:
    runs = torch.tensor([second_moments(10, seed) for seed in range(4000)])
    unstable, stable = runs.mean(0).tolist()
    assert unstable == pytest.approx(0.8486, rel=0.08)
    assert stable == pytest.approx(0.002559, rel=0.08)


def test_2_plain_descent_stays_at_the_saddle() -> None:
    x = Parameter(torch.zeros(10))
    optimizer = SGD([x], lr=0.05)
    for _ in range(60):
        x.grad = -x.detach()
        optimizer.step()
    assert torch.equal(x.detach(), torch.zeros(10))


def several(dtype: torch.dtype) -> list[Parameter]:
    shapes: list[tuple[int, ...]] = [(), (2, 3), (0,), (100,), (4, 3)]
    return [Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]


def flat(params: Sequence[Tensor]) -> Tensor:
    return torch.cat([p.detach().flatten() for p in params])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_3_noise_has_norm_r_across_all_tensors(dtype: torch.dtype, radius: float) -> None:
    params = several(dtype)
    groups = [{"params": params[:2]}, {"params": params[2:]}]
    optimizer = PerturbedSGD(groups, lr=1.0, radius=radius, generator=seeded(0))
    before = flat(params)
    for _ in range(20):
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        moved = flat(params) - before
        assert float(moved.double().norm()) == pytest.approx(radius, abs=1e-6 * radius)
        before = flat(params)


def test_3_noise_covers_tensors_with_a_gradient_only() -> None:
    params = several(torch.float64)
    optimizer = PerturbedSGD(params, lr=1.0, generator=seeded(0))
    params[3].grad = torch.zeros(100, dtype=torch.float64)
    params[4].grad = torch.zeros(4, 3, dtype=torch.float64)
    optimizer.step()
    assert all(torch.equal(p.detach(), torch.zeros_like(p)) for p in params[:3])
    assert float(flat(params).norm()) == pytest.approx(1.0, abs=1e-6)


def test_3_noise_has_mean_0_and_covariance_1_over_d() -> None:
    draws, d = 4000, 6
    params = [Parameter(torch.zeros(s, dtype=torch.float64)) for s in ((2,), (1, 3), ())]
    optimizer = PerturbedSGD(params, lr=1.0, generator=seeded(1))
    moves = []
    for _ in range(draws):
        for p in params:
            p.grad = torch.zeros_like(p)
            p.data.zero_()
        optimizer.step()
        moves.append(flat(params))
    xi = torch.stack(moves)
    # four standard errors: E xi_i^2 = 1/d, E xi_i^4 = 3/(d (d + 2)), E xi_i^2 xi_j^2 = 1/(d (d+2))
    assert float(xi.mean(0).abs().max()) < 4 * math.sqrt(1 / d / draws)
    covariance = xi.T @ xi / draws
    off = covariance - covariance.diag().diag()
    assert float(off.abs().max()) < 4 * math.sqrt(1 / (d * (d + 2)) / draws)
    variance = 3 / (d * (d + 2)) - 1 / d**2
    assert float((covariance.diag() - 1 / d).abs().max()) < 4 * math.sqrt(variance / draws)


def run(optimizer: PerturbedSGD, params: list[Parameter], steps: int) -> None:
    for _ in range(steps):
        for p in params:
            p.grad = p.detach() ** 3 - p.detach()
        optimizer.step()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_4_same_seed_same_trajectory_also_when_resumed_at_step_37(momentum: float) -> None:
    def fresh(seed: int) -> tuple[list[Parameter], PerturbedSGD]:
        params = several(torch.float32)
        return params, PerturbedSGD(params, lr=0.05, momentum=momentum, generator=seeded(seed))

    whole, optimizer = fresh(7)
    run(optimizer, whole, 60)
    again, optimizer = fresh(7)
    run(optimizer, again, 37)
    resumed, follower = fresh(8)
    for p, q in zip(resumed, again, strict=True):
        p.data.copy_(q.detach())
    follower.load_state_dict(optimizer.state_dict())
    run(follower, resumed, 23)
    run(optimizer, again, 23)
    assert torch.equal(flat(again), flat(whole))
    assert torch.equal(flat(resumed), flat(whole))
    other, optimizer = fresh(8)
    run(optimizer, other, 60)
    assert not torch.equal(flat(other), flat(whole))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_5_radius_0_is_sgd_bitwise(momentum: float) -> None:
    x = Parameter(torch.linspace(-1, 1, 9))
    y = Parameter(x.detach().clone())
    optimizers = [
        PerturbedSGD([x], lr=0.05, radius=0.0, momentum=momentum),
        SGD([y], lr=0.05, momentum=momentum),
    ]
    for _ in range(50):
        x.grad, y.grad = (torch.sin(5 * p.detach()) for p in (x, y))
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(x.detach(), y.detach())


def test_buffer_sees_the_noise() -> None:
    x = Parameter(torch.zeros(50, dtype=torch.float64))
    optimizer = PerturbedSGD([x], lr=0.1, radius=2.0, momentum=0.5, generator=seeded(0))
    x.grad = torch.zeros_like(x)
    optimizer.step()
    first = optimizer.state[x]["momentum_buffer"].clone()
    assert float(first.norm()) == pytest.approx(2.0, abs=1e-12)
    optimizer.step()
    second = optimizer.state[x]["momentum_buffer"] - 0.5 * first
    assert float(second.norm()) == pytest.approx(2.0, abs=1e-12)
    assert torch.allclose(x.detach(), -0.1 * (1.5 * first + second), atol=1e-14)


# ---- Headline: escape from a saddle in 3 log(d) / a steps, on 20 of 20 seeds ----


def escape(x: Parameter, optimizer: torch.optim.Optimizer, limit: int) -> int | None:
    """The step at which f = x^2/2 + y^4/4 - y^2/2 falls below -0.2; None if not up to `limit`."""
    for k in range(1, limit + 1):
        at = x.detach()
        g = at.clone()
        g[1] = at[1] ** 3 - at[1]
        x.grad = g
        optimizer.step()
        at = x.detach()
        value = (at.square().sum() - at[1] ** 2) / 2 + at[1] ** 4 / 4 - at[1] ** 2 / 2
        if float(value) < -0.2:
            return k
    return None


@pytest.mark.parametrize("a", [0.05, 0.1])
def test_headline_escape(a: float) -> None:
    d = 100
    limit = int(3 * math.log(d) / a)
    for seed in range(20):
        x = Parameter(torch.zeros(d, dtype=torch.float64))
        steps = escape(x, PerturbedSGD([x], lr=a, generator=seeded(seed)), limit)
        assert steps is not None, f"seed {seed} is still at the saddle after {limit} steps"


def test_headline_sgd_never_leaves() -> None:
    x = Parameter(torch.zeros(100, dtype=torch.float64))
    assert escape(x, SGD([x], lr=0.1), 1000) is None
    assert not x.detach().any()


# ---- Bad input ----


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"radius": -1.0}, "radius must be >= 0, got -1.0"),
        ({"radius": float("nan")}, "radius must be >= 0, got nan"),
        ({"lr": -0.1}, "lr must be >= 0, got -0.1"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_input(hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerturbedSGD([Parameter(torch.zeros(2))], **hyper)


def test_generator_must_be_a_generator() -> None:
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got int"):
        PerturbedSGD([Parameter(torch.zeros(2))], generator=3)  # type: ignore[arg-type]


def test_docstring_tells_that_a_constant_step_does_not_converge() -> None:
    assert PerturbedSGD.__doc__ is not None
    assert "cooldown" in PerturbedSGD.__doc__


def test_momentum_switched_on_later_starts_its_buffer() -> None:
    x = Parameter(torch.zeros(3))
    optimizer = PerturbedSGD([x], lr=0.1, radius=0.0)
    for k in range(4):
        optimizer.param_groups[0]["momentum"] = 0.5 if k >= 2 else 0.0
        x.grad = torch.ones(3)
        optimizer.step()
    # 0.1 + 0.1 + 0.1 + 0.1 (1 + 0.5)
    assert x.tolist() == pytest.approx([-0.45] * 3)
