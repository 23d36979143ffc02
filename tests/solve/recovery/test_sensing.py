"""Matrix sensing: the card's tables, identities and bad input."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.solve.recovery import LowRank, MatrixSensing, gradient_descent, scaled_gradient


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def steps_to(error, method, problem, **how):
    def stop(result):
        if result.trace["error"][-1] <= error:
            raise StopIteration

    result = method(problem, tol=0.0, callback=stop, **how)
    return int(result.trace["step"][-1]) if result.trace["error"][-1] <= error else None


# m / (n r), and the card's median steps to a relative error of 1e-6 (n = 30, r = 2, condition 5)
TABLE = [(4, scaled_gradient, 203), (5, scaled_gradient, 140), (6, scaled_gradient, 108)]
SLOW = [(4, gradient_descent, 848), (5, gradient_descent, 568), (6, gradient_descent, 447)]


def medians(ratio, method, seeds):
    problems = [
        MatrixSensing.random((30, 30), 2, ratio * 60, 5.0, generator=seeded(seed)) for seed in seeds
    ]
    steps = [steps_to(1e-6, method, problem) for problem in problems]
    assert None not in steps
    return statistics.median(steps)


@pytest.mark.parametrize("ratio, method, median", TABLE[2:])
def test_all_succeed_with_the_cards_number_of_steps(ratio, method, median):
    assert abs(medians(ratio, method, range(9)) - median) <= 0.15 * median


@pytest.mark.slow
@pytest.mark.parametrize("ratio, method, median", TABLE + SLOW)
def test_twenty_of_twenty(ratio, method, median):
    assert abs(medians(ratio, method, range(20)) - median) <= 0.15 * median


def test_only_plain_gradient_descent_minds_the_condition_number():
    steps = {}
    for method in (scaled_gradient, gradient_descent):
        for condition in (1.0, 20.0):
            problem = MatrixSensing.random((30, 30), 2, 480, condition, generator=seeded(1))
            steps[method, condition] = steps_to(1e-6, method, problem)
    assert steps[scaled_gradient, 20.0] <= 1.5 * steps[scaled_gradient, 1.0]  # card: 76 and 73
    assert steps[gradient_descent, 20.0] >= 8 * steps[gradient_descent, 1.0]  # card: 90 and 1243


def test_balancing_hardly_changes_the_number_of_steps():
    problem = MatrixSensing.random((30, 30), 2, 360, 5.0, generator=seeded(2))
    plain = steps_to(1e-6, gradient_descent, problem)
    assert abs(steps_to(1e-6, gradient_descent, problem, balanced=True) - plain) <= 0.05 * plain


def test_all_canonical_measurements_are_solved_by_the_start():
    truth = MatrixSensing.random((6, 5), 2, 60, generator=seeded(3)).truth
    A = torch.eye(30, dtype=torch.float64).reshape(30, 6, 5)
    problem = MatrixSensing(A, truth.dense().flatten(), 2, truth)
    assert problem.scale().item() == 1.0
    for method in (scaled_gradient, gradient_descent):
        assert method(problem).trace["step"][-1] == 0


def test_gradient_follows_autograd():
    problem = MatrixSensing.random((8, 7), 2, 50, generator=seeded(4))
    x = problem.start("random", seeded(5))
    U, V = (F.clone().requires_grad_() for F in x)
    problem.value(LowRank(U, V)).backward()
    Z = problem.pull_back(problem.misfit(x))
    torch.testing.assert_close(Z @ x.V, U.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(Z.mT @ x.U, V.grad, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=10)
@given(scale=st.sampled_from([1e-5, 0.1, 1e4]), seed=st.integers(0, 50))
def test_the_scale_of_the_measurements_does_not_matter(scale, seed):
    problem = MatrixSensing.random((12, 10), 2, 200, generator=seeded(seed))
    both = MatrixSensing(scale * problem.A, scale * problem.y, 2)
    only_data = MatrixSensing(problem.A, scale * problem.y, 2)
    for method in (scaled_gradient, gradient_descent):
        x = method(problem, max_steps=5, tol=0.0).x.dense()
        torch.testing.assert_close(method(both, max_steps=5, tol=0.0).x.dense(), x)
        torch.testing.assert_close(
            method(only_data, max_steps=5, tol=0.0).x.dense(), scale * x, rtol=1e-6, atol=0
        )


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 50))
def test_rotating_the_unknown_rotates_the_answer(seed):
    problem = MatrixSensing.random((12, 10), 2, 200, generator=seeded(seed))
    Q = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64, generator=seeded(seed + 1))).Q
    rotated = MatrixSensing(Q @ problem.A, problem.y, 2)
    for method in (scaled_gradient, gradient_descent):
        x = method(problem, max_steps=5, tol=0.0).x.dense()
        torch.testing.assert_close(
            method(rotated, max_steps=5, tol=0.0).x.dense(), Q @ x, rtol=1e-8, atol=1e-10
        )


def test_bad_input_is_named():
    A, y = torch.randn(50, 4, 3, generator=seeded(6)), torch.ones(50)
    with pytest.raises(ValueError, match=r"y must have one number per matrix of A, shape \(50,\)"):
        MatrixSensing(A, torch.ones(49), 1)
    with pytest.raises(ValueError, match=r"A must have shape \(..., m, n1, n2\)"):
        MatrixSensing(A[0], y, 1)
    with pytest.raises(ValueError, match="y must be finite"):
        MatrixSensing(A, y * float("nan"), 1)
    with pytest.raises(ValueError, match="y must not be all zero"):
        MatrixSensing(A, 0 * y, 1)
    with pytest.raises(ValueError, match="rank must be"):
        MatrixSensing(A, y, 4)
    with pytest.warns(UserWarning, match="5 measurements are fewer than the 6 degrees of freedom"):
        MatrixSensing(A[:5], y[:5], 1)
