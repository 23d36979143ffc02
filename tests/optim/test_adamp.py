"""AdamP and SGDP: what their card says must hold."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from thalweg.optim import SGD, SGDP, AdamP, AdamW

DOUBLE = torch.float64
CONV, LINEAR, BIAS, SCALAR = (6, 3, 2, 2), (5, 8), (9,), ()


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def model() -> list[Parameter]:
    shapes = (CONV, LINEAR, LINEAR, LINEAR, BIAS, SCALAR)
    return [Parameter(gaussian(*shape, seed=i)) for i, shape in enumerate(shapes)]


def set_gradients(params: list[Parameter], k: int) -> None:
    """The third tensor's channels are orthogonal to their gradients, the fourth is as a whole."""
    for i, p in enumerate(params):
        g, x = gaussian(*p.shape, seed=1000 * k + i), p.detach()
        if i in (0, 2):
            dims = tuple(range(1, x.dim()))
            g -= x * (g * x).sum(dims, keepdim=True) / (x * x).sum(dims, keepdim=True)
        if i == 3:
            g -= x * (g * x).sum() / (x * x).sum()
        p.grad = g


def beside(ours: Any, theirs: Any, steps: int, repair: Any = None) -> float:
    a, b = model(), model()
    mine, reference = ours(a), theirs(b)
    largest = 0.0
    for k in range(steps):
        set_gradients(a, k)
        for p, q in zip(a, b, strict=True):
            assert p.grad is not None
            q.grad = p.grad.clone()
        mine.step()
        reference.step()
        if repair is not None:
            repair(mine, a)
        largest = max(
            largest, *(float((p - q).detach().abs().max()) for p, q in zip(a, b, strict=True))
        )
    return largest


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.compile)])
def test_1_adamp_agrees_with_the_package(
    nesterov: bool, weight_decay: float, compile: bool
) -> None:
    package = pytest.importorskip("adamp")
    how = {"lr": 0.01, "nesterov": nesterov, "weight_decay": weight_decay}
    ours = beside(
        lambda p: AdamP(p, compile=compile, **how), lambda p: package.AdamP(p, **how), 100
    )
    assert ours < 1e-12


@pytest.mark.parametrize("nesterov", [False, True])
def test_1_adamp_agrees_with_pytorch_optimizer(nesterov: bool) -> None:
    """With a negligible eps: it adds eps before the correction of the bias, the card after."""
    package = pytest.importorskip("pytorch_optimizer")
    how = {"lr": 0.01, "nesterov": nesterov, "weight_decay": 0.1}

    def distance(eps: float) -> float:
        return beside(
            lambda p: AdamP(p, eps=eps, **how),
            lambda p: package.AdamP(p, eps=eps, weight_decouple=True, **how),
            100,
        )

    assert distance(1e-30) < 1e-12
    assert distance(1e-3) > 1e-6


@pytest.mark.parametrize("momentum, nesterov, dampening", [(0.9, True, 0.0), (0.0, False, 0.3)])
@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.compile)])
def test_1_sgdp_agrees_with_the_package(
    momentum: float, nesterov: bool, dampening: float, compile: bool
) -> None:
    package = pytest.importorskip("adamp")
    how: dict[str, Any] = {"lr": 0.01, "momentum": momentum, "nesterov": nesterov}
    how |= {"weight_decay": 0.1, "dampening": dampening}
    ours = beside(lambda p: SGDP(p, compile=compile, **how), lambda p: package.SGDP(p, **how), 100)
    assert ours < 1e-12


def test_1_the_package_projects_the_stored_buffer_too() -> None:
    """A quirk of adamp 0.3.0 without Nesterov; storing what moved the parameters reproduces it."""
    package = pytest.importorskip("adamp")
    how: dict[str, Any] = {"lr": 0.01, "momentum": 0.9}
    before: dict[int, Tensor] = {}

    def store_the_projected(optimizer: SGDP, params: list[Parameter]) -> None:
        for i, p in enumerate(params):
            start = before.get(i, model()[i].detach())
            optimizer.state[p]["momentum_buffer"] = (start - p.detach()) / 0.01
            before[i] = p.detach().clone()

    theirs = lambda p: package.SGDP(p, **how)  # noqa: E731
    assert beside(lambda p: SGDP(p, **how), theirs, 50) > 1e-3
    assert beside(lambda p: SGDP(p, **how), theirs, 50, store_the_projected) < 1e-11


def test_which_tensors_are_projected_is_told() -> None:
    params = model()
    set_gradients(params, 0)
    optimizer = SGDP(params, lr=0.1)
    optimizer.step()
    assert optimizer.last_projected == tuple(f"param_groups[0]['params'][{i}]" for i in (0, 2, 3))
    names = ["conv", "free", "rows", "layer", "bias", "scalar"]
    optimizer = SGDP(list(zip(names, params, strict=True)), lr=0.1)
    set_gradients(params, 1)
    optimizer.step()
    assert optimizer.last_projected == ("conv", "rows", "layer")


