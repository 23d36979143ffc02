"""What every solver owes its user, whatever the family: one row per method and problem."""

import inspect
import typing

import pytest
import torch
from torch.utils import _pytree as pytree

from thalweg.core import Reason, Result
from thalweg.solve import recovery


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def completion(dtype=torch.float64, seed=0):
    return recovery.MatrixCompletion.random(
        (40, 30), 2, 0.6, 3.0, dtype=dtype, generator=seeded(seed)
    )


def sensing(dtype=torch.float64, seed=0):
    return recovery.MatrixSensing.random((15, 12), 2, 250, 3.0, dtype=dtype, generator=seeded(seed))


def phases(dtype=torch.float64, seed=0):
    return recovery.PhaseRetrieval.random(20, 200, dtype=dtype, generator=seeded(seed))


def fewer_phases(dtype=torch.float64, seed=6):
    # Once all signs of a real signal are right error reduction is done: here in five steps.
    return recovery.PhaseRetrieval.random(20, 100, dtype=dtype, generator=seeded(seed))


def gross_errors(dtype=torch.float64, seed=0):
    return recovery.RobustPCA.random((80, 60), 2, 0.05, 2.0, dtype=dtype, generator=seeded(seed))


def rotations(dtype=torch.float64, seed=0):
    # Noise that the truth does not see: it stays the maximum, and the spectral start is not at it.
    drawn = recovery.PhaseSynchronization.random(
        20, density=0.7, block=2, rotation=True, dtype=dtype, generator=seeded(seed)
    )
    noise = torch.randn(20, 2, 20, 2, dtype=dtype, generator=seeded(seed + 100))
    noise = noise - noise.mean(0, keepdim=True)
    noise = (noise - noise.mean(2, keepdim=True)).reshape(40, 40)
    frame = torch.block_diag(*drawn.truth)
    Y = drawn.Y + 0.3 * frame @ (noise + noise.mT) @ frame.mT
    Y = Y * (1 - torch.block_diag(*torch.ones(20, 2, 2, dtype=dtype)))
    return recovery.PhaseSynchronization(Y, 2, rotation=True, truth=drawn.truth)


def shifts(dtype=torch.float64, seed=18):
    # Few differences, a fifth of them wrong: five steps from the spectral start.
    return recovery.JointAlignment.random(
        40, 4, 0.7, density=0.2, dtype=dtype, generator=seeded(seed)
    )


def mixture(dtype=torch.float64, seed=0):
    return recovery.BlindDemixing.random(
        2, 200, 8, 9, dtype=dtype.to_complex(), generator=seeded(seed)
    )


def outliers(dtype=torch.float64, seed=0):
    return recovery.RobustSensing.random(
        8, 2, 150, known_rank=True, dtype=dtype, generator=seeded(seed)
    )


def sparse(dtype=torch.complex128, seed=0):
    return recovery.KroneckerSparse.random(
        (5, 4), (6, 6), (2, 1), dtype=dtype, generator=seeded(seed)
    )


# (method, problem of a dtype and a seed, relative accuracies in float64 and float32)
ROWS = [
    (recovery.scaled_gradient, completion),
    (recovery.gradient_descent, completion),
    (recovery.alternating_minimization, completion),
    (recovery.robust_alternating_minimization, completion),
    (recovery.scaled_gradient, sensing),
    (recovery.gradient_descent, sensing),
    (recovery.wirtinger_flow, phases),
    (recovery.truncated_wirtinger_flow, phases),
    (recovery.amplitude_flow, phases),
    (recovery.truncated_amplitude_flow, phases),
    (recovery.reweighted_amplitude_flow, phases),
    (recovery.error_reduction, fewer_phases),
    (recovery.robust_pca, gross_errors),
    (recovery.alternating_projections, gross_errors),
    (recovery.scaled_gradient, gross_errors),
    (recovery.gradient_descent, gross_errors),
    (recovery.generalized_power_method, rotations),
    (recovery.projected_power_method, shifts),
    (recovery.blind_wirtinger_flow, mixture),
    (recovery.regularized_blind_descent, mixture),
    (recovery.subgradient, outliers),
    (recovery.scaled_subgradient, outliers),
]
# Methods for noisy data: the estimate is not the truth, and what falls is not the residual.
STATISTICAL = [
    (recovery.kronecker_sbl, sparse),
    (recovery.classical_sbl, sparse),
]
every = pytest.mark.parametrize("method, make", ROWS, ids=lambda v: getattr(v, "__name__", str(v)))
every_one = pytest.mark.parametrize(
    "method, make", ROWS + STATISTICAL, ids=lambda v: getattr(v, "__name__", str(v))
)


def leaves(x):
    return pytree.tree_leaves(x)


