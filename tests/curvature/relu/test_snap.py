"""Snapping, balancing and polishing; escaping and the loop."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from thalweg.curvature.relu import (
    Direction,
    TwoLayerReLU,
    Verdict,
    check_local_optimality,
    escape_kink,
    polish_and_certify,
    snap,
)
from thalweg.curvature.relu.escape import go_down
from thalweg.curvature.relu.expansion import KinkedPoint
from thalweg.curvature.relu.snap import balance, unbalance


def regression(seed: int, *, m: int = 40, d_x: int = 3, d_h: int = 4) -> TwoLayerReLU:
    random = np.random.default_rng(seed)
    X, y = random.standard_normal((m, d_x)), random.standard_normal(m)
    W, W2 = random.standard_normal((d_h, d_x + 1)), random.standard_normal((1, d_h))
    return TwoLayerReLU(W[:, :-1], W[:, -1], W2, [0.0], X, y, "mse")


def test_snapped_samples_are_on_their_kink_and_others_do_not_move() -> None:
    network = regression(0)
    W = network.W.copy()
    B = [3, 7]
    W[1] -= np.linalg.pinv(network.Xb[B]) @ network.Xb[B] @ W[1]
    exact = network.with_rows(W, network.W2)
    near = exact.with_rows(W + 1e-9, network.W2)
    snapped = snap(near, polish=False)
    assert np.argwhere(snapped.point.boundary).tolist() == [[3, 1], [7, 1]]
    at = snapped.point.network
    assert np.abs(at.preactivations[B, 1]).max() < 1e-15
    np.testing.assert_array_equal(at.W[[0, 2, 3]], near.W[[0, 2, 3]])
    assert snapped.displacement == pytest.approx(np.linalg.norm(at.W - near.W))
    # the projection is the nearest such point
    assert snapped.displacement <= exact.difference(near).norm


def test_balanced_network_is_the_same_function_and_path() -> None:
    network = regression(1)
    network = network.with_rows(network.W * [[1e3], [1e-3], [1], [2]], network.W2)
    network = network.with_rows(network.W, network.W2 * [1, 1, 0, 1])
    balanced, c = balance(network)
    np.testing.assert_allclose(balanced.outputs(), network.outputs(), rtol=1e-12)
    norms = np.linalg.norm(balanced.W, axis=1)
    np.testing.assert_allclose(norms, np.where(network.W2[0], abs(balanced.W2[0]), 1.0))
    random = np.random.default_rng(0)
    eta = Direction(*(random.standard_normal(s) for s in (network.W.shape, (1, 4), (1,))))
    for t in (0.1, 1.0):
        expected = balanced.moved(eta, t).outputs()
        np.testing.assert_allclose(network.moved(unbalance(eta, c), t).outputs(), expected)


def test_polishing_finds_the_stationary_point_on_the_kinks() -> None:
    # the minimum of test_check, a little off in every parameter the kink leaves free
    X, y = [[-1.0], [0.0], [1.0], [2.0]], [1.0, -2.0, 3.0, 1.0]
    network = TwoLayerReLU([[1.003]], [1e-8], [[0.999]], [0.002], X, y, "mse")
    rough = check_local_optimality(network, polish=False)
    assert rough.verdict is Verdict.DESCENT_FIRST_ORDER
    verdict = check_local_optimality(network)
    assert verdict.verdict is Verdict.LOCAL_MINIMUM
    assert 1e-3 < verdict.displacement < 1e-2
    at = verdict.network
    assert at.W1.item() * at.W2.item() == pytest.approx(1, abs=1e-12)
    assert at.b2.item() == pytest.approx(0, abs=1e-12)


def test_polishing_does_not_hide_a_slope() -> None:
    # far from stationary: Newton's method may not carry the point away to a better verdict
    for seed in range(8):
        network = regression(seed)
        assert snap(network).displacement <= 0.3 * np.linalg.norm(network.W)
        assert check_local_optimality(network).verdict is Verdict.DESCENT_FIRST_ORDER


def test_escape_demonstrates_its_decrease() -> None:
    verdict = check_local_optimality(regression(2), polish=False)
    step = escape_kink(verdict)
    assert verdict.direction is not None and verdict.direction.norm == pytest.approx(1)
    assert step.network.difference(verdict.network).norm == pytest.approx(step.t)
    assert step.network.risk() == pytest.approx(step.risk_after, rel=1e-12)
    assert step.decrease >= 0.5 * step.t * abs(verdict.slope_or_curvature) * (1 - 1e-9)


def test_slope_and_curvature_are_the_derivatives() -> None:
    first = check_local_optimality(regression(2), polish=False)
    assert first.direction is not None
    t = 1e-7
    rise = first.network.moved(first.direction, t).risk() - first.network.risk()
    assert rise / t == pytest.approx(first.slope_or_curvature, rel=1e-4)
    X, y = [[-1.0], [0.0], [1.0], [2.0]], [-4.0, 5.0, 0.0, -1.0]
    # W2 = 0 and w, b of norm far from 1: balanced and given coordinates differ
    saddle = TwoLayerReLU([[30.0]], [15.0], [[0.0]], [0.0], X, y, "mse")
    second = check_local_optimality(saddle, polish=False)
    assert second.verdict is Verdict.DESCENT_SECOND_ORDER and second.direction is not None
    t = 1e-4
    rise = saddle.moved(second.direction, t).risk() - saddle.risk()
    assert rise / t**2 == pytest.approx(second.slope_or_curvature, rel=1e-2)


def test_no_escape_without_a_direction() -> None:
    X, y = [[-1.0], [0.0], [1.0], [2.0]], [1.0, -2.0, 3.0, 1.0]
    minimum = TwoLayerReLU([[1.0]], [0.0], [[1.0]], [0.0], X, y, "mse")
    verdict = check_local_optimality(minimum)
    with pytest.raises(ValueError, match="verdict must have a descent direction, got LOCAL_MIN"):
        escape_kink(verdict)
    up = Direction(np.array([[0.0, 1.0]]), np.zeros((1, 1)), np.zeros(1))
    assert go_down(minimum, up, -1.0, 1) is None


@pytest.mark.parametrize("seed", range(8))
def test_the_loop_ends_where_nothing_descends(seed: int) -> None:
    verdicts = polish_and_certify(regression(seed, d_x=2, d_h=2, m=25))
    assert verdicts[-1].step is None
    assert verdicts[-1].verdict in (Verdict.LOCAL_MINIMUM, Verdict.SECOND_ORDER_STATIONARY)
    risks = [verdict.network.risk() for verdict in verdicts]
    assert all(after < before for before, after in pairwise(risks))


def test_the_loop_stops_after_its_rounds() -> None:
    verdicts = polish_and_certify(regression(0), descend=lambda network: network, rounds=3)
    assert len(verdicts) == 3
    with pytest.raises(ValueError, match="rounds must be an integer >= 1"):
        polish_and_certify(regression(0), rounds=0)


def test_equal_inputs_share_their_kink_whatever_rounding_says() -> None:
    network = regression(3)
    X = np.r_[network.X, network.X[:1]]
    W = network.W.copy()
    W[0] -= np.linalg.pinv(network.Xb[:1]) @ network.Xb[:1] @ W[0]
    double = replace(network, X=X, y=np.r_[network.y, [[0.5]]]).with_rows(W, network.W2)
    point = snap(double, polish=False).point
    assert point.boundary[[0, -1], 0].all()
    assert point.kinks(0).tolist() == [0]
    both = point.c[0, 0] + point.c[-1, 0]
    assert KinkedPoint(point.network, point.boundary).slopes_on_kinks(0) == pytest.approx(both)


def test_a_decrease_that_the_risk_cannot_show_does_not_count() -> None:
    # the inactive sample holds the risk at 5e11; the active one can lower it by 5e-7 only
    network = TwoLayerReLU([[1.0]], None, [[1.0]], None, [[1.0], [-1.0]], [1.001, 1e6], "mse")
    up = Direction(np.array([[0.001]]), np.zeros((1, 1)), np.zeros(1))
    assert go_down(network, up, -9e-7, 1) is None
    small = replace(network, y=np.array([[1.001], [1.0]]))
    step = go_down(small, up, -9e-7, 1)
    assert step is not None and step.decrease == pytest.approx(5e-7)
