"""Robust PCA: the card's table, identities, invariances, certificates and bad input."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.solve.recovery import (
    LowRank,
    LowRankPlusSparse,
    RobustPCA,
    alternating_projections,
    gradient_descent,
    principal_component_pursuit,
    robust_pca,
    scaled_gradient,
)
from thalweg.solve.recovery.robust_pca import keep_largest


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def instance(alpha=0.05, seed=0, **how):
    return RobustPCA.random((200, 200), 3, alpha, 5.0, generator=seeded(seed), **how)


def steps_to(error, method, problem, **how):
    """Steps until the error against the truth is met; None if it is not."""

    def stop(result):
        if result.trace["error"][-1] <= error:
            raise StopIteration

    result = method(problem, tol=0.0, callback=stop, **how)
    return int(result.trace["step"][-1]) if result.trace["error"][-1] <= error else None


@pytest.mark.parametrize("seed", range(3))
def test_scaled_gradient_takes_the_cards_number_of_steps(seed):
    # Card, six instances of nominal share .05: median 120 where the largest share was .08.
    steps = steps_to(1e-6, scaled_gradient, instance(0.05, seed))
    assert steps is not None and 80 <= steps <= 260


@pytest.mark.slow
def test_scaled_gradient_succeeds_on_six_of_six():
    problems = [instance(0.05, seed) for seed in range(20)]
    # The steps grow with the largest share, from 78 at .075 to 276 at .105: like with like.
    problems = [p for p in problems if 0.08 < p.alpha < 0.09][:6]
    assert len(problems) == 6
    steps = [steps_to(1e-6, scaled_gradient, p) for p in problems]
    assert None not in steps
    assert abs(statistics.median(steps) - 120) <= 0.15 * 120
    assert None not in [steps_to(1e-6, gradient_descent, p, max_steps=1500) for p in problems]


@pytest.mark.slow
def test_scaled_gradient_succeeds_at_a_share_of_fourteen_percent():
    problems = [
        p for p in (instance(0.1, seed) for seed in range(20)) if abs(p.alpha - 0.14) < 0.006
    ]
    steps = [steps_to(1e-6, scaled_gradient, p) for p in problems[:6]]
    assert len(steps) == 6 and None not in steps
    assert abs(statistics.median(steps) - 353) <= 0.15 * 353


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_the_clipped_steps_need_at_most_fifty(alpha):
    for seed in range(6):
        steps = steps_to(1e-6, robust_pca, instance(alpha, seed))
        assert steps is not None and steps <= 50


@pytest.mark.parametrize("condition", [1.0, 5.0, 20.0])
def test_the_clipped_steps_do_not_mind_the_condition_number(condition):
    problem = RobustPCA.random((300, 300), 5, 0.05, condition, generator=seeded(0))
    assert 12 <= steps_to(1e-6, robust_pca, problem) <= 32


@pytest.mark.parametrize("method", [robust_pca, alternating_projections, scaled_gradient])
def test_gross_errors_of_any_size_give_the_same_answer(method):
    for magnitude in (10.0, 1e4):
        problem = instance(0.05, 1, magnitude=magnitude)
        result = method(problem, tol=1e-12)
        # The residual is relative to Y, which the errors dominate.
        assert result.converged and problem.error(result.x) < 1e-5


def test_without_gross_errors_the_start_is_the_answer():
    problem = RobustPCA.random((60, 50), 2, 0.0, generator=seeded(2))
    assert problem.alpha == 0
    for method in (robust_pca, alternating_projections, scaled_gradient, gradient_descent):
        result = method(problem, tol=1e-12)
        assert result.trace["step"][-1] == 0
        assert problem.error(result.x) < 1e-12
    assert not robust_pca(problem).x.S.any()


@pytest.mark.parametrize("sparse", ["soft", "largest"])
def test_the_support_is_found_by_a_threshold_and_not_by_the_nonzeros(sparse):
    problem = instance(0.05, 3)
    X = problem.truth.dense()
    result = robust_pca(problem, sparse=sparse, tol=1e-10)
    support = (problem.Y - X).abs() > 1e-3 * X.abs().mean()
    misfit = (problem.Y - result.x.low_rank.dense()).abs()
    assert torch.equal(misfit > 1e-3 * X.abs().mean(), support)
    assert (result.x.S != 0).sum() > support.sum()
    torch.testing.assert_close(result.x.dense(), problem.Y, rtol=0, atol=1e-9)


def test_more_gross_errors_than_alpha_show_in_the_residual():
    honest = instance(0.1, 4)
    denied = RobustPCA(honest.Y, 3, alpha=0.02, truth=honest.truth)
    for method in (robust_pca, scaled_gradient, alternating_projections):
        result = method(denied, tol=1e-8, max_steps=150)
        assert result.info.get("stopped_by") != "residual" and result.value > 0.05
        assert denied.error(result.x) > 1e-3


def test_keep_largest_by_hand():
    W = torch.tensor([[9.0, -8.0, 1.0, 0.0], [7.0, 2.0, -3.0, 0.5], [-6.0, 1.0, 4.0, 0.1]])
    # A quarter: the largest of each row and of each column of three.
    expected = torch.zeros(3, 4)
    expected[0, 0] = 9.0
    assert torch.equal(keep_largest(W, 0.25), expected)
    # A half: two per row, two per column.
    expected = torch.tensor([[9.0, -8.0, 0, 0], [7.0, 0, -3.0, 0], [0, 0, 4.0, 0]])
    assert torch.equal(keep_largest(W, 0.5), expected)
    assert torch.equal(keep_largest(W, 1.0), W)
    assert not keep_largest(W, 0.0).any()
    ties = torch.ones(3, 3)
    assert torch.equal(keep_largest(ties, 0.1), ties)
    # 0.07 of 100 is 7.000000000000001 in floating point, and means seven.
    assert (keep_largest(torch.arange(1.0, 101)[None], 0.07)[0] > 0).sum() == 7


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 9), st.floats(0.05, 0.95))
def test_keep_largest_equals_a_sort(seed, n1, n2, fraction):
    W = torch.randn(n1, n2, generator=seeded(seed), dtype=torch.float64)
    kept = keep_largest(W, fraction)
    rank_in_row = (W.abs()[:, :, None] < W.abs()[:, None, :]).sum(2)
    rank_in_column = (W.abs()[:, None, :] < W.abs()[None, :, :]).sum(1)
    small = (rank_in_row < -(-fraction * n2 // 1)) & (rank_in_column < -(-fraction * n1 // 1))
    assert torch.equal(kept, torch.where(small, W, 0.0))
    assert torch.equal(keep_largest(W.T, fraction), kept.T)
    # torch selects in half precision, numpy in single and double, and both in batches.
    half = W.half()
    assert torch.equal(keep_largest(half, fraction), keep_largest(half.double(), fraction).half())
    assert torch.equal(keep_largest(torch.stack([W, -2 * W]), fraction)[1], -2 * kept)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_scaling_and_permuting_the_data_scales_and_permutes_the_answer(seed, c):
    problem = RobustPCA.random((40, 30), 2, 0.05, 2.0, generator=seeded(seed))
    rows = torch.randperm(40, generator=seeded(seed))
    cols = torch.randperm(30, generator=seeded(seed + 1))
    other = RobustPCA(c * problem.Y[rows][:, cols], 2, problem.alpha)
    a = robust_pca(problem, max_steps=8, tol=0.0).x.low_rank.dense()
    b = robust_pca(other, max_steps=8, tol=0.0).x.low_rank.dense()
    torch.testing.assert_close(b, c * a[rows][:, cols], rtol=1e-6, atol=1e-9 * c)


def test_a_step_of_alternating_projections_is_an_svd_of_what_is_not_gross():
    problem = RobustPCA.random((30, 25), 2, 0.05, generator=seeded(5))
    x = problem.start()
    S = keep_largest(problem.Y - x.dense(), 2 * problem.alpha)
    U, sigma, Vh = torch.linalg.svd(problem.Y - S)
    new = alternating_projections(problem, start=x, max_steps=1, tol=0.0).x
    torch.testing.assert_close(new.low_rank.dense(), (U[:, :2] * sigma[:2]) @ Vh[:2])


def test_a_clipped_step_is_a_scaled_step_on_hubers_loss():
    problem = RobustPCA.random((30, 25), 2, 0.05, generator=seeded(6))
    x = problem.start()
    zeta = float(problem.misfit(x).abs().max())
    U, V = (F.clone().requires_grad_() for F in x)
    loss = torch.nn.functional.huber_loss(U @ V.mT, problem.Y, reduction="sum", delta=zeta)
    loss.backward()
    new = robust_pca(problem, start=x, max_steps=1, tol=0.0, step_size=0.3, halvings=0).x
    torch.testing.assert_close(new.U, x.U - 0.3 * U.grad @ torch.linalg.inv(x.V.mT @ x.V))
    torch.testing.assert_close(new.V, x.V - 0.3 * V.grad @ torch.linalg.inv(x.U.mT @ x.U))


def test_robust_pca_by_the_largest_is_scaled_gradient():
    problem = instance(0.05, 7)
    one = robust_pca(problem, sparse="largest", max_steps=5, tol=0.0)
    other = scaled_gradient(problem, max_steps=5, tol=0.0)
    assert torch.equal(one.x.U, other.x.U)
    assert torch.equal(one.x.S, problem.split(other.x).S)


def test_principal_component_pursuit_meets_its_optimality_conditions():
    # L + S = Y, and one matrix is a subgradient both of ||L||_* and of lambda ||S||_1.
    problem = RobustPCA.random((60, 60), 2, 0.05, 2.0, generator=seeded(8))
    result = principal_component_pursuit(problem.Y, tol=1e-9)
    x = result.x
    assert result.converged and x.low_rank.rank == 2
    assert problem.error(x) < 1e-6
    gross = (problem.Y - problem.truth.dense()).abs() > 1e-12
    assert torch.equal(x.S.abs() > 1e-6, gross)
    value = torch.linalg.svdvals(x.low_rank.dense()).sum() + 60**-0.5 * x.S.abs().sum()
    for seed in range(20):
        noise = 1e-3 * torch.randn(60, 60, generator=seeded(seed), dtype=torch.float64)
        L, S = x.low_rank.dense() + noise, x.S - noise
        assert torch.linalg.svdvals(L).sum() + 60**-0.5 * S.abs().sum() > value - 1e-6


def test_the_point_has_both_parts():
    problem = instance(0.05, 9)
    x = robust_pca(problem, max_steps=2).x
    assert isinstance(x, LowRankPlusSparse) and isinstance(x.low_rank, LowRank)
    torch.testing.assert_close(x.dense(), x.U @ x.V.T + x.S)
    torch.testing.assert_close(
        problem.residual(x), (x.dense() - problem.Y).norm() / problem.Y.norm()
    )


def test_bad_input_is_named():
    Y = instance().Y
    for bad, message in (
        ({"Y": Y[0]}, r"^Y must have shape"),
        ({"Y": Y * float("nan")}, r"^Y must be finite"),
        ({"Y": 0 * Y}, r"^Y must not be all zero"),
        ({"rank": 0}, r"^rank must be"),
        ({"rank": 201}, r"^rank must be"),
        ({"alpha": -0.1}, r"^alpha must be >= 0, got -0.1"),
        ({"alpha": 0.25}, r"^alpha must be < 0.5 / factor = 0.25, got 0.25"),
        ({"alpha": 0.2, "factor": 3.0}, r"^alpha must be < 0.5 / factor"),
        ({"factor": 0.5}, r"^factor must be >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            RobustPCA(**{"Y": Y, "rank": 3, **bad})
    with pytest.raises(TypeError, match="Y"):
        RobustPCA(Y.long(), 3)
    with pytest.raises(ValueError, match=r"^sparse must be"):
        robust_pca(instance(), sparse="hard")
    with pytest.raises(ValueError, match=r"^weight must be > 0"):
        principal_component_pursuit(Y, weight=0.0)
