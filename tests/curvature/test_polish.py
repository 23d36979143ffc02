"""Newton-CG, saddle-free and cubic: exact steps, and saddles they leave."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from thalweg.core.problem import Training
from thalweg.curvature import Objective, Verdict, certify, polish
from thalweg.curvature.second_order_steps import (
    cubic_minimizer,
    cubic_step,
    saddle_free_step,
    trust_region_cg,
)
from thalweg.numeric.operator import as_operator

METHODS = ("newton-cg", "saddle-free", "cubic")


def function(f, *start: float) -> Training:  # type: ignore[no-untyped-def]
    return Training.from_function(f, torch.tensor(start, dtype=torch.float64))


def matrix(values: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    n = len(values)
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return Q @ torch.diag(values.double()) @ Q.T, Q


def saddle(x: Tensor) -> Tensor:
    return x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 4


@pytest.mark.parametrize("method", METHODS)
def test_all_leave_the_saddle_for_its_minimum(method: str) -> None:
    training = function(saddle, 1.0, 0.0)
    result = polish(training, method=method)  # type: ignore[arg-type]
    assert result.converged
    # with all eigenvectors the cubic step has the hard case, and needs no escape
    assert result.info["escapes"] == (0 if method == "cubic" else 1)
    assert abs(float(result.x[1])) == pytest.approx(math.sqrt(2), abs=1e-6)
    assert result.info["loss"] == pytest.approx(-1, abs=1e-10)
    assert len(result.trace["loss"]) <= 16
    assert torch.equal(Objective(training).start, result.x)  # it has moved the model


@pytest.mark.parametrize("method", METHODS)
def test_the_monkey_saddle_is_degenerate_not_a_minimum(method: str) -> None:
    training = function(lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2, 0.0, 0.0)
    result = polish(training, method=method)  # type: ignore[arg-type]
    assert result.converged and result.x.tolist() == [0.0, 0.0]
    assert result.info["lambda_min"] == 0 and result.info["degenerate"]
    bowl = polish(function(lambda x: (x**2).sum(), 0.0), method=method)  # type: ignore[arg-type]
    assert not bowl.info["degenerate"] and bowl.info["lambda_min"] == pytest.approx(2)


def test_newton_cg_solves_a_quadratic_in_one_step() -> None:
    A, _ = matrix(torch.linspace(1, 10, 20))
    x = torch.ones(20, dtype=torch.float64)
    training = Training.from_function(lambda x: x @ (A @ x) / 2, x)
    result = polish(training, radius=1e6, max_steps=1, apply=False)
    g = float((A @ x).norm())
    assert result.value <= min(0.5, math.sqrt(g)) * g
    small = 1e-8 * (A @ x)
    s = trust_region_cg(as_operator(A), small, 1e6).s
    assert float((A @ s + small).norm()) <= float(small.norm()) ** 1.5
    assert torch.allclose(s, -1e-8 * x, rtol=1e-2)
    assert torch.equal(Objective(training).start, x)  # apply=False


def test_the_trust_region_step_is_within_the_ball_and_predicts_the_model() -> None:
    A, _ = matrix(torch.linspace(-1, 3, 15))
    g = torch.randn(15, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for radius in (1e-2, 1.0, 100.0):
        step = trust_region_cg(as_operator(A), g, radius)
        assert float(step.s.norm()) <= radius * (1 + 1e-12)
        assert step.predicted == pytest.approx(-float(g @ step.s + step.s @ A @ step.s / 2))
        assert step.predicted > 0
    assert step.on_boundary and step.negative_curvature
    assert float(step.s.norm()) == pytest.approx(100)


def test_the_saddle_free_step_inverts_absolute_values() -> None:
    values = torch.tensor([-2.0, -0.5, 1.0, 3.0], dtype=torch.float64)
    A, Q = matrix(values)
    g = torch.ones(4, dtype=torch.float64)
    s = saddle_free_step(as_operator(A), g)
    exact = -Q @ ((Q.T @ g) / (values.abs() + 3e-3))
    assert torch.allclose(s, exact, atol=1e-10)


@pytest.mark.parametrize("hard", [False, True])
def test_the_cubic_step_is_the_global_minimizer(hard: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.linspace(-1, 2, 30, dtype=torch.float64)
    A, Q = matrix(values)
    g = torch.randn(30, generator=generator, dtype=torch.float64) / 10
    if hard:
        g = g - Q[:, 0] * (Q[:, 0] @ g)
    sigma = 0.1
    step = cubic_step(as_operator(A), g, sigma)
    assert (step.other is not None) == hard
    for s in (step.s, step.other) if step.other is not None else (step.s,):
        # sufficient and necessary for the global minimum
        assert step.multiplier == pytest.approx(sigma * float(s.norm()), abs=1e-8)
        assert step.multiplier >= 1 - 1e-12
        assert float((A @ s + step.multiplier * s + g).norm()) <= 1e-8
        cubic = float(g @ s + s @ A @ s / 2 + sigma / 3 * s.norm() ** 3)
        assert step.predicted == pytest.approx(-cubic, abs=1e-8)
    if hard:
        assert step.multiplier == pytest.approx(1, abs=1e-10)


def test_the_cubic_minimum_is_not_beaten_by_search() -> None:
    generator = torch.Generator().manual_seed(3)
    for seed in range(20):
        t = torch.randn(3, generator=generator, dtype=torch.float64).sort().values
        b = torch.randn(3, generator=generator, dtype=torch.float64) * (seed % 3)
        found = cubic_minimizer(t, b, 0.7)
        tries = 3 * torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
        models = tries @ b + (tries**2 @ t) / 2 + 0.7 / 3 * tries.norm(dim=1) ** 3
        assert -found.predicted <= float(models.min()) + 1e-12


def test_the_krylov_cubic_step_agrees_where_the_space_is_large_enough() -> None:
    # three distinct eigenvalues: three Lanczos steps hold the minimizer
    values = torch.tensor([-1.0, 0.5, 2.0]).repeat(200).double()
    g = torch.randn(600, generator=torch.Generator().manual_seed(4), dtype=torch.float64) / 30
    step = cubic_step(as_operator(torch.diag(values)), g, 1.0)
    s = step.s
    assert step.multiplier == pytest.approx(float(s.norm()), abs=1e-8)
    assert float((values * s + step.multiplier * s + g).norm()) < 1e-8


@pytest.mark.parametrize("method", METHODS)
def test_a_network_is_polished_to_a_point_that_certifies(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    y = torch.tanh(x.sum(1, keepdim=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)).double()

    class Decayed(nn.Module):  # a penalty makes the minimum strict
        def forward(self, z: Tensor, t: Tensor) -> Tensor:
            penalty = sum((p**2).sum() for p in model.parameters())
            return nn.functional.mse_loss(z, t) + 1e-2 * penalty

    training = Training(model, Decayed(), [(x, y)])
    result = polish(training, method=method, max_steps=200)  # type: ignore[arg-type]
    assert result.converged
    certificate = certify(training, curvature_tolerance=1e-3)
    assert certificate.verdict in (Verdict.LOCAL_MINIMUM, Verdict.SECOND_ORDER_STATIONARY)


def test_equal_seeds_give_equal_points_and_bad_input_is_refused() -> None:
    points = [polish(function(saddle, 1.0, 0.0), seed=5).x for _ in range(2)]
    assert torch.equal(*points)
    with pytest.raises(ValueError, match="method must be one of"):
        polish(function(saddle, 0.0, 0.0), method="newton")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="curvature_tolerance must be > 0"):
        polish(function(saddle, 0.0, 0.0), curvature_tolerance=0)
    noisy = Training.from_function(lambda x: (x * torch.rand(2)).sum(), torch.ones(2))
    with pytest.raises(ValueError, match="deterministic"):
        polish(noisy)
