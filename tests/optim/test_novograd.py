"""NovoGrad: what its card says must hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from thalweg.optim import NovoGrad
from thalweg.optim.engine.batches import SMALL

DOUBLE = torch.float64
#: Packed ones and one that is too large for it.
SHAPES = [(3, 4), (), (7,), (2, 3, 2, 2), (SMALL + 1,)]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def model() -> list[Parameter]:
    return [Parameter(gaussian(*shape, seed=i)) for i, shape in enumerate(SHAPES)]


def run(
    optimizer: Any, params: list[Parameter], steps: int, scales: list[float] | None = None
) -> list[Tensor]:
    for k in range(steps):
        for i, p in enumerate(params):
            p.grad = (scales[i] if scales else 1.0) * gaussian(*p.shape, seed=1000 * k + i)
        optimizer.step()
    return [p.detach().clone() for p in params]


def by_hand(params: list[Parameter], steps: int, **h: float) -> list[Tensor]:
    """The card's algorithm, one tensor after the other."""
    results = []
    for i, p in enumerate(params):
        x, m, v = p.detach().clone(), torch.zeros_like(p.detach()), 0.0
        for k in range(steps):
            g = gaussian(*p.shape, seed=1000 * k + i)
            square = float(g.square().sum())
            v = square if k == 0 else h["b2"] * v + (1 - h["b2"]) * square
            m = h["b1"] * m + h["scale"] * (g / (math.sqrt(v) + h["eps"]) + h["wd"] * x)
            x = x - h["lr"] * m
        results.append(x)
    return results


