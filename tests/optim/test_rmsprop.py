"""RMSProp: its identities. Item (1), torch's three modes, is in tests/reference."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thalweg.optim import AdaGrad, Adam, RMSProp
from thalweg.optim.engine.batches import SMALL

DOUBLE = torch.float64


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def along(
    gradients: Tensor,
    lr: Callable[[int], float] = lambda k: 0.01,
    method: type[torch.optim.Optimizer] = RMSProp,
    **options: object,
) -> Tensor:
    """The trajectory from 0 under a fixed stream of gradients, lr(k) at step k = 1, 2, ..."""
    x = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer = method([x], lr=lr(1), **options)
    points = []
    for k, g in enumerate(gradients, start=1):
        optimizer.param_groups[0]["lr"] = lr(k)
        x.grad = g.clone()
        optimizer.step()
        points.append(x.detach().clone())
    return torch.stack(points)


@given(alpha=st.floats(0, 0.9999), exponent=st.floats(-8, 8), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_2_first_step_is_lr_sign_over_root_of_1_minus_alpha(
    alpha: float, exponent: float, seed: int
) -> None:
    g = 10**exponent * gaussian(1, 5, seed=seed)
    first = along(g, lr=lambda k: 0.3, alpha=alpha, eps=0.0)[0]
    torch.testing.assert_close(first, -0.3 * g[0].sign() / math.sqrt(1 - alpha), rtol=1e-12, atol=0)


def test_2_first_step_is_10_lr_by_default() -> None:
    first = along(torch.tensor([[3.0, -4.0]], dtype=DOUBLE), lr=lambda k: 0.01, eps=0.0)[0]
    assert first.tolist() == pytest.approx([-0.1, 0.1], rel=1e-12)


@pytest.mark.parametrize("b", [0.9, 0.99, 0.999])
def test_3_adam_without_momentum_is_rmsprop_with_a_growing_step(b: float) -> None:
    gradients = gaussian(60, 4)
    adam = along(gradients, lr=lambda k: 0.1, method=Adam, betas=(0.0, b), eps=0.0)
    mine = along(gradients, lr=lambda k: 0.1 * math.sqrt(1 - b**k), alpha=b, eps=0.0)
    torch.testing.assert_close(mine, adam, rtol=1e-12, atol=1e-12)


def test_4_alpha_to_1_is_adagrad() -> None:
    gradients = gaussian(50, 6)
    b = 1 - 1e-8
    mine = along(gradients, lr=lambda k: 0.1 * math.sqrt(1 - b), alpha=b, eps=0.0)
    adagrad = along(gradients, lr=lambda k: 0.1, method=AdaGrad, eps=0.0)
    # relative to what was walked, step by step: a point may pass through 0
    steps, reference = mine.diff(dim=0), adagrad.diff(dim=0)
    assert ((steps - reference).abs() / reference.abs()).max() < 1e-6
    assert float((mine - adagrad).norm() / adagrad.norm()) < 1e-6


def test_definition_in_two_steps_by_hand() -> None:
    """The recursion is on Q = H^2; one on H (a misprint) would give h_2 = sqrt(0.5 h_1 + 8)."""
    mine = along(torch.tensor([[2.0], [4.0]], dtype=DOUBLE), lr=lambda k: 1.0, alpha=0.5, eps=0.25)
    first = 2 / (math.sqrt(2) + 0.25)
    assert mine.squeeze().tolist() == pytest.approx(
        [-first, -first - 4 / (math.sqrt(0.5 * 2 + 0.5 * 16) + 0.25)], rel=1e-14
    )


def test_centered_by_hand() -> None:
    mine = along(
        torch.tensor([[2.0], [4.0]], dtype=DOUBLE),
        lr=lambda k: 1.0,
        alpha=0.5,
        eps=0.25,
        centered=True,
    )
    first = 2 / (math.sqrt(2 - 1) + 0.25)
    second = 4 / (math.sqrt(9 - 2.5**2) + 0.25)
    assert mine.squeeze().tolist() == pytest.approx([-first, -first - second], rel=1e-14)


def test_momentum_is_after_the_division_and_lr_outside_the_buffer() -> None:
    gradients = torch.tensor([[2.0], [0.0]], dtype=DOUBLE)
    mine = along(gradients, lr=lambda k: 1.0 if k == 1 else 10.0, alpha=0.5, eps=0.0, momentum=0.9)
    buffer = 2 / math.sqrt(2)
    assert mine.squeeze().tolist() == pytest.approx([-buffer, -buffer - 10 * 0.9 * buffer])


def test_weight_decay_enters_the_square() -> None:
    x = torch.nn.Parameter(torch.tensor([3.0], dtype=DOUBLE))
    optimizer = RMSProp([x], lr=0.1, alpha=0.75, eps=0.0, weight_decay=2.0)
    x.grad = torch.tensor([-1.0], dtype=DOUBLE)
    optimizer.step()
    assert x.item() == pytest.approx(3 - 0.1 * 5 / math.sqrt(0.25 * 25), rel=1e-14)


def test_default_arguments() -> None:
    group = RMSProp([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    assert (group["lr"], group["alpha"], group["eps"]) == (1e-2, 0.99, 1e-8)
    assert (group["momentum"], group["centered"]) == (0.0, False)


@pytest.mark.parametrize("size", [64, SMALL + 1])
def test_bad_input_centered_variance_below_0_by_rounding(size: int) -> None:
    x = torch.nn.Parameter(torch.zeros(size))
    optimizer = RMSProp([x], lr=1e-3, alpha=0.5, centered=True)
    g = gaussian(size).float()
    below = 0
    for _ in range(60):
        x.grad = g.clone()
        optimizer.step()
        state = optimizer.state[x]
        below += int((state["square_avg"] - state["grad_avg"] ** 2 < 0).sum())
        assert x.isfinite().all()
    assert below > 0, "no variance was negative: nothing was tested"


@pytest.mark.parametrize("centered", [False, True])
def test_eps_0_with_a_coordinate_never_seen_stays(centered: bool) -> None:
    mine = along(torch.tensor([[1.0, 0.0]] * 5, dtype=DOUBLE), eps=0.0, centered=centered)
    assert mine.isfinite().all()
    assert (mine[:, 1] == 0).all()


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("lr", -1.0, ">= 0"),
        ("eps", -1e-8, ">= 0"),
        ("weight_decay", -1.0, ">= 0"),
        ("alpha", 1.0, r"in \[0, 1\)"),
        ("alpha", -0.1, r"in \[0, 1\)"),
        ("momentum", 1.0, r"in \[0, 1\)"),
        ("momentum", -0.1, r"in \[0, 1\)"),
        ("lr", float("nan"), ">= 0"),
        ("alpha", float("nan"), r"in \[0, 1\)"),
    ],
)
def test_bad_values_are_named(name: str, value: float, accepted: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be {accepted}, got {value}$"):
        RMSProp([torch.nn.Parameter(torch.zeros(1))], **{name: value})


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        ({}, {"square_avg"}),
        ({"centered": True}, {"square_avg", "grad_avg"}),
        ({"momentum": 0.9}, {"square_avg", "momentum_buffer"}),
        ({"momentum": 0.9, "centered": True}, {"square_avg", "grad_avg", "momentum_buffer"}),
    ],
)
def test_only_the_state_that_is_needed_is_kept(options: dict[str, float], slots: set[str]) -> None:
    x = torch.nn.Parameter(torch.zeros(3))
    optimizer = RMSProp([x], **options)
    x.grad = torch.ones(3)
    optimizer.step()
    assert set(optimizer.state[x]) == {*slots, "step"}


@pytest.mark.parametrize("size", [3, SMALL + 1])
def test_momentum_switched_on_later_starts_its_buffer_at_0(size: int) -> None:
    gradients = gaussian(6, size)
    x = torch.nn.Parameter(torch.zeros(size, dtype=DOUBLE))
    optimizer = RMSProp([x], lr=0.1)
    square = buffer = expected = torch.zeros(size, dtype=DOUBLE)
    for k, g in enumerate(gradients):
        if k == 3:
            optimizer.param_groups[0]["momentum"] = 0.9
        x.grad = g.clone()
        optimizer.step()
        square = 0.99 * square + 0.01 * g * g
        buffer = (0.9 if k > 3 else 0.0) * buffer + g / (square.sqrt() + 1e-8)
        expected = expected - 0.1 * buffer
    torch.testing.assert_close(x.detach(), expected, rtol=1e-12, atol=1e-12)


def slope(x: float) -> float:
    """f = 1{x > 0} x^4 / 4 + 5e-4 (x + 1)^2: steep on the right, flat on the left."""
    return max(x, 0.0) ** 3 + 1e-3 * (x + 1)


def steps_to_flat(optimizer: torch.optim.Optimizer, x: Tensor, most: int) -> float:
    for k in range(most):
        g = slope(float(x.detach()))
        if abs(g) < 1e-6:
            return k
        x.grad = torch.tensor(g, dtype=DOUBLE)
        optimizer.step()
    return math.inf


def start() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(10.0, dtype=DOUBLE))


@pytest.mark.slow
def test_headline_recent_gradients_matter_steep_then_flat() -> None:
    grid = (0.01, 0.03, 0.1, 0.3, 1.0)
    tuned: dict[float, float] = {}
    for alpha in (0.9, 0.99):
        counts = []
        for lr in grid:
            x = start()
            counts.append(steps_to_flat(RMSProp([x], lr=lr, alpha=alpha), x, 5000))
        tuned[alpha] = min(counts)
    assert tuned[0.9] <= 400
    assert tuned[0.99] <= 2000
    most = int(5 * max(tuned.values()))
    for lr in grid:
        x = start()
        assert steps_to_flat(AdaGrad([x], lr=lr), x, most) >= most
