"""Robust alternating minimization: the card's counts, exact references, sketches, bad input."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.solve.recovery import (
    MatrixCompletion,
    alternating_minimization,
    robust_alternating_minimization,
)
from thalweg.solve.recovery.alternating_robust import _without_long_rows
from thalweg.solve.recovery.row_regressions import (
    conjugate_gradient_rows,
    divide_by_triangles,
    sketched_triangles,
)
from thalweg.solve.recovery.sampling import Sampling


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def sweeps_to(error, method, problem, **how):
    def stop(result):
        if result.trace["error"][-1] <= error:
            raise StopIteration

    result = method(problem, tol=0.0, callback=stop, **how)
    assert result.trace["error"][-1] <= error
    return int(result.trace["step"][-1])


@pytest.mark.parametrize("inner", ["cg", "sketch"])
def test_accurate_iterations_equal_cholesky_after_three_sweeps(inner):
    problem = MatrixCompletion.random((200, 150), 5, 0.4, 10.0, generator=seeded(0))
    how = {"max_steps": 3, "tol": 0.0}
    one = robust_alternating_minimization(problem, inner=inner, accuracy=1e-12, **how).x
    exact = robust_alternating_minimization(problem, inner="cholesky", **how).x
    torch.testing.assert_close(one.dense(), exact.dense(), rtol=0, atol=1e-8)


def test_cholesky_with_orthonormal_factors_is_alternating_minimization():
    # The products do not depend on the basis of the factors.
    problem = MatrixCompletion.random((40, 30), 2, 0.6, generator=seeded(1))
    start = problem.start()
    V_first = robust_alternating_minimization(problem, start=start, max_steps=2, tol=0.0).x
    flipped = MatrixCompletion(
        problem.cols, problem.rows, problem.values, (30, 40), 2, truth=None
    )  # alternating_minimization begins with U: the transposed problem begins with V
    begin = type(start)(start.V, start.U)
    other = alternating_minimization(flipped, start=begin, max_steps=2, tol=0.0).x
    torch.testing.assert_close(V_first.dense(), other.dense().T, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("condition", [1.0, 10.0, 100.0])
def test_the_schedule_costs_no_sweeps(condition):
    problem = MatrixCompletion.random((200, 200), 5, 0.35, condition, generator=seeded(2))
    exact = sweeps_to(1e-6, robust_alternating_minimization, problem, inner="cholesky")
    inexact = sweeps_to(1e-6, robust_alternating_minimization, problem, inner="cg")
    assert 5 <= exact <= 16  # card: 9 to 12
    assert abs(inexact - exact) <= 1


def test_iterations_do_not_depend_on_the_condition_number():
    counts = []
    for condition in (1.0, 100.0):
        problem = MatrixCompletion.random((300, 300), 10, 0.3, condition, generator=seeded(3))
        result = robust_alternating_minimization(
            problem, inner="cg", accuracy=1e-8, max_steps=4, tol=0.0
        )
        counts.append(result.info["iterations"][1:])  # the first is of the start
    assert max(abs(a - b) for a, b in zip(*counts, strict=True)) <= 2


@pytest.mark.slow
def test_the_cards_conjugate_gradient_counts():
    # Card, n = 1000: rank 5, density .1: 5 iterations to 1e-10 (finite termination);
    # rank 20, density .2: 15. In each of two halves.
    for rank, density, expected in ((5, 0.1, 5), (20, 0.2, 15)):
        for condition in (1.0, 100.0):
            problem = MatrixCompletion.random(
                (1000, 1000), rank, density, condition, generator=seeded(4)
            )
            result = robust_alternating_minimization(
                problem, inner="cg", accuracy=1e-10, max_steps=3, tol=0.0
            )
            assert abs(result.info["iterations"][-1] / 2 - expected) <= 0.4 * expected


@pytest.mark.parametrize("r", [8, 16, 32])
def test_sketched_regressions_have_a_condition_number_of_at_most_four(r):
    # Gaussian, 50 r rows; card: medians 2.4 to 2.8, the worst of 20 3.7.
    every = torch.arange(50 * r)
    found = []
    for seed in range(20):
        generator = seeded(seed)
        B = torch.randn(50 * r, r, generator=generator, dtype=torch.float64)
        R = sketched_triangles(Sampling(0 * every, every, (1, 50 * r)), B, 4 * r, generator)[0]
        S = torch.linalg.svdvals(torch.linalg.solve_triangular(R.T, B.T, upper=False))
        # The sketch changes lengths by 1 +- 1/2 for large r: 2 and 2/3 here, whose mean is 1.15.
        assert 0.9 < (S[0] * S[-1]).sqrt() < 1.6
        found.append(float(S[0] / S[-1]))
    assert max(found) <= 4
    assert 2.2 <= statistics.median(found) <= 3.0


def test_a_sketch_saves_iterations_where_rows_are_far_from_incoherent():
    generator = seeded(5)
    V = torch.randn(400, 6, generator=generator, dtype=torch.float64)
    V = V * torch.logspace(0, -3, 6, dtype=torch.float64)
    rows, cols = (torch.rand(50, 400, generator=generator) < 0.5).nonzero().unbind(1)
    sampling = Sampling(rows, cols, (50, 400))
    values = torch.randn(len(rows), generator=generator, dtype=torch.float64)
    R = sketched_triangles(sampling, V, 24, generator)
    U, sketched = conjugate_gradient_rows(
        sampling, values, V, 1e-10, precondition=divide_by_triangles(R)
    )
    _, plain = conjugate_gradient_rows(sampling, values, V, 1e-10)
    assert plain > sketched  # plain needs more than the six of exact arithmetic
    exact = torch.stack(
        [torch.linalg.lstsq(V[cols[rows == i]], values[rows == i]).solution for i in range(50)]
    )
    torch.testing.assert_close(V @ U.T, V @ exact.T, rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([0.0, 0.3]))
def test_every_row_is_its_own_least_squares(seed, r, ridge):
    generator = seeded(seed)
    seen = torch.rand(6, 9, generator=generator) < 0.6
    seen[0] = False  # nothing observed: zero
    seen[1] = False
    seen[1, 3] = True  # one entry: the least of the solutions
    rows, cols = seen.nonzero().unbind(1)
    V = torch.randn(9, r, generator=generator, dtype=torch.float64)
    values = torch.randn(len(rows), generator=generator, dtype=torch.float64)
    U, iterations = conjugate_gradient_rows(Sampling(rows, cols, (6, 9)), values, V, 1e-13, ridge)
    assert iterations <= 2 * r + 20
    for i in range(6):
        B, b = V[cols[rows == i]], values[rows == i]
        gram = B.T @ B + ridge * torch.eye(r, dtype=torch.float64)
        expected = torch.linalg.pinv(gram, hermitian=True, rtol=1e-12) @ B.T @ b
        torch.testing.assert_close(B @ U[i], B @ expected, rtol=1e-5, atol=1e-6)
        if len(b) == 1:
            torch.testing.assert_close(U[i], expected)
    assert not U[0].any()


@pytest.mark.parametrize("inner", ["cholesky", "cg", "sketch"])
def test_with_a_ridge_it_is_als(inner):
    problem = MatrixCompletion.random((30, 20), 2, 0.5, generator=seeded(6))
    noise = 0.05 * torch.randn(len(problem.values), generator=seeded(7)).double()
    noisy = MatrixCompletion(
        problem.rows, problem.cols, problem.values + noise, (30, 20), 2, ridge=0.1
    )
    als = alternating_minimization(noisy, max_steps=2000)
    ours = robust_alternating_minimization(noisy, inner=inner, max_steps=2000)
    torch.testing.assert_close(ours.x.dense(), als.x.dense(), rtol=0, atol=1e-5)


def test_rows_too_long_for_the_incoherence_are_left_out_of_the_start():
    U = torch.cat([10 * torch.eye(2), torch.ones(18, 1) * torch.tensor([[0.1, -0.1]])]).double()
    U[2:, 0] += 0.1 * torch.randn(18, generator=seeded(8))
    Q = _without_long_rows(U, 1.0)
    assert Q[:2].abs().max() < 1e-12
    torch.testing.assert_close(Q.T @ Q, torch.eye(2, dtype=torch.float64))
    problem = MatrixCompletion.random((40, 30), 2, 0.6, generator=seeded(9))
    assert robust_alternating_minimization(problem, incoherence=3.0).converged


def test_auto_iterates_above_rank_32_only():
    problem = MatrixCompletion.random((300, 300), 40, 0.5, generator=seeded(10))
    result = robust_alternating_minimization(problem, max_steps=2, tol=0.0)
    assert len(result.info["iterations"]) == 2 and min(result.info["iterations"]) > 0
    small = MatrixCompletion.random((60, 50), 2, 0.5, generator=seeded(11))
    assert robust_alternating_minimization(small, max_steps=2).info["iterations"] == [0, 0]


def test_bad_input_is_named():
    problem = MatrixCompletion.random((40, 30), 2, 0.6, generator=seeded(12))
    for how, message in (
        ({"inner": "qr"}, r"^inner must be"),
        ({"accuracy": 0.0}, r"^accuracy must be > 0, got 0"),
        ({"incoherence": -1.0}, r"^incoherence must be > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            robust_alternating_minimization(problem, **how)
    values = torch.stack([problem.values, 2 * problem.values])
    batch = MatrixCompletion(problem.rows, problem.cols, values, (40, 30), 2)
    with pytest.raises(ValueError, match=r"^inner must be .* for a batch"):
        robust_alternating_minimization(batch, inner="sketch")
    keep = (problem.rows != 7) | (problem.cols == problem.cols[problem.rows == 7][0])
    few = MatrixCompletion(
        problem.rows[keep], problem.cols[keep], problem.values[keep], (40, 30), 2
    )
    with pytest.warns(UserWarning, match="1 row holds fewer than rank = 2 entries"):
        result = robust_alternating_minimization(few, inner="cg", max_steps=20)
    assert torch.isfinite(result.x.U).all()
