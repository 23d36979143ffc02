"""AcceleGrad: identities, rates, and the swap between gradient point and output."""

from __future__ import annotations

import copy
import io
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thalweg.numeric import Box, L2Ball
from thalweg.optim import AcceleGrad, AdaGradNorm
from thalweg.optim.accelegrad import accelegrad, step_weight, total_weight

DOUBLE = torch.float64
Gradient = Callable[[Tensor], Tensor]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def parameter(*values: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values, dtype=DOUBLE))


def advance(optimizer: AcceleGrad, x: Tensor, gradient: Gradient, steps: int) -> list[Tensor]:
    """Take steps; the points where gradients were taken."""
    points = []
    for _ in range(steps):
        points.append(x.detach().clone())
        x.grad = gradient(x.detach())
        optimizer.step()
    return points


def output(optimizer: AcceleGrad, x: Tensor) -> Tensor:
    optimizer.eval()
    value = x.detach().clone()
    optimizer.train()
    return value


def slope(first: float, second: float, ratio: float = 10.0) -> float:
    return math.log(second / first) / math.log(ratio)


# ---- the card's items ----


def test_1_first_step_without_a_constraint() -> None:
    g = torch.tensor([3.0, -4.0], dtype=DOUBLE)
    x = parameter(1.0, 2.0)
    optimizer = AcceleGrad([x], diameter=0.5, G=12.0)
    start = x.detach().clone()
    assert torch.equal(advance(optimizer, x, lambda _: g.clone(), 1)[0], start)
    expected = start - 2 * 0.5 * g / 13.0  # sqrt(12^2 + 5^2) = 13
    torch.testing.assert_close(optimizer.state[x]["y"], expected, rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(optimizer.state[x]["z"], expected, rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(output(optimizer, x), expected, rtol=1e-15, atol=1e-15)


def by_the_paper(
    gradient: Gradient, start: Tensor, D: float, G: float, steps: int, radius: float | None
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """The paper's algorithm, k = 0, 1, ...: the gradient points, y, z and the average."""
    y = z = start
    S = W = 0.0
    total, points = torch.zeros_like(start), []
    for k in range(steps):
        w = 1.0 if k <= 2 else (k + 1) / 4
        x = z / w + (1 - 1 / w) * y
        points.append(x)
        g = gradient(x)
        S += w**2 * float(g @ g)
        eta = 2 * D / math.sqrt(G**2 + S)
        z = z - w * eta * g
        if radius is not None:
            z = z * min(1.0, radius / float(z.norm()))
        y = x - eta * g
        total, W = total + w * y, W + w
    return points, y, z, total / W


@pytest.mark.parametrize("radius", [None, 1.0])
def test_every_sequence_is_the_papers(radius: float | None) -> None:
    A, b, start = gaussian(6, 6), gaussian(6, seed=1), 0.2 * gaussian(6, seed=2)
    x = torch.nn.Parameter(start.clone())
    ball = None if radius is None else L2Ball(radius=radius)
    optimizer = AcceleGrad([x], diameter=2.0, G=0.3, constraint=ball)

    def gradient(x: Tensor) -> Tensor:
        return A.T @ (A @ x - b) + x.sin()

    mine = advance(optimizer, x, gradient, 50)
    points, y, z, average = by_the_paper(gradient, start, 2.0, 0.3, 50, radius)
    torch.testing.assert_close(torch.stack(mine), torch.stack(points), rtol=0, atol=1e-12)
    torch.testing.assert_close(optimizer.state[x]["y"], y, rtol=0, atol=1e-12)
    torch.testing.assert_close(optimizer.state[x]["z"], z, rtol=0, atol=1e-12)
    torch.testing.assert_close(output(optimizer, x), average, rtol=0, atol=1e-12)


def test_weights_are_the_papers_not_the_lectures() -> None:
    assert [step_weight(k) for k in range(1, 7)] == [1, 1, 1, 1, 1.25, 1.5]
    for k in (0, 1, 2, 3, 4, 5, 17, 1000):
        assert total_weight(k) == sum(step_weight(j) for j in range(1, k + 1))


def least_squares() -> tuple[Gradient, Callable[[Tensor], float], float]:
    """100 x 50, singular values from 1 down to 1/50; x* inside the unit ball; f* = 0."""
    U, V = (torch.linalg.qr(gaussian(n, 50, seed=n))[0] for n in (100, 50))
    A = U @ torch.diag(torch.linspace(1.0, 1 / 50, 50, dtype=DOUBLE)) @ V.T
    truth = gaussian(50, seed=7)
    truth = 0.5 * truth / truth.norm()
    return (
        lambda x: A.T @ (A @ (x - truth)),
        lambda x: 0.5 * float((A @ (x - truth)).square().sum()),
        1.0,
    )


def average_gap(
    gradient: Gradient, f: Callable[[Tensor], float], d: int, marks: tuple[int, ...]
) -> dict[int, float]:
    ball, gaps = L2Ball(radius=1.0), {}
    x = torch.nn.Parameter(torch.zeros(d, dtype=DOUBLE))
    optimizer = AcceleGrad([x], diameter=2.0, constraint=ball)
    done = 0
    for mark in marks:
        advance(optimizer, x, gradient, mark - done)
        done, gaps[mark] = mark, f(output(optimizer, x))
    return gaps


def adagrad_norm_gap(
    gradient: Gradient, f: Callable[[Tensor], float], d: int, marks: tuple[int, ...]
) -> dict[int, float]:
    """AdaGrad-Norm's average iterate with the same D."""
    x = torch.nn.Parameter(torch.zeros(d, dtype=DOUBLE))
    optimizer = AdaGradNorm([x], lr=2.0, b0=1e-8)
    total, gaps = torch.zeros(d, dtype=DOUBLE), {}
    for k in range(1, max(marks) + 1):
        x.grad = gradient(x.detach())
        optimizer.step()
        total += x.detach()
        if k in marks:
            gaps[k] = f(total / k)
    return gaps


def descent_gap(
    gradient: Gradient, f: Callable[[Tensor], float], d: int, L: float, steps: int
) -> float:
    x = torch.zeros(d, dtype=DOUBLE)
    for _ in range(steps):
        x = x - gradient(x) / L
    return f(x)


def test_2_smooth_least_squares_and_headline_against_adagrad_norm() -> None:
    gradient, f, L = least_squares()
    gaps = average_gap(gradient, f, 50, (100, 1000))
    assert gaps[1000] <= descent_gap(gradient, f, 50, L, 1000) / 50
    assert slope(gaps[100], gaps[1000]) <= -2
    peer = adagrad_norm_gap(gradient, f, 50, (1000,))
    assert gaps[1000] * 100 < peer[1000]


def test_3_non_smooth_l1_norm() -> None:
    d = 20
    start = gaussian(d, seed=3)
    start = 0.9 * start / start.norm()
    x = torch.nn.Parameter(start.clone())
    optimizer = AcceleGrad([x], diameter=2.0)
    gaps, done = {}, 0
    for mark in (100, 1000):
        points = advance(optimizer, x, torch.sign, mark - done)
        assert max(float(point.abs().sum()) for point in points) < 10 * float(start.abs().sum())
        done, gaps[mark] = mark, float(output(optimizer, x).abs().sum())
    assert slope(gaps[100], gaps[1000]) <= -0.4


@given(exponent=st.floats(-6, 6), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_4_scaling_the_function_and_G_changes_nothing(exponent: float, seed: int) -> None:
    c, start = 10**exponent, gaussian(4, seed=seed)

    def points(c: float) -> Tensor:
        x = torch.nn.Parameter(start.clone())
        optimizer = AcceleGrad([x], diameter=3.0, G=0.1 * c)
        return torch.stack(advance(optimizer, x, lambda x: c * (x + x.sin()), 25))

    torch.testing.assert_close(points(c), points(1.0), rtol=1e-10, atol=1e-10)


def test_5_z_is_always_in_K_and_y_need_not_be() -> None:
    x, ball = parameter(0.0, 0.0), L2Ball(radius=1.0)
    optimizer = AcceleGrad([x], diameter=2.0, constraint=ball)
    left = False
    for _ in range(60):
        advance(optimizer, x, lambda x: x - torch.tensor([3.0, 0.0], dtype=DOUBLE), 1)
        state = optimizer.state[x]
        assert ball.contains(state["z"], tol=1e-12)
        left |= not ball.contains(state["y"])
        k = int(state["step"]) + 1
        expected = state["y"] + (state["z"] - state["y"]) / step_weight(k)
        # the next gradient point sees the projected z
        torch.testing.assert_close(x.detach(), expected, rtol=1e-14, atol=1e-14)
    assert left


def test_6_average_false_returns_y() -> None:
    gradient, _, _ = least_squares()
    x = torch.nn.Parameter(torch.zeros(50, dtype=DOUBLE))
    optimizer = AcceleGrad([x], diameter=2.0, average=False)
    advance(optimizer, x, gradient, 20)
    y = optimizer.state[x]["y"].clone()
    assert torch.equal(output(optimizer, x), y)
    result = accelegrad(
        gradient, torch.zeros(50, dtype=DOUBLE), diameter=2.0, average=False, max_steps=20
    )
    torch.testing.assert_close(result.x, y, rtol=0, atol=1e-14)


@pytest.mark.slow
def test_2_measured_gaps_on_least_squares_over_4000_steps() -> None:
    gradient, f, L = least_squares()
    mine = average_gap(gradient, f, 50, (100, 1000, 4000))
    assert mine[100] < 1e-3
    assert mine[4000] < mine[1000] < mine[100]
    assert mine[4000] <= descent_gap(gradient, f, 50, L, 4000) / 50


def absolute_regression() -> tuple[Gradient, Callable[[Tensor], float]]:
    """mean |A x - b|, 80 x 30, with b = A x* and x* inside the unit ball."""
    A, truth = gaussian(80, 30, seed=11), gaussian(30, seed=12)
    truth = 0.5 * truth / truth.norm()
    return (
        lambda x: A.T @ (A @ (x - truth)).sign() / 80,
        lambda x: float((A @ (x - truth)).abs().mean()),
    )


@pytest.mark.parametrize("steps", [100, 1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_headline_not_worse_than_adagrad_norm_without_smoothness(steps: int) -> None:
    gradient, f = absolute_regression()
    mine = average_gap(gradient, f, 30, (steps,))[steps]
    assert mine <= adagrad_norm_gap(gradient, f, 30, (steps,))[steps]


@pytest.mark.slow
def test_an_active_constraint_is_not_enforced() -> None:
    """f = ||x - c||^2 / 2, c = (3, 0), unit ball: the average is outside, as the card measured."""
    x = parameter(0.0, 0.0)
    optimizer = AcceleGrad([x], diameter=2.0, constraint=L2Ball(radius=1.0))
    center = torch.tensor([3.0, 0.0], dtype=DOUBLE)
    with pytest.warns(UserWarning, match="diameter"):
        advance(optimizer, x, lambda x: x - center, 100)
    assert float(output(optimizer, x).norm()) == pytest.approx(2.01, abs=0.02)
    advance(optimizer, x, lambda x: x - center, 900)
    assert float(output(optimizer, x).norm()) == pytest.approx(1.35, abs=0.02)


# ---- eval and train ----


def two_parameters() -> tuple[list[torch.nn.Parameter], AcceleGrad]:
    xs = [torch.nn.Parameter(gaussian(3, seed=1)), torch.nn.Parameter(gaussian(150, 150, seed=2))]
    return xs, AcceleGrad(xs, diameter=5.0)


def advance_all(xs: list[torch.nn.Parameter], optimizer: AcceleGrad, steps: int) -> None:
    for _ in range(steps):
        for x in xs:
            x.grad = x.detach() + x.detach().sin()
        optimizer.step()


def test_eval_and_train_are_bitwise_and_may_be_repeated() -> None:
    xs, optimizer = two_parameters()
    advance_all(xs, optimizer, 7)
    before = [x.detach().clone() for x in xs]
    optimizer.eval()
    outputs = [x.detach().clone() for x in xs]
    assert not any(torch.equal(a, b) for a, b in zip(before, outputs, strict=True))
    optimizer.eval()
    assert all(torch.equal(a, b) for a, b in zip(xs, outputs, strict=True))
    optimizer.train()
    assert all(torch.equal(a, b) for a, b in zip(xs, before, strict=True))
    optimizer.train()
    assert all(torch.equal(a, b) for a, b in zip(xs, before, strict=True))


def test_looking_at_the_output_does_not_change_the_run() -> None:
    xs, optimizer = two_parameters()
    ys, other = two_parameters()
    advance_all(xs, optimizer, 10)
    for _ in range(10):
        advance_all(ys, other, 1)
        other.eval()
        other.train()
    assert all(torch.equal(x, y) for x, y in zip(xs, ys, strict=True))


def test_eval_before_the_first_step_changes_nothing() -> None:
    xs, optimizer = two_parameters()
    before = [x.detach().clone() for x in xs]
    optimizer.eval()
    assert all(torch.equal(a, b) for a, b in zip(xs, before, strict=True))
    optimizer.train()
    assert all(torch.equal(a, b) for a, b in zip(xs, before, strict=True))


def test_a_step_in_eval_mode_is_an_error_and_changes_nothing() -> None:
    xs, optimizer = two_parameters()
    advance_all(xs, optimizer, 3)
    optimizer.eval()
    outputs = [x.detach().clone() for x in xs]
    with pytest.raises(RuntimeError, match=r"call train\(\) before step\(\)"):
        advance_all(xs, optimizer, 1)
    assert all(torch.equal(a, b) for a, b in zip(xs, outputs, strict=True))
    xs[0].grad = xs[1].grad = None
    late = parameter(1.0)
    optimizer.add_param_group({"params": [late]})
    late.grad = torch.ones(1, dtype=DOUBLE)
    with pytest.raises(RuntimeError, match="holds the output"):
        optimizer.step()
    optimizer.train()
    optimizer.step()
    assert late.item() != 1.0


@pytest.mark.parametrize("position", ["train", "eval"])
@pytest.mark.parametrize("average", [True, False])
def test_a_checkpoint_saved_in_either_position_resumes_bitwise(
    position: str, average: bool
) -> None:
    xs, optimizer = two_parameters()
    optimizer.average = average
    advance_all(xs, optimizer, 9)
    if position == "eval":
        optimizer.eval()
    file = io.BytesIO()
    torch.save({"model": [x.data for x in xs], "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    ys, other = two_parameters()
    other.average = average
    for y, value in zip(ys, saved["model"], strict=True):
        y.data.copy_(value)
    other.load_state_dict(saved["optimizer"])
    optimizer.train()
    other.train()
    assert all(torch.equal(x, y) for x, y in zip(xs, ys, strict=True))
    advance_all(xs, optimizer, 9)
    advance_all(ys, other, 9)
    assert all(torch.equal(x, y) for x, y in zip(xs, ys, strict=True))
    optimizer.eval()
    other.eval()
    assert all(torch.equal(x, y) for x, y in zip(xs, ys, strict=True))


def test_a_copy_made_in_eval_position_goes_on_alone() -> None:
    xs, optimizer = two_parameters()
    advance_all(xs, optimizer, 4)
    optimizer.eval()
    ys, other = copy.deepcopy((xs, optimizer))
    optimizer.train()
    advance_all(xs, optimizer, 3)
    other.train()
    advance_all(ys, other, 3)
    assert all(torch.equal(x, y) for x, y in zip(xs, ys, strict=True))


def test_a_parameter_without_gradient_stays_in_the_output_too() -> None:
    x, rested = parameter(5.0, 5.0), parameter(7.0)
    alone, never = parameter(7.0), parameter(2.0)
    optimizer = AcceleGrad([x, rested, never], diameter=1e-3)
    for k in range(12):
        x.grad = torch.ones(2, dtype=DOUBLE)
        rested.grad = torch.ones(1, dtype=DOUBLE) if k < 2 else None
        optimizer.step()
    assert int(optimizer.state[rested]["step"]) == 2
    optimizer.eval()
    assert rested.item() == pytest.approx(alone.item(), abs=1e-2)
    assert never.item() == 2.0
    optimizer.train()
    assert rested.item() == pytest.approx(7.0, abs=1e-2)


def test_norms_run_over_all_groups_and_each_keeps_its_diameter_and_lr() -> None:
    x, y = parameter(0.0), parameter(0.0)
    optimizer = AcceleGrad(
        [{"params": [x]}, {"params": [y], "diameter": 4.0, "lr": 0.5}], diameter=1.0, G=0.0
    )
    x.grad, y.grad = torch.tensor([3.0], dtype=DOUBLE), torch.tensor([4.0], dtype=DOUBLE)
    optimizer.step()
    assert optimizer.state[x]["y"].item() == pytest.approx(-2 * 1.0 * 3 / 5)
    assert optimizer.state[y]["y"].item() == pytest.approx(-0.5 * 2 * 4.0 * 4 / 5)


def test_maximize_goes_up_by_the_same_step() -> None:
    x, y = parameter(1.0, 2.0), parameter(1.0, 2.0)
    up = AcceleGrad([x], diameter=3.0, maximize=True)
    down = AcceleGrad([y], diameter=3.0)
    advance(up, x, lambda x: -x, 20)
    advance(down, y, lambda y: y, 20)
    assert torch.equal(x, y)


# ---- the function ----


@pytest.mark.parametrize("radius", [None, 1.0])
@pytest.mark.parametrize("steps", [1, 3, 4, 60])
def test_function_and_class_take_one_trajectory(radius: float | None, steps: int) -> None:
    gradient, _, _ = least_squares()
    ball = None if radius is None else L2Ball(radius=radius)
    x = torch.nn.Parameter(torch.zeros(50, dtype=DOUBLE))
    optimizer = AcceleGrad([x], diameter=2.0, constraint=ball)
    points = advance(optimizer, x, gradient, steps)
    asked: list[Tensor] = []

    def remembered(x: Tensor) -> Tensor:
        asked.append(x.clone())
        return gradient(x)

    result = accelegrad(
        remembered,
        torch.zeros(50, dtype=DOUBLE),
        diameter=2.0,
        constraint=ball,
        max_steps=steps,
        measure=lambda x: 1.0,
    )
    torch.testing.assert_close(torch.stack(asked), torch.stack(points), rtol=0, atol=1e-14)
    torch.testing.assert_close(result.x, output(optimizer, x), rtol=0, atol=1e-14)


def test_function_leaves_its_start_alone_and_converges() -> None:
    gradient, _, _ = least_squares()
    start = torch.zeros(50, dtype=DOUBLE)
    result = accelegrad(gradient, start, diameter=2.0, tol=1e-4, max_steps=5000)
    assert result.converged
    assert float(gradient(result.x).norm()) <= 1e-4
    assert torch.equal(start, torch.zeros(50, dtype=DOUBLE))
    assert accelegrad(gradient, start, diameter=2.0, max_steps=0).x.equal(start)


# ---- bad input ----


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_input_diameter(value: float) -> None:
    with pytest.raises(ValueError, match=rf"^diameter must be > 0, got {value}"):
        AcceleGrad([parameter(1.0)], diameter=value)
    with pytest.raises(ValueError, match=rf"^diameter must be > 0, got {value}"):
        accelegrad(lambda x: x, torch.ones(1), diameter=value)


def test_bad_input_diameter_is_required() -> None:
    with pytest.raises(TypeError, match="diameter"):
        AcceleGrad([parameter(1.0)])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^diameter must be > 0, got None"):
        AcceleGrad([parameter(1.0)], diameter=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["G", "lr"])
def test_bad_values_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be >= 0, got -1.0"):
        AcceleGrad([parameter(1.0)], diameter=1.0, **{name: -1.0})


def test_bad_input_G_0_and_g_0_stays() -> None:
    x = parameter(1.5, -0.5)
    optimizer = AcceleGrad([x], diameter=1.0, G=0.0)
    advance(optimizer, x, torch.zeros_like, 5)
    assert x.tolist() == [1.5, -0.5]
    assert output(optimizer, x).tolist() == [1.5, -0.5]
    result = accelegrad(torch.zeros_like, torch.ones(2), diameter=1.0, G=0.0, max_steps=5)
    assert result.x.tolist() == [1.0, 1.0]


def test_bad_input_a_set_too_small_is_warned_about_once() -> None:
    x = parameter(0.0, 0.0)
    optimizer = AcceleGrad([x], diameter=0.2, constraint=L2Ball(radius=0.1))
    far = torch.tensor([3.0, 0.0], dtype=DOUBLE)
    advance(optimizer, x, lambda x: x - far, 99)
    with pytest.warns(UserWarning, match=r"^diameter: z left the constraint in (9\d|100) of 100"):
        advance(optimizer, x, lambda x: x - far, 1)
    advance(optimizer, x, lambda x: x - far, 150)  # an error if it warned again


def test_a_set_that_is_large_enough_is_not_warned_about() -> None:
    x = parameter(0.0, 0.0)
    optimizer = AcceleGrad([x], diameter=4.0, constraint=Box(-2.0, 2.0))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        advance(optimizer, x, lambda x: x - 0.5, 150)
    assert [str(warning.message) for warning in told] == []