def watched(result):
    """What the method stops by and keeps the best of: the first name of its trace."""
    return result.trace[next(name for name in result.trace if name not in ("step", "seconds"))]


def same(x, y, **tolerance):
    for a, b in zip(leaves(x), leaves(y), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@every
def test_float64_is_solved_to_rounding_and_float32_to_1e_4(method, make):
    problem = make()
    result = method(problem, tol=1e-11)
    assert result.converged and problem.error(result.x) < 1e-9
    assert all(leaf.dtype.to_real() == torch.float64 for leaf in leaves(result.x))
    single = make(torch.float32)
    result = method(single, tol=1e-6)
    assert result.converged and single.error(result.x) < 1e-4
    assert all(
        not leaf.is_floating_point() or leaf.dtype == torch.float32 for leaf in leaves(result.x)
    )


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32])
@pytest.mark.parametrize("method, make", STATISTICAL, ids=lambda v: v.__name__)
def test_a_statistical_method_finds_the_same_in_float32(method, make, dtype):
    problem = make(torch.promote_types(dtype, torch.float64))
    single = recovery.KroneckerSparse(
        [H.to(dtype) for H in problem.dictionaries], problem.y.to(dtype), problem.noise
    )
    found, expected = method(single), method(problem)
    assert found.converged and found.x.mean.dtype == dtype
    assert all(leaf.dtype.to_real() == torch.float32 for leaf in leaves(found.x))
    distance = torch.linalg.vector_norm(found.x.mean - expected.x.mean)
    assert distance < 1e-4 * torch.linalg.vector_norm(expected.x.mean)


@every_one
def test_the_measures_are_those_of_the_point_returned(method, make):
    problem = make()
    result = method(problem, max_steps=3, tol=0.0)
    assert isinstance(result, Result)
    assert result.reason is Reason.MAX_STEPS
    assert list(result.trace["step"]) == [0, 1, 2, 3]
    assert result.value == watched(result)[-1]
    torch.testing.assert_close(
        result.trace["residual"][-1], float(problem.residual(result.x)), rtol=1e-6, atol=1e-14
    )
    torch.testing.assert_close(
        result.trace["error"][-1], float(problem.error(result.x)), rtol=1e-6, atol=1e-14
    )


@every
def test_a_start_at_the_solution_takes_no_step(method, make):
    problem = make()
    result = method(problem, start=problem.truth, tol=1e-10)
    assert result.trace["step"][-1] == 0
    assert result.value <= 1e-14


@every_one
def test_a_warm_start_continues(method, make):
    problem = make()
    whole = method(problem, max_steps=6, tol=0.0)
    first = method(problem, max_steps=3, tol=0.0)
    second = method(problem, start=first.x, max_steps=3, tol=0.0)
    # Steps scaled by the start may differ; where they do, it must be at least as near.
    assert second.value <= max(1.5 * whole.value, 1e-12)
    assert second.value <= first.value


