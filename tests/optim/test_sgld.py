"""SGLD against its card: stationary laws, temperature, a posterior, a double well."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from thalweg.optim import SGD, SGLD


def sample(
    gradient: Callable[[Tensor], Tensor],
    start: Tensor,
    burn_in: int,
    draws: int,
    every: int = 1,
    **hyper: Any,
) -> Tensor:
    """`draws` snapshots of all chains (the entries of `start`), `every` steps apart."""
    x = Parameter(start.clone())
    optimizer = SGLD([x], generator=torch.Generator().manual_seed(0), **hyper)
    snapshots = []
    for k in range(1, burn_in + draws * every + 1):
        x.grad = gradient(x.detach())
        optimizer.step()
        if k > burn_in and (k - burn_in) % every == 0:
            snapshots.append(x.detach().clone())
    return torch.stack(snapshots)


CHAINS = torch.zeros(20_000, dtype=torch.float64)


# ---- Must hold ----


@pytest.mark.parametrize(("a", "c"), [(2.0, 0.2), (1.0, 0.5)])
def test_1_stationary_variance_of_a_quadratic(a: float, c: float) -> None:
    x = sample(lambda x: a * x, CHAINS, burn_in=60, draws=40, every=3, lr=c)
    assert float(x.square().mean()) == pytest.approx(1 / (a * (1 - c * a / 2)), rel=0.01)


def test_2_temperature_0_is_sgd_bitwise() -> None:
    x = Parameter(torch.linspace(-1, 1, 9))
    y = Parameter(x.detach().clone())
    optimizers = [SGLD([x], lr=0.1, temperature=0.0), SGD([y], lr=0.1)]
    for _ in range(50):
        x.grad, y.grad = (torch.sin(5 * p.detach()) for p in (x, y))
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(x.detach(), y.detach())


@pytest.mark.parametrize("temperature", [0.25, 4.0])
def test_3_variance_is_linear_in_the_temperature(temperature: float) -> None:
    """On a quadratic, from 0 and with the same noise, the whole path scales with sqrt(T)."""
    start = CHAINS[:500]
    one = sample(lambda x: 2 * x, start, burn_in=30, draws=1, lr=0.2)
    other = sample(lambda x: 2 * x, start, burn_in=30, draws=1, lr=0.2, temperature=temperature)
    assert torch.allclose(other, temperature**0.5 * one, rtol=1e-12, atol=0)
    assert float(one.var()) > 0.5


def test_4_posterior_of_bayesian_linear_regression() -> None:
    """N = 200, d = 3, the gradient of the mean loss: num_data makes it the posterior's."""
    generator = torch.Generator().manual_seed(2)
    n, d, prior, noise = 200, 3, 5.0, 0.5
    A = torch.randn(n, d, generator=generator, dtype=torch.float64)
    A[:, 1] += 0.7 * A[:, 0]
    truth = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    b = A @ truth + noise * torch.randn(n, generator=generator, dtype=torch.float64)
    precision = A.T @ A / noise**2 + prior * torch.eye(d, dtype=torch.float64)
    covariance = torch.linalg.inv(precision)
    mean = covariance @ A.T @ b / noise**2

    def mean_gradient(x: Tensor) -> Tensor:  # of (1/N) sum (a_i x - b_i)^2 / (2 noise^2)
        return (x @ A.T - b) @ A / (n * noise**2)

    x = sample(
        mean_gradient,
        torch.zeros(500, d, dtype=torch.float64),
        burn_in=300,
        draws=100,
        every=10,
        lr=0.05 / float(torch.linalg.eigvalsh(precision)[-1]),
        num_data=n,
        weight_decay=prior,
    ).reshape(-1, d)
    assert len(x) == 50_000
    assert float((x.mean(0) - mean).norm() / mean.norm()) < 0.05
    assert float((torch.cov(x.T) - covariance).norm() / covariance.norm()) < 0.05


