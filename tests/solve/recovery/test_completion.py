"""Matrix completion: the card's table, identities and bad input."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.solve.recovery import (
    LowRank,
    MatrixCompletion,
    Sampling,
    alternating_minimization,
    gradient_descent,
    scaled_gradient,
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def steps_to(error, method, problem, **how):
    """Steps until the error against the truth is met; None if it is not."""

    def stop(result):
        if result.trace["error"][-1] <= error:
            raise StopIteration

    result = method(problem, tol=0.0, callback=stop, **how)
    return int(result.trace["step"][-1]) if result.trace["error"][-1] <= error else None


# Of the card, 20 seeds: medians 84 / 60 / 46 and 405 / 277 / 230 steps, 14 / 9 / 7 sweeps.
TABLE = [
    (0.3, scaled_gradient, 60),
    (0.4, scaled_gradient, 46),
    (0.3, gradient_descent, 277),
    (0.4, gradient_descent, 230),
    (0.2, alternating_minimization, 14),
    (0.3, alternating_minimization, 9),
    (0.4, alternating_minimization, 7),
]


@pytest.mark.parametrize("density, method, median", TABLE)
def test_all_succeed_with_the_cards_number_of_steps(density, method, median):
    problems = [
        MatrixCompletion.random((200, 200), 3, density, 5.0, generator=seeded(seed))
        for seed in range(7)
    ]
    steps = [steps_to(1e-6, method, problem) for problem in problems]
    assert None not in steps
    assert abs(statistics.median(steps) - median) <= max(2, 0.15 * median)


@pytest.mark.slow
@pytest.mark.parametrize("density, method, median", [*TABLE, (0.2, scaled_gradient, 84)])
def test_twenty_of_twenty(density, method, median):
    problems = [
        MatrixCompletion.random((200, 200), 3, density, 5.0, generator=seeded(100 + seed))
        for seed in range(20)
    ]
    steps = [steps_to(1e-6, method, problem) for problem in problems]
    assert None not in steps
    assert abs(statistics.median(steps) - median) <= max(2, 0.15 * median)


def test_scaled_gradient_does_not_mind_the_condition_number():
    found = {}
    for method in (scaled_gradient, gradient_descent):
        for condition in (1.0, 5.0, 20.0):
            problem = MatrixCompletion.random((300, 300), 5, 0.3, condition, generator=seeded(0))
            found[method, condition] = steps_to(1e-8, method, problem)
    scaled = [found[scaled_gradient, c] for c in (1.0, 5.0, 20.0)]
    assert max(scaled) <= 1.2 * min(scaled)  # card: 71 / 75 / 82
    assert found[gradient_descent, 20.0] > 8 * found[gradient_descent, 1.0]  # 78 / 314 / 2045


def test_halving_rescues_a_step_size_that_diverges():
    problem = MatrixCompletion.random((200, 200), 3, 0.2, 5.0, generator=seeded(0))
    alone = scaled_gradient(problem, step_size=0.5, project=False, halvings=0)
    assert alone.reason.name == "NONFINITE"
    assert torch.isfinite(alone.x.U).all()
    rescued = scaled_gradient(problem, step_size=0.5, project=False)
    assert rescued.info["step_size"] == 0.25
    assert rescued.converged


def test_everything_observed_is_solved_by_the_start():
    problem = MatrixCompletion.random((30, 20), 2, 1.0, generator=seeded(1))
    for method in (scaled_gradient, gradient_descent, alternating_minimization):
        result = method(problem, tol=1e-12)
        assert result.trace["step"][-1] == 0 or method is scaled_gradient
        assert problem.error(result.x) < 1e-9
    sweep = alternating_minimization(problem, start="random", generator=seeded(2))
    assert sweep.trace["step"][-1] <= 2
    U, S, Vh = torch.linalg.svd(problem.truth.dense())
    best = (U[:, :2] * S[:2]) @ Vh[:2]
    torch.testing.assert_close(sweep.x.dense(), best, rtol=0, atol=1e-10)


@pytest.mark.parametrize("density, bound", [(0.4, 0.02), (0.3, 0.03)])
def test_plain_gradient_descent_stays_balanced(density, bound):
    problem = MatrixCompletion.random((200, 200), 3, density, 5.0, generator=seeded(3))
    x = gradient_descent(problem, tol=1e-7).x
    left, right = x.U.mT @ x.U, x.V.mT @ x.V
    assert (left - right).norm() / left.norm() <= bound


def test_one_sweep_equals_the_rows_own_least_squares():
    problem = MatrixCompletion.random((12, 9), 2, 0.7, generator=seeded(4))
    start = LowRank(
        torch.randn(12, 2, dtype=torch.float64, generator=seeded(5)),
        torch.randn(9, 2, dtype=torch.float64, generator=seeded(6)),
    )
    x = alternating_minimization(problem, start=start, max_steps=1).x
    seen = torch.zeros(12, 9, dtype=torch.bool)
    seen[problem.rows, problem.cols] = True
    M = problem.truth.dense()
    U = torch.stack(
        [torch.linalg.lstsq(start.V[seen[i]], M[i, seen[i]]).solution for i in range(12)]
    )
    V = torch.stack(
        [torch.linalg.lstsq(U[seen[:, j]], M[seen[:, j], j]).solution for j in range(9)]
    )
    torch.testing.assert_close(x.U, U)
    torch.testing.assert_close(x.V, V)


def test_ridge_makes_the_sweeps_als_and_the_gradient_zero_there():
    problem = MatrixCompletion.random((15, 10), 2, 0.6, generator=seeded(7))
    noisy = MatrixCompletion(
        problem.rows,
        problem.cols,
        problem.values + 0.1 * torch.randn(len(problem.values), generator=seeded(8)).double(),
        problem.shape,
        2,
        ridge=0.05,
    )
    x = alternating_minimization(noisy, max_steps=5000, xtol=1e-14).x
    U, V = (F.clone().requires_grad_() for F in x)
    noisy.value(LowRank(U, V)).backward()
    assert U.grad.abs().max() < 1e-8
    assert V.grad.abs().max() < 1e-8
    descended = gradient_descent(noisy, start=x, max_steps=50)
    torch.testing.assert_close(descended.x.dense(), x.dense(), rtol=0, atol=1e-7)


def test_gradient_steps_follow_autograd():
    problem = MatrixCompletion.random((8, 7), 2, 0.8, generator=seeded(9))
    x = problem.start("random", seeded(10))
    U, V = (F.clone().requires_grad_() for F in x)
    problem.value(LowRank(U, V)).backward()
    Z = problem.pull_back(problem.misfit(x))
    torch.testing.assert_close(Z @ x.V, U.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(Z.mT @ x.U, V.grad, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(scale=st.sampled_from([1e-6, 1e-2, 1e3, 1e8]), seed=st.integers(0, 100))
def test_scaling_the_data_scales_the_answer(scale, seed):
    problem = MatrixCompletion.random((20, 15), 2, 0.8, generator=seeded(seed))
    scaled = MatrixCompletion(
        problem.rows, problem.cols, scale * problem.values, problem.shape, problem.rank
    )
    for method in (scaled_gradient, gradient_descent, alternating_minimization):
        one = method(problem, max_steps=5, tol=0.0)
        other = method(scaled, max_steps=5, tol=0.0)
        torch.testing.assert_close(other.x.dense(), scale * one.x.dense(), rtol=1e-7, atol=0)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 100))
def test_the_order_of_the_entries_does_not_matter(seed):
    problem = MatrixCompletion.random((20, 15), 2, 0.8, generator=seeded(seed))
    order = torch.randperm(len(problem.rows), generator=seeded(seed + 1))
    shuffled = MatrixCompletion(
        problem.rows[order],
        problem.cols[order],
        problem.values[order],
        problem.shape,
        problem.rank,
    )
    for method in (scaled_gradient, gradient_descent, alternating_minimization):
        one, other = (method(p, max_steps=5, tol=0.0).x.dense() for p in (problem, shuffled))
        assert torch.equal(one, other)


def test_adjoint():
    rows, cols = torch.tensor([0, 2, 1, 2]), torch.tensor([1, 0, 3, 3])
    read = Sampling(rows, cols, (3, 4))
    x = LowRank(torch.randn(3, 2).double(), torch.randn(4, 2).double())
    w = torch.randn(4).double()
    Z = read.adjoint(w)
    torch.testing.assert_close((Z.dense() * x.dense()).sum(), w @ read.forward(x))
    torch.testing.assert_close(Z @ x.V, Z.dense() @ x.V)
    torch.testing.assert_close(Z.mT @ x.U, Z.dense().mT @ x.U)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [1, 2, 7, 8, 23, 24, 30])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_entries_are_those_of_the_dense_matrix(monkeypatch, dtype, rank, batch):
    """Gathered in pieces or by torch's sampled product, alone or in a batch."""
    monkeypatch.setattr("thalweg.solve.recovery.sampling.NUMBERS_IN_CACHE", 100)
    rows, cols = (torch.rand(40, 35, generator=seeded(0)) < 0.4).nonzero().unbind(1)
    factors = (torch.randn(*batch, n, rank, generator=seeded(n), dtype=dtype) for n in (40, 35))
    x = LowRank(*factors)
    torch.testing.assert_close(
        Sampling(rows, cols, (40, 35)).forward(x), x.dense()[..., rows, cols]
    )


