"""AMSGrad against its card: the projection in its metric, torch, the three counterexamples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import Parameter

from thalweg.numeric import Box, Halfspace, L1Ball, L2Ball, Simplex
from thalweg.optim import Adam, AMSGrad

D = 6
NORMAL = torch.tensor([1.0, -2.0, 0.5, 1.0, 3.0, -1.0], dtype=torch.float64)
SETS: dict[str, Any] = {
    "box": Box(-0.5, 0.3),
    "l2 ball": L2Ball(0.8),
    "l1 ball": L1Ball(1.0),
    "simplex": Simplex(1.0),
    "halfspace": Halfspace(NORMAL, -0.5),
}


def nearest_by_slsqp(X: Any, y: np.ndarray, h: np.ndarray) -> np.ndarray:
    """argmin over X of sum h (x - y)^2, by a solver that knows X as inequalities only."""
    signs, start, bounds, constraints = np.eye(D), np.zeros(D), None, []
    match X:
        case Box(low, high):
            bounds = [(low, high)] * D
        case L2Ball(radius):
            constraints = [{"type": "ineq", "fun": lambda z: radius**2 - z @ z}]
        case L1Ball(radius):  # x = p - n with p, n >= 0
            signs, start = np.hstack([np.eye(D), -np.eye(D)]), np.full(2 * D, 0.01)
            bounds = [(0, None)] * (2 * D)
            constraints = [{"type": "ineq", "fun": lambda z: radius - z.sum()}]
        case Simplex(total):
            start, bounds = np.full(D, total / D), [(0, None)] * D
            constraints = [{"type": "eq", "fun": lambda z: z.sum() - total}]
        case Halfspace(a, b):
            constraints = [{"type": "ineq", "fun": lambda z: float(b) - a.numpy() @ z}]
    # In u = sqrt(h) z the objective is round, which SLSQP needs to be accurate to 1e-6.
    scale = 1 / np.sqrt(np.tile(h, len(start) // D))
    found = minimize(
        lambda u: (h * (signs @ (scale * u) - y) ** 2).sum(),
        start / scale,
        jac=lambda u: 2 * scale * (signs.T @ (h * (signs @ (scale * u) - y))),
        bounds=bounds and [(lo / s, hi and hi / s) for (lo, hi), s in zip(bounds, scale)],
        constraints=[
            {"type": c["type"], "fun": lambda u, fun=c["fun"]: fun(scale * u)} for c in constraints
        ],
        method="SLSQP",
        options={"ftol": 1e-16, "maxiter": 500},
    )
    return signs @ (scale * found.x)


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# ---- Must hold ----


@pytest.mark.parametrize("name", SETS)
def test_1_step_is_projected_in_its_own_metric(name: str) -> None:
    """40 random (y, h) for each of 5 sets: y = x - a m / h with h = sqrt(vh) + eps."""
    X, a, eps, moved = SETS[name], 0.7, 0.05, 0
    for seed in range(40):
        start = X.project(normal(seed, D))
        x = Parameter(start.clone())
        g = normal(1000 + seed, D) * torch.logspace(-1, 0.5, D, dtype=torch.float64)
        x.grad = g.clone()
        AMSGrad([x], lr=a, betas=(0.9, 0.99), eps=eps, constraint=X).step()
        h = (0.01 * g**2).sqrt() + eps
        y = start - a * 0.1 * g / h
        expected = nearest_by_slsqp(X, y.numpy(), h.numpy())
        np.testing.assert_allclose(x.detach().numpy(), expected, rtol=0, atol=1e-6)
        moved += not torch.allclose(x.detach(), y)
    assert moved >= 8  # enough draws lie outside for the comparison to mean something


@pytest.mark.parametrize("name", SETS)
def test_1_equal_weights_are_the_euclidean_projection(name: str) -> None:
    X = SETS[name]
    for seed in range(20):
        start = X.project(normal(seed, D))
        x = Parameter(start.clone())
        g = 2.0 * normal(1000 + seed, D).sign()
        x.grad = g.clone()
        AMSGrad([x], lr=0.7, betas=(0.9, 0.99), eps=0.0, constraint=X).step()
        expected = X.project(start - 0.7 * 0.1 * g / 0.2)
        assert torch.allclose(x.detach(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_2_with_bias_correction_it_is_torchs(decay: float) -> None:
    x, y = (Parameter(torch.full((D,), 0.5, dtype=torch.float64)) for _ in range(2))
    keywords = {"lr": 0.01, "betas": (0.8, 0.97), "eps": 1e-7, "weight_decay": decay}
    optimizers = [
        AMSGrad([x], schedule="constant", bias_correction=True, **keywords),
        torch.optim.Adam([y], amsgrad=True, **keywords),
    ]
    for k in range(150):
        x.grad = y.grad = normal(k, D) * (3.0 if k % 10 == 0 else 1.0)
        for optimizer in optimizers:
            optimizer.step()
        assert float((x - y).detach().abs().max()) < 1e-12


def test_3_period_3_counterexample_reduced() -> None:
    assert period_3(3000) < -0.99


@pytest.mark.slow
def test_3_period_3_counterexample() -> None:
    assert period_3(30_000) == pytest.approx(-0.999, abs=1e-3)


def period_3(steps: int) -> float:
    """g = 3 if k mod 3 = 1 else -1 on [-1, 1]; Adam's end, +1, is in test_adam.py."""
    x = Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = AMSGrad([x], lr=0.2, betas=(0.0, 0.1), eps=0.0, constraint=Box(-1, 1))
    for k in range(1, steps + 1):
        x.grad = torch.tensor([3.0 if k % 3 == 1 else -1.0], dtype=torch.float64)
        optimizer.step()
    return x.item()


