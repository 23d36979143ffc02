"""Each adaptive method is (a rule for H, the variable-metric step): two writings, one trajectory.

Here H is built from the history of gradients as the papers write it, with no recursion shared with
the classes, and `variable_metric_step` moves. 50 steps, 1e-10.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from thalweg.numeric import Box, L2Ball, Simplex
from thalweg.optim import (
    AdaGrad,
    AdaGradFull,
    AdaGradNorm,
    Adam,
    AMSGrad,
    RMSProp,
    variable_metric_step,
)

DOUBLE = torch.float64
STEPS, D = 50, 6

#: history of gradients (k, d) -> (direction g_k or m_k, H_k, a_k)
Metric = Callable[[Tensor], tuple[Tensor, float | Tensor, float]]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


A = torch.diag(torch.logspace(-1, 1, D, dtype=DOUBLE))
Q = torch.linalg.qr(gaussian(D, D))[0]
NOISE = gaussian(STEPS, D, seed=5)
PUSH = 5 * gaussian(D, seed=8)  # so that minimizers lie outside the sets below


def gradient(x: Tensor, k: int) -> Tensor:
    """Of a non-convex function, with noise."""
    return Q.T @ (A @ (Q @ x)) + x.sin() + PUSH + 0.3 * NOISE[k]


def by_class(method: type[torch.optim.Optimizer], start: Tensor, **options: object) -> Tensor:
    x = torch.nn.Parameter(start.clone())
    optimizer = method([x], **options)
    points = []
    for k in range(STEPS):
        x.grad = gradient(x.detach(), k)
        optimizer.step()
        points.append(x.detach().clone())
    return torch.stack(points)


def by_frame(metric: Metric, start: Tensor, constraint: object = None) -> Tensor:
    x, history, points = start.clone(), [], []
    for k in range(STEPS):
        history.append(gradient(x, k))
        direction, H, lr = metric(torch.stack(history))
        x = variable_metric_step(x, direction, H, lr, constraint)
        points.append(x)
    return torch.stack(points)


def weights(b: float, k: int) -> Tensor:
    """(1 - b) b^{k-j} for j = 1..k: an exponential average from zero."""
    return (1 - b) * b ** torch.arange(k - 1, -1, -1, dtype=DOUBLE)


def averaged(b: float, values: Tensor) -> Tensor:
    return weights(b, len(values)) @ values


def adagrad_norm(g: Tensor) -> tuple[Tensor, float, float]:
    return g[-1], math.sqrt(0.3**2 + float(g.square().sum())), 0.5


def adagrad(g: Tensor) -> tuple[Tensor, Tensor, float]:
    return g[-1], (0.2 + g.square().sum(0)).sqrt() + 1e-3, 0.5


def adagrad_full(g: Tensor) -> tuple[Tensor, Tensor, float]:
    U, s, _ = torch.linalg.svd(g.T)  # (G^T G)^{1/2} = U S U^T: another way than the class's
    root = torch.zeros(D, dtype=DOUBLE)
    root[: len(s)] = s
    return g[-1], U @ torch.diag(root) @ U.T + 0.1 * torch.eye(D, dtype=DOUBLE), 0.5


def rmsprop(g: Tensor) -> tuple[Tensor, Tensor, float]:
    return g[-1], averaged(0.9, g**2).sqrt() + 1e-3, 0.05


def rmsprop_centered(g: Tensor) -> tuple[Tensor, Tensor, float]:
    variance = averaged(0.9, g**2) - averaged(0.9, g) ** 2
    return g[-1], variance.clamp_min(0).sqrt() + 1e-3, 0.05


def adam_uncorrected(g: Tensor) -> tuple[Tensor, Tensor, float]:
    return averaged(0.9, g), averaged(0.99, g**2).sqrt() + 1e-3, 0.05


def adam(g: Tensor) -> tuple[Tensor, Tensor, float]:
    k = len(g)
    m, v = averaged(0.9, g) / (1 - 0.9**k), averaged(0.99, g**2) / (1 - 0.99**k)
    return m, v.sqrt() + 1e-3, 0.05


def amsgrad(g: Tensor) -> tuple[Tensor, Tensor, float]:
    k = len(g)
    largest = torch.stack([averaged(0.9, g[:j] ** 2) for j in range(1, k + 1)]).amax(0)
    return averaged(0.8, g), largest.sqrt() + 1e-3, 0.3 / math.sqrt(k)


START = gaussian(D, seed=9)
CLOSE = {"rtol": 0, "atol": 1e-10}


@pytest.mark.parametrize(
    ("metric", "method", "options"),
    [
        (adagrad_norm, AdaGradNorm, {"lr": 0.5, "b0": 0.3}),
        (adagrad, AdaGrad, {"lr": 0.5, "eps": 1e-3, "initial_accumulator": 0.2}),
        (adagrad_full, AdaGradFull, {"lr": 0.5, "delta": 0.1}),
        (rmsprop, RMSProp, {"lr": 0.05, "alpha": 0.9, "eps": 1e-3}),
        (rmsprop_centered, RMSProp, {"lr": 0.05, "alpha": 0.9, "eps": 1e-3, "centered": True}),
        (adam, Adam, {"lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-3}),
        (amsgrad, AMSGrad, {"lr": 0.3, "betas": (0.8, 0.9), "eps": 1e-3}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_3_class_equals_its_metric_and_the_step(
    metric: Metric, method: type[torch.optim.Optimizer], options: dict[str, object]
) -> None:
    torch.testing.assert_close(by_class(method, START, **options), by_frame(metric, START), **CLOSE)


def test_3_adam_without_correction_is_amsgrad_without_its_maximum() -> None:
    """No class runs uncorrected Adam; the corrected one does with its steps and eps rescaled."""
    x = torch.nn.Parameter(START.clone())
    optimizer = Adam([x], betas=(0.9, 0.99))
    for k, expected in enumerate(by_frame(adam_uncorrected, START), start=1):
        root = math.sqrt(1 - 0.99**k)
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - 0.9**k) / root
        optimizer.param_groups[0]["eps"] = 1e-3 / root
        x.grad = gradient(x.detach(), k - 1)
        optimizer.step()
        torch.testing.assert_close(x.detach(), expected, **CLOSE)


SETS = [Box(-0.2, 0.3), L2Ball(radius=0.5), Simplex(total=1.5)]


@pytest.mark.parametrize("constraint", SETS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(
    ("metric", "method", "options"),
    [
        (amsgrad, AMSGrad, {"lr": 0.3, "betas": (0.8, 0.9), "eps": 1e-3}),
        (adagrad, AdaGrad, {"lr": 0.5, "eps": 1e-3, "initial_accumulator": 0.2}),
        (rmsprop, RMSProp, {"lr": 0.05, "alpha": 0.9, "eps": 1e-3}),
        (rmsprop_centered, RMSProp, {"lr": 0.05, "alpha": 0.9, "eps": 1e-3, "centered": True}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_3_class_equals_its_metric_and_the_projected_step(
    constraint: object,
    metric: Metric,
    method: type[torch.optim.Optimizer],
    options: dict[str, object],
) -> None:
    start = constraint.project(START)  # type: ignore[attr-defined]
    mine = by_class(method, start, constraint=constraint, **options)
    torch.testing.assert_close(mine, by_frame(metric, start, constraint), **CLOSE)
    assert float((mine - by_frame(metric, start)).abs().max()) > 0.01  # the set did something
