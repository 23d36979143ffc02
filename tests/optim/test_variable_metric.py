"""The variable-metric step, and every adaptive method written with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from thalweg.numeric import Box, L2Ball, Simplex
from thalweg.optim import (
    SGD,
    AdaGrad,
    AdaGradFull,
    AdaGradNorm,
    Adam,
    AMSGrad,
    RMSProp,
    gradient_mapping,
    variable_metric_step,
)

D = 5


def spd(seed: int, low: float = 1.0, high: float = 100.0, d: int = D) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return Q @ torch.diag(torch.linspace(low, high, d, dtype=torch.float64)) @ Q.T


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# ---- Must hold ----


@pytest.mark.parametrize("seed", range(5))
def test_1_the_hessian_solves_a_quadratic_in_one_step(seed: int) -> None:
    A, b, x = spd(seed), normal(seed, D), normal(100 + seed, D)
    minimizer = torch.linalg.solve(A, b)
    found = variable_metric_step(x, A @ x - b, A, lr=1.0)
    assert torch.allclose(found, minimizer, rtol=0, atol=1e-12)


def test_1_a_matrix_metric_keeps_the_shape() -> None:
    H, x, g = spd(0, d=6), normal(1, 2, 3), normal(2, 2, 3)
    expected = x - 0.5 * torch.linalg.solve(H, g.flatten()).view(2, 3)
    assert torch.allclose(variable_metric_step(x, g, H, 0.5), expected, rtol=0, atol=1e-13)


def test_2_a_number_is_gradient_descent() -> None:
    x, g, L = normal(0, 2, 3), normal(1, 2, 3), 7.0
    expected = x - g / L
    full = L * torch.eye(6, dtype=torch.float64)
    for H in (L, torch.tensor(L), torch.full((2, 3), L), full):
        assert torch.allclose(variable_metric_step(x, g, H, 1.0), expected, rtol=0, atol=1e-14)


# (3): each method as a rule for H, then the step; `rule` yields (direction, H, step size, set).

Rule = Callable[[Tensor, Tensor, int], tuple[Tensor, Any, float]]


def sgd() -> tuple[Any, Rule, Any]:
    return lambda x: SGD(x, lr=0.1), lambda x, g, k: (g, 1.0, 0.1), None


def adagrad_norm() -> tuple[Any, Rule, Any]:
    square = [0.3**2]

    def rule(x: Tensor, g: Tensor, k: int) -> tuple[Tensor, Any, float]:
        square[0] += float(g.square().sum())
        return g, math.sqrt(square[0]), 0.5

    return lambda x: AdaGradNorm(x, lr=0.5, b0=0.3), rule, None


def adagrad(X: Any) -> tuple[Any, Rule, Any]:
    total = torch.full((D,), 0.2, dtype=torch.float64)

    def rule(x: Tensor, g: Tensor, k: int) -> tuple[Tensor, Any, float]:
        total.add_(g**2)
        return g, total.sqrt() + 0.01, 0.5

    def make(x: Any) -> AdaGrad:
        return AdaGrad(x, lr=0.5, eps=0.01, initial_accumulator=0.2, constraint=X)

    return make, rule, X


def adagrad_full() -> tuple[Any, Rule, Any]:
    outer = torch.zeros(D, D, dtype=torch.float64)

    def rule(x: Tensor, g: Tensor, k: int) -> tuple[Tensor, Any, float]:
        outer.add_(torch.outer(g, g))
        w, V = torch.linalg.eigh(outer)
        root = V @ torch.diag(w.clamp_min(0).sqrt()) @ V.T
        return g, root + 0.1 * torch.eye(D, dtype=torch.float64), 0.5

    return lambda x: AdaGradFull(x, lr=0.5, delta=0.1), rule, None


def rmsprop(X: Any) -> tuple[Any, Rule, Any]:
    average = torch.zeros(D, dtype=torch.float64)

    def rule(x: Tensor, g: Tensor, k: int) -> tuple[Tensor, Any, float]:
        average.mul_(0.9).add_(0.1 * g**2)
        return g, average.sqrt() + 0.01, 0.05

    return lambda x: RMSProp(x, lr=0.05, alpha=0.9, eps=0.01, constraint=X), rule, X


def adam() -> tuple[Any, Rule, Any]:
    m, v = torch.zeros(D, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)

    def rule(x: Tensor, g: Tensor, k: int) -> tuple[Tensor, Any, float]:
        m.mul_(0.8).add_(0.2 * g)
        v.mul_(0.9).add_(0.1 * g**2)
        return m / (1 - 0.8**k), (v / (1 - 0.9**k)).sqrt() + 0.01, 0.05

    return lambda x: Adam(x, lr=0.05, betas=(0.8, 0.9), eps=0.01), rule, None


def amsgrad(X: Any) -> tuple[Any, Rule, Any]:
    m, v, largest = (torch.zeros(D, dtype=torch.float64) for _ in range(3))

    def rule(x: Tensor, g: Tensor, k: int) -> tuple[Tensor, Any, float]:
        m.mul_(0.8).add_(0.2 * g)
        v.mul_(0.9).add_(0.1 * g**2)
        largest.copy_(torch.maximum(largest, v))
        return m, largest.sqrt() + 0.01, 0.5 / k**0.5

    return lambda x: AMSGrad(x, lr=0.5, betas=(0.8, 0.9), eps=0.01, constraint=X), rule, X


METHODS: dict[str, Callable[[], tuple[Any, Rule, Any]]] = {
    "SGD": sgd,
    "AdaGradNorm": adagrad_norm,
    "AdaGrad": lambda: adagrad(None),
    "AdaGrad on a simplex": lambda: adagrad(Simplex(1.0)),
    "AdaGradFull": adagrad_full,
    "RMSProp": lambda: rmsprop(None),
    "RMSProp on a ball": lambda: rmsprop(L2Ball(0.6)),
    "Adam": adam,
    "AMSGrad": lambda: amsgrad(None),
    "AMSGrad on a ball": lambda: amsgrad(L2Ball(0.6)),
    "AMSGrad on a simplex": lambda: amsgrad(Simplex(1.0)),
    "AMSGrad on a box": lambda: amsgrad(Box(-0.3, 0.3)),
}


@pytest.mark.parametrize("name", METHODS)
def test_3_adaptive_methods_are_rules_for_the_metric(name: str) -> None:
    make, rule, X = METHODS[name]()
    start = torch.full((D,), 0.2, dtype=torch.float64)
    x, y = Parameter(start.clone()), start.clone()
    optimizer = make([x])
    A = spd(3, 0.1, 5.0)
    for k in range(1, 51):
        noise = 0.3 * normal(k, D)
        x.grad = A @ x.detach() - 1 + noise
        optimizer.step()
        direction, H, lr = rule(y, A @ y - 1 + noise, k)
        y = variable_metric_step(y, direction, H, lr, constraint=X)
        assert float((x.detach() - y).abs().max()) < 1e-10
    assert float((y - start).abs().max()) > 0.05


# ---- The projection and the gradient mapping ----


def test_projection_is_in_the_metric() -> None:
    x, g = torch.tensor([0.5, 0.5]), torch.tensor([-1.0, 0.0])
    h = torch.tensor([1.0, 3.0])
    found = variable_metric_step(x, g, h, 1.0, Simplex(1.0))  # y = (1.5, .5): excess 1 as 1/h
    assert torch.allclose(found, torch.tensor([0.75, 0.25]), atol=1e-6)


@pytest.mark.parametrize("lam", [0.1, 1.0])
def test_gradient_mapping_inside_the_set_is_the_scaled_gradient(lam: float) -> None:
    x, g = 0.01 * normal(0, D), 0.1 * normal(1, D)
    h = torch.linspace(1, 4, D, dtype=torch.float64)
    found = gradient_mapping(x, g, h, Box(-5, 5), lam)
    assert torch.allclose(found, g / h.sqrt(), rtol=0, atol=1e-13)


def test_gradient_mapping_is_zero_exactly_where_stationary() -> None:
    """On the simplex: equal gradients on the support, no smaller ones off it."""
    x = torch.tensor([0.4, 0.6, 0.0], dtype=torch.float64)
    h = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    stationary = torch.tensor([1.0, 1.0, 1.5], dtype=torch.float64)
    assert float(gradient_mapping(x, stationary, h, Simplex(1.0)).abs().max()) < 1e-14
    for g in ([1.0, 1.1, 1.5], [1.0, 1.0, 0.9]):
        moved = gradient_mapping(x, torch.tensor(g, dtype=torch.float64), h, Simplex(1.0))
        assert float(moved.abs().max()) > 0.01


# ---- Bad input ----


def test_an_indefinite_matrix_names_its_smallest_eigenvalue() -> None:
    H = spd(0, -2.5, 4.0)
    with pytest.raises(ValueError, match=r"H must be positive definite, .* eigenvalue -2\.5"):
        variable_metric_step(normal(0, D), normal(1, D), H, 0.1)


def test_a_singular_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"H must be positive definite, .* eigenvalue 0"):
        variable_metric_step(torch.ones(2), torch.ones(2), torch.zeros(2, 2), 0.1)


def test_a_matrix_that_is_not_symmetric_is_refused() -> None:
    H = torch.tensor([[2.0, 1.0], [0.0, 2.0]])
    with pytest.raises(ValueError, match="H must be symmetric"):
        variable_metric_step(torch.ones(2), torch.ones(2), H, 0.1)


@pytest.mark.parametrize("H", [0.0, -1.0, torch.tensor([1.0, 0.0]), float("nan")])
def test_a_diagonal_that_is_not_positive_is_refused(H: Any) -> None:
    with pytest.raises(ValueError, match="H must be > 0, got a smallest entry of"):
        variable_metric_step(torch.ones(2), torch.ones(2), H, 0.1)


@pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 3)])
def test_a_metric_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"H must be a number, .* shape \(2,\) or .* \(2, 2\), got"
    ):
        variable_metric_step(torch.ones(2), torch.ones(2), torch.ones(shape), 0.1)


def test_a_gradient_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"g must have the shape of x, \(2,\), got \(2, 2\)"):
        variable_metric_step(torch.ones(2), torch.ones(2, 2), 1.0, 0.1)


def test_a_matrix_metric_with_a_set_is_refused() -> None:
    with pytest.raises(ValueError, match="constraint must be None with a matrix H"):
        variable_metric_step(torch.ones(2), torch.ones(2), torch.eye(2), 0.1, Box(-1, 1))


def test_step_sizes_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"lr must be >= 0, got -0\.1"):
        variable_metric_step(torch.ones(2), torch.ones(2), 1.0, -0.1)
    with pytest.raises(ValueError, match=r"lam must be > 0, got 0\.0"):
        gradient_mapping(torch.ones(2), torch.ones(2), 1.0, Box(-1, 1), lam=0.0)
