"""Adam and AdamW against their card: torch, signs, invariance, and the problem it fails on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from thalweg.optim import Adam, AdamW

CLASSES = pytest.mark.parametrize("cls", [Adam, AdamW])


def gradients(steps: int, d: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, d, generator=generator, dtype=torch.float64)


def follow(make: Any, given_gradients: Tensor, start: float = 0.5) -> Tensor:
    x = Parameter(torch.full_like(given_gradients[0], start))
    optimizer = make([x])
    points = []
    for g in given_gradients:
        x.grad = g.clone()
        optimizer.step()
        points.append(x.detach().clone())
    return torch.stack(points)


# ---- Must hold ----


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_1_agrees_with_torch(name: str, decay: float) -> None:
    keywords = {"lr": 0.01, "betas": (0.8, 0.97), "eps": 1e-7, "weight_decay": decay}
    ours, theirs = {"Adam": Adam, "AdamW": AdamW}[name], getattr(torch.optim, name)
    a = follow(lambda x: ours(x, **keywords), gradients(150))
    b = follow(lambda x: theirs(x, **keywords), gradients(150))
    assert float((a - b).abs().max()) < 1e-12


def test_1_defaults_are_torchs() -> None:
    for ours, theirs in ((Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)):
        mine = ours([Parameter(torch.zeros(1))]).defaults
        reference = theirs([Parameter(torch.zeros(1))]).defaults
        assert {n: mine[n] for n in ("lr", "betas", "eps", "weight_decay")} == {
            n: reference[n] for n in ("lr", "betas", "eps", "weight_decay")
        }


@CLASSES
def test_2_first_step_is_lr_times_the_sign(cls: Any) -> None:
    g = torch.tensor([[1e-30, -1e-3, 1.0, -7.0, 1e20, 0.0]], dtype=torch.float64)
    x = follow(lambda x: cls(x, lr=0.1, eps=0.0, weight_decay=0.0), g, start=0.0)
    assert torch.allclose(x, -0.1 * g.sign(), rtol=1e-14, atol=0)


@CLASSES
@settings(max_examples=25, deadline=None)
@given(
    exponents=st.lists(st.floats(-6, 6), min_size=6, max_size=6),
    betas=st.tuples(st.floats(0, 0.94), st.floats(0.9, 0.9999)),
    seed=st.integers(0, 100),
)
def test_3_scaling_each_gradient_changes_nothing(
    cls: Any, exponents: list[float], betas: tuple[float, float], seed: int
) -> None:
    """g_i -> c_i g_i with c_i > 0 fixed over time, eps = 0, no decay of the L2 kind."""
    c = 10 ** torch.tensor(exponents, dtype=torch.float64)
    g = gradients(30, seed=seed)
    first, second = (
        follow(lambda x: cls(x, lr=0.01, betas=betas, eps=0.0, weight_decay=0.0), h)
        for h in (g, c * g)
    )
    assert torch.allclose(first, second, rtol=0, atol=1e-10)


def test_3_adamw_is_invariant_with_decay_and_adam_is_not() -> None:
    g = gradients(30)

    def gap(cls: Any) -> float:
        first, second = (
            follow(lambda x: cls(x, lr=0.01, eps=0.0, weight_decay=0.1), h) for h in (g, 100 * g)
        )
        return float((first - second).abs().max())

    assert gap(AdamW) < 1e-12
    assert gap(Adam) > 1e-3


@CLASSES
def test_4_without_memory_it_is_sign_descent(cls: Any) -> None:
    g = gradients(50)
    x = follow(lambda x: cls(x, lr=0.01, betas=(0.0, 0.0), eps=0.0, weight_decay=0.0), g)
    assert torch.allclose(x, 0.5 - 0.01 * g.sign().cumsum(0), rtol=0, atol=1e-12)


def on_the_counterexample(steps: int) -> float:
    """g = 3 if k mod 3 = 1 else -1 on [-1, 1]: the mean gradient is 1/3, the optimum -1."""
    x = Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = Adam([x], betas=(0.0, 0.1), eps=0.0)
    for k in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = 0.2 / k**0.5
        x.grad = torch.tensor([3.0 if k % 3 == 1 else -1.0], dtype=torch.float64)
        optimizer.step()
        x.data.clamp_(-1, 1)
    return x.item()


def test_5_fails_on_the_counterexample_reduced() -> None:
    assert on_the_counterexample(3000) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.slow
def test_5_fails_on_the_counterexample() -> None:
    assert on_the_counterexample(30_000) == pytest.approx(1.0, abs=1e-3)


# ---- Zero gradients and decay ----


@CLASSES
def test_a_coordinate_never_seen_stays_with_eps_0(cls: Any) -> None:
    g = gradients(5)
    g[:, 2] = 0
    x = follow(lambda x: cls(x, eps=0.0, weight_decay=0.0), g)
    assert torch.equal(x[:, 2], torch.full((5,), 0.5, dtype=torch.float64))
    assert bool(x.isfinite().all())


def test_adamw_decay_is_not_seen_by_the_moments() -> None:
    x = Parameter(torch.full((3,), 10.0))
    optimizer = AdamW([x], lr=0.1, weight_decay=0.5)
    x.grad = torch.zeros(3)
    optimizer.step()
    assert x.tolist() == [9.5] * 3
    assert not optimizer.state[x]["exp_avg"].any()


# ---- Bad input ----


@CLASSES
@pytest.mark.parametrize("betas", [(0.99, 0.9), (0.9, 0.81), (0.5, 0.0)])
def test_beta1_not_below_sqrt_beta2_warns(cls: Any, betas: tuple[float, float]) -> None:
    with pytest.warns(UserWarning, match=r"betas: .* betas\[0\] < sqrt\(betas\[1\]\), got"):
        cls([Parameter(torch.zeros(2))], betas=betas)


@CLASSES
@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"lr": -1e-3}, "lr must be >= 0, got -0.001"),
        ({"lr": float("nan")}, "lr must be >= 0, got nan"),
        ({"betas": (1.0, 0.999)}, r"betas\[0\] must be in \[0, 1\), got 1.0"),
        ({"betas": (-0.1, 0.999)}, r"betas\[0\] must be in \[0, 1\), got -0.1"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\] must be in \[0, 1\), got 1.0"),
        ({"betas": 0.9}, r"betas must be a pair of numbers in \[0, 1\), got 0.9"),
        ({"eps": -1e-8}, "eps must be >= 0, got -1e-08"),
        ({"weight_decay": -0.1}, "weight_decay must be >= 0, got -0.1"),
    ],
)
def test_bad_input(cls: Any, hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls([Parameter(torch.zeros(2))], **hyper)
