"""Flows of phase retrieval: gradients, the card's tables, traps, invariances."""

import inspect
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.core import Reason
from thalweg.solve.recovery import (
    CodedDiffraction,
    Lines,
    PhaseRetrieval,
    amplitude_flow,
    error_reduction,
    reweighted_amplitude_flow,
    truncated_amplitude_flow,
    truncated_wirtinger_flow,
    wirtinger_flow,
)
from thalweg.solve.recovery.phase_amplitude import amplitude_term
from thalweg.solve.recovery.phase_descent import FlowOptions, flow
from thalweg.solve.recovery.phase_flow import intensity_term, poisson_term

WF, TWF = wirtinger_flow, truncated_wirtinger_flow
AF, TAF, RAF = amplitude_flow, truncated_amplitude_flow, reweighted_amplitude_flow
FLOWS = (WF, TWF, AF, TAF, RAF)
METHODS = (*FLOWS, error_reduction)
every = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def steps_to(error, method, problem, **how):
    def stop(result):
        if result.trace["error"][-1] <= error:
            raise StopIteration

    result = method(problem, tol=0.0, callback=stop, **how)
    return int(result.trace["step"][-1]) if result.trace["error"][-1] <= error else None


def gaussian(ratio, seeds, dtype=torch.complex128):
    return [
        PhaseRetrieval.random(100, 100 * ratio, dtype=dtype, generator=seeded(s)) for s in seeds
    ]


def coded(patterns, seeds):
    return [PhaseRetrieval.random_coded((128,), patterns, generator=seeded(s)) for s in seeds]


def counts(method, problems, start="trimmed", **how):
    """How many reach a relative error of 1e-6, and the median of their steps."""
    steps = [steps_to(1e-6, method, problem, start=start, **how) for problem in problems]
    reached = [k for k in steps if k is not None]
    return len(reached), statistics.median(reached) if reached else None


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_closed_forms_are_half_of_what_autograd_returns(dtype):
    problem = PhaseRetrieval.random(6, 50, dtype=dtype, generator=seeded(3))
    operator, y = problem.operator, problem.y
    z = problem.start("random", seeded(4)).requires_grad_()

    def gradient(loss):
        return torch.autograd.grad(loss(operator.forward(z)), z)[0]

    seen, m = operator.forward(z.detach()), len(y)
    g = operator.adjoint(intensity_term(seen, y)) / m
    half = gradient(lambda Az: (Az.abs().square() - y).square().sum() / (2 * m)) / 2
    torch.testing.assert_close(g, half, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        half, gradient(lambda Az: problem.value(z)) / 2, rtol=1e-12, atol=1e-12
    )
    g = operator.adjoint(amplitude_term(seen, y.sqrt())) / m
    half = gradient(lambda Az: (Az.abs() - y.sqrt()).square().sum() / m) / 2
    torch.testing.assert_close(g, half, rtol=1e-12, atol=1e-12)
    # The one exception, as Chen and Candes write it: the whole gradient.
    ratio = torch.ones_like(y)
    g = operator.adjoint(poisson_term(seen, y, ratio, 0.0, 5.0, 1e9)) / m
    whole = gradient(lambda Az: (Az.abs().square() - y * Az.abs().square().log()).sum() / m)
    torch.testing.assert_close(g, whole, rtol=1e-11, atol=1e-11)


def test_one_step_is_the_formula():
    """With a scale of A and of y that a user may have: the formulas hold for E a a^* = I."""
    problem = PhaseRetrieval.random(8, 80, generator=seeded(5))
    scaled = PhaseRetrieval(Lines(3.0 * problem.operator.A), 0.25 * problem.y)
    s2 = float(scaled.operator.row_norms2.mean() / 8)
    A, y, m = scaled.operator.A / s2**0.5, scaled.y / s2, 80
    z = 1.5 * scaled.start("trimmed")
    Az, psi = A @ z, y.sqrt()
    modulus, phase = Az.abs(), Az / Az.abs()
    misfit = modulus.square() - y
    r = 8**0.5 * modulus / (A.abs().square().sum(1).sqrt() * z.norm())
    kept = (r >= 0.3) & (r <= 5) & (misfit.abs() <= 5 * misfit.abs().mean() * r)
    trusted = modulus >= psi / 1.7
    weight = modulus / (modulus + 10 * psi)
    mu1 = 1 - torch.exp(torch.tensor(-1 / 330, dtype=torch.float64))
    descents = {
        WF: mu1 / z.norm() ** 2 * (A.mH @ (misfit * Az)),
        TWF: 0.2 * 2 * (A.mH @ (kept * misfit / Az.conj())),
        AF: A.mH @ (Az - psi * phase),
        TAF: A.mH @ (trusted * (Az - psi * phase)),
        RAF: 5 * (A.mH @ (weight * (Az - psi * phase))),
    }
    assert 0 < kept.sum() < m and 0 < trusted.sum() < m
    for method, descent in descents.items():
        x = method(scaled, start=z, max_steps=1, tol=0.0).x
        torch.testing.assert_close(x, z - descent / m, rtol=1e-10, atol=1e-12)
    x = error_reduction(scaled, start=z, max_steps=1, tol=0.0).x
    torch.testing.assert_close(x, torch.linalg.pinv(A) @ (psi * phase), rtol=1e-9, atol=1e-11)