@pytest.mark.parametrize("share, passes", [(0.9, True), (1.1, False)])
@pytest.mark.parametrize("rows", [9, 1])
def test_the_threshold_is_delta_over_the_root_of_the_columns(
    rows: int, share: float, passes: bool
) -> None:
    """Every row of the gradient at one angle to its row of x."""
    cosine = share * 0.1 / math.sqrt(4)
    x = Parameter(torch.tensor([[2.0, 0.0, 0.0, 0.0]] * rows, dtype=DOUBLE))
    x.grad = torch.tensor([[cosine, math.sqrt(1 - cosine**2), 0.0, 0.0]] * rows, dtype=DOUBLE)
    optimizer = SGDP([("x", x)], lr=0.1)
    optimizer.step()
    assert optimizer.last_projected == (("x",) if passes else ())
    # up to eps: an unprojected row would move by about 5e-3
    assert bool(((x.detach()[:, 0] - 2).abs() < 1e-9).all()) == passes


def tangent_run(method: Any, steps: int, d: int, lr: float, **how: Any) -> float:
    """The final squared length, for a loss that sees only the direction of w."""
    w = Parameter(torch.zeros(1, d, dtype=DOUBLE))
    with torch.no_grad():
        w[0, 0] = 1.0
    optimizer = method([w], lr=lr, **how)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x = w.detach()
        g = torch.randn(1, d, dtype=DOUBLE, generator=generator)
        g -= x * (g * x).sum() / (x * x).sum()
        w.grad = g / g.norm()
        optimizer.step()
    return float(w.detach().square().sum())


@given(lr=st.floats(1e-3, 1.0), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_2_growth_on_a_loss_that_ignores_length(lr: float, seed: int) -> None:
    target = gaussian(1, 6, seed=seed)
    w0 = gaussian(1, 6, seed=seed + 5000)

    def run(method: Any, **how: Any) -> tuple[list[Tensor], list[Tensor]]:
        w = Parameter(w0.clone())
        optimizer = method([w], lr=lr, **how)
        points, gradients = [w.detach().clone()], []
        for _ in range(4):
            optimizer.zero_grad()
            (w / w.norm() * target).sum().backward()
            assert w.grad is not None
            gradients.append(w.grad.clone())
            optimizer.step()
            points.append(w.detach().clone())
        return points, gradients

    points, gradients = run(SGD)
    for old, new, g in zip(points, points[1:], gradients, strict=False):
        expected = old.square().sum() + lr**2 * g.square().sum()
        torch.testing.assert_close(new.square().sum(), expected, rtol=1e-10, atol=1e-12)
    projected, _ = run(SGDP, momentum=0.9)
    for old, new in itertools.pairwise(projected):
        # the move is tangent: Pythagoras
        expected = old.square().sum() + (new - old).square().sum()
        torch.testing.assert_close(new.square().sum(), expected, rtol=1e-6, atol=0)
    # two steps: both runs have seen the same gradients, w_1 and b_1 are equal
    momentum, _ = run(SGD, momentum=0.9)
    assert projected[2].square().sum() <= momentum[2].square().sum() * (1 + 1e-12)


def test_3_momentum_inflates_19_times() -> None:
    lr, steps = 0.01, 4000

    def growth(method: Any, **how: Any) -> float:
        return (tangent_run(method, steps, 200, lr, **how) - 1) / (lr**2 * steps)

    plain = growth(SGD)
    inflated, projected = growth(SGD, momentum=0.9), growth(SGDP, momentum=0.9)
    assert plain == pytest.approx(1.0, abs=1e-3)
    assert inflated == pytest.approx(100, rel=0.03)
    assert projected == pytest.approx(1 / (1 - 0.81), rel=0.05)
    assert inflated / projected == pytest.approx(19, abs=1)


def test_4_delta_0_is_adam_and_sgd_with_decoupled_decay() -> None:
    how = {"lr": 0.01, "weight_decay": 0.1}
    adam = beside(lambda p: AdamP(p, delta=0.0, **how), lambda p: AdamW(p, **how), 50)
    assert adam < 1e-13
    sgd = beside(
        lambda p: SGDP(p, lr=0.01, momentum=0.9, delta=0.0),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
        50,
    )
    assert sgd < 1e-13


@given(seed=st.integers(0, 1000), method=st.sampled_from([AdamP, SGDP]))
@settings(max_examples=15, deadline=None)
def test_5_delta_infinite_makes_the_move_orthogonal(seed: int, method: Any) -> None:
    x = Parameter(gaussian(1, 7, seed=seed))
    start = x.detach().clone()
    x.grad = gaussian(1, 7, seed=seed + 1)
    method([x], lr=0.1, delta=math.inf, eps=1e-12).step()
    move = x.detach() - start
    assert move.norm() > 1e-3
    assert abs(float((move * start).sum())) < 1e-6 * float(move.norm() * start.norm())


def test_6_on_the_sphere_the_direction_is_the_same_to_first_order() -> None:
    start, g = gaussian(1, 9), gaussian(1, 9, seed=1)

    def direction(method: Any, lr: float, **how: Any) -> Tensor:
        x = Parameter(start.clone())
        x.grad = g.clone()
        method([x], lr=lr, **how).step()
        return x.detach() / x.detach().norm()

    gaps = [
        float((direction(SGDP, lr, delta=math.inf) - direction(SGD, lr)).norm())
        for lr in (1e-3, 1e-4)
    ]
    assert gaps[0] < 1e-5
    assert gaps[1] == pytest.approx(gaps[0] / 100, rel=0.05)


def test_decay_is_weakened_where_projected_and_divided_by_1_minus_momentum() -> None:
    x, y = (Parameter(torch.tensor([[2.0, 0.0]], dtype=DOUBLE)) for _ in range(2))
    optimizer = SGDP([x, y], lr=0.1, momentum=0.5, weight_decay=0.25, wd_ratio=0.2)
    x.grad = torch.tensor([[0.0, 1.0]], dtype=DOUBLE)  # passes the test
    y.grad = torch.tensor([[1.0, 0.0]], dtype=DOUBLE)
    optimizer.step()
    assert x.flatten().tolist() == pytest.approx([2 * (1 - 0.1 * 0.25 * 0.2 / 0.5), -0.1])
    assert y.flatten().tolist() == pytest.approx([2 * (1 - 0.1 * 0.25 / 0.5) - 0.1, 0.0])


@pytest.mark.parametrize("method", [AdamP, SGDP])
def test_vectors_and_scalars_are_never_projected(method: Any) -> None:
    xs = [Parameter(gaussian(4)), Parameter(gaussian())]
    optimizer = method(xs, lr=0.1, delta=math.inf)
    for x in xs:
        x.grad = torch.zeros_like(x)
    optimizer.step()
    assert optimizer.last_projected == ()


@pytest.mark.parametrize("method", [AdamP, SGDP])
@pytest.mark.parametrize("eps", [1e-8, 0.0])
def test_bad_input_rows_of_zeros(method: Any, eps: float) -> None:
    """A zero row has cosine 0 and does not decide; a tensor of zeros passes, harmlessly."""
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=DOUBLE)
    some, all_zero = Parameter(x), Parameter(torch.zeros(2, 2, dtype=DOUBLE))
    optimizer = method([("some", some), ("all", all_zero)], lr=0.1, eps=eps, weight_decay=0.1)
    some.grad, all_zero.grad = torch.ones(2, 2).double(), torch.ones(2, 2).double()
    optimizer.step()
    assert optimizer.last_projected == ("all",)
    assert some.isfinite().all()
    assert torch.allclose(all_zero, torch.full_like(all_zero, -0.1))


