"""Lion: what its card says must hold."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from thalweg.optim import AdamW, Lion

DOUBLE = torch.float64
SHAPES = [(3, 4), (), (7,), (2, 3, 2, 2), (200, 150)]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def along(gradients: Tensor, x0: float = 0.0, method: Any = Lion, **options: Any) -> Tensor:
    """The points that a fixed stream of gradients leads to."""
    x = Parameter(torch.full_like(gradients[0], x0))
    optimizer = method([x], **options)
    points = []
    for g in gradients:
        x.grad = g.clone()
        optimizer.step()
        points.append(x.detach().clone())
    return torch.stack(points)


def beside(ours: Any, theirs: Any, steps: int = 100) -> None:
    """The two runs are equal, bit for bit."""
    mine = [Parameter(gaussian(*s, seed=i)) for i, s in enumerate(SHAPES)]
    reference = [Parameter(p.detach().clone()) for p in mine]
    optimizers = ours(mine), theirs(reference)
    for k in range(steps):
        for i, (p, q) in enumerate(zip(mine, reference, strict=True)):
            p.grad = gaussian(*p.shape, seed=1000 * k + i)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(mine, reference, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_1_equals_lion_pytorch_bitwise(weight_decay: float) -> None:
    package = pytest.importorskip("lion_pytorch")
    how = {"lr": 1e-2, "weight_decay": weight_decay}
    beside(lambda p: Lion(p, compile=False, **how), lambda p: package.Lion(p, **how))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_1_equals_pytorch_optimizer(weight_decay: float) -> None:
    """It blends by lerp, which may round differently: compared where no blend is near 0."""
    package = pytest.importorskip("pytorch_optimizer")
    how = {"lr": 1e-2, "weight_decay": weight_decay}
    x = Parameter(gaussian(300))
    y = Parameter(x.detach().clone())
    ours, theirs = Lion([x], compile=False, **how), package.Lion([y], **how)
    for k in range(100):
        x.grad = gaussian(300, seed=k)
        y.grad = x.grad.clone()
        if k:
            blend = 0.9 * ours.state[x]["exp_avg"] + 0.1 * x.grad
            assert (blend.abs() > 1e-12).all()
        ours.step()
        theirs.step()
    torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


@pytest.mark.compile
def test_1_compiled_agrees_with_eager() -> None:
    gradients = gaussian(50, 30_000)
    a, b = (along(gradients, lr=1e-2, weight_decay=0.1, compile=c) for c in (True, False))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@given(lr=st.floats(1e-6, 1.0), exponent=st.floats(-30, 30), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_2_every_coordinate_moves_by_lr(lr: float, exponent: float, seed: int) -> None:
    points = along(10**exponent * gaussian(5, 8, seed=seed), lr=lr)
    steps = torch.cat([points[:1], points.diff(dim=0)]).abs()
    torch.testing.assert_close(steps, torch.full_like(steps, lr), rtol=1e-12, atol=0)


def test_2_a_blend_of_zero_does_not_move() -> None:
    points = along(torch.tensor([[1.0, 0.0]], dtype=DOUBLE), lr=0.25)
    assert points[0].tolist() == [-0.25, 0.0]


@given(exponent=st.integers(-40, 40), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_3_scaling_the_gradient_changes_nothing(exponent: int, seed: int) -> None:
    gradients = gaussian(20, 6, seed=seed)
    how = {"lr": 0.1, "weight_decay": 0.5}
    assert torch.equal(along(2.0**exponent * gradients, **how), along(gradients, **how))


def test_4_equal_betas_are_signum_and_zero_betas_sign_sgd() -> None:
    gradients = gaussian(30, 6)
    for b in (0.0, 0.7):
        x, average = torch.zeros(6, dtype=DOUBLE), torch.zeros(6, dtype=DOUBLE)
        for g, point in zip(gradients, along(gradients, lr=0.1, betas=(b, b)), strict=True):
            average = b * average + (1 - b) * g
            x = x - 0.1 * average.sign()
            torch.testing.assert_close(point, x, rtol=1e-13, atol=1e-13)


def test_the_pair_is_used_and_stored_with_different_betas() -> None:
    """By hand: m_1 = 0.5 * 4 = 2; the blend is then 0.25 * 2 - 0.75 * 0.5 = 0.125 > 0."""
    points = along(torch.tensor([[4.0], [-0.5]], dtype=DOUBLE), lr=1.0, betas=(0.25, 0.5))
    assert points.flatten().tolist() == [-1.0, -2.0]


def test_5_the_box_is_approached_exponentially() -> None:
    points = along(-torch.ones(70, 1, dtype=DOUBLE), x0=10.0, lr=0.01, weight_decay=1.0)
    assert float(points[-1]) == pytest.approx(5.4535, abs=5e-5)
    assert float(points[-1]) == pytest.approx(1 + 9 * 0.99**70, rel=1e-12)


@given(seed=st.integers(0, 1000), lr=st.floats(1e-3, 0.9), decay=st.floats(0.1, 1.0))
@settings(max_examples=20, deadline=None)
def test_5_the_distance_to_the_box_shrinks(seed: int, lr: float, decay: float) -> None:
    points = along(gaussian(40, 5, seed=seed), x0=10.0, lr=lr, weight_decay=decay)
    start = max(10 - 1 / decay, 0)
    for k, point in enumerate(points, start=1):
        outside = max(float(point.abs().max()) - 1 / decay, 0)
        assert outside <= (1 - lr * decay) ** k * start + 1e-12


def test_6_the_minimizer_on_the_box() -> None:
    c = torch.tensor([3.0, -2.0, 0.5, 0.05, -0.7], dtype=DOUBLE)
    x = Parameter(torch.zeros(5, dtype=DOUBLE))
    optimizer = Lion([x], lr=1e-3, weight_decay=1.0)
    for _ in range(20_000):
        x.grad = x.detach() - c
        optimizer.step()
    torch.testing.assert_close(x.detach(), c.clamp(-1, 1), rtol=0, atol=5e-3)
    expected = torch.tensor([1, -1, 0.4998, 0.0505, -0.7007], dtype=DOUBLE)
    torch.testing.assert_close(x.detach(), expected, rtol=0, atol=1e-3)


def test_headline_half_the_state_of_adamw() -> None:
    tensors = []
    for method in (Lion, AdamW):
        x = Parameter(torch.zeros(40, 25))
        optimizer = method([x])
        x.grad = torch.ones_like(x)
        optimizer.step()
        tensors.append(sum(t.numel() for n, t in optimizer.state[x].items() if n != "step"))
    assert tensors[0] * 2 == tensors[1]


def test_maximize_goes_up() -> None:
    assert along(torch.ones(1, 2), lr=0.5, maximize=True).tolist() == [[0.5, 0.5]]


def test_default_arguments() -> None:
    group = Lion([Parameter(torch.zeros(1))]).param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-4, (0.9, 0.99), 0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bad_input_a_short_format_that_cannot_feel_the_move(dtype: torch.dtype) -> None:
    x = Parameter(torch.tensor([1.0, 1e-4], dtype=dtype))
    with pytest.warns(UserWarning, match=r"lr: a move of 0\.0001 .* 50 % of the entries"):
        Lion([x], lr=1e-4)


def test_no_warning_where_the_move_is_felt() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Lion([Parameter(torch.ones(3))], lr=1e-4)
        Lion([Parameter(torch.ones(3, dtype=torch.bfloat16))], lr=1e-4, rounding="compensated")
        Lion([Parameter(torch.ones(3, dtype=torch.float16))], lr=0.1)
    assert [str(warning.message) for warning in told] == []


def test_bad_input_a_decay_that_overshoots() -> None:
    with pytest.raises(ValueError, match=r"weight_decay must be < 1 / lr .* got weight_decay=10"):
        Lion([Parameter(torch.zeros(1))], lr=0.1, weight_decay=10.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, r"lr must be >= 0, got -1.0"),
        ({"lr": math.nan}, r"lr must be >= 0, got nan"),
        ({"weight_decay": -1.0}, r"weight_decay must be >= 0, got -1.0"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\] must be in \[0, 1\), got 1.0"),
        ({"betas": (0.9, -0.1)}, r"betas\[1\] must be in \[0, 1\), got -0.1"),
        ({"betas": 0.9}, r"betas must be a pair of numbers in \[0, 1\), got 0.9"),
    ],
)
def test_bad_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lion([Parameter(torch.zeros(1))], **options)
