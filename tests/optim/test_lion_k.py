"""Lion-K and its convex functions: what their card says must hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from thalweg.optim import Kappa, Lion, LionK, lion_lyapunov
from thalweg.optim.kappa import (
    L1,
    GroupNorm,
    HalfSquare,
    Huber,
    LogCosh,
    LpNorm,
    Nuclear,
    SmoothL1,
    Threshold,
    TopK,
)

DOUBLE = torch.float64
#: The rows of the card's table.
ROWS: list[Any] = [
    L1(),
    HalfSquare(),
    LpNorm(1.5),
    LpNorm(3.0),
    GroupNorm(),
    Huber(0.7),
    Threshold(0.4),
    SmoothL1(0.3),
    TopK(3),
    LogCosh(),
    Nuclear(),
]
C = torch.tensor([3.0, -2.0, 0.5, 0.05, -0.7], dtype=DOUBLE)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def descend(
    gradient: Callable[[Tensor], Tensor],
    start: Tensor,
    steps: int,
    lr: Callable[[int], float],
    **options: Any,
) -> Tensor:
    x = Parameter(start.clone())
    optimizer = LionK([x], lr=lr(0), **options)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = lr(k)
        x.grad = gradient(x.detach())
        optimizer.step()
    return x.detach()


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.compile)])
def test_1_with_l1_it_is_lion_bitwise(compile: bool) -> None:
    shapes = [(3, 4), (), (200, 150)]
    a, b = ([Parameter(gaussian(*s)) for s in shapes] for _ in range(2))
    how: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.3, "compile": compile}
    optimizers = LionK(a, **how), Lion(b, **how)
    for k in range(20):
        for i, (p, q) in enumerate(zip(a, b, strict=True)):
            p.grad = gaussian(*p.shape, seed=10 * k + i)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(a, b, strict=True):
        assert torch.equal(p, q)


def test_2_half_square_finds_the_penalized_minimum() -> None:
    A, b, lam = torch.diag(torch.tensor([1.0, 3.0, 0.5]).double()), gaussian(3), 0.5
    x = descend(
        lambda x: A @ x - b,
        torch.zeros(3, dtype=DOUBLE),
        6000,
        lambda k: 0.1 / (1 + k / 500),
        kappa=HalfSquare(),
        weight_decay=lam,
    )
    exact = torch.linalg.solve(A + lam * torch.eye(3, dtype=DOUBLE), b)
    torch.testing.assert_close(x, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kappa", ROWS, ids=repr)
@pytest.mark.parametrize("shape", [(12,), (4, 3), (2, 3, 2)])
def test_3_fenchel_young(kappa: Any, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(340):
        m, y = (2 * torch.randn(2, *shape, dtype=DOUBLE, generator=generator)).unbind(0)
        d = kappa.grad(m)
        assert kappa.in_dom(d)
        equal = kappa.value(m) + kappa.conj(d) - (m * d).sum()
        assert abs(float(equal)) < 1e-10
        for point in (y, 0.1 * y, kappa.grad(y)):
            assert float(kappa.value(m) + kappa.conj(point) - (m * point).sum()) >= -1e-10


@pytest.mark.parametrize(
    "kappa", [row for row in ROWS if not isinstance(row, HalfSquare)], ids=repr
)
def test_3_outside_its_domain_the_conjugate_is_infinite(kappa: Any) -> None:
    y = torch.full((4, 3), 5.0, dtype=DOUBLE)
    assert not kappa.in_dom(y)
    assert kappa.conj(y) == math.inf


@pytest.mark.parametrize("kappa", [HalfSquare(), LogCosh()], ids=repr)
def test_4_the_lyapunov_function_does_not_increase_along_the_flow(kappa: Any) -> None:
    lam, lr, betas, h = 1.3, 0.1, (0.9, 0.95), 1e-3
    gamma, eps = (1 - betas[1]) / lr, (1 - betas[0]) * lr / (1 - betas[1])
    A = torch.diag(torch.tensor([1.0, 4.0, 0.2]).double())

    def f(x: Tensor) -> Tensor:
        return x @ A @ x / 2 + x.cos().sum()

    x, m = 0.5 * gaussian(3) / gaussian(3).abs().max() / lam, gaussian(3, seed=1)
    assert kappa.in_dom(lam * x)
    last = lion_lyapunov(x, m, f, kappa, lam, betas, lr)
    first = last
    for _ in range(5000):
        push = gamma * (A @ x - x.sin()) + gamma * m
        x, m = x + h * (kappa.grad(m - eps * push) - lam * x), m - h * push
        now = lion_lyapunov(x, m, f, kappa, lam, betas, lr)
        assert now <= last + 1e-10
        last = now
    assert last < first - 0.01


def test_4_the_lyapunov_function_by_hand() -> None:
    """K = m^2/2, lr = 0.5, betas (0.5, 0.75), lam = 2: gamma = 0.5, epsilon = 1."""
    x, m = torch.tensor([3.0], dtype=DOUBLE), torch.tensor([5.0], dtype=DOUBLE)
    conj = (2 * 3) ** 2 / 2
    expected = 0.5 * 7 + 0.5 / 2 * conj + (1 - 0.5) / (1 + 2) * (conj + 12.5 - 2 * 3 * 5)
    value = lion_lyapunov(x, m, lambda x: 7.0, HalfSquare(), 2.0, (0.5, 0.75), 0.5)
    assert value == pytest.approx(expected, rel=1e-14)


def test_4_the_flow_is_what_the_optimizer_follows() -> None:
    """x and -exp_avg after a small step are the Euler step of the flow, lr its length."""
    lr, betas, lam = 1e-3, (0.99, 0.995), 1.3
    gamma, eps = (1 - betas[1]) / lr, (1 - betas[0]) * lr / (1 - betas[1])
    x = Parameter(gaussian(4))
    optimizer = LionK([x], lr=lr, kappa=LogCosh(), betas=betas, weight_decay=lam)
    x.grad = gaussian(4, seed=1)
    optimizer.step()
    x0, m = x.detach().clone(), -optimizer.state[x]["exp_avg"].clone()
    g = x.grad = gaussian(4, seed=2)
    optimizer.step()
    push = gamma * g + gamma * m
    torch.testing.assert_close(x.detach(), x0 + lr * ((m - eps * push).tanh() - lam * x0))
    torch.testing.assert_close(-optimizer.state[x]["exp_avg"], m - lr * push)


def test_implicit_decay_by_hand() -> None:
    x = Parameter(torch.tensor([3.0], dtype=DOUBLE))
    x.grad = torch.ones(1, dtype=DOUBLE)
    LionK([x], lr=0.5, weight_decay=4.0, implicit=True).step()
    assert x.item() == pytest.approx((3 - 0.5) / (1 + 2.0), rel=1e-14)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("kappa", [L1(), LpNorm(3.0), GroupNorm(), Nuclear(), TopK(3)], ids=repr)
def test_5_from_outside_the_distance_shrinks(kappa: Any, implicit: bool) -> None:
    """In the gauge of the domain: the least t with lam x in t dom K*, less 1."""
    lr, lam = 0.05, 2.0
    x = Parameter(5 * gaussian(4, 3))
    optimizer = LionK([x], lr=lr, kappa=kappa, weight_decay=lam, implicit=implicit)

    def outside() -> float:
        low, high = 1.0, 1e3
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if kappa.in_dom(lam * x.detach() / middle) else (middle, high)
        return high - 1

    start = outside()
    assert start > 1
    factor = 1 / (1 + lr * lam) if implicit else 1 - lr * lam
    for k in range(1, 30):
        x.grad = gaussian(4, 3, seed=k)
        optimizer.step()
        assert outside() <= factor**k * start + 1e-9


def test_6_threshold_soft_thresholds_and_clips() -> None:
    """f + e ||x||_1 on the box."""
    e = 0.3
    x = descend(
        lambda x: x - C,
        torch.zeros(5, dtype=DOUBLE),
        20_000,
        lambda k: 1e-3,
        kappa=Threshold(e),
        weight_decay=1.0,
    )
    solution = (C.sign() * (C.abs() - e).clamp_min(0)).clamp(-1, 1)
    torch.testing.assert_close(x, solution, rtol=0, atol=5e-3)
    expected = torch.tensor([1, -1, 0.2001, 0, -0.4], dtype=DOUBLE)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-3)


@given(seed=st.integers(0, 1000), lr=st.floats(0.01, 0.2))
@settings(max_examples=10, deadline=None)
def test_headline_after_log_many_steps_all_weights_are_in_the_box(seed: int, lr: float) -> None:
    lam, start = 4.0, 3.0
    steps = math.ceil(math.log(1000 * start) / (lr * lam))
    x = descend(
        lambda x: gaussian(6, seed=seed) - 0.1 * x,
        torch.full((6,), start, dtype=DOUBLE),
        steps,
        lambda k: lr,
        weight_decay=lam,
    )
    assert float(x.abs().max()) <= 1 / lam + 1e-3


def test_kinks_leave_undecided_coordinates_at_zero() -> None:
    zero = torch.zeros(2, 3, dtype=DOUBLE)
    for kappa in ROWS:
        assert torch.equal(kappa.grad(zero), zero), kappa
    m = torch.tensor([0.5, -0.5, 0.6], dtype=DOUBLE)
    assert Threshold(0.5).grad(m).tolist() == [0.0, 0.0, 1.0]
    assert TopK(2).grad(torch.tensor([1.0, -1.0, 1.0, 0.5])).tolist() == [1.0, -1.0, 0.0, 0.0]
    rows = GroupNorm().grad(torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=DOUBLE))
    assert rows.tolist() == [[0, 0], [0.6, 0.8]]
    low_rank = torch.outer(gaussian(4), gaussian(3, seed=1))
    torch.testing.assert_close(Nuclear().grad(low_rank), low_rank / low_rank.norm())


def test_matrix_rows_leave_vectors_to_l1_and_see_channels() -> None:
    m = gaussian(4, 2, 3)
    for kappa in (GroupNorm(), Nuclear()):
        assert torch.equal(kappa.grad(m[0, 0]), m[0, 0].sign())
        torch.testing.assert_close(kappa.grad(m), kappa.grad(m.flatten(1)).view(m.shape))


QUICK = (Huber(0.7), TopK(3))  # one elementwise, one that needs the whole tensor


@pytest.mark.compile
@pytest.mark.parametrize(
    "kappa",
    [row if row in QUICK else pytest.param(row, marks=pytest.mark.slow) for row in ROWS],
    ids=repr,
)
def test_compiled_agrees_with_eager(kappa: Any) -> None:
    results = []
    for compile in (False, True):
        params = [Parameter(gaussian(6, 5)), Parameter(gaussian(7)), Parameter(gaussian(3, 2, 2))]
        optimizer = LionK(params, lr=0.1, kappa=kappa, weight_decay=0.5, compile=compile)
        for k in range(4):
            for i, p in enumerate(params):
                p.grad = gaussian(*p.shape, seed=10 * k + i)
            optimizer.step()
        results.append([p.detach() for p in params])
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


def test_a_function_of_your_own_that_is_not_even() -> None:
    """K(m) = max(m, 0): x moves up, never down."""
    ramp = Kappa(
        value=lambda m: m.clamp_min(0).sum(),
        grad=lambda m: (m > 0).to(m.dtype),
        conj=lambda y: (
            y.new_zeros(()) if bool(((y >= 0) & (y <= 1)).all()) else y.new_tensor(math.inf)
        ),
        in_dom=lambda y: bool(((y >= 0) & (y <= 1)).all()),
    )
    x = Parameter(torch.zeros(2))
    x.grad = torch.tensor([1.0, -1.0])
    LionK([x], lr=0.5, kappa=ramp).step()
    assert x.tolist() == [0.0, 0.5]


def test_bad_input_a_function_that_is_not_convex() -> None:
    concave = Kappa(value=Tensor.sum, grad=torch.neg, conj=Tensor.sum, in_dom=lambda y: True)
    with pytest.raises(ValueError, match=r"kappa must be convex: .* must be >= 0, got -"):
        LionK([Parameter(torch.zeros(1))], kappa=concave)


def test_bad_input_no_function() -> None:
    with pytest.raises(
        TypeError, match=r"kappa must be a convex function .* got str without value"
    ):
        LionK([Parameter(torch.zeros(1))], kappa="l1")  # type: ignore[arg-type]


def test_bad_input_lambda_zero_is_allowed_but_has_no_lyapunov_function() -> None:
    LionK([Parameter(torch.zeros(1))], weight_decay=0.0)
    with pytest.raises(ValueError, match=r"lam must be > 0, got 0.0"):
        lion_lyapunov(C, C, lambda x: 0.0, L1(), 0.0, (0.9, 0.99), 0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LpNorm(1.0), "p must be > 1, got 1.0"),
        (lambda: Huber(0.0), "e must be > 0, got 0.0"),
        (lambda: SmoothL1(0.0), "e must be > 0, got 0.0"),
        (lambda: Threshold(-1.0), "e must be >= 0, got -1.0"),
        (lambda: TopK(0), "k must be an integer >= 1, got 0"),
        (lambda: LionK([Parameter(C)], lr=-1.0), "lr must be >= 0, got -1.0"),
        (lambda: LionK([Parameter(C)], betas=(0.9, 1.0)), r"betas\[1\] must be in \[0, 1\)"),
        (lambda: LionK([Parameter(C)], lr=1.0, weight_decay=1.0), "weight_decay must be < 1 / lr"),
    ],
)
def test_bad_values_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