def test_a_pass_over_a_matrix_too_large_to_form():
    """A million by a million would take 8 TB."""
    side, entries = 10**6, 10**5
    rows, cols = torch.randint(side, (2, entries), generator=seeded(0))
    with pytest.warns(UserWarning, match="fewer than"):
        problem = MatrixCompletion(
            rows, cols, torch.ones(entries).double(), (side, side), 1, ridge=0.01
        )
    x = LowRank(*(torch.ones(side, 1).double() for _ in range(2)))
    step = scaled_gradient(problem, start=x, max_steps=1, halvings=0).x
    decay = 0.5 * problem.ridge / problem.density() / side  # the misfit is zero
    torch.testing.assert_close(step.U, x.U * (1 - decay))


def test_bad_input_is_named():
    rows, cols = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    values = torch.ones(4)

    def problem(rows=rows, cols=cols, values=values, shape=(2, 2), rank=1, **more):
        return MatrixCompletion(rows, cols, values, shape, rank, **more)

    with pytest.raises(ValueError, match=r"rank must be >= 1 and <= 2, got 3|rank must be .*got 3"):
        problem(rank=3)
    with pytest.raises(ValueError, match=r"cols must be in \[0, 2\), got 2 at 1"):
        problem(cols=torch.tensor([0, 2, 0, 1]))
    with pytest.raises(ValueError, match=r"got \(0, 0\) twice"):
        problem(cols=torch.tensor([0, 0, 0, 1]))
    with pytest.raises(ValueError, match="values must be finite, got nan at 2"):
        problem(values=torch.tensor([1.0, 1, float("nan"), 1]))
    with pytest.raises(ValueError, match="values must not all be zero"):
        problem(values=torch.zeros(4))
    with pytest.raises(
        ValueError, match=r"values must have one number per entry, shape \(..., 4\)"
    ):
        problem(values=torch.ones(3))
    with pytest.raises(TypeError, match="values must be a real floating-point tensor"):
        problem(values=torch.ones(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="every row must hold at least one entry, got none in 2"):
        problem(shape=(3, 2))
    with pytest.raises(ValueError, match="too few in 2: use a smaller rank, or ridge > 0"):
        rows5, cols5 = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 0, 1, 0])
        with pytest.warns(UserWarning, match="5 measurements are fewer than the 6 degrees"):
            thin = MatrixCompletion(rows5, cols5, torch.ones(5), (3, 2), 2)
        alternating_minimization(thin)
    with pytest.raises(ValueError, match=r"start.U must have shape \(..., 2, 1\)"):
        scaled_gradient(problem(), start=LowRank(torch.ones(3, 1), torch.ones(2, 1)))
    with pytest.raises(ValueError, match="step_size must be > 0, got -1"):
        scaled_gradient(problem(), step_size=-1.0)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_rank_is_found_by_the_largest_gap(rank):
    known = MatrixCompletion.random((200, 150), rank, 0.5, 2.0, generator=seeded(20 + rank))
    found = MatrixCompletion(known.rows, known.cols, known.values, known.shape, "auto")
    assert found.rank == rank
    assert scaled_gradient(found, tol=1e-6).converged
    with pytest.raises(ValueError, match=r"^rank must be a number for a batch"):
        MatrixCompletion(
            known.rows, known.cols, known.values.expand(2, -1), known.shape, rank="auto"
        )
    with pytest.raises((ValueError, TypeError), match=r"^rank must be"):
        MatrixCompletion(known.rows, known.cols, known.values, known.shape, rank="three")
