"""Sub-gradient methods against gross outliers: the card's table, invariances and bad input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.core import Reason
from thalweg.solve.recovery import (
    LowRank,
    MatrixSensing,
    RobustSensing,
    gradient_descent,
    scaled_subgradient,
    subgradient,
)
from thalweg.solve.recovery.robust_sensing import dense
from thalweg.solve.recovery.subgradient import truncate


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def final(seed, columns, decay, alpha=1e-3, m=600, p=0.1, **how):
    problem = RobustSensing.random(20, 2, m, p, 2.0, generator=seeded(seed))
    result = subgradient(problem, alpha=alpha, columns=columns, decay=decay, tol=0.0, **how)
    return float(problem.error(result.x)), result


def test_the_exact_rank_is_found_to_rounding():
    error, _ = final(0, 2, 0.99, xtol=0.0, max_steps=3000)  # card: 2e-14, 1e-14
    assert error < 1e-13


def test_a_rank_set_too_high_costs_accuracy_but_how_high_does_not_matter():
    errors = [final(0, columns, 0.99)[0] for columns in (10, 20)]
    assert all(2e-5 < error < 1.5e-4 for error in errors)  # card: 4.9e-5 to 6e-5
    assert errors[0] == pytest.approx(errors[1], rel=0.2)


@pytest.mark.parametrize("alpha, decay", [(1e-3, 0.98), (1e-6, 0.99)])
def test_steps_that_die_in_the_growth_phase_are_a_stall_with_advice(alpha, decay):
    error, result = final(0, 10, decay, alpha)
    assert error > 0.4  # card: .70 to .87
    assert result.reason is Reason.STALLED
    assert result.info["stopped_by"] == "step_exhausted"
    assert "take decay nearer to 1" in result.info["message"]


def test_a_run_cut_short_is_not_said_to_be_exhausted():
    _, result = final(0, 10, 0.99, max_steps=5)
    assert result.reason is Reason.MAX_STEPS


@pytest.mark.slow
@pytest.mark.parametrize(
    "columns, p, alpha, decay, steps, low, high",
    [
        (20, 0.1, 1e-3, 0.995, 4000, 1e-6, 2e-5),  # card: 6.3e-6, 3.7e-6
        (20, 0.1, 1e-6, 0.997, 6000, 1e-10, 1e-8),  # 2.6e-9, 9.6e-10
        (2, 0.3, 1e-3, 0.995, 6000, 0.0, 1e-12),  # 3e-15 where .99 may die
    ],
)
def test_many_measurements(columns, p, alpha, decay, steps, low, high):
    for seed in (0, 1):
        error, _ = final(seed, columns, decay, alpha, m=3000, p=p, max_steps=steps)
        assert low <= error <= high


def test_polish_reads_the_rank_and_reaches_rounding():
    error, result = final(1, 10, 0.99, polish=True)
    assert result.info["rank"] == 2
    assert result.x.shape == (20, 2)
    assert error < 1e-11
    assert result.info["before"].x.shape == (20, 10)


def test_without_outliers_polyaks_step_needs_no_decay():
    problem = RobustSensing.random(20, 2, 600, 0.0, known_rank=True, generator=seeded(0))
    result = subgradient(problem, step="polyak", tol=1e-12)
    assert result.converged and result.trace["step"][-1] < 300  # card: 160 to 1e-15
    wide = subgradient(problem, step="polyak", columns=10, tol=0.0, max_steps=2000)
    assert problem.error(wide.x) < 2e-4  # card: 3e-5 to 4e-5, 2e-3 if the step is not capped


def test_least_squares_on_the_same_data_fails():
    problem = RobustSensing.random(20, 2, 600, 0.1, generator=seeded(0))
    squares = MatrixSensing(problem.A, problem.y, 2)
    x = gradient_descent(squares, max_steps=500).x
    assert problem.error(x) > 0.5


def test_dense_noise_is_no_stall():
    for noise, reason in ((0.05, Reason.TOLERANCE), (0.0, Reason.STALLED)):
        problem = RobustSensing.random(15, 1, 400, 0.1, noise=0.05, generator=seeded(0))
        told = RobustSensing(problem.A, problem.y, 1, noise=noise, truth=problem.truth)
        result = subgradient(told, decay=0.98)
        assert result.reason is reason
        assert told.error(result.x) < 0.1


@pytest.mark.parametrize("condition", [1.0, 20.0])
def test_the_scaled_method_does_not_mind_the_condition_number(condition):
    for seed in range(3):
        problem = RobustSensing.random(
            (30, 30), 2, 480, 0.1, condition, known_rank=True, generator=seeded(seed)
        )
        optimum = float(problem.misfit(problem.truth).abs().sum())
        for told, most in ((optimum, 100), (None, 300)):  # card: 65 to 87 with the optimum
            result = scaled_subgradient(problem, optimum=told)
            assert (result.trace["error"] <= 1e-6).argmax() in range(50, most)
            assert result.converged and problem.error(result.x) < 1e-9


def test_a_scaled_run_whose_steps_die_is_a_stall():
    problem = RobustSensing.random((12, 10), 2, 300, known_rank=True, generator=seeded(0))
    result = scaled_subgradient(problem, decay=0.3)
    assert result.reason is Reason.STALLED
    assert problem.residual(result.x) > 1e-2


def test_both_methods_take_a_semidefinite_problem():
    problem = RobustSensing.random(10, 2, 300, known_rank=True, generator=seeded(0))
    U = subgradient(problem, tol=1e-9).x
    x = scaled_subgradient(problem, tol=1e-9).x
    torch.testing.assert_close(dense(U), x.dense(), rtol=0, atol=1e-7)


def test_the_direction_is_the_sub_gradient():
    problem = RobustSensing.random(6, 2, 40, generator=seeded(0))
    U = torch.randn(6, 2, dtype=torch.float64, generator=seeded(1)).requires_grad_()
    problem.value(U).backward()
    x = subgradient(problem, start=U.detach(), step_size=0.01, max_steps=1).x
    step = -0.01 * U.grad / problem.unit
    torch.testing.assert_close(x - U.detach(), step, rtol=1e-10, atol=1e-13)

    start = LowRank(*(torch.randn(6, 2, dtype=torch.float64, generator=seeded(s)) for s in (2, 3)))
    U, V = (F.clone().requires_grad_() for F in start)
    known = RobustSensing(problem.A, problem.y, 2)
    known.value(LowRank(U, V)).backward()
    m = len(problem.y)
    N2 = m**2 * sum(
        torch.trace(G.mT @ G @ torch.linalg.inv(F.mT @ F)) for G, F in ((U.grad, V), (V.grad, U))
    )
    x = scaled_subgradient(known, optimum=0.5, start=start, max_steps=1).x
    eta = (m * known.value(start) - 0.5) / N2
    expected = U.detach() - eta * m * U.grad @ torch.linalg.inv(V.mT @ V).detach()
    torch.testing.assert_close(x.U, expected.detach(), rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=10)
@given(
    data=st.sampled_from([1e-6, 1e-2, 1e4]),
    unit=st.sampled_from([1e-3, 1.0, 50.0]),
    seed=st.integers(0, 50),
)
def test_scaling_the_data_scales_the_answer(data, unit, seed):
    problem = RobustSensing.random(8, 2, 80, known_rank=True, generator=seeded(seed))
    scaled = RobustSensing(unit * problem.A, data * unit * problem.y, 2)
    for method in (subgradient, scaled_subgradient):
        one = dense(method(problem, max_steps=6, tol=0.0).x)
        other = dense(method(scaled, max_steps=6, tol=0.0).x)
        torch.testing.assert_close(other, data * one, rtol=1e-8, atol=1e-14 * data)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 50))
def test_order_of_measurements_and_rotation_do_not_matter(seed):
    problem = RobustSensing.random(8, 2, 80, generator=seeded(seed))
    order = torch.randperm(80, generator=seeded(seed + 1))
    shuffled = RobustSensing(problem.A[order], problem.y[order])
    Q = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=seeded(seed + 2))).Q
    turned = RobustSensing(Q @ problem.A @ Q.mT, problem.y)
    one, two, three = (
        dense(subgradient(p, max_steps=6, tol=0.0).x) for p in (problem, shuffled, turned)
    )
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(three, Q @ one @ Q.mT, rtol=1e-7, atol=1e-13)


def test_truncation_reads_each_rank_of_a_batch():
    U = torch.diag_embed(torch.tensor([[2.0, 1.0, 1e-3], [3.0, 1e-3, 1e-8]]))
    cut, rank = truncate(U, torch.tensor([1e-5, 1e-6]))
    assert rank == 2 and cut.shape == (2, 3, 2)
    assert torch.equal(cut[1, :, 1], torch.zeros(3))
    torch.testing.assert_close(dense(cut)[0], torch.diag(torch.tensor([4.0, 1.0, 0.0])))


def test_truncation_compares_eigenvalues_with_the_residual():
    U = torch.diag(torch.tensor([2.0, 1.0, 0.1]))  # eigenvalues 4, 1, .01; the residual says .004
    assert truncate(U, 1e-3)[1] == 2
    assert truncate(U, 1e-5)[1] == 3


def test_bad_input_is_named():
    A, y = torch.randn(20, 4, 4, generator=seeded(0)), torch.ones(20)
    with pytest.raises(ValueError, match=r"y must have one number per matrix of A, shape \(20,\)"):
        RobustSensing(A, y[:-1])
    with pytest.raises(ValueError, match=r"A must have shape \(..., m, n1, n2\)"):
        RobustSensing(A[0], y)
    with pytest.raises(ValueError, match="A must be finite"):
        RobustSensing(A / 0, y)
    with pytest.raises(ValueError, match="A must not be all zero"):
        RobustSensing(0 * A, y)
    with pytest.raises(ValueError, match="y must be other than zero in more than half"):
        RobustSensing(A, torch.cat([y[:8], torch.zeros(12)]))
    with pytest.raises(ValueError, match=r"rank must be an integer in \[1, 4\], got 5"):
        RobustSensing(A, y, 5)
    with pytest.raises(ValueError, match="noise must be >= 0, got -1"):
        RobustSensing(A, y, noise=-1.0)
    with pytest.warns(UserWarning, match="5 measurements are fewer than the 7 degrees"):
        RobustSensing(A[:5], y[:5], 1)
    with pytest.raises(ValueError, match="outliers must be in"):
        RobustSensing.random(outliers=1.0)
    problem = RobustSensing(A, y)
    with pytest.raises(ValueError, match=r"problem\.rank must be known, got None"):
        scaled_subgradient(problem)
    with pytest.raises(ValueError, match="error needs a problem that knows its truth"):
        problem.error(torch.ones(4, 1))
    for name, value in (("alpha", 0.0), ("decay", 1.0), ("step_size", -1.0), ("columns", 5)):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            subgradient(problem, **{name: value})
    with pytest.raises(ValueError, match="step must be one of 'geometric', 'polyak'"):
        subgradient(problem, step="constant")
    with pytest.raises(ValueError, match=r"start must have shape \(..., 4, 1 to 4"):
        subgradient(problem, start=torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"problem\.A must hold square matrices"):
        subgradient(RobustSensing(A[..., :3], y))
    eye = torch.eye(4).expand(20, 4, 4)
    with pytest.raises(ValueError, match="y must come from a positive semidefinite matrix"):
        subgradient(RobustSensing(eye, -y))
