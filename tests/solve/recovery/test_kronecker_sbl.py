"""Kronecker-structured sparse Bayesian learning: brute force, the card's table, bad input."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.core import Reason
from thalweg.solve.recovery import KroneckerSparse, Posterior, classical_sbl, kronecker_sbl
from thalweg.solve.recovery.kronecker import multiply, outer
from thalweg.solve.recovery.kronecker_steps import (
    alternating_update,
    classical_expectation,
    expectation,
    learned_noise,
    normalized,
    singular_update,
)

COMPLEX, REAL = torch.complex128, torch.float64
UPDATES = ("alternating", "svd")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def uniform(seed, *sizes):
    return 0.1 + torch.rand(*sizes, dtype=REAL, generator=seeded(seed))


@pytest.mark.parametrize("dtype", [COMPLEX, REAL])
def test_the_e_step_is_the_dense_formula(dtype):
    problem = KroneckerSparse.random((3, 4, 4), (4, 5, 6), dtype=dtype, generator=seeded(0))
    factors = [uniform(i, n) for i, n in enumerate(problem.unknowns)]
    noise = torch.tensor(0.07, dtype=REAL)
    H, y, gamma = problem.dense(), problem.y, outer(factors).flatten()
    inverse = torch.linalg.inv(noise * torch.eye(48, dtype=REAL) + (H * gamma) @ H.mH)
    mean = gamma * (H.mH @ inverse @ y)
    variance = gamma - gamma**2 * (H.mH @ inverse @ H).diagonal().real
    cost = -torch.linalg.slogdet(inverse)[1] + (y.conj() @ inverse @ y).real
    misfit2 = (y - H @ mean).abs().square().sum()
    fast = expectation(problem.dictionaries, y.reshape(problem.measured), factors, noise)
    classical = classical_expectation([H], y, [gamma], noise)
    for found in (fast, classical):
        for value, right in zip(found, (mean, variance, cost, misfit2), strict=True):
            torch.testing.assert_close(value.flatten(), right.flatten(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("known_noise", [True, False])
def test_with_one_dictionary_it_is_classical_sbl(update, known_noise):
    problem = KroneckerSparse.random(
        (12,), (18,), (3,), known_noise=known_noise, generator=seeded(0)
    )
    how = {"prune": 0.0, "max_steps": 20, "tol": 0.0}
    one, other = kronecker_sbl(problem, update=update, **how), classical_sbl(problem, **how)
    torch.testing.assert_close(one.x.mean, other.x.mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(one.x.variance, other.x.variance, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(one.x.noise, other.x.noise, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [COMPLEX, REAL])
@pytest.mark.parametrize("known_noise", [True, False])
def test_alternating_updates_never_raise_the_cost(dtype, known_noise):
    # For real data this cost is twice the likelihood's, and both have the same EM.
    for start in ("uniform", "random"):
        problem = KroneckerSparse.random(
            (5, 5, 4), (6, 6, 6), dtype=dtype, known_noise=known_noise, generator=seeded(1)
        )
        result = kronecker_sbl(problem, prune=0.0, max_steps=40, start=start, generator=seeded(2))
        cost = result.trace["cost"]
        assert (cost[1:] <= cost[:-1] + 1e-9 * abs(cost[:-1])).all()
        assert cost[-1] < cost[0]


def test_both_m_steps_return_a_kronecker_product():
    g = normalized([uniform(i, n) for i, n in enumerate((4, 5, 6))])
    start = normalized([torch.ones(n, dtype=REAL) for n in (4, 5, 6)])
    for update in (alternating_update, singular_update):
        for found, right in zip(update(outer(g), start), g, strict=True):
            torch.testing.assert_close(found, right, rtol=1e-11, atol=1e-11)


def test_the_alternating_m_step_ends_where_its_gradient_is_zero():
    d = uniform(0, 4, 3, 5)
    start = normalized([torch.ones(n, dtype=REAL) for n in (4, 3, 5)])
    g = [v.clone().requires_grad_() for v in alternating_update(d, start, tol=1e-14)]
    objective = sum(60 / len(v) * v.log().sum() for v in g) + (d / outer(g)).sum()
    objective.backward()
    for v in g:
        assert (v.grad * v).abs().max() < 1e-9


def test_the_learned_noise_is_ems():
    problem = KroneckerSparse.random((4, 3), (5, 4), (1, 1), generator=seeded(0))
    factors, noise = [uniform(0, 5), uniform(1, 4)], torch.tensor(0.3, dtype=REAL)
    H, gamma = problem.dense(), outer(factors).flatten()
    Sigma = torch.linalg.inv(H.mH @ H / noise + torch.diag(1 / gamma))
    mean = Sigma @ H.mH @ problem.y / noise
    misfit2 = (problem.y - H @ mean).abs().square().sum()
    right = (misfit2 + torch.trace(H @ Sigma @ H.mH).real) / 12
    found = expectation(problem.dictionaries, problem.y.reshape(4, 3), factors, noise)
    torch.testing.assert_close(learned_noise(found, factors, noise, 12), right)


# Of the card, 12 seeds: median NMSE, and the steps that were taken.
TABLE = [
    (COMPLEX, "svd", 1.1e-4, (10, 25)),
    (COMPLEX, "alternating", 1.1e-4, (40, 95)),
    (REAL, "alternating", 0.9e-4, (40, 110)),
    (REAL, "svd", 0.9e-4, (8, 25)),
]


def recovered(dtype, update, seeds, **how):
    errors, steps = [], []
    for seed in seeds:
        problem = KroneckerSparse.random(dtype=dtype, generator=seeded(seed), **how)
        result = kronecker_sbl(problem, update=update)
        errors.append(float(problem.error(result.x)) ** 2)
        steps.append(result.trace["step"][-1])
    return errors, steps


@pytest.mark.parametrize("dtype, update, median, steps", TABLE)
def test_recovery_at_the_cards_size(dtype, update, median, steps):
    errors, taken = recovered(dtype, update, range(3))
    assert statistics.median(errors) < 3 * median
    assert steps[0] <= statistics.median(taken) <= steps[1]


@pytest.mark.slow
@pytest.mark.parametrize("dtype, update, median, steps", TABLE)
def test_recovery_on_twelve_seeds(dtype, update, median, steps):
    errors, taken = recovered(dtype, update, range(100, 112))
    assert median / 2 < statistics.median(errors) < 2 * median
    assert steps[0] <= statistics.median(taken) <= steps[1]
    if update == "alternating":
        assert max(errors) < 1e-3  # card: 3.6e-4 complex, 1.4e-4 real


def test_the_variance_of_the_noise_is_learned():
    for update in UPDATES:
        told = KroneckerSparse.random(generator=seeded(3))
        problem = KroneckerSparse.random(generator=seeded(3), known_noise=False)
        result = kronecker_sbl(problem, update=update)
        assert float(result.x.noise) == pytest.approx(told.noise, rel=0.12)


def test_the_structure_beats_classical_sbl():
    problem = KroneckerSparse.random((6, 6, 6), (8, 8, 8), snr=20.0, generator=seeded(0))
    structured, classical = kronecker_sbl(problem), classical_sbl(problem, max_steps=60)
    assert problem.error(structured.x) < 0.7 * problem.error(classical.x)
    support = problem.truth != 0
    assert torch.equal(structured.x.mean != 0, support)


def test_pruned_entries_are_zero_everywhere():
    problem = KroneckerSparse.random(generator=seeded(0))
    x = kronecker_sbl(problem).x
    gamma = outer(x.factors).flatten()
    assert torch.equal(gamma == 0, x.mean == 0)
    assert (x.variance[gamma == 0] == 0).all()
    assert 8 <= int((gamma > 0).sum()) < 100
    assert x.mean.shape == (1000,) and [len(g) for g in x.factors] == [10, 10, 10]


def test_no_noise_at_all_is_floored():
    problem = KroneckerSparse.random((6, 6), (8, 8), (2, 2), snr=200.0, generator=seeded(0))
    exact = KroneckerSparse(problem.dictionaries, problem.y, noise=0.0, truth=problem.truth)
    result = kronecker_sbl(exact)
    assert result.reason is Reason.TOLERANCE
    assert exact.error(result.x) < 1e-4


def test_more_measurements_than_unknowns():
    problem = KroneckerSparse.random((8, 7), (5, 4), (2, 1), generator=seeded(0))
    assert problem.error(kronecker_sbl(problem).x) < 0.1


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 50), update=st.sampled_from(UPDATES))
def test_rows_columns_and_a_phase_do_not_matter(seed, update):
    problem = KroneckerSparse.random((5, 4), (6, 5), (2, 1), generator=seeded(seed))
    rows = [torch.randperm(n, generator=seeded(seed + i)) for i, n in enumerate((5, 4))]
    columns = [torch.randperm(n, generator=seeded(seed + 2 + i)) for i, n in enumerate((6, 5))]
    phase = torch.exp(torch.tensor(0.7j, dtype=COMPLEX))
    H = [A[r][:, c] for A, r, c in zip(problem.dictionaries, rows, columns, strict=True)]
    y = phase * problem.y.reshape(5, 4)[rows[0]][:, rows[1]].flatten()
    other = KroneckerSparse(H, y, problem.noise)
    how = {"update": update, "max_steps": 5, "tol": 0.0, "prune": 0.0}
    one = kronecker_sbl(problem, **how).x.mean.reshape(6, 5)
    two = kronecker_sbl(other, **how).x.mean.reshape(6, 5)
    torch.testing.assert_close(two, phase * one[columns[0]][:, columns[1]], rtol=1e-8, atol=1e-10)


@settings(deadline=None, max_examples=10)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 50))
def test_products_follow_the_convention_of_kron(sizes, seed):
    A = [torch.randn(n + 1, n, dtype=REAL, generator=seeded(seed + i)) for i, n in enumerate(sizes)]
    x = torch.randn(*sizes, dtype=REAL, generator=seeded(seed))
    full, vector = A[0], A[0][:, 0]
    for B in A[1:]:
        full, vector = torch.kron(full, B), torch.kron(vector, B[:, 0])
    torch.testing.assert_close(multiply(A, x).flatten(), full @ x.flatten())
    torch.testing.assert_close(outer([B[:, 0] for B in A]).flatten(), vector)


def test_bad_input_is_named():
    H, y = [torch.eye(3), torch.ones(2, 4)], torch.ones(6)
    with pytest.raises(ValueError, match=r"y must have one number per row .* shape \(6,\), got"):
        KroneckerSparse(H, y[:-1])
    with pytest.raises(TypeError, match="y must be a real or complex floating-point tensor"):
        KroneckerSparse(H, y.long())
    with pytest.raises(ValueError, match=r"dictionaries\[1\] must be a matrix of the dtype of y"):
        KroneckerSparse([H[0], H[1].double()], y)
    with pytest.raises(ValueError, match="dictionaries must hold at least one matrix"):
        KroneckerSparse([], y)
    with pytest.raises(ValueError, match=r"dictionaries\[0\] must be finite"):
        KroneckerSparse([H[0] / 0, H[1]], y)
    with pytest.raises(
        ValueError, match=r"dictionaries\[0\] must have no column of zeros, got.* 0"
    ):
        KroneckerSparse([H[0] - torch.diag(torch.tensor([1.0, 0, 0])), H[1]], y)
    with pytest.raises(ValueError, match="y must be finite"):
        KroneckerSparse(H, y / 0)
    with pytest.raises(ValueError, match="y must not be all zero"):
        KroneckerSparse(H, 0 * y)
    with pytest.raises(ValueError, match="noise must be >= 0, got -1"):
        KroneckerSparse(H, y, noise=-1.0)
    with pytest.raises(ValueError, match=r"truth must have shape \(12,\)"):
        KroneckerSparse(H, y, truth=torch.ones(11))
    with pytest.warns(UserWarning, match=r"dictionaries\[0\] differ by a factor of 20"):
        KroneckerSparse([torch.diag(torch.tensor([20.0, 1, 1])), H[1]], y)
    problem = KroneckerSparse(H, y)
    with pytest.raises(ValueError, match="error needs a problem that knows its truth"):
        problem.error(torch.ones(12))
    with pytest.raises(ValueError, match="update must be one of 'alternating', 'svd'"):
        kronecker_sbl(problem, update="am")
    with pytest.raises(ValueError, match="prune must be in"):
        kronecker_sbl(problem, prune=1.0)
    wrong = Posterior(y, y, (torch.ones(3), torch.ones(3)), torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"start must be a Posterior with factors of the sizes"):
        kronecker_sbl(problem, start=wrong)
