"""Spectral initializers: the card's correlations, their order, and what must not matter."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.solve.recovery import Lines, PhaseRetrieval, spectral_start
from thalweg.solve.recovery.phase_start import INITIALIZERS, preprocess


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def correlation(problem, kind):
    z = problem.flat(spectral_start(problem, kind))
    truth = problem.flat(problem.truth)
    return float((z.conj() * truth).sum().abs() / z.norm() / truth.norm())


def means(make, seeds, kinds):
    problems = [make(seed) for seed in seeds]
    return {kind: sum(correlation(p, kind) for p in problems) / len(problems) for kind in kinds}


KINDS = ("plain", "trimmed", "orthogonality", "mm", "optimal")
# m / n: the card's means over 20 seeds, n = 100, complex Gaussian
COMPLEX = {
    4: (0.512, 0.514, 0.565, 0.784, 0.855),
    6: (0.640, 0.640, 0.690, 0.858, 0.933),
    8: (0.708, 0.712, 0.759, 0.894, 0.958),
    10: (0.756, 0.758, 0.787, 0.909, 0.968),
}
REAL = {4: (0.667, 0.724, 0.848, 0.952), 6: (0.750, 0.794, 0.895, 0.977)}
CODED = {6: (0.58, 0.86, 0.93), 8: (0.68, 0.90, 0.96), 12: (0.77, 0.93, 0.98)}


def gaussian(ratio, dtype):
    return lambda seed: PhaseRetrieval.random(100, 100 * ratio, dtype=dtype, generator=seeded(seed))


def in_order(found):
    values = [found[kind] for kind in KINDS]
    assert values[0] <= values[1] + 0.005
    assert values[1] < values[2] < values[3] < values[4]


@pytest.mark.parametrize("ratio", [4, 8])
def test_order(ratio):
    in_order(means(gaussian(ratio, torch.complex128), range(8), KINDS))


@pytest.mark.parametrize("ratio", [6, 10])
def test_the_best_ones_have_the_cards_correlations(ratio):
    found = means(gaussian(ratio, torch.complex128), range(8), ("mm", "optimal"))
    assert abs(found["mm"] - COMPLEX[ratio][3]) < 0.02
    assert abs(found["optimal"] - COMPLEX[ratio][4]) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("ratio", COMPLEX)
def test_complex_gaussian(ratio):
    # The card's means of 20 correlations have a standard error of up to .02 with plain weights.
    found = means(gaussian(ratio, torch.complex128), range(100), KINDS)
    for kind, mean in zip(KINDS, COMPLEX[ratio], strict=True):
        slack = 0.02 if kind in ("mm", "optimal") else 0.04
        assert abs(found[kind] - mean) < slack, kind
    in_order(found)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", REAL)
def test_real_gaussian(ratio):
    found = means(gaussian(ratio, torch.float64), range(100), KINDS[1:])
    for kind, mean in zip(KINDS[1:], REAL[ratio], strict=True):
        assert abs(found[kind] - mean) < 0.04, kind


@pytest.mark.slow
@pytest.mark.parametrize("patterns", CODED)
def test_coded_diffraction(patterns):
    def make(seed):
        return PhaseRetrieval.random_coded((128,), patterns, generator=seeded(seed))

    found = means(make, range(10), ("plain", "mm", "optimal"))
    for mean, expected in zip(found.values(), CODED[patterns], strict=True):
        assert abs(mean - expected) < 0.03


def test_weights_by_hand():
    y = torch.tensor([0.0, 0.25, 1.0, 4.0, 16.0, 0.5])
    norms2 = torch.tensor([1.0, 1.0, 1.0, 0.5, 8.0, 1.0])

    def weights(kind, n=3, complex_=True, clip=-10.0):
        return preprocess(y, kind, n, norms2, complex_, clip).tolist()

    assert weights("plain") == y.tolist()
    assert weights("trimmed") == [0.0, 0.25, 1.0, 4.0, 0.0, 0.5]
    assert weights("orthogonality") == [0, 0, 0, 2, 0, 0]  # 4 / 0.5 beats 16 / 8
    many = preprocess(torch.arange(1.0, 31.0), "orthogonality", 3, torch.ones(30), True)
    assert many.nonzero().flatten().tolist() == [25, 26, 27, 28, 29]
    assert weights("weighted") == pytest.approx([0, 0, 0, 4**0.25, 2, 0])  # 6 - round(4.6) + 1
    assert weights("optimal") == pytest.approx([-10, -3, 0, 0.75, 0.9375, -1])
    root = math.sqrt(2) - 1
    assert weights("mm")[1] == pytest.approx(-0.75 / (0.25 + root))
    assert weights("mm", complex_=False)[1] == pytest.approx(-0.75 / (0.25 + 1))
    assert weights("mm", n=100)[0] == -10


def test_the_norm_is_that_of_the_signal_as_the_mean_tells_it():
    problem = PhaseRetrieval.random(30, 3000, generator=seeded())
    for kind in INITIALIZERS:
        z = spectral_start(problem, kind)
        torch.testing.assert_close(z.norm(), problem.truth.norm(), rtol=0.1, atol=0)
        torch.testing.assert_close(z.norm(), problem.size().squeeze())
        largest = z[z.abs().argmax()]
        assert largest.real > 0 and largest.imag.abs() < 1e-12 * largest.real


def test_shifting_the_weights_is_not_harmless():
    # Why the smallest weight is clipped, and the eigenvalue wanted the algebraically largest.
    problem = PhaseRetrieval.random(100, 400, generator=seeded(1))
    A, y = problem.operator.A, problem.intensity
    T = (1 - 1 / y).clamp(min=-10)
    overlaps = []
    for shift in (0.0, 10.0):
        D = (A.mH * (T + shift)) @ A / 400
        v = torch.linalg.eigh(D).eigenvectors[:, -1]
        overlaps.append(float((v.conj() * problem.truth).sum().abs() / problem.truth.norm()))
    assert overlaps[0] == pytest.approx(correlation(problem, "optimal"), abs=1e-9)
    assert overlaps[1] < 0.5 < 0.7 < overlaps[0]
    values = torch.linalg.eigvalsh((A.mH * T) @ A / 400)
    assert values[0].abs() > 5 * values[-1]


def test_lanczos_agrees_with_dense():
    problem = PhaseRetrieval.random(600, 3600, generator=seeded(2))
    A, T = problem.operator.A, (1 - 1 / problem.intensity).clamp(min=-10)
    v = torch.linalg.eigh((A.mH * T) @ A / 3600).eigenvectors[:, -1]
    z = spectral_start(problem)  # 600 unknowns: by Lanczos
    assert 1 - float((v.conj() * z).sum().abs() / z.norm()) < 1e-6


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 50), kind=st.sampled_from(INITIALIZERS), c=st.sampled_from([1e-6, 7.0]))
def test_scale_order_and_phase_do_not_matter(seed, kind, c):
    problem = PhaseRetrieval.random(12, 100, generator=seeded(seed))
    z = spectral_start(problem, kind)
    A, y = problem.operator.A, problem.y
    brighter = PhaseRetrieval(problem.operator, c * y)
    torch.testing.assert_close(
        spectral_start(brighter, kind), c**0.5 * z, rtol=1e-7, atol=1e-9 * c**0.5
    )
    longer = PhaseRetrieval(Lines(c * A), y)
    torch.testing.assert_close(spectral_start(longer, kind), z / c, rtol=1e-7, atol=1e-9 / c)
    order = torch.randperm(100, generator=seeded(seed))
    shuffled = PhaseRetrieval(Lines(A[order]), y[order])
    torch.testing.assert_close(spectral_start(shuffled, kind), z, rtol=1e-7, atol=1e-9)
    phase = torch.exp(torch.tensor(1j, dtype=torch.complex128))
    turned = PhaseRetrieval.measure(problem.operator, problem.truth * phase)
    torch.testing.assert_close(spectral_start(turned, kind), z, rtol=1e-7, atol=1e-9)


def test_bad_input_is_named():
    problem = PhaseRetrieval.random(5, 40, generator=seeded())
    with pytest.raises(ValueError, match=r"kind must be one of .*did you mean 'optimal'"):
        spectral_start(problem, "optimall")
    with pytest.raises(ValueError, match="clip must be <= 0"):
        spectral_start(problem, clip=1.0)
    with pytest.raises(ValueError, match="tol must be > 0"):
        spectral_start(problem, tol=0.0)
