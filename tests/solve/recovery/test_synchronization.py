"""Phase synchronization: the card's numbers, the certificate, groups, invariances, bad input."""

import itertools
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.core import Reason
from thalweg.solve.recovery import PhaseSynchronization, certificate, generalized_power_method
from thalweg.solve.recovery.synchronization_power import monotone_shift

GROUPS = [
    (1, False, torch.complex128),
    (1, False, torch.float64),
    (2, True, torch.float64),
    (3, True, torch.float64),
    (3, False, torch.float64),
    (2, False, torch.complex128),
]
every_group = pytest.mark.parametrize("block, rotation, dtype", GROUPS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def steps(result):
    return int(result.trace["step"][-1])


def test_without_noise_the_spectral_start_is_exact_on_a_connected_graph():
    problem = PhaseSynchronization.random(200, density=0.2, generator=seeded())
    result = generalized_power_method(problem)
    assert steps(result) == 0
    assert problem.error(result.x) < 1e-13
    assert result.info["certificate"].optimal and result.info["certificate"].second > 1


@pytest.mark.parametrize("seed", range(3))
def test_moderate_noise_is_certified(seed):
    problem = PhaseSynchronization.random(200, sigma=3.0, generator=seeded(seed))
    result = generalized_power_method(problem)
    found = result.info["certificate"]
    assert result.reason is Reason.TOLERANCE and 15 <= steps(result) <= 23
    assert 0.13 < problem.error(result.x) < 0.17
    assert 0.13 < problem.error(problem.start()) < 0.175
    assert found.optimal and found.lambda_min >= -1e-11 and found.second > 10
    assert "global maximum" in found.sentence and "only" in found.sentence


def test_much_noise_is_not_certified():
    problem = PhaseSynchronization.random(200, sigma=8.0, generator=seeded(1))
    result = generalized_power_method(problem)
    found = result.info["certificate"]
    assert result.converged and 60 < steps(result) < 400
    assert not found.optimal and -40 < found.lambda_min < -4
    assert "without proof" in found.sentence


@pytest.mark.slow
def test_the_error_is_that_of_the_spectral_start_or_less_in_the_mean():
    ratios = []
    for seed in range(20):
        problem = PhaseSynchronization.random(200, sigma=3.0, generator=seeded(seed))
        x = generalized_power_method(problem, certify=False).x
        ratios.append(float(problem.error(x) / problem.error(problem.start())))
    assert statistics.mean(ratios) < 0.99


def best_signs(Y):
    rest = itertools.product((1.0, -1.0), repeat=len(Y) - 1)
    signs = torch.tensor([(1.0, *signs) for signs in rest], dtype=Y.dtype)
    values = ((signs @ Y) * signs).sum(-1)
    top = values.max()
    return top, signs[values > top - 1e-9]


def test_the_certificate_against_every_choice_of_signs():
    """What it certifies is the best of all; its bound holds for everything; both words occur."""
    said = {True: 0, False: 0}
    for seed in range(30):
        problem = PhaseSynchronization.random(
            8, sigma=(0.3, 1.0, 2.0)[seed % 3], dtype=torch.float64, generator=seeded(seed)
        )
        top, winners = best_signs(problem.ratios)
        result = generalized_power_method(problem, start="random", generator=seeded(seed))
        found = result.info["certificate"]
        value = problem.objective(result.x, problem.product(result.x))
        assert top <= value + found.bound + 1e-9
        said[found.optimal] += 1
        if found.optimal:
            torch.testing.assert_close(value, top)
            if "only" in found.sentence:
                assert len(winners) == 1
        elif value < top - 1e-9:
            assert found.lambda_min < 0
    assert min(said.values()) >= 5


def test_a_point_that_is_not_stationary_is_not_certified():
    problem = PhaseSynchronization.random(20, sigma=0.5, generator=seeded())
    x = generalized_power_method(problem).x
    assert certificate(problem, x).optimal
    x = x.clone()
    x[3] *= -1
    found = certificate(problem, x)
    assert not found.optimal and "not yet" in found.sentence
    better = generalized_power_method(problem).x
    gain = problem.objective(better, problem.product(better)) - problem.objective(
        x, problem.product(x)
    )
    assert 0 < gain <= found.bound


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_certified_value_is_that_of_the_semidefinite_relaxation(dtype):
    cvxpy = pytest.importorskip("cvxpy")
    problem = PhaseSynchronization.random(7, sigma=0.4, dtype=dtype, generator=seeded(2))
    result = generalized_power_method(problem)
    assert result.info["certificate"].optimal
    X = cvxpy.Variable((7, 7), hermitian=dtype.is_complex, symmetric=not dtype.is_complex)
    objective = cvxpy.trace(problem.ratios.numpy() @ X)
    objective = cvxpy.real(objective) if dtype.is_complex else objective
    relaxed = cvxpy.Problem(cvxpy.Maximize(objective), [X >> 0, cvxpy.diag(X) == 1])
    relaxed.solve(solver="SCS", eps=1e-8, max_iters=20000)
    value = float(problem.objective(result.x, problem.product(result.x)))
    assert value == pytest.approx(relaxed.value, rel=1e-5)


@every_group
def test_every_group_is_recovered_and_certified(block, rotation, dtype):
    problem = PhaseSynchronization.random(
        30, sigma=0.3, density=0.8, block=block, rotation=rotation, dtype=dtype, generator=seeded(3)
    )
    result = generalized_power_method(problem)
    assert result.converged and result.info["certificate"].optimal
    assert problem.error(result.x) < 0.15
    x = result.x.reshape(30, block, block)
    eye = torch.eye(block, dtype=dtype).expand_as(x)
    torch.testing.assert_close(x @ x.mH, eye, rtol=0, atol=1e-12)
    if rotation:
        assert (torch.linalg.det(x) > 0.99).all()
    # From anywhere: at this noise the landscape is benign.
    other = generalized_power_method(problem, start="random", generator=seeded(4))
    value = problem.objective(other.x, problem.product(other.x))
    best = problem.objective(result.x, problem.product(result.x))
    assert value <= best * (1 + 1e-9)


@every_group
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000))
def test_a_common_factor_changes_nothing_and_own_frames_turn_the_answer(
    block, rotation, dtype, seed
):
    """x -> x Q leaves Y, error and gap as they are; Y -> D Y D* turns x into D x."""
    how = {"block": block, "rotation": rotation, "dtype": dtype}
    problem = PhaseSynchronization.random(9, sigma=0.2, generator=seeded(seed), **how)
    frames = PhaseSynchronization.random(9, generator=seeded(seed + 1), **how).truth
    x = problem.start("random", seeded(seed + 2))
    Q = problem.stacked(frames)[:block]
    turned = problem.unstacked(problem.stacked(x) @ Q)
    for measure in (problem.error, problem.residual, problem.value):
        torch.testing.assert_close(measure(turned), measure(x), rtol=1e-9, atol=1e-9)
    D = torch.block_diag(*frames.reshape(9, block, block))
    other = PhaseSynchronization(D @ problem.ratios @ D.mH, block, rotation)
    moved = problem.unstacked(D @ problem.stacked(x))
    one = generalized_power_method(problem, start=x, max_steps=3, tol=0.0, certify=False)
    two = generalized_power_method(other, start=moved, max_steps=3, tol=0.0, certify=False)
    torch.testing.assert_close(
        problem.stacked(two.x), D @ problem.stacked(one.x), rtol=1e-7, atol=1e-8
    )