def test_terms_are_left_out_by_all_three_bounds_and_where_nothing_is_seen():
    seen, y = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]), torch.tensor([2.0, 2.0, 2.0, 9.0, 2.0])
    ratio = torch.tensor([1.0, 0.2, 5.1, 0.5, 1.0])
    term = poisson_term(seen, y, ratio, 0.3, 5.0, 3.0)
    assert term.tolist() == [-2, 0, 0, 0, 0]  # the mean misfit is 13 / 5: 8 > 3 * 2.6 * 0.5
    assert poisson_term(seen, y, ratio, 0.0, 5.0, 3.0).tolist() == [-2, -2, 0, 0, 0]


@pytest.mark.parametrize("method, median", [(WF, 203), (TWF, 102), (AF, 66), (TAF, 67), (RAF, 153)])
def test_complex_gaussian_at_ten_measurements_an_unknown(method, median):
    successes, steps = counts(method, gaussian(10, range(5)))
    assert successes == 5 and abs(steps - median) <= 0.15 * median


# method, m / n, the card's successes of 20 and median steps
COMPLEX = [
    (WF, 4, 0, None), (TWF, 4, 19, 580), (AF, 4, 19, 264), (TAF, 4, 20, 255),
    (WF, 6, 5, None), (TWF, 6, 20, 203), (AF, 6, 20, 117), (TAF, 6, 20, 121),
    (WF, 8, 20, 240), (TWF, 8, 20, 131), (AF, 8, 20, 81), (TAF, 8, 20, 83),
    (WF, 10, 20, 203), (TWF, 10, 20, 102), (AF, 10, 20, 66), (TAF, 10, 20, 67),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method, ratio, successes, median", COMPLEX)
def test_twenty_complex_gaussian(method, ratio, successes, median):
    found, steps = counts(method, gaussian(ratio, range(20)))
    assert abs(found - successes) <= 2
    assert median is None or abs(steps - median) <= 0.15 * median


@pytest.mark.slow
@pytest.mark.parametrize("ratio, successes, median", [(6, 18, 1364), (8, 20, 808), (10, 20, 622)])
def test_twenty_random_starts(ratio, successes, median):
    found, steps = 0, []
    for seed, problem in enumerate(gaussian(ratio, range(20))):
        start = problem.start("random", seeded(1000 + seed))
        k = steps_to(1e-6, WF, problem, start=start, step_size=0.1, ramp=0.0, max_steps=5000)
        found += k is not None
        steps += [k] if k is not None else []
    assert abs(found - successes) <= 2
    assert abs(statistics.median(steps) - median) <= 0.15 * median


def test_from_a_random_start_wirtinger_flow_arrives_after_a_plateau():
    problem = gaussian(10, [1])[0]
    how = {"start": "random", "generator": seeded(1), "step_size": 0.1, "ramp": 0.0}
    k = steps_to(1e-6, WF, problem, max_steps=5000, **how)
    assert k is not None and k > 2 * steps_to(1e-6, WF, problem)


# method, m / n, the card's successes of 12 and median steps
REAL = [
    (WF, 4, 6, None), (TWF, 4, 12, 112), (TAF, 4, 12, 74),
    (AF, 4, 9, 71),  # the card counts 12; of 40 draws here 29
    (WF, 6, 12, 175), (TWF, 6, 12, 63), (AF, 6, 12, 49), (TAF, 6, 12, 52), (RAF, 6, 12, 174),
    (AF, 3, 0, None), (TAF, 3, 11, 128),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method, ratio, successes, median", REAL)
def test_twelve_real_gaussian(method, ratio, successes, median):
    found, steps = counts(method, gaussian(ratio, range(12), torch.float64))
    assert abs(found - successes) <= 3
    assert median is None or abs(steps - median) <= 0.2 * median


@pytest.mark.parametrize("method, median", [(TWF, 63), (AF, 49), (TAF, 52), (RAF, 174)])
def test_real_gaussian_at_six_measurements_an_unknown(method, median):
    successes, steps = counts(method, gaussian(6, range(5), torch.float64))
    assert successes == 5 and abs(steps - median) <= 0.2 * median


# method, masks, the card's successes of 10 and median steps
CODED = [
    (WF, 8, 10, 240), (TWF, 8, 10, 133), (AF, 8, 10, 81), (TAF, 8, 10, 83),
    (WF, 12, 10, 187), (TWF, 12, 10, 91), (AF, 12, 10, 60), (TAF, 12, 10, 62),
    (TWF, 6, 10, 209), (AF, 6, 10, 117), (TAF, 6, 10, 121),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method, patterns, successes, median", CODED)
def test_ten_coded_diffraction(method, patterns, successes, median):
    found, steps = counts(method, coded(patterns, range(10)))
    assert abs(found - successes) <= 2
    assert abs(steps - median) <= 0.15 * median


@pytest.mark.parametrize("method, median", [(TWF, 133), (AF, 81), (TAF, 83)])
def test_coded_diffraction_behind_eight_masks(method, median):
    successes, steps = counts(method, coded(8, range(3)))
    assert successes == 3 and abs(steps - median) <= 0.15 * median


@pytest.mark.parametrize("method, long", [(AF, 1.0), (TAF, 1.0), (WF, 0.4)])
def test_the_long_steps_of_complex_signals_fail_on_real_ones(method, long):
    problems = gaussian(4, range(3), torch.float64)
    successes, _ = counts(method, problems, step_size=long, max_steps=500)
    own, _ = counts(method, problems, max_steps=500)
    assert successes == 0 < own


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_one_unknown(method, dtype):
    problem = PhaseRetrieval(Lines(torch.ones(1, 1, dtype=dtype)), torch.tensor([4.0]).double())
    result = method(problem)
    assert result.converged and result.x.abs().item() == pytest.approx(2)
    off = method(problem, start=torch.tensor([1.5], dtype=dtype))
    assert off.x.abs().item() == pytest.approx(2, abs=1e-6)


@every
@settings(deadline=None, max_examples=5)
@given(angle=st.floats(0, 6.3))
def test_every_phase_of_the_truth_is_a_fixed_point(method, angle):
    problem = PhaseRetrieval.random(8, 80, generator=seeded(6))
    turned = problem.truth * torch.exp(torch.tensor(1j * angle, dtype=torch.complex128))
    # A start at the solution takes no step; a step from there, taken all the same, leads nowhere.
    assert method(problem, start=turned).trace["step"][-1] == 0
    nearly = PhaseRetrieval(problem.operator, problem.y * (1 + 1e-9))
    x = method(nearly, start=turned, max_steps=3, tol=0.0).x
    torch.testing.assert_close(x, turned, rtol=1e-7, atol=1e-7)


@every
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 30), c=st.sampled_from([1e-6, 1e5]))
def test_scale_of_the_data_order_of_the_rows_and_phase_of_the_start(method, seed, c):
    problem = PhaseRetrieval.random(10, 90, generator=seeded(seed))
    how = {"max_steps": 6, "tol": 0.0}
    x = method(problem, **how).x
    brighter = PhaseRetrieval(problem.operator, c * problem.y)
    torch.testing.assert_close(method(brighter, **how).x, c**0.5 * x, rtol=1e-7, atol=1e-9 * c**0.5)
    longer = PhaseRetrieval(Lines(c * problem.operator.A), problem.y)
    torch.testing.assert_close(method(longer, **how).x, x / c, rtol=1e-7, atol=1e-9 / c)
    order = torch.randperm(90, generator=seeded(seed))
    shuffled = PhaseRetrieval(Lines(problem.operator.A[order]), problem.y[order])
    torch.testing.assert_close(method(shuffled, **how).x, x, rtol=1e-7, atol=1e-9)
    start, turn = problem.start("trimmed"), torch.exp(torch.tensor(0.7j, dtype=torch.complex128))
    torch.testing.assert_close(
        method(problem, start=turn * start, **how).x,
        turn * method(problem, start=start, **how).x,
        rtol=1e-8,
        atol=1e-10,
    )


@every
def test_the_scale_of_the_data_does_not_change_the_number_of_steps(method):
    problem = PhaseRetrieval.random(20, 200, generator=seeded(7))
    other = PhaseRetrieval(problem.operator, 1e6 * problem.y, truth=1e3 * problem.truth)
    one, two = (method(p, tol=1e-8).trace["step"][-1] for p in (problem, other))
    assert one == two


@every
def test_photographs_in_both_precisions(method):
    for dtype, tol, error in ((torch.complex128, 1e-10, 1e-9), (torch.complex64, 2e-5, 1e-4)):
        operator = CodedDiffraction.random((12, 10), 12, dtype=dtype, generator=seeded(8))
        image = torch.rand(12, 10, generator=seeded(9))
        problem = PhaseRetrieval.measure(operator, image)
        result = method(problem, tol=tol)
        assert result.converged and problem.error(result.x) < error
        assert result.x.shape == (12, 10) and result.x.dtype == dtype


@every
def test_a_batch_of_signals_behind_the_same_masks(method):
    operator = CodedDiffraction.random((16,), 10, generator=seeded(10))
    truth = torch.randn(3, 16, dtype=torch.complex128, generator=seeded(11))
    whole = method(PhaseRetrieval.measure(operator, truth), max_steps=7, tol=0.0)
    for member, x in zip(truth, whole.x, strict=True):
        alone = method(PhaseRetrieval.measure(operator, member), max_steps=7, tol=0.0)
        torch.testing.assert_close(x, alone.x, rtol=1e-9, atol=1e-11)


@every
def test_dark_measurements_are_not_nan(method):
    A = torch.eye(3, dtype=torch.float64).repeat(3, 1)
    A = torch.cat([A, torch.ones(1, 3).double(), torch.tensor([[1.0, 2.0, -1.0]]).double()])
    problem = PhaseRetrieval.measure(Lines(A), torch.tensor([1.0, 0.0, 2.0]).double())
    x = torch.tensor([0.9, 0.0, 2.1], dtype=torch.float64)
    result = method(problem, start=x, max_steps=200, tol=1e-4)
    assert torch.isfinite(result.x).all() and problem.residual(result.x) < problem.residual(x)


def test_a_step_that_diverges_is_halved_until_it_does_not():
    problem = PhaseRetrieval.random(20, 240, generator=seeded(12))
    result = AF(problem, step_size=64.0, halvings=8)
    # 2 and 3 circle the solution without diverging: the shortest steps are not tried then.
    assert result.reason is not Reason.NONFINITE
    assert 0.5 < result.info["step_size"] <= 4.0
    given_up = AF(problem, step_size=64.0, halvings=3)
    assert given_up.reason is Reason.NONFINITE and given_up.info["step_size"] == 8.0
    assert problem.residual(given_up.x) <= problem.residual(problem.start()) * (1 + 1e-9)


def test_noise_ends_in_a_standstill_near_the_truth():
    problem = PhaseRetrieval.random(20, 400, generator=seeded(13))
    noise = torch.randn(400, dtype=torch.float64, generator=seeded(14))
    noisy = PhaseRetrieval(problem.operator, (problem.y * (1 + 0.02 * noise)).clamp(min=0))
    result = TAF(noisy)
    assert result.reason in (Reason.TOLERANCE, Reason.STALLED)
    assert problem.error(result.x) < 0.02


def test_error_reduction_is_amplitude_flow_with_the_inverse_of_the_gram():
    problem = PhaseRetrieval.random(8, 60, generator=seeded(15))
    A, z, psi = problem.operator.A, problem.start("trimmed"), problem.y.sqrt()
    gradient = A.mH @ amplitude_term(A @ z, psi)
    expected = z - torch.linalg.solve(A.mH @ A, gradient)
    x = error_reduction(problem, start=z, max_steps=1, tol=0.0).x
    torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    "method, arguments",
    [
        (WF, {"step_size": 0.0}),
        (WF, {"ramp": -1.0}),
        (WF, {"halvings": -1}),
        (TWF, {"step_size": -0.1}),
        (TWF, {"lower": -0.1}),
        (TWF, {"upper": 0.2}),
        (TWF, {"spread": 0.0}),
        (TAF, {"gamma": 0.0}),
        (RAF, {"beta": 0.0}),
    ],
)
def test_bad_arguments_are_named(method, arguments):
    problem = PhaseRetrieval.random(5, 40, generator=seeded())
    with pytest.raises(ValueError, match=rf"^{next(iter(arguments))} must be"):
        method(problem, **arguments)


def test_keywords_of_the_descent_are_shown_and_no_other_is_taken():
    shared = inspect.signature(flow).parameters
    for method in FLOWS:
        shown = inspect.signature(method).parameters
        for name in FlowOptions.__annotations__:
            assert shown[name] == shared[name]
        assert not any(p.kind is p.VAR_KEYWORD for p in shown.values())
        problem = PhaseRetrieval.random(4, 40, generator=seeded())
        for name in ("schedule", "momentum"):
            with pytest.raises(TypeError, match=name):
                method(problem, **{name: lambda t, start: 1.0})