def play(gradients: Iterable[Tensor], rule: Callable[..., Any], lr: float, betas: Any) -> Tensor:
    """A rule on [-1, 1] with step lr / sqrt k, from 0: all streams at once."""
    stream = iter(gradients)
    g = next(stream)
    x, *state = [torch.zeros_like(g)] * (4 if rule is AMSGrad.rule else 3)
    extra = {"bias_correction": False} if rule is AMSGrad.rule else {}
    k = 1
    while g is not None:
        x, *state = rule(
            x, g, *state, k=k, lr=lr / k**0.5, beta1=betas[0], beta2=betas[1], eps=0.0,
            weight_decay=0.0, **extra,
        )  # fmt: skip
        x = x.clamp(-1, 1)  # a box looks the same in every metric
        g = next(stream, None)
        k += 1
    return x


def period_101(steps: int) -> Iterable[Tensor]:
    up, down = (torch.tensor(g, dtype=torch.float64) for g in (1010.0, -10.0))
    return (up if k % 101 == 1 else down for k in range(1, steps + 1))


def test_4_period_101_counterexample_reduced() -> None:
    assert float(play(period_101(10_100), Adam.rule, 0.5, (0.9, 0.99))) > 0.9
    assert float(play(period_101(10_100), AMSGrad.rule, 0.5, (0.9, 0.99))) < -0.75


@pytest.mark.slow
def test_4_period_101_counterexample() -> None:
    adam = float(play(period_101(200_000), Adam.rule, 0.5, (0.9, 0.99)))
    amsgrad = float(play(period_101(200_000), AMSGrad.rule, 0.5, (0.9, 0.99)))
    assert adam == pytest.approx(0.994, abs=2e-3)
    assert amsgrad == pytest.approx(-1.0, abs=1e-3)