def test_from_the_monotone_shift_on_the_value_never_rises():
    problem = PhaseSynchronization.random(40, sigma=6.0, generator=seeded(5))
    beta = monotone_shift(problem)
    assert beta == pytest.approx(-float(torch.linalg.eigvalsh(problem.ratios)[0]))
    result = generalized_power_method(problem, beta=beta, start="random", generator=seeded(6))
    values = result.trace["value"]
    assert (values[1:] <= values[:-1] * (1 + 1e-13)).all()
    assert result.info["beta"] == beta


def test_minima_are_fixed_points_up_to_the_sign_and_not_taken_for_maxima():
    """At (1, 1, 1) every sign turns at every step: it goes on with the shift, and leaves."""
    Y = -torch.tensor([[0.0, 1.5, 1.0], [1.5, 0.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    problem = PhaseSynchronization(Y)
    x = torch.ones(3, dtype=torch.float64)
    assert problem.residual(x) == 2
    result = generalized_power_method(problem, start=x)
    assert result.converged and result.info["beta"] == pytest.approx(monotone_shift(problem))
    assert problem.value(result.x) < problem.value(x)
    top, _ = best_signs(problem.ratios)
    found = generalized_power_method(problem)  # the spectral start does better
    assert problem.objective(found.x, problem.product(found.x)) == pytest.approx(float(top))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_sparse_equals_dense():
    dense = PhaseSynchronization.random(60, sigma=0.3, density=0.2, generator=seeded(7))
    sparse = PhaseSynchronization(dense.Y.to_sparse())
    assert sparse.ratios.is_sparse
    x = dense.start("random", seeded(8))
    torch.testing.assert_close(sparse.product(x), dense.product(x))
    torch.testing.assert_close(sparse.value(x), dense.value(x))
    one, two = (generalized_power_method(p) for p in (dense, sparse))
    assert dense.residual_of(dense.aligned(one.x, two.x) - two.x) < 1e-9
    assert two.info["certificate"].optimal
    assert PhaseSynchronization(dense.Y.to_sparse_csr()).ratios.is_sparse


def test_large_graphs_use_products_only():
    problem = PhaseSynchronization.random(600, sigma=0.2, density=0.03, generator=seeded(9))
    result = generalized_power_method(PhaseSynchronization(problem.Y.to_sparse()))
    found = result.info["certificate"]
    assert result.converged and found.optimal
    S = torch.diag((result.x.conj() * problem.product(result.x)).real) - problem.ratios
    expected = torch.linalg.eigvalsh(S)
    assert found.lambda_min == pytest.approx(float(expected[0]), abs=1e-7)
    assert found.second == pytest.approx(float(expected[1]), rel=1e-4)
    assert found.norm == pytest.approx(float(torch.linalg.matrix_norm(problem.ratios, 2)), rel=1e-6)


def test_components_are_reported_and_solved_each():
    parts = [PhaseSynchronization.random(n, generator=seeded(n)) for n in (5, 7)]
    Y = torch.block_diag(*(p.Y for p in parts), torch.zeros(1, 1))
    truth = torch.cat([p.truth for p in parts] + [torch.ones(1)])
    with pytest.warns(UserWarning, match=r"3 components, of sizes \[7, 5, 1\].*\[12\]"):
        problem = PhaseSynchronization(Y, truth=truth)
    result = generalized_power_method(problem)
    assert problem.error(result.x) < 1e-12
    assert result.info["components"] == 3
    assert result.info["certificate"].optimal and result.info["certificate"].second > 1


def test_the_diagonal_is_said_to_be_unused():
    problem = PhaseSynchronization.random(6, generator=seeded())
    full = torch.outer(problem.truth, problem.truth.conj())
    for Y in (full, full.to_sparse()):
        with pytest.warns(UserWarning, match="diagonal of Y is not zero"):
            seen = PhaseSynchronization(Y)
        torch.testing.assert_close(seen.value(problem.truth), torch.tensor(0.0).double())


def test_zeros_keep_their_phases():
    """Two measurements that cancel give no phase: the old one stays, and nothing is NaN."""
    Y = torch.zeros(3, 3, dtype=torch.complex128)
    Y[0, 1] = Y[1, 0] = 1
    Y[0, 2] = Y[2, 0] = 1
    problem = PhaseSynchronization(Y)
    x = torch.tensor([1j, 1.0, -1.0], dtype=torch.complex128)
    result = generalized_power_method(problem, start=x, max_steps=1, tol=0.0)
    assert torch.isfinite(result.x).all()
    assert torch.allclose(result.x.abs(), torch.ones(3).double())


def test_single_precision_is_certified_within_its_rounding():
    problem = PhaseSynchronization.random(
        80, sigma=1.0, dtype=torch.complex64, generator=seeded(10)
    )
    result = generalized_power_method(problem)
    assert result.converged and result.x.dtype == torch.complex64
    assert result.info["certificate"].optimal


def test_bad_input_is_named():
    good = PhaseSynchronization.random(4, generator=seeded()).Y
    skew = good.clone()
    skew[0, 1] += 1e-3
    broken = good.clone()
    broken[0, 1] = broken[1, 0] = math.nan
    cases = [
        (skew, {}, "Y must be Hermitian.*relative difference"),
        (skew.to_sparse(), {}, "Y must be Hermitian"),
        (good.mT[:3], {}, "Y must be square"),
        (good, {"block": 3}, "multiple of block = 3"),
        (good, {"block": 0}, "block must be"),
        (good, {"rotation": True}, "rotation must be False"),
        (broken, {}, "Y must be finite"),
        (good, {"truth": torch.ones(3)}, "truth must have shape"),
    ]
    for Y, how, message in cases:
        with pytest.raises(ValueError, match=message):
            PhaseSynchronization(Y, **how)
    with pytest.raises(TypeError, match="Y must be"):
        PhaseSynchronization(torch.eye(3, dtype=torch.long))
    problem = PhaseSynchronization(good)
    with pytest.raises(ValueError, match="beta must be"):
        generalized_power_method(problem, beta=-1.0)
    with pytest.raises(ValueError, match="start must have shape"):
        generalized_power_method(problem, start=torch.ones(5))
    with pytest.raises(ValueError, match="error needs"):
        problem.error(problem.start())
    for name, value in (("n", 0), ("sigma", -1.0), ("density", 0.0)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            PhaseSynchronization.random(**{name: value})


def test_one_product_a_step(monkeypatch):
    product, asked = PhaseSynchronization.product, []
    monkeypatch.setattr(
        PhaseSynchronization, "product", lambda self, x: asked.append(x) or product(self, x)
    )
    problem = PhaseSynchronization.random(30, sigma=1.0, generator=seeded(0))
    result = generalized_power_method(problem, certify=False)
    assert len(asked) == result.trace["step"][-1] + 1
