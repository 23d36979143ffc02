"""Kaplan's test and the cone QP against brute force on small cases."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.curvature.relu.copositive import kaplan_test
from thalweg.curvature.relu.quadratic import Case, null_basis, solve_cone_qp

HORN = np.array(
    [
        [1, -1, 1, 1, -1],
        [-1, 1, -1, 1, 1],
        [1, -1, 1, -1, 1],
        [1, 1, -1, 1, -1],
        [-1, 1, 1, -1, 1],
    ],
    dtype=float,
)


def test_horns_matrix_is_copositive_but_not_strictly() -> None:
    # it is no sum of a semidefinite and a nonnegative matrix, so neither shortcut shows it
    found = kaplan_test(HORN, 1e-12)
    assert found.copositive and not found.strictly
    assert kaplan_test(HORN + 1e-6 * np.eye(5), 1e-12).strictly
    below = kaplan_test(HORN - 1e-6 * np.eye(5), 1e-12)
    assert not below.copositive


def test_kaplan_agrees_with_the_simplex_in_two_dimensions() -> None:
    random = np.random.default_rng(0)
    t = np.linspace(0, 1, 20001)
    for _ in range(300):
        a, b, c = random.uniform(-1, 1, size=3) * [0.2, 1, 0.2] + [0.15, 0, 0.15]
        least = (a * t**2 + 2 * b * t * (1 - t) + c * (1 - t) ** 2).min()
        found = kaplan_test(np.array([[a, b], [b, c]]))
        if abs(least) > 1e-6:
            assert found.copositive == (least > 0), (a, b, c)
            assert found.strictly == (least > 0)


@pytest.mark.parametrize("n", [3, 4, 6])
def test_witnesses_are_what_they_say(n: int) -> None:
    random = np.random.default_rng(n)
    seen = 0
    for _ in range(100):
        A = random.standard_normal((n, n))
        S = A + A.T + 2.5 * np.eye(n)
        found = kaplan_test(S)
        w = random.dirichlet(0.5 * np.ones(n), size=500)
        values = np.einsum("bi,ij,bj->b", w, S, w)
        if found.copositive:
            assert values.min() >= 0
        for witness in found.witnesses:
            assert witness.min() >= 0 and witness @ S @ witness < 0
        seen += found.copositive
    assert 0 < seen < 100


def test_eigenvectors_of_a_repeated_eigenvalue_hide_nothing() -> None:
    found = kaplan_test(-np.eye(3))
    assert not found.copositive
    assert kaplan_test(np.zeros((2, 2))).copositive
    assert not kaplan_test(np.zeros((2, 2))).strictly


def least_on_cone(
    Q: np.ndarray, E: np.ndarray, B: np.ndarray, random: np.random.Generator
) -> float:
    """The least eta^T Q eta / |eta|^2 on the cone: samples, then the best ones are refined."""
    Z = null_basis(E)
    Bz, Qz = B @ Z, Z.T @ Q @ Z
    N = null_basis(Bz)
    P = np.linalg.pinv(Bz) if len(Bz) else np.zeros((Z.shape[1], 0))
    y, w = random.standard_normal((4000, N.shape[1])), random.standard_normal((4000, P.shape[1]))
    w = np.abs(w) * (random.random(w.shape) < 0.7)
    for spread in [0.0] + [0.5**power for power in range(16)]:
        y = y + spread * random.standard_normal(y.shape)
        w = np.maximum(w + spread * random.standard_normal(w.shape), 0)
        xi = y @ N.T + w @ P.T
        y, w, xi = (part[np.linalg.norm(xi, axis=1) > 1e-6] for part in (y, w, xi))
        size = np.linalg.norm(xi, axis=1)
        value = np.einsum("bi,ij,bj->b", xi, Qz, xi) / size**2
        best = np.argsort(value)[:20]
        least = float(value[best[0]])
        y = np.repeat(y[best] / size[best, None], 200, axis=0)
        w = np.repeat(w[best] / size[best, None], 200, axis=0)
    return least


def test_cone_qp_agrees_with_brute_force() -> None:
    random = np.random.default_rng(1)
    cases = []
    for number in range(60):
        p = int(random.integers(2, 6))
        e = int(random.integers(0, p - 1))
        r = int(random.integers(0, min(3, p - e) + 1))
        A = random.standard_normal((p, p))
        Q = A + A.T + random.uniform(0, 6) * np.eye(p)
        E, B = random.standard_normal((e, p)), random.standard_normal((r, p))
        found = solve_cone_qp(Q, E, B)
        least = least_on_cone(Q, E, B, random)
        cases.append(found.case)
        if abs(least) < 1e-2:
            continue
        assert (found.case is Case.T3) == (least < 0), (number, least)
        if found.direction is not None:
            eta = found.direction
            assert np.linalg.norm(eta) == pytest.approx(1)
            assert np.abs(E @ eta).max(initial=0) < 1e-9
            assert (B @ eta).min(initial=0) > -1e-9
            assert eta @ Q @ eta == pytest.approx(found.value)
            assert found.value < 0
    assert min(cases.count(Case.T1), cases.count(Case.T3)) > 10


def test_null_vector_with_a_linear_term_descends() -> None:
    # (b): Q_yy = 0 and Q_yw != 0, though S would be copositive
    Q = np.array([[0.0, 1.0], [1.0, 5.0]])
    found = solve_cone_qp(Q, np.zeros((0, 2)), np.array([[0.0, 1.0]]))
    assert found.case is Case.T3 and found.direction is not None
    assert found.direction[1] >= 0
    assert found.direction @ Q @ found.direction < 0


def test_zero_directions_are_t2() -> None:
    none = np.zeros((0, 2))
    assert solve_cone_qp(np.diag([1.0, 0.0]), none, none).case is Case.T2
    assert solve_cone_qp(np.diag([1.0, -1e-9]), none, none).case is Case.T2
    assert solve_cone_qp(np.diag([1.0, 0.0]), none, np.array([[0.0, 1.0]])).case is Case.T2
    assert solve_cone_qp(np.diag([0.0, 1.0]), none, np.array([[0.0, 1.0]])).case is Case.T2
    assert solve_cone_qp(np.eye(2), none, none).case is Case.T1
    assert solve_cone_qp(-np.eye(2), np.eye(2), none).case is Case.T1  # only 0 is left


def test_dependent_inequalities_are_refused() -> None:
    B = np.array([[1.0, 0.0], [-1.0, 0.0]])
    with pytest.raises(ValueError, match="B must have independent rows"):
        solve_cone_qp(np.eye(2), np.zeros((0, 2)), B)


def test_a_nearly_null_eigenvalue_is_not_taken_for_negative_curvature() -> None:
    # Q is positive definite; 0.9e-6 counts as null, and 2e-6 as a linear term along it
    Q = np.array([[0.9e-6, 2e-6], [2e-6, 1.0]])
    assert np.linalg.eigvalsh(Q)[0] > 0
    found = solve_cone_qp(Q, np.zeros((0, 2)), np.array([[0.0, 1.0]]))
    assert found.case is Case.T2 and found.direction is None
