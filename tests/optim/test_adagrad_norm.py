"""AdaGrad-Norm: one step size for everything."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thalweg.optim import SGD, AdaGrad, AdaGradFull, AdaGradNorm

DOUBLE = torch.float64


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def rotation(d: int, seed: int) -> Tensor:
    return torch.linalg.qr(gaussian(d, d, seed=seed))[0]


def trajectory(
    gradient: Callable[[Tensor], Tensor], start: Tensor, steps: int, **options: object
) -> Tensor:
    x = torch.nn.Parameter(start.clone())
    optimizer = AdaGradNorm([x], **options)
    points = [x.detach().clone()]
    for _ in range(steps):
        x.grad = gradient(x.detach())
        optimizer.step()
        points.append(x.detach().clone())
    return torch.stack(points)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("excess", [1.0, 10.0])
def test_1_batch_bound_on_random_smooth_functions(seed: int, excess: float) -> None:
    """f = sum_i a_i y_i^2 / 2 + c_i (1 - cos(w_i y_i)), y = Q x: non-convex, f* = 0, L known."""
    d, eta = 8, 0.7
    a, c, w = gaussian(3, d, seed=seed).abs() * torch.tensor([[0.1], [1.0], [2.0]], dtype=DOUBLE)
    Q, start = rotation(d, seed + 100), 3 * gaussian(d, seed=seed + 200)
    L = float((a + c * w**2).max())

    def gradient(x: Tensor) -> Tensor:
        y = Q @ x
        return Q.T @ (a * y + c * w * (w * y).sin())

    y = Q @ start
    D = float((a * y**2 / 2 + c * (1 - (w * y).cos())).sum())
    b0 = excess * eta * L
    points = trajectory(gradient, start, 300, lr=eta, b0=b0)
    squares = torch.stack([gradient(x).square().sum() for x in points[:-1]])
    smallest = torch.cummin(squares, 0).values
    N = torch.arange(1, len(squares) + 1, dtype=DOUBLE)
    assert (smallest <= 2 * D / eta * (b0 + 2 * D / eta) / N).all()


def test_1_the_bound_can_fail() -> None:
    """The same check sees a step that is too long: b0 and eta of another problem."""
    curvature, eta = 100.0, 1.0
    points = trajectory(lambda x: curvature * x, torch.ones(1, dtype=DOUBLE), 1, lr=eta, b0=1e-3)
    D = curvature / 2
    assert eta * curvature > 1e-3  # b0 >= eta L does not hold
    assert (points[0] * curvature) ** 2 > 2 * D / eta * (1e-3 + 2 * D / eta) / 300


@given(exponent=st.floats(-9, 9), seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_2_scaling_the_function_changes_nothing_with_b0_0(exponent: float, seed: int) -> None:
    c, start = 10**exponent, gaussian(5, seed=seed)

    def gradient(x: Tensor) -> Tensor:
        return x.sin() + 0.1 * x

    plain = trajectory(gradient, start, 25, lr=0.5, b0=0.0)
    scaled = trajectory(lambda x: c * gradient(x), start, 25, lr=0.5, b0=0.0)
    torch.testing.assert_close(scaled, plain, rtol=1e-11, atol=1e-11)


@given(seed=st.integers(0, 10_000), b0=st.sampled_from([0.0, 1e-2, 3.0]))
@settings(max_examples=20, deadline=None)
def test_3_rotation_equivariant(seed: int, b0: float) -> None:
    Q, start = rotation(6, seed), gaussian(6, seed=seed + 1)
    A = torch.diag(torch.logspace(-1, 1, 6, dtype=DOUBLE))
    plain = trajectory(lambda x: A @ x + x.norm() * x, start, 30, lr=0.5, b0=b0)
    rotated = trajectory(
        lambda x: Q.T @ (A @ (Q @ x)) + x.norm() * x, Q.T @ start, 30, lr=0.5, b0=b0
    )
    torch.testing.assert_close(rotated @ Q.T, plain, rtol=1e-9, atol=1e-9)


def test_4_in_one_dimension_all_three_adagrads_are_one() -> None:
    start = torch.tensor([2.5], dtype=DOUBLE)
    xs = [torch.nn.Parameter(start.clone()) for _ in range(3)]
    optimizers = [
        AdaGradNorm([xs[0]], lr=0.3, b0=0.0),
        AdaGrad([xs[1]], lr=0.3, eps=0.0),
        AdaGradFull([xs[2]], lr=0.3, delta=0.0),
    ]
    for _ in range(40):
        for x, optimizer in zip(xs, optimizers, strict=True):
            x.grad = x.detach() ** 3 - x.detach()
            optimizer.step()
        torch.testing.assert_close(xs[1].detach(), xs[0].detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(xs[2].detach(), xs[0].detach(), rtol=1e-12, atol=1e-12)


@given(eta=st.floats(1e-3, 1e3), exponent=st.floats(-12, 12), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_5_the_first_step_has_length_eta_with_b0_0(eta: float, exponent: float, seed: int) -> None:
    g = 10**exponent * gaussian(7, seed=seed)
    points = trajectory(lambda _: g.clone(), torch.zeros(7, dtype=DOUBLE), 1, lr=eta, b0=0.0)
    assert float(points[1].norm()) == pytest.approx(eta, rel=1e-12)


def test_definition_in_two_steps_by_hand() -> None:
    x = torch.nn.Parameter(torch.zeros(2, dtype=DOUBLE))
    optimizer = AdaGradNorm([x], lr=2.0, b0=12.0)
    x.grad = torch.tensor([3.0, 4.0], dtype=DOUBLE)  # b = 13: the current gradient is included
    optimizer.step()
    assert x.tolist() == pytest.approx([-6 / 13, -8 / 13], rel=1e-15)
    x.grad = torch.tensor([0.0, math.sqrt(56.0)], dtype=DOUBLE)  # b = 15
    before = x[1].item()
    optimizer.step()
    assert x[1].item() == pytest.approx(before - 2 * math.sqrt(56) / 15, rel=1e-14)


def grouped(scope: str) -> tuple[list[torch.nn.Parameter], AdaGradNorm]:
    xs = [torch.nn.Parameter(torch.zeros(1, dtype=DOUBLE)) for _ in range(3)]
    groups = [{"params": xs[:2]}, {"params": xs[2:], "lr": 10.0}]
    return xs, AdaGradNorm(groups, lr=1.0, b0=0.0, scope=scope)


@pytest.mark.parametrize(
    ("scope", "norms"),
    [("global", [7.0, 7.0, 7.0]), ("group", [13**0.5, 13**0.5, 6.0]), ("tensor", [2.0, 3.0, 6.0])],
)
def test_scope_says_over_what_the_norm_runs_and_groups_keep_their_lr(
    scope: str, norms: list[float]
) -> None:
    xs, optimizer = grouped(scope)
    gradients = [2.0, 3.0, 6.0]
    for step in (1, 2):
        before = [x.item() for x in xs]
        for x, g in zip(xs, gradients, strict=True):
            x.grad = torch.tensor([g], dtype=DOUBLE)
        optimizer.step()
        for i, lr in enumerate((1.0, 1.0, 10.0)):
            expected = before[i] - lr * gradients[i] / (norms[i] * math.sqrt(step))
            assert xs[i].item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("scope", ["global", "group", "tensor"])
def test_a_missing_gradient_is_not_in_the_norm_and_its_parameter_stays(scope: str) -> None:
    xs, optimizer = grouped(scope)
    xs[0].grad = torch.tensor([3.0], dtype=DOUBLE)
    optimizer.step()
    assert [x.item() for x in xs] == pytest.approx([-1.0, 0.0, 0.0])
    xs[0].grad, xs[1].grad = None, torch.tensor([4.0], dtype=DOUBLE)
    optimizer.step()
    norm = 4.0 if scope == "tensor" else 5.0  # the second parameter knows of the first one's
    assert xs[1].item() == pytest.approx(-4 / norm)
    assert xs[0].item() == pytest.approx(-1.0)
    assert xs[2].item() == 0.0


def test_bad_input_b0_0_with_a_zero_first_gradient_skips_the_step() -> None:
    x = torch.nn.Parameter(torch.tensor([1.5, -0.0], dtype=DOUBLE))
    optimizer = AdaGradNorm([x], lr=1.0, b0=0.0)
    x.grad = torch.zeros(2, dtype=DOUBLE)
    optimizer.step()
    assert torch.equal(x.detach(), torch.tensor([1.5, -0.0], dtype=DOUBLE))
    x.grad = torch.tensor([0.0, 2.0], dtype=DOUBLE)
    optimizer.step()
    assert x.tolist() == [1.5, -1.0]


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e-15, 1e25, 3e37])
def test_bad_input_squares_outside_the_range_of_float32(size: float) -> None:
    x = torch.nn.Parameter(torch.zeros(4))
    optimizer = AdaGradNorm([x], lr=1.0, b0=0.0)
    x.grad = torch.full((4,), size)
    optimizer.step()
    assert x.tolist() == pytest.approx([-0.5] * 4, rel=1e-6)
    total = optimizer.state[x]["sum"]
    assert total.dtype is DOUBLE
    assert float(total) == pytest.approx(4 * size**2, rel=1e-6)


def test_a_long_sum_does_not_stop_growing_in_float32() -> None:
    """1e8 + 1 = 1e8 in float32: the sum is kept in float64."""
    x = torch.nn.Parameter(torch.zeros(1))
    optimizer = AdaGradNorm([x], lr=1.0, b0=1e4)
    for _ in range(50):
        x.grad = torch.ones(1)
        optimizer.step()
    assert float(optimizer.state[x]["sum"]) == 1e8 + 50


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["b0", "lr"])
def test_bad_values_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be >= 0, got {value}"):
        AdaGradNorm([torch.nn.Parameter(torch.zeros(1))], **{name: value})


def test_an_unknown_scope_is_named() -> None:
    with pytest.raises(ValueError, match=r"^scope must be one of 'global'.*did you mean 'group'"):
        AdaGradNorm([torch.nn.Parameter(torch.zeros(1))], scope="grup")


@pytest.mark.parametrize("scope", ["global", "group", "tensor"])
def test_a_loaded_state_continues_bitwise(scope: str) -> None:
    def advance(xs: list[torch.nn.Parameter], optimizer: AdaGradNorm, steps: range) -> None:
        for k in steps:
            for i, x in enumerate(xs):
                x.grad = gaussian(1, seed=10 * k + i)
            optimizer.step()

    xs, optimizer = grouped(scope)
    advance(xs, optimizer, range(7))
    saved = copy.deepcopy(optimizer.state_dict())
    ys, other = grouped(scope)
    for x, y in zip(xs, ys, strict=True):
        y.data.copy_(x.data)
    other.load_state_dict(saved)
    advance(xs, optimizer, range(7, 20))
    advance(ys, other, range(7, 20))
    assert all(torch.equal(x, y) for x, y in zip(xs, ys, strict=True))


def test_a_later_group_joins_the_common_sum() -> None:
    xs, optimizer = grouped("global")
    xs[0].grad = torch.tensor([3.0], dtype=DOUBLE)
    optimizer.step()
    late = torch.nn.Parameter(torch.zeros(1, dtype=DOUBLE))
    optimizer.add_param_group({"params": [late]})
    xs[0].grad, late.grad = None, torch.tensor([4.0], dtype=DOUBLE)
    optimizer.step()
    assert late.item() == pytest.approx(-4 / 5)


def test_maximize_goes_up_by_the_same_step() -> None:
    def end(sign: float, maximize: bool) -> Tensor:
        return trajectory(
            lambda x: sign * (x - 1), torch.zeros(3, dtype=DOUBLE), 10, maximize=maximize
        )

    assert torch.equal(end(-1.0, True), end(1.0, False))


def final_gradient(kind: str, b0: float, steps: int, n: int, d: int, eta: float = 10.0) -> float:
    """Gradient norm at the end on consistent linear regression, batches of 20."""
    A, truth = gaussian(n, d, seed=1), gaussian(d, seed=2)
    generator = torch.Generator().manual_seed(3)
    x = torch.nn.Parameter(torch.zeros(d, dtype=DOUBLE))
    optimizer = AdaGradNorm([x], lr=eta, b0=b0) if kind == "adagrad" else SGD([x], lr=eta / b0)
    for _ in range(steps):
        rows = A[torch.randint(n, (20,), generator=generator)]
        x.grad = rows.T @ (rows @ (x.detach() - truth)) / 20
        optimizer.step()
        if not x.grad.isfinite().all():
            return math.inf
    return float((A.T @ (A @ (x.detach() - truth)) / n).norm())


def robust_decades(ends: dict[float, float]) -> int:
    """How many values of b0, a decade apart, bring the gradient below 1e-3."""
    return sum(end < 1e-3 for end in ends.values())


def test_headline_robust_to_b0_small() -> None:
    """As below on 1/5 of the columns; three values that are 5 decades apart."""
    values = [1e-3, 1.0, 100.0]
    ends = {b: final_gradient("adagrad", b, 500, 200, 40) for b in values}
    assert all(end < 1e-6 for end in ends.values()), ends
    assert final_gradient("sgd", 1.0, 500, 200, 40) == math.inf


@pytest.mark.slow
def test_headline_robust_to_b0() -> None:
    values = [10.0**e for e in range(-3, 4)]
    mine = {b: final_gradient("adagrad", b, 3000, 1000, 200) for b in values}
    sgd = {b: final_gradient("sgd", b, 3000, 1000, 200) for b in values}
    assert all(mine[b] < 1e-13 for b in values if b <= 100), mine
    assert all(sgd[b] == math.inf for b in values if b <= 10), sgd
    assert robust_decades(mine) - 1 >= 4
    assert robust_decades(sgd) - 1 <= 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_formats_are_summed_in_a_longer_one(dtype: torch.dtype) -> None:
    """1000 entries of 0.3: the sum in bfloat16 itself is 0.3 % short."""
    x = torch.nn.Parameter(torch.zeros(1000, dtype=dtype))
    x.grad = torch.full_like(x, 0.3)
    optimizer = AdaGradNorm([x], b0=0.0)
    optimizer.step()
    exact = 1000 * float(x.grad[0]) ** 2
    assert float(optimizer.state[x]["sum"]) == pytest.approx(exact, rel=1e-5)