@every_one
def test_the_same_seed_gives_the_same_bits_and_the_global_generator_is_left_alone(method, make):
    problem = make()
    before = torch.get_rng_state()
    one = method(problem, start="random", generator=seeded(1), max_steps=5, tol=0.0)
    other = method(problem, start="random", generator=seeded(1), max_steps=5, tol=0.0)
    assert all(torch.equal(a, b) for a, b in zip(leaves(one.x), leaves(other.x), strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@every_one
def test_ctrl_c_a_callback_and_the_clock_keep_the_best_point(method, make):
    problem = make()

    def interrupt(result):
        if len(result.trace["step"]) == 3:
            raise KeyboardInterrupt

    result = method(problem, callback=interrupt, tol=0.0)
    assert result.reason is Reason.INTERRUPTED
    assert result.value == min(watched(result))

    def stop(result):
        raise StopIteration

    assert method(problem, callback=stop, tol=0.0).trace["step"].tolist() == [0]
    late = method(problem, max_seconds=1e-9, tol=0.0)
    assert late.reason is Reason.MAX_SECONDS


@every_one
def test_a_method_declares_itself_and_has_the_common_keywords(method, make):
    for name in ("paper", "year", "family", "memory", "needs", "search_space", "problems"):
        assert hasattr(method, name)
    assert isinstance(make(), method.problems)
    parameters = inspect.signature(method).parameters
    positional = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional] == ["problem"]
    common = {"start", "tol", "max_steps", "max_seconds", "generator", "callback", "progress"}
    assert common <= set(parameters)
    assert typing.get_type_hints(method)["return"].__origin__ is Result
    assert set(method.search_space) <= set(parameters)


@every_one
def test_bad_arguments_are_named(method, make):
    problem = make()
    for name, value in (("tol", -1.0), ("max_steps", -1), ("max_seconds", 0.0), ("xtol", -1.0)):
        if name not in inspect.signature(method).parameters:
            continue  # xtol: what a statistical method stops by is its own
        with pytest.raises(ValueError, match=rf"^{name} must be"):
            method(problem, **{name: value})
    with pytest.raises(ValueError, match=r"^start must be"):
        method(problem, start="spectrall")
    with pytest.raises(TypeError):
        method(problem, 0.5)


def batched_completion():
    one = recovery.MatrixCompletion.random((15, 12), 2, 0.8, generator=seeded(0))
    truths = [
        recovery.MatrixCompletion.random((15, 12), 2, 0.8, generator=seeded(s)).truth
        for s in range(4)
    ]
    values = torch.stack([truth.dense()[one.rows, one.cols] for truth in truths])

    def of(values):
        return recovery.MatrixCompletion(one.rows, one.cols, values, one.shape, 2)

    return of(values), [of(v) for v in values]


def batched_sensing():
    members = [sensing(seed=seed) for seed in range(3)]
    A, y = (torch.stack([getattr(m, name) for m in members]) for name in ("A", "y"))
    return recovery.MatrixSensing(A, y, 2), members


def batched_phases():
    members = [phases(seed=seed) for seed in range(3)]
    A = torch.stack([member.operator.A for member in members])
    y = torch.stack([member.y for member in members])
    return recovery.PhaseRetrieval(recovery.Lines(A), y), members


def batched_gross_errors():
    members = [gross_errors(seed=seed) for seed in range(3)]
    alpha = max(member.alpha for member in members)

    def of(Y):
        return recovery.RobustPCA(Y, 2, alpha)

    Y = torch.stack([member.Y for member in members])
    return of(Y), [of(member) for member in Y]


def batched_rotations():
    members = [rotations(seed=0)]
    # The members of a batch share their graph.
    members += [recovery.PhaseSynchronization(members[0].Y * c, 2, True) for c in (0.5, 2.0)]
    for k, member in enumerate(members):
        noise = torch.randn(40, 40, dtype=torch.float64, generator=seeded(k))
        noise = 0.2 * (noise + noise.mT) * (member.ratios != 0)
        members[k] = recovery.PhaseSynchronization(member.ratios + noise, 2, True)
    return recovery.PhaseSynchronization(torch.stack([m.Y for m in members]), 2, True), members


def batched_mixture():
    members = [mixture(seed=seed) for seed in range(3)]
    A, y = (torch.stack([getattr(m, name) for m in members]) for name in ("A", "y"))
    return recovery.BlindDemixing(y, A, 8), members


def batched_outliers():
    members = [outliers(seed=seed) for seed in range(3)]
    A, y = (torch.stack([getattr(m, name) for m in members]) for name in ("A", "y"))
    return recovery.RobustSensing(A, y, 2), members


def dense(x):
    return x if isinstance(x, torch.Tensor) else x.dense()


@pytest.mark.parametrize(
    "method, make",
    [
        (recovery.scaled_gradient, batched_completion),
        (recovery.gradient_descent, batched_completion),
        (recovery.alternating_minimization, batched_completion),
        (recovery.robust_alternating_minimization, batched_completion),
        (recovery.scaled_gradient, batched_sensing),
        (recovery.gradient_descent, batched_sensing),
        (recovery.wirtinger_flow, batched_phases),
        (recovery.truncated_wirtinger_flow, batched_phases),
        (recovery.amplitude_flow, batched_phases),
        (recovery.truncated_amplitude_flow, batched_phases),
        (recovery.reweighted_amplitude_flow, batched_phases),
        (recovery.error_reduction, batched_phases),
        (recovery.subgradient, batched_outliers),
        (recovery.scaled_subgradient, batched_outliers),
        (recovery.robust_pca, batched_gross_errors),
        (recovery.alternating_projections, batched_gross_errors),
        (recovery.scaled_gradient, batched_gross_errors),
        (recovery.gradient_descent, batched_gross_errors),
        (recovery.generalized_power_method, batched_rotations),
        (recovery.blind_wirtinger_flow, batched_mixture),
        (recovery.regularized_blind_descent, batched_mixture),
    ],
    ids=lambda v: v.__name__,
)
def test_a_batch_equals_a_loop_over_it(method, make):
    batch, members = make()
    whole = method(batch, max_steps=7, tol=0.0)
    for i, member in enumerate(members):
        alone = method(member, max_steps=7, tol=0.0)
        torch.testing.assert_close(dense(whole.x)[i], dense(alone.x), rtol=1e-9, atol=1e-11)
    residuals = batch.residual(whole.x)
    assert residuals.shape == (len(members),)
    torch.testing.assert_close(whole.value, float(residuals.max()), rtol=1e-6, atol=1e-14)
