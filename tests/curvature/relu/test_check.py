"""SOSP-Check on the worked examples, its invariances, and its refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from thalweg.curvature.relu import TwoLayerReLU, Verdict, check_local_optimality
from thalweg.curvature.relu.check import ReluVerdict


def line(X: list[float], y: list[float], *, b: float = 0.0, W2: float = 1.0) -> TwoLayerReLU:
    """One node on the line: max(x + b, 0) times W2."""
    return TwoLayerReLU([[1.0]], [b], [[W2]], [0.0], np.array(X)[:, None], y, "mse")


CLARKE = line([-1, 0, 1], [-1, 1, 1])
FLAT = line([-1, 0, 1], [1, -1, 1])
MINIMUM = line([-1, 0, 1, 2], [1, -2, 3, 1])
CROSS = line([-1, 0, 1, 2], [-4, 5, 0, -1], b=0.5, W2=0.0)


def random_risks(verdict: ReluVerdict, radius: float, count: int = 4000) -> np.ndarray:
    """R - R(z) at random perturbations of norm up to `radius`."""
    network, generator = verdict.network, np.random.default_rng(0)
    (w,), (b,), (u,), (b2,) = network.W1[0], network.b1, network.W2[0], network.b2
    eta = generator.standard_normal((count, 4))
    eta *= radius * generator.random((count, 1)) / np.linalg.norm(eta, axis=1, keepdims=True)
    w, b, u, b2 = w + eta[:, :1], b + eta[:, 1:2], u + eta[:, 2:3], b2 + eta[:, 3:]
    x, y = network.X[:, 0], network.y[:, 0]
    risks = 0.5 * ((u * np.maximum(w * x + b, 0) + b2 - y) ** 2).sum(axis=1)
    return risks - network.risk()


def test_clarke_stationary_but_a_ray_descends() -> None:
    verdict = check_local_optimality(CLARKE, polish=False)
    assert verdict.verdict is Verdict.DESCENT_FIRST_ORDER
    assert verdict.direction is not None
    np.testing.assert_allclose(verdict.direction.v, [[0.0, 1.0]], atol=1e-14)
    assert verdict.slope_or_curvature == pytest.approx(-1)
    (kink,) = verdict.kinks
    assert (kink.sample, kink.c) == (1, pytest.approx(-1))
    assert 0 <= kink.s_star <= 1  # the QP of the paper has the value 0 here
    for t in (1e-3, 0.1, 0.4):
        risk = CLARKE.moved(verdict.direction, t).risk()
        assert risk == pytest.approx(1 - t + t**2)  # e = (1, -1, 0)


def test_flat_kink_is_second_order_stationary() -> None:
    verdict = check_local_optimality(FLAT)
    assert verdict.verdict is Verdict.SECOND_ORDER_STATIONARY
    assert (verdict.M, verdict.L, verdict.K) == (1, 1, 0)
    assert random_risks(verdict, 1e-3).min() > -1e-12


def test_local_minimum_on_a_kink() -> None:
    verdict = check_local_optimality(MINIMUM)
    assert verdict.verdict is Verdict.LOCAL_MINIMUM
    assert (verdict.M, verdict.L, verdict.K) == (1, 0, 0)
    assert verdict.s_star == (pytest.approx(0.5),)
    assert verdict.displacement == 0
    assert random_risks(verdict, 0.05).min() > -1e-12


def test_saddle_by_the_cross_term_without_kinks() -> None:
    verdict = check_local_optimality(CROSS)
    assert verdict.verdict is Verdict.DESCENT_SECOND_ORDER
    assert verdict.M == 0
    assert verdict.step is not None and verdict.step.decrease > 1e-3
    assert random_risks(verdict, 0.05).min() < 0


@pytest.mark.parametrize("network", [CLARKE, FLAT, MINIMUM, CROSS])
def test_a_point_near_the_kink_is_put_on_it(network: TwoLayerReLU) -> None:
    near = replace(network, b1=network.b1 + 3e-8)
    verdict = check_local_optimality(near)
    assert verdict.verdict is check_local_optimality(network).verdict
    assert 0 < verdict.displacement < 1e-6
