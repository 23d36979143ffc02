"""Step 3 by products: the same verdicts as with the matrix, and a probability beyond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.relu.test_brute_force import made_to_order
from tests.curvature.relu.test_check import CLARKE, CROSS, FLAT, MINIMUM, soft_labels

from thalweg.curvature.relu import TwoLayerReLU, Verdict, check_local_optimality
from thalweg.curvature.relu import check as of_check
from thalweg.curvature.relu.check import ReluVerdict, _constraints
from thalweg.curvature.relu.expansion import (
    Coordinates,
    KinkedPoint,
    quadratic_form,
    quadratic_product,
)
from thalweg.curvature.relu.first_order import first_order_test
from thalweg.curvature.relu.large import LargeProgram
from thalweg.curvature.relu.quadratic import null_basis
from thalweg.curvature.relu.snap import near_kinks
from thalweg.curvature.relu.subspace import subspace


def by_products(network: TwoLayerReLU, **options: object) -> ReluVerdict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_check, "LARGEST", 0)
        return check_local_optimality(network, polish=False, **options)  # type: ignore[arg-type]


def at_its_kinks(seed: int, loss: str) -> KinkedPoint:
    network = soft_labels(seed) if loss == "ce" else made_to_order(seed, loss=loss)
    return KinkedPoint(network, near_kinks(network, 1e-6))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["mse", "bce", "ce"]))
def test_products_are_those_of_the_matrix(seed: int, loss: str) -> None:
    point = at_its_kinks(seed, loss)
    random = np.random.default_rng(seed)
    nodes = tuple(k for k in range(len(point.network.W)) if random.random() < 0.8)
    coordinates = Coordinates(point.network, nodes)
    J = np.where(point.boundary, random.choice([0.0, 1.0], size=point.J.shape), point.J)
    Q = quadratic_form(point, J, coordinates)
    eta = random.standard_normal(coordinates.p)
    size = np.abs(Q).max(initial=0.0)
    np.testing.assert_allclose(
        quadratic_product(point, J, coordinates, eta), Q @ eta, atol=1e-12 * (1 + size)
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["mse", "bce", "ce"]))
def test_the_basis_spans_what_keeps_the_equalities(seed: int, loss: str) -> None:
    point = at_its_kinks(seed, loss)
    coordinates = Coordinates(point.network, tuple(range(len(point.network.W))))
    kinks = first_order_test(point, 1e-6).kinks
    E, _ = _constraints(point, coordinates, kinks, {})
    kept = subspace(point, coordinates, kinks)
    Z = np.stack([kept.expand(xi) for xi in np.eye(kept.size)], axis=1)
    want = null_basis(E)
    assert Z.shape == want.shape
    np.testing.assert_allclose(Z.T @ Z, np.eye(kept.size), atol=1e-12)
    np.testing.assert_allclose(Z @ Z.T, want @ want.T, atol=1e-10)
    eta = np.random.default_rng(seed).standard_normal(coordinates.p)
    np.testing.assert_allclose(kept.reduce(eta), Z.T @ eta, atol=1e-12)


@pytest.mark.parametrize("network", [CLARKE, FLAT, MINIMUM, CROSS, soft_labels()])
def test_worked_examples(network: TwoLayerReLU) -> None:
    found, want = by_products(network), check_local_optimality(network, polish=False)
    assert (found.verdict, found.M, found.L, found.K) == (want.verdict, want.M, want.L, want.K)
    assert found.failure == 0.0  # the whole space was seen
    assert found.slope_or_curvature == pytest.approx(want.slope_or_curvature, rel=1e-6)


def agree(seeds: range) -> set[Verdict]:
    """Products and matrix come to one verdict, but that one may see a descent the other leaves."""
    descents = (Verdict.DESCENT_FIRST_ORDER, Verdict.DESCENT_SECOND_ORDER)
    seen = set()
    differ = 0
    for seed in seeds:
        network = made_to_order(seed, loss=("mse", "bce")[seed % 2])
        found, want = by_products(network), check_local_optimality(network, polish=False)
        seen.add(found.verdict)
        if found.verdict is not want.verdict:
            differ += 1
            assert found.verdict in descents and want.verdict is Verdict.SECOND_ORDER_STATIONARY
        if found.step is not None:  # and that is certain
            assert found.step.risk_after < found.step.risk_before
    assert differ <= len(seeds) / 500 + 1
    return seen


def test_the_verdicts_of_the_matrix() -> None:
    assert len(agree(range(150))) == 4


@pytest.mark.slow
def test_the_verdicts_of_the_matrix_on_thousands() -> None:
    assert len(agree(range(150, 2150))) == 4


def stationary(seed: int, *, d_x: int, d_h: int, d_y: int, m: int, noise: float) -> TwoLayerReLU:
    """Targets under which nothing moves at first order, `noise` off the outputs at most."""
    random = np.random.default_rng(seed)
    W1, b1 = random.standard_normal((d_h, d_x)), random.standard_normal(d_h)
    W2, b2 = random.standard_normal((d_y, d_h)), random.standard_normal(d_y)
    X = random.standard_normal((m, d_x))
    blank = TwoLayerReLU(W1, b1, W2, b2, X, np.zeros((m, d_y)), "mse", slopes=(1.0, 0.3))
    point = KinkedPoint(blank, np.zeros((m, d_h), dtype=bool))
    columns = [np.einsum("ij,ab->iajb", np.c_[np.ones(m), point.o], np.eye(d_y))]
    columns += [np.einsum("id,a->iad", point.J[:, [k]] * blank.Xb, W2[:, k]) for k in range(d_h)]
    Q = np.linalg.qr(np.concatenate([c.reshape(m * d_y, -1) for c in columns], axis=1))[0]
    gl = random.standard_normal(m * d_y)
    for _ in range(2):
        gl -= Q @ (Q.T @ gl)
    y = point.Y - noise * (gl / np.abs(gl).max()).reshape(m, d_y)
    return TwoLayerReLU(W1, b1, W2, b2, X, y, "mse", slopes=(1.0, 0.3))


@pytest.mark.parametrize(
    ("shape", "noise", "verdict"),
    [
        ({"d_x": 200, "d_h": 1, "d_y": 1, "m": 6000}, 0.5, Verdict.LOCAL_MINIMUM),
        ({"d_x": 20, "d_h": 8, "d_y": 2, "m": 400}, 30.0, Verdict.DESCENT_SECOND_ORDER),
    ],
)
def test_fewer_products_than_dimensions(
    shape: dict[str, int], noise: float, verdict: Verdict
) -> None:
    network = stationary(0, **shape, noise=noise)
    want = check_local_optimality(network, polish=False)
    found = by_products(network, budget=120, failure=0.01)
    assert want.verdict is verdict is found.verdict
    if verdict is Verdict.LOCAL_MINIMUM:
        assert found.failure == 0.01 and "with probability 0.99" in found.reason
    else:
        assert found.failure == 0.0 and found.step is not None


def test_a_resolution_that_does_not_do_is_said() -> None:
    network = stationary(0, d_x=60, d_h=1, d_y=1, m=2000, noise=0.5)
    found = by_products(network, budget=4)
    assert found.verdict is Verdict.SECOND_ORDER_STATIONARY and found.failure == 1e-3
    assert "no curvature along the kinks below -" in found.reason


def test_the_bound_is_not_violated() -> None:
    network = stationary(1, d_x=6, d_h=8, d_y=2, m=120, noise=3.0)
    point = KinkedPoint(network, near_kinks(network, 1e-6))
    coordinates = Coordinates(network, tuple(range(8)))
    kept = subspace(point, coordinates, ())
    Z = np.stack([kept.expand(xi) for xi in np.eye(kept.size)], axis=1)
    least = np.linalg.eigvalsh(Z.T @ quadratic_form(point, point.J, coordinates) @ Z)[0]
    failed = 0
    for seed in range(200):
        # tol: the run does not end at the first negative value
        program = LargeProgram(point, coordinates, (), 1e6, 12, 0.05, seed)
        failed += least < program.ends.lower
        assert program.ends.low >= least - 1e-9 and program.failure == 0.05
    assert failed <= 0.05 * 200 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_what_the_budget_cannot_solve_is_inconclusive() -> None:
    seeds = (s for s in range(400) if check_local_optimality(made_to_order(s), polish=False).L == 2)
    seen = set()
    for seed in seeds:
        found = by_products(made_to_order(seed), budget=2)
        seen.add(found.verdict)
        assert found.verdict is not Verdict.LOCAL_MINIMUM or found.failure > 0
        if found.verdict is Verdict.INCONCLUSIVE:
            assert "not solved in 2 products" in found.reason
    assert Verdict.INCONCLUSIVE in seen


@pytest.mark.parametrize("wrong", [{"budget": 0}, {"failure": 0.0}, {"failure": 1}, {"seed": -1}])
def test_bad_input(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        check_local_optimality(MINIMUM, **wrong)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "noise", "verdict"),
    [
        ({"d_x": 3000, "d_h": 1, "d_y": 1, "m": 9000}, 0.5, Verdict.LOCAL_MINIMUM),
        ({"d_x": 60, "d_h": 52, "d_y": 2, "m": 2500}, 30.0, Verdict.DESCENT_SECOND_ORDER),
    ],
)
def test_more_than_three_thousand_parameters(
    shape: dict[str, int], noise: float, verdict: Verdict
) -> None:
    network = stationary(2, **shape, noise=noise)
    assert Coordinates(network, tuple(range(shape["d_h"]))).p > of_check.LARGEST == 3000
    found = check_local_optimality(network, tau=1e-9, polish=False)
    assert found.verdict is verdict and found.failure == (1e-3 if noise < 1 else 0.0)