def test_bad_input_a_zero_gradient_passes_the_test_and_weakens_the_decay() -> None:
    x = Parameter(torch.ones(2, 2, dtype=DOUBLE))
    optimizer = AdamP([("x", x)], lr=0.1, weight_decay=0.5)
    x.grad = torch.zeros_like(x)
    optimizer.step()
    assert optimizer.last_projected == ("x",)
    torch.testing.assert_close(x.detach(), torch.full_like(x, 1 - 0.1 * 0.5 * 0.1))


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.compile)])
def test_bad_input_a_parameter_that_is_not_contiguous(compile: bool) -> None:
    for method in (AdamP, SGDP):
        strided = Parameter(gaussian(4, 6).t())
        plain = Parameter(strided.detach().clone(memory_format=torch.contiguous_format))
        for x in (strided, plain):
            optimizer = method([x], lr=0.1, compile=compile, delta=1.0)
            for k in range(3):
                x.grad = gaussian(6, 4, seed=k)
                optimizer.step()
        torch.testing.assert_close(strided, plain, rtol=1e-13, atol=1e-13)


def test_default_arguments() -> None:
    group = AdamP([Parameter(torch.zeros(1))]).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.9, 0.999), 1e-8)
    assert (group["delta"], group["wd_ratio"], group["weight_decay"]) == (0.1, 0.1, 0.0)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (AdamP, {"lr": -1.0}, r"lr must be >= 0, got -1.0"),
        (AdamP, {"betas": (1.0, 0.9)}, r"betas\[0\] must be in \[0, 1\), got 1.0"),
        (AdamP, {"eps": -1.0}, r"eps must be >= 0, got -1.0"),
        (AdamP, {"weight_decay": -1.0}, r"weight_decay must be >= 0, got -1.0"),
        (AdamP, {"delta": -1.0}, r"delta must be >= 0, got -1.0"),
        (SGDP, {"wd_ratio": -1.0}, r"wd_ratio must be >= 0, got -1.0"),
        (SGDP, {"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        (SGDP, {"dampening": 2.0}, r"dampening must be in \[0, 1\], got 2.0"),
    ],
)
def test_bad_values_are_named(method: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method([Parameter(torch.zeros(1))], **options)
