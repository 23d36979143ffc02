"""Diagonal AdaGrad: its identities. Item (1), torch's, is in tests/reference."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thalweg.numeric import Box
from thalweg.optim import AdaGrad, AdaGradNorm
from thalweg.optim.engine.batches import SMALL

DOUBLE = torch.float64


def trajectory(
    gradient: Callable[[Tensor], Tensor], start: Tensor, steps: int, **options: object
) -> Tensor:
    x = torch.nn.Parameter(start.clone())
    optimizer = AdaGrad([x], **options)
    points = []
    for _ in range(steps):
        x.grad = gradient(x.detach())
        optimizer.step()
        points.append(x.detach().clone())
    return torch.stack(points)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


@given(
    exponents=st.lists(st.floats(-6, 6), min_size=4, max_size=4),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=30, deadline=None)
def test_2_rescaling_each_coordinate_of_the_gradient_changes_nothing(
    exponents: list[float], seed: int
) -> None:
    scale = 10 ** torch.tensor(exponents, dtype=DOUBLE)
    gradients = gaussian(20, 4, seed=seed)
    start = gaussian(4, seed=seed + 1)

    def moved(gs: Tensor) -> Tensor:
        stream = iter(gs)
        return trajectory(lambda _: next(stream).clone(), start, 20, lr=0.3, eps=0.0)

    torch.testing.assert_close(moved(gradients * scale), moved(gradients), rtol=1e-12, atol=1e-12)


def test_3_a_rotation_does_change_the_trajectory() -> None:
    A = torch.diag(torch.tensor([1.0, 100.0], dtype=DOUBLE))
    c = math.sqrt(0.5)
    Q = torch.tensor([[c, -c], [c, c]], dtype=DOUBLE)
    start = torch.tensor([1.0, 2.0], dtype=DOUBLE)
    plain = trajectory(lambda x: A @ x, start, 20, lr=0.1)
    rotated = trajectory(lambda x: Q.T @ A @ Q @ x, Q.T @ start, 20, lr=0.1)
    assert (rotated @ Q.T - plain).abs().max() > 0.1


def test_4_first_step_is_lr_times_sign() -> None:
    g = torch.tensor([3.0, -1e-7, 0.0, 1e8, -2.0], dtype=DOUBLE)
    first = trajectory(lambda _: g.clone(), torch.zeros(5, dtype=DOUBLE), 1, lr=0.25, eps=0.0)[0]
    torch.testing.assert_close(first, -0.25 * g.sign(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("stream", ["random", "adversary", "sparse"])
@pytest.mark.parametrize("seed", range(3))
def test_5_regret_on_a_box(stream: str, seed: int) -> None:
    """Online linear losses <g_t, x>: regret <= sqrt(2) D_inf sum_i ||g_{1:T,i}||_2."""
    d, T, width = 6, 250, 2.0
    draws = gaussian(T, d, seed=seed) * torch.logspace(-2, 2, d, dtype=DOUBLE)
    if stream == "sparse":
        draws *= gaussian(T, d, seed=seed + 50).abs() > 1.5
    x = torch.nn.Parameter(torch.zeros(d, dtype=DOUBLE))
    box = Box(-width / 2, width / 2)
    optimizer = AdaGrad([x], lr=width / math.sqrt(2), eps=0.0, constraint=box)
    paid, seen = 0.0, torch.zeros(T, d, dtype=DOUBLE)
    for t in range(T):
        g = draws[t]
        if stream == "adversary":  # charge the side on which x stands
            g = g.abs() * torch.where(x.detach() >= 0, 1.0, -1.0)
        seen[t] = g
        paid += float(g @ x.detach())
        x.grad = g.clone()
        optimizer.step()
        assert box.contains(x.detach(), tol=0.0)
    total = seen.sum(0)
    best = float(total @ box.minimize_linear(total))
    regret = paid - best
    bound = math.sqrt(2) * width * float(seen.norm(dim=0).sum())
    assert 0 < regret <= bound
    if stream == "adversary":
        assert regret > 0.05 * bound, "the losses do not come near the bound: nothing was tested"


def test_definition_in_three_steps_by_hand() -> None:
    x = torch.nn.Parameter(torch.tensor([1.0], dtype=DOUBLE))
    optimizer = AdaGrad([x], lr=0.5, eps=0.1, initial_accumulator=7.0, weight_decay=1.0)
    x.grad = torch.tensor([2.0], dtype=DOUBLE)  # with decay 3; Q = 7 + 9 = 16
    optimizer.step()
    assert x.item() == pytest.approx(1 - 0.5 * 3 / 4.1, rel=1e-15)
    assert optimizer.state[x]["sum"].item() == 16
    g = 1.5
    total = g + x.item()
    expected = x.item() - 0.5 * total / (math.sqrt(16 + total**2) + 0.1)
    x.grad = torch.tensor([g], dtype=DOUBLE)
    optimizer.step()
    assert x.item() == pytest.approx(expected, rel=1e-15)


def test_default_arguments() -> None:
    group = AdaGrad([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    assert (group["lr"], group["eps"], group["initial_accumulator"]) == (1e-2, 1e-10, 0.0)


def test_one_coordinate_is_adagrad_norm() -> None:
    start = torch.tensor([3.0], dtype=DOUBLE)
    mine = trajectory(lambda x: x.sin() + x, start, 30, lr=0.4, eps=0.0)
    x = torch.nn.Parameter(start.clone())
    optimizer = AdaGradNorm([x], lr=0.4, b0=0.0)
    for point in mine:
        x.grad = x.detach().sin() + x.detach()
        optimizer.step()
        torch.testing.assert_close(x.detach(), point, rtol=1e-13, atol=0)


@pytest.mark.parametrize("size", [3, SMALL + 1])
def test_bad_input_eps_0_with_a_coordinate_never_seen_stays(size: int) -> None:
    g = torch.ones(size, dtype=DOUBLE)
    g[1] = 0
    start = gaussian(size)
    points = trajectory(lambda _: g.clone(), start, 5, lr=0.1, eps=0.0)
    assert points.isfinite().all()
    assert torch.equal(points[:, 1], start[1].expand(5))
    assert (points[-1, 0] < start[0]).all()


@pytest.mark.parametrize("name", ["lr", "eps", "initial_accumulator", "weight_decay"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_bad_values_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be >= 0, got {value}"):
        AdaGrad([torch.nn.Parameter(torch.zeros(1))], **{name: value})


def test_a_group_with_a_bad_value_is_refused_and_not_kept() -> None:
    optimizer = AdaGrad([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match=r"^eps must be"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "eps": -1.0})
    assert len(optimizer.param_groups) == 1


def test_lr_0_is_legal_and_still_accumulates() -> None:
    x = torch.nn.Parameter(torch.tensor([2.0], dtype=DOUBLE))
    optimizer = AdaGrad([x], lr=0.0)
    x.grad = torch.tensor([3.0], dtype=DOUBLE)
    optimizer.step()
    assert x.item() == 2.0
    assert optimizer.state[x]["sum"].item() == 9.0
