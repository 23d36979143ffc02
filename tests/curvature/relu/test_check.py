"""SOSP-Check on the worked examples, its invariances, and its refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.curvature.relu import (
    Direction,
    TwoLayerReLU,
    Verdict,
    check_local_optimality,
    polish_and_certify,
)
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


def with_node(network: TwoLayerReLU, w: list[float], W2: list[float]) -> TwoLayerReLU:
    """One more hidden node (w, b), with its column of W2."""
    return replace(
        network,
        W1=np.r_[network.W1, [w[:-1]]],
        b1=np.r_[network.b1, w[-1]],
        W2=np.c_[network.W2, W2],
    )


def test_a_dead_node_is_left_out_and_named() -> None:
    dead = with_node(MINIMUM, [1.0, -5.0], [2.0])  # x - 5 < 0 on all data
    verdict = check_local_optimality(dead)
    assert verdict.verdict is Verdict.LOCAL_MINIMUM
    assert verdict.dead == (1,)
    assert "modulo the dead nodes [1]" in str(verdict)
    leaky = check_local_optimality(replace(dead, slopes=(1.0, 0.1)), polish=False)
    assert leaky.dead == ()


def test_all_nodes_dead_and_no_bias() -> None:
    network = TwoLayerReLU([[1.0]], [-9.0], [[1.0]], None, [[0.0], [1.0]], [1.0, 2.0], "mse")
    verdict = check_local_optimality(network)
    assert (verdict.verdict, verdict.dead) == (Verdict.LOCAL_MINIMUM, (0,))


def test_equal_rows_on_a_kink_count_as_one_sample() -> None:
    # the sample x = 0 of MINIMUM in two halves: y = -0.5 - 1.5
    y = np.array([1.0, -0.5, -1.5, 3.0, 1.0])
    verdict = check_local_optimality(line([-1, 0, 0, 1, 2], list(y)), polish=False)
    assert verdict.verdict is Verdict.LOCAL_MINIMUM
    assert (verdict.M, verdict.s_star) == (1, (pytest.approx(0.5),))
    assert random_risks(verdict, 0.05).min() > -1e-12


def plane(*, X: list[list[float]], w: list[float], b: float) -> TwoLayerReLU:
    return TwoLayerReLU([w], [b], [[1.0]], [0.0], X, np.zeros(len(X)), "mse")


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (plane(X=[[0, 0], [1, 0]], w=[0, 0], b=0), "node 0: its weights and bias are zero"),
        (
            plane(X=[[0, 0], [1, 0], [2, 0], [1, 1]], w=[0, 1], b=0),
            "node 0: the 3 samples on its kink are linearly dependent",
        ),
    ],
)
def test_degenerate_points_get_no_verdict(network: TwoLayerReLU, reason: str) -> None:
    verdict = check_local_optimality(network, polish=False)
    assert verdict.verdict is Verdict.DEGENERATE
    assert reason in verdict.reason
    assert verdict.direction is None and verdict.step is None


def test_a_kink_too_far_away_is_degenerate() -> None:
    far = replace(MINIMUM, b1=np.array([0.3]), y=np.array([[1.0], [0.3], [1.3], [2.3]]))
    verdict = check_local_optimality(far, tau=0.3, polish=False)
    assert verdict.verdict is Verdict.DEGENERATE
    assert "putting the point on its kinks raises the risk" in verdict.reason
    further = check_local_optimality(far, tau=0.6, polish=False)
    assert "span the whole space" in further.reason


def test_a_decrease_below_rounding_is_inconclusive() -> None:
    nearly = replace(MINIMUM, y=MINIMUM.y + np.array([[1e-9], [0], [0], [0]]))
    verdict = check_local_optimality(nearly, tol=1e-12, polish=False)
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert "below rounding" in verdict.reason
    assert verdict.direction is None


def test_interpolation_is_never_a_descent() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        X = random.standard_normal((9, 2))
        W, W2 = random.standard_normal((2, 3)), random.standard_normal((1, 2))
        network = TwoLayerReLU(W[:, :-1], W[:, -1], W2, [0.3], X, np.zeros(9), "mse")
        network = replace(network, y=network.outputs() * (1 + 1e-16))
        verdict = check_local_optimality(network)
        assert verdict.verdict in (Verdict.LOCAL_MINIMUM, Verdict.SECOND_ORDER_STATIONARY)


def test_too_many_flat_kinks_are_said() -> None:
    verdict = check_local_optimality(FLAT, max_flat=0)
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert "L = 1 flat kinks, > max_flat = 0" in verdict.reason


def soft_labels(seed: int = 0) -> TwoLayerReLU:
    """Three classes with labels no network of two nodes can separate: a finite minimum."""
    random = np.random.default_rng(seed)
    X = np.repeat(random.standard_normal((10, 1)), 6, axis=0)
    y = random.integers(0, 3, size=60)
    W, W2 = random.standard_normal((2, 2)), random.standard_normal((3, 2))
    return TwoLayerReLU(W[:, :-1], W[:, -1], W2, np.zeros(3), X, y, "ce")


def test_softmax_reaches_a_minimum_because_its_shift_is_taken_out() -> None:
    found = [polish_and_certify(soft_labels(seed))[-1] for seed in range(6)]
    minima = [verdict for verdict in found if verdict.verdict is Verdict.LOCAL_MINIMUM]
    assert len(minima) >= 3, [str(verdict) for verdict in found]
    at = minima[0].network
    shifted = at.moved(Direction(0 * at.W, np.ones_like(at.W2), np.full(3, -2.0)), 0.7)
    assert shifted.risk() == pytest.approx(at.risk())
    assert check_local_optimality(shifted).verdict is Verdict.LOCAL_MINIMUM


@pytest.mark.parametrize("size", [1.0, 5.0, 20.0, 60.0])
def test_separable_classes_have_no_minimum(size: float) -> None:
    X, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    network = TwoLayerReLU([[1.0], [-1.0]], [0, 0], [[0, size], [size, 0]], [0, 0], X, y, "ce")
    verdict = check_local_optimality(network)
    assert verdict.verdict is not Verdict.LOCAL_MINIMUM
    if size < 10:
        assert verdict.verdict is Verdict.DESCENT_FIRST_ORDER


@settings(max_examples=30, deadline=None)
@given(power=st.floats(-4, 4), which=st.sampled_from([CLARKE, FLAT, MINIMUM, CROSS]))
def test_scale_of_a_node_does_not_matter(power: float, which: TwoLayerReLU) -> None:
    c = 10.0**power
    other = replace(which, W1=c * which.W1, b1=c * which.b1, W2=which.W2 / c)
    one, two = check_local_optimality(which), check_local_optimality(other)
    assert one.verdict is two.verdict
    assert (one.M, one.L, one.K) == (two.M, two.L, two.K)


def test_without_biases() -> None:
    # R = (relu(w) u - 1)^2 / 2 + (relu(-w) u - 1)^2 / 2 at w = u = 1: stationary in w, u > 0
    network = TwoLayerReLU([[1.0]], None, [[1.0]], None, [[1.0], [-1.0], [0.0]], [1, 1, 0], "mse")
    verdict = check_local_optimality(network)
    assert verdict.verdict is Verdict.LOCAL_MINIMUM
    assert verdict.M == 0  # the input 0 is on no kink: nothing moves it


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tau": -1.0}, r"tau must be in \[0, 1\), got -1.0"),
        ({"tol": 0.0}, r"tol must be in \(0, 1\), got 0.0"),
        ({"max_flat": -1}, "max_flat must be an integer >= 0, got -1"),
    ],
)
def test_bad_input(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_local_optimality(CLARKE, **wrong)


def test_a_module_is_not_a_network_with_data() -> None:
    with pytest.raises(TypeError, match="network must be a TwoLayerReLU, got Linear"):
        check_local_optimality(torch.nn.Linear(1, 1))  # type: ignore[arg-type]