def random_streams(steps: int, streams: int = 200) -> Iterable[Tensor]:
    """1010 with probability 0.01, else -10."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rare = torch.rand(streams, generator=generator, dtype=torch.float64) < 0.01
        yield torch.where(rare, 1010.0, -10.0).double()


def test_5_stochastic_counterexample_reduced() -> None:
    adam = play(random_streams(10_000), Adam.rule, 0.5, (0.9, 0.99))
    early = play(random_streams(2000), AMSGrad.rule, 0.5, (0.9, 0.99))
    late = play(random_streams(10_000), AMSGrad.rule, 0.5, (0.9, 0.99))
    assert float(adam.mean()) > 0.9
    moved = late - early  # the same streams
    assert float(moved.mean()) < -4 * float(moved.std()) / len(moved) ** 0.5


@pytest.mark.slow
def test_5_stochastic_counterexample() -> None:
    adam = play(random_streams(200_000, 50), Adam.rule, 0.5, (0.9, 0.99))
    early = play(random_streams(20_000, 50), AMSGrad.rule, 0.5, (0.9, 0.99))
    late = play(random_streams(200_000, 50), AMSGrad.rule, 0.5, (0.9, 0.99))
    assert float(adam.mean()) == pytest.approx(0.984, abs=0.01)
    moved = late - early
    assert float(moved.mean()) < -4 * float(moved.std()) / len(moved) ** 0.5


@pytest.mark.parametrize("correct", [False, True])
def test_6_largest_second_moment_never_falls(correct: bool) -> None:
    x = Parameter(torch.zeros(50, dtype=torch.float64))
    optimizer = AMSGrad([x], betas=(0.9, 0.9), bias_correction=correct, schedule="constant", lr=0.1)
    before, fell = torch.zeros(50, dtype=torch.float64), False
    v = torch.zeros(50, dtype=torch.float64)
    for k in range(100):
        x.grad = normal(k, 50)
        optimizer.step()
        largest = optimizer.state[x]["max_exp_avg_sq"].clone()
        assert bool((largest >= before).all())
        v = 0.9 * v + 0.1 * x.grad**2
        assert bool((largest >= v - 1e-12).all())
        fell |= bool((v < before).any())
        before = largest
    assert fell  # or the maximum was never needed


# ---- The recursion of the paper, with everything switched on ----


@pytest.mark.parametrize("decay", [1.0, 0.9, "1/k"])
@pytest.mark.parametrize("schedule", ["sqrt", "constant"])
def test_recursion_of_the_paper(decay: Any, schedule: Any) -> None:
    a, b1, b2, eps, v0 = 0.3, 0.8, 0.9, 0.01, 0.2
    x = Parameter(torch.full((D,), 0.1, dtype=torch.float64))
    optimizer = AMSGrad(
        [x],
        lr=a,
        betas=(b1, b2),
        eps=eps,
        constraint=L2Ball(1.0),
        schedule=schedule,
        beta1_decay=decay,
        initial_accumulator=v0,
    )
    y = x.detach().clone()
    m, v, largest = torch.zeros_like(y), torch.zeros_like(y), torch.full_like(y, v0)
    for k in range(1, 31):
        g = normal(k, D)
        x.grad = g.clone()
        optimizer.step()
        b1k = b1 / k if decay == "1/k" else b1 * decay ** (k - 1)
        m = b1k * m + (1 - b1k) * g
        v = b2 * v + (1 - b2) * g**2
        largest = torch.maximum(largest, v)
        h = largest.sqrt() + eps
        y = L2Ball(1.0).project(y - a / (k**0.5 if schedule == "sqrt" else 1) * m / h, h)
        assert torch.allclose(x.detach(), y, rtol=0, atol=1e-12)


def test_with_bias_correction_the_projection_sees_the_corrected_h() -> None:
    a, b1, b2, eps = 0.3, 0.8, 0.9, 0.1
    x = Parameter(torch.full((D,), 1 / D, dtype=torch.float64))
    optimizer = AMSGrad(
        [x],
        lr=a,
        betas=(b1, b2),
        eps=eps,
        constraint=Simplex(1.0),
        schedule="constant",
        bias_correction=True,
    )
    y = x.detach().clone()
    m, v, largest = (torch.zeros_like(y) for _ in range(3))
    for k in range(1, 11):
        g = normal(k, D)
        x.grad = g.clone()
        optimizer.step()
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        largest = torch.maximum(largest, v)
        h = (largest / (1 - b2**k)).sqrt() + eps
        y = Simplex(1.0).project(y - a * m / (1 - b1**k) / h, h)
        assert torch.allclose(x.detach(), y, rtol=0, atol=1e-12)


def test_an_external_scheduler_multiplies_the_schedule() -> None:
    x = Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = AMSGrad([x], lr=1.0, betas=(0.0, 0.0), eps=0.0)
    moves = []
    for k in range(1, 5):
        optimizer.param_groups[0]["lr"] = 10.0**-k
        before = x.item()
        x.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step()
        moves.append(before - x.item())
    assert moves == pytest.approx([10.0**-k / k**0.5 for k in range(1, 5)], rel=1e-9)


# ---- Bad input ----


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Simplex(0.0), "total must be > 0, got 0.0"),
        (lambda: L2Ball(-1.0), "radius must be > 0, got -1.0"),
        (lambda: L1Ball(0.0), "radius must be > 0, got 0.0"),
        (lambda: Box(1.0, -1.0), "low"),
    ],
)
def test_infeasible_sets_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_start_outside_is_projected_with_a_warning() -> None:
    x = Parameter(torch.tensor([2.0, 0.5]))
    with pytest.warns(UserWarning, match=r"parameter 0 of its group .* starts outside Box"):
        AMSGrad([x], constraint=Box(-1, 1))
    assert x.tolist() == [1.0, 0.5]


def test_a_coordinate_never_seen_with_eps_0() -> None:
    """Its weight is 0: it may take up the whole slack, and nothing becomes NaN."""
    x = Parameter(torch.full((3,), 1 / 3, dtype=torch.float64))
    optimizer = AMSGrad([x], lr=0.1, eps=0.0, constraint=Simplex(1.0))
    for _ in range(5):
        x.grad = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
        optimizer.step()
        assert bool(x.detach().isfinite().all())
        assert float(x.detach().sum()) == pytest.approx(1.0, abs=1e-12)


def test_constraint_must_be_a_set() -> None:
    with pytest.raises(TypeError, match="constraint must be a set with a method project"):
        AMSGrad([Parameter(torch.zeros(2))], constraint=1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"lr": -1.0}, "lr must be >= 0, got -1.0"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\] must be in \[0, 1\)"),
        ({"eps": -1.0}, "eps must be >= 0, got -1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0, got -1.0"),
        ({"schedule": "cube"}, "schedule must be one of 'sqrt', 'constant', got 'cube'"),
        ({"initial_accumulator": -1.0}, "initial_accumulator must be >= 0, got -1.0"),
        ({"beta1_decay": 0.0}, r"beta1_decay must be in \(0, 1\], got 0.0"),
        ({"beta1_decay": 1.1}, r"beta1_decay must be in \(0, 1\], got 1.1"),
        ({"bias_correction": True, "beta1_decay": 0.9}, "bias_correction must be False unless"),
    ],
)
def test_bad_input(hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AMSGrad([Parameter(torch.zeros(2))], **hyper)