def double_well_distance(lr: float, steps: int) -> float:
    """Total variation between samples of U(x) = (x^2 - 1)^2 / 0.5 and exp(-U), on 40 bins."""
    generator = torch.Generator().manual_seed(1)
    start = 3 * torch.rand(20_000, generator=generator, dtype=torch.float64) - 1.5
    x = sample(lambda x: 8 * x * (x**2 - 1), start, steps, draws=10, every=steps // 20, lr=lr)
    edges = np.linspace(-2.5, 2.5, 41)
    counts, _ = np.histogram(x.numpy(), edges)
    fine = np.linspace(-2.5, 2.5, 40 * 100 + 1)
    middle = (fine[1:] + fine[:-1]) / 2
    density = np.exp(-((middle**2 - 1) ** 2) / 0.5).reshape(40, 100).sum(1)
    return float(np.abs(counts / x.numel() - density / density.sum()).sum() / 2)


def test_5_double_well() -> None:
    assert double_well_distance(lr=0.01, steps=400) < 0.05


# ---- Headline: the error of the samples falls with the step size; minibatches add to it ----


def test_headline_error_falls_when_the_step_is_halved() -> None:
    far, near, nearer = (double_well_distance(lr, 400) for lr in (0.08, 0.04, 0.02))
    assert far > 1.5 * near > 1.5 * 1.5 * nearer


def test_headline_minibatch_bias_grows_with_the_step() -> None:
    r"""Gradient noise of variance s^2 adds c s^2 / (a (2 - c a)) to the variance."""
    a, s, excess = 2.0, 1.0, []
    for c in (0.05, 0.2):
        generator = torch.Generator().manual_seed(5)

        def noisy(x: Tensor, generator: torch.Generator = generator) -> Tensor:
            return a * x + s * torch.randn(x.shape, generator=generator, dtype=x.dtype)

        x = sample(noisy, CHAINS, burn_in=100, draws=40, every=3, lr=c)
        variance = float(x.square().mean())
        assert variance == pytest.approx((2 + c * s**2) / (a * (2 - c * a)), rel=0.01)
        excess.append(variance - 1 / (a * (1 - c * a / 2)))
    assert excess[1] > 2 * excess[0]


# ---- The preconditioned form ----


def test_preconditioned_step_is_its_formula() -> None:
    n, lr, temperature, prior = 50, 1e-3, 0.7, 0.3
    x = Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64))
    optimizer = SGLD(
        [x],
        lr=lr,
        num_data=n,
        temperature=temperature,
        weight_decay=prior,
        precondition=True,
        generator=torch.Generator().manual_seed(3),
    )
    noise = torch.Generator().manual_seed(3)
    y, v = x.detach().clone(), torch.zeros(6, dtype=torch.float64)
    for k in range(5):
        g = torch.cos(y + k)
        x.grad = g.clone()
        optimizer.step()
        v = 0.99 * v + 0.01 * g**2
        G = 1 / (1e-5 + v.sqrt())
        xi = torch.randn(6, generator=noise, dtype=torch.float64)
        y = y - lr * G * (n * g + prior * y) + torch.sqrt(2 * lr * temperature * G) * xi
        assert torch.allclose(x.detach(), y, rtol=0, atol=1e-13)


# ---- Bad input ----


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"num_data": 0}, "num_data must be >= 1, got 0"),
        ({"temperature": -1.0}, "temperature must be >= 0, got -1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0, got -1.0"),
        ({"lr": -1.0}, "lr must be >= 0, got -1.0"),
    ],
)
def test_bad_input(hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SGLD([Parameter(torch.zeros(2))], **hyper)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("lr", "num_data", "lost"), [(1e-7, 10**6, "noise"), (1e-4, 1, "move")])
def test_short_formats_that_swallow_a_part_of_the_step(
    dtype: torch.dtype, lr: float, num_data: int, lost: str
) -> None:
    """sqrt(2 a T) = 4.5e-4 or a N |g| = 1e-4, below eps |x|; the other part is large enough."""
    x = Parameter(torch.ones(4, dtype=dtype))
    x.grad = torch.ones(4, dtype=dtype)
    with pytest.warns(UserWarning, match=f"SGLD: {lost} of size .* is lost in {dtype}"):
        SGLD([x], lr=lr, num_data=num_data).step()


def test_no_warning_where_nothing_is_lost() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for x, how in [
            (torch.ones(4), {}),
            (torch.full((4,), 1e-3, dtype=torch.bfloat16), {}),
            (torch.ones(4, dtype=torch.bfloat16), {"rounding": "stochastic"}),
        ]:
            p = Parameter(x)
            p.grad = torch.zeros_like(p)
            SGLD([p], lr=1e-7, **how).step()
    assert [str(warning.message) for warning in told] == []