@pytest.mark.parametrize("averaging", [False, True])
def test_definition(averaging: bool) -> None:
    params = model()
    expected = by_hand(
        params, 20, lr=0.1, b1=0.8, b2=0.6, eps=0.5, wd=0.1, scale=0.2 if averaging else 1.0
    )
    optimizer = NovoGrad(
        params, lr=0.1, betas=(0.8, 0.6), eps=0.5, weight_decay=0.1, grad_averaging=averaging
    )
    for x, y in zip(run(optimizer, params, 20), expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_1_the_first_step_has_length_lr_in_every_tensor() -> None:
    params = model()
    start = [p.detach().clone() for p in params]
    after = run(NovoGrad(params, lr=0.3, eps=0.0), params, 1)
    lengths = [float((x - y).norm()) for x, y in zip(after, start, strict=True)]
    assert lengths == pytest.approx([0.3] * len(SHAPES), rel=1e-12)


@given(exponents=st.lists(st.floats(-20, 20), min_size=5, max_size=5))
@settings(max_examples=10, deadline=None)
def test_2_rescaling_the_gradient_of_a_tensor_changes_nothing(exponents: list[float]) -> None:
    a, b = model(), model()
    scaled = run(NovoGrad(a, eps=0.0), a, 6, [10**e for e in exponents])
    for x, y in zip(scaled, run(NovoGrad(b, eps=0.0), b, 6), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_3_without_memory_it_is_normalized_sgd() -> None:
    params = model()
    expected = [p.detach().clone() for p in params]
    for k in range(10):
        for i, x in enumerate(expected):
            g = gaussian(*x.shape, seed=1000 * k + i)
            x -= 0.1 * g / g.norm()
    after = run(NovoGrad(params, lr=0.1, betas=(0.0, 0.0), eps=0.0), params, 10)
    for x, y in zip(after, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_4_one_entry_per_tensor_is_heavy_ball_after_rmsprop() -> None:
    gradients = gaussian(30, 4)
    xs = [Parameter(torch.zeros((), dtype=DOUBLE)) for _ in range(4)]
    optimizer = NovoGrad(xs, lr=0.1, eps=0.0)
    square, buffer, expected = gradients[0] ** 2, torch.zeros(4).double(), torch.zeros(4).double()
    for k, g in enumerate(gradients):
        for x, entry in zip(xs, g, strict=True):
            x.grad = entry.clone()
        optimizer.step()
        square = square if k == 0 else 0.98 * square + 0.02 * g * g
        buffer = 0.95 * buffer + g / square.sqrt()
        expected = expected - 0.1 * buffer
    torch.testing.assert_close(torch.stack([x.detach() for x in xs]), expected)


def test_5_state_is_one_tensor_and_one_number() -> None:
    params = model()
    optimizer = NovoGrad(params)
    run(optimizer, params, 2)
    for p in params:
        state = optimizer.state[p]
        assert set(state) == {"exp_avg", "exp_avg_sq", "step"}
        assert state["exp_avg"].shape == p.shape
        assert state["exp_avg_sq"].shape == ()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_6_agrees_with_pytorch_optimizer(weight_decay: float) -> None:
    package = pytest.importorskip("pytorch_optimizer")
    a, b = model(), model()
    how: dict[str, Any] = {"lr": 0.01, "betas": (0.95, 0.98), "weight_decay": weight_decay}
    mine = run(NovoGrad(a, **how), a, 100)
    reference = package.NovoGrad(b, weight_decouple=False, grad_averaging=False, **how)
    for x, y in zip(mine, run(reference, b, 100), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.compile
def test_compiled_agrees_with_eager() -> None:
    results = []
    for compile in (True, False):
        params = model()
        results.append(run(NovoGrad(params, compile=compile, weight_decay=0.1), params, 10))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_decay_outside_the_momentum_leaves_no_trace_in_it() -> None:
    x = Parameter(torch.tensor([3.0, 4.0], dtype=DOUBLE))
    optimizer = NovoGrad([x], lr=0.5, eps=0.0, weight_decay=0.1, decay_in_momentum=False)
    x.grad = torch.tensor([0.0, 2.0], dtype=DOUBLE)
    optimizer.step()
    assert optimizer.state[x]["exp_avg"].tolist() == [0.0, 1.0]
    assert x.tolist() == pytest.approx([3 - 0.5 * 0.3, 4 - 0.5 * 1.4])


def test_gradients_beyond_the_range_of_their_squares() -> None:
    for scale in (1e-30, 1e30):
        x = Parameter(torch.zeros(2))
        x.grad = scale * torch.tensor([3.0, -4.0])
        NovoGrad([x], lr=1.0, eps=0.0).step()
        torch.testing.assert_close(x.detach(), torch.tensor([-0.6, 0.8]))


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_bad_input_a_zero_gradient_first_leaves_v_unset(eps: float) -> None:
    x = Parameter(torch.ones(2, dtype=DOUBLE))
    optimizer = NovoGrad([x], lr=1.0, eps=eps, betas=(0.0, 0.98))
    x.grad = torch.zeros(2, dtype=DOUBLE)
    optimizer.step()
    assert x.tolist() == [1.0, 1.0]
    assert optimizer.state[x]["exp_avg_sq"] == 0
    x.grad = torch.tensor([3.0, 4.0], dtype=DOUBLE)
    optimizer.step()
    assert optimizer.state[x]["exp_avg_sq"] == 25
    assert x.tolist() == pytest.approx([0.4, 0.2], abs=1e-7)


def test_bad_input_a_scalar_is_moved_by_signs() -> None:
    x = Parameter(torch.tensor(1.0))
    x.grad = torch.tensor(-1e-5)
    NovoGrad([x], lr=0.5, eps=0.0).step()
    assert x.item() == 1.5


def test_default_arguments() -> None:
    group = NovoGrad([Parameter(torch.zeros(1))]).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (1e-2, (0.95, 0.98), 1e-8)
    assert (group["weight_decay"], group["grad_averaging"]) == (0.0, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, r"lr must be >= 0, got -1.0"),
        ({"eps": -1.0}, r"eps must be >= 0, got -1.0"),
        ({"weight_decay": -1.0}, r"weight_decay must be >= 0, got -1.0"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\] must be in \[0, 1\), got 1.0"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\] must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NovoGrad([Parameter(torch.zeros(1))], **options)
