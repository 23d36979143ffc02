"""The problem of phase retrieval: measures, starts, bad input."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.solve.recovery import CodedDiffraction, Lines, PhaseRetrieval


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_measures_by_hand():
    A = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    problem = PhaseRetrieval(Lines(A), torch.tensor([1.0, 4.0, 9.0]), truth=torch.tensor([1.0, 2]))
    x = torch.tensor([1.0, 0.0])
    assert problem.misfit(x).tolist() == pytest.approx([0, -4, -8], abs=1e-5)
    assert problem.value(x).item() == pytest.approx(80 / 6)
    assert problem.residual(x).item() == pytest.approx((80 / 98) ** 0.5)
    assert problem.error(-problem.truth).item() == 0
    assert problem.error(x).item() == pytest.approx((4 / 5) ** 0.5)


@settings(deadline=None, max_examples=10)
@given(angle=st.floats(0, 6.3), seed=st.integers(0, 50))
def test_a_global_phase_changes_neither_measures_nor_error(angle, seed):
    problem = PhaseRetrieval.random(6, 40, generator=seeded(seed))
    x = torch.randn(6, dtype=torch.complex128, generator=seeded(seed + 1))
    turned = x * torch.exp(torch.tensor(1j * angle, dtype=torch.complex128))
    for measure in (problem.value, problem.residual, problem.error):
        torch.testing.assert_close(measure(turned), measure(x), rtol=1e-9, atol=1e-12)
    assert (
        problem.error(problem.truth * torch.exp(torch.tensor(1j * angle, dtype=torch.complex128)))
        < 1e-14
    )
    angles = torch.exp(1j * torch.linspace(0, 6.283, 400, dtype=torch.float64))
    distances = (angles[:, None] * x - problem.truth).norm(dim=1) / problem.truth.norm()
    assert problem.error(x) <= distances.min() + 1e-12
    assert problem.error(x) >= distances.min() - 1e-3


def test_amplitudes_are_squared():
    problem = PhaseRetrieval.random(5, 40, generator=seeded())
    same = PhaseRetrieval(problem.operator, problem.y.sqrt(), "amplitude", problem.truth)
    torch.testing.assert_close(same.intensity, problem.intensity)
    torch.testing.assert_close(same.mean, problem.mean)
    assert same.residual(problem.truth) < 1e-14


def test_very_bright_and_very_dark_single_precision_data_stay_finite():
    problem = PhaseRetrieval.random(5, 60, dtype=torch.float32, generator=seeded())
    for c in (1e-18, 1e15):
        scaled = PhaseRetrieval(problem.operator, c * problem.y.sqrt(), "amplitude")
        torch.testing.assert_close(scaled.intensity, problem.intensity, rtol=1e-4, atol=1e-5)


def test_photographs_and_batches_have_their_shapes():
    operator = CodedDiffraction.random((4, 6), 5, generator=seeded())
    truth = torch.randn(2, 4, 6, dtype=torch.float64, generator=seeded(1))
    problem = PhaseRetrieval.measure(operator, truth)
    assert problem.y.shape == (2, 120) and problem.residual(problem.truth).shape == (2,)
    patterned = PhaseRetrieval(operator, problem.y.unflatten(-1, (5, 4, 6)))
    torch.testing.assert_close(patterned.intensity, problem.intensity)
    for start in ("random", "trimmed"):
        z = problem.start(start, seeded(2))
        assert z.shape == (2, 4, 6) and z.dtype == torch.complex128
        torch.testing.assert_close(problem.flat(z).norm(dim=-1), problem.size().squeeze())


def test_a_random_start_does_not_depend_on_the_order_of_the_measurements():
    problem = PhaseRetrieval.random(6, 40, generator=seeded())
    order = torch.randperm(40, generator=seeded(1))
    shuffled = PhaseRetrieval(Lines(problem.operator.A[order]), problem.y[order])
    torch.testing.assert_close(
        problem.start("random", seeded(2)), shuffled.start("random", seeded(2))
    )


def test_bad_input_is_named():
    A = torch.randn(20, 4, dtype=torch.float64, generator=seeded())
    operator, y = Lines(A), torch.ones(20, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"y must be >= 0 \(intensity\), got -1 \(at 3\)"):
        PhaseRetrieval(operator, torch.where(torch.arange(20) == 3, -y, y))
    with pytest.raises(ValueError, match="y must not be all zero"):
        PhaseRetrieval(operator, 0 * y)
    with pytest.raises(ValueError, match="y must be finite"):
        PhaseRetrieval(operator, y / 0)
    with pytest.raises(ValueError, match=r"y must have shape \(..., 20\)"):
        PhaseRetrieval(operator, y[:19])
    with pytest.raises(TypeError, match=r"y must be a real floating-point tensor"):
        PhaseRetrieval(operator, y + 0j)
    with pytest.raises(TypeError, match="y must have the precision of the operator"):
        PhaseRetrieval(operator, y.float())
    with pytest.raises(ValueError, match=r"data must be one of .*did you mean 'amplitude'"):
        PhaseRetrieval(operator, y, data="amplitudes")
    with pytest.raises(ValueError, match=r"truth must have shape"):
        PhaseRetrieval(operator, y, truth=y)
    problem = PhaseRetrieval(operator, y)
    with pytest.raises(ValueError, match="error needs a problem that knows its truth"):
        problem.error(A[0])
    with pytest.raises(ValueError, match=r"start must have shape \('...', 4\), got \(20,\)"):
        problem.start(y)
    with pytest.raises(ValueError, match="start must not be zero"):
        problem.start(0 * A[0])


def test_too_few_measurements_are_a_warning_with_the_count_needed():
    A = torch.randn(20, 5, dtype=torch.float64, generator=seeded())
    y = torch.ones(20, dtype=torch.float64)
    with pytest.warns(UserWarning, match="8 measurements are fewer than the 9 that tell real"):
        PhaseRetrieval(Lines(A[:8]), y[:8])
    with pytest.warns(UserWarning, match="15 measurements are fewer than the 16 .* complex"):
        PhaseRetrieval(Lines(A[:15] + 0j), y[:15])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PhaseRetrieval(Lines(A[:9]), y[:9])
        PhaseRetrieval(Lines(A[:16] + 0j), y[:16])
