"""Spectral density: atoms, moments, quadrature bounds, the semicircle, breakdown, memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from thalweg.curvature.density import density
from thalweg.numeric.operator import Counted, as_operator

ATOMS = torch.tensor([1.0] * 50 + [5.0] * 30 + [-2.0] * 20, dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotated(eigenvalues: Tensor, seed: int = 0) -> Tensor:
    n = len(eigenvalues)
    Q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=seeded(seed)))[0]
    A = (Q * eigenvalues) @ Q.T
    return (A + A.T) / 2


def gaussian_orthogonal_ensemble(d: int, seed: int) -> Tensor:
    """Spectrum on [-1, 1] as d grows."""
    B = torch.randn(d, d, dtype=torch.float64, generator=seeded(seed))
    return (B + B.T) / math.sqrt(8 * d)


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_atoms_of_a_rotated_matrix(probe) -> None:
    found = density(as_operator(rotated(ATOMS)), probes=10, probe=probe)
    nodes, weights = torch.stack(found.nodes), torch.stack(found.weights)
    assert nodes.shape == (10, 3)  # the space is invariant after three steps
    assert float((nodes - torch.tensor([-2.0, 1.0, 5.0])).abs().max()) <= 1e-10
    for share, mean in zip((0.2, 0.5, 0.3), weights.mean(0).tolist()):
        assert abs(mean - share) <= 4 * math.sqrt(2 * share * (1 - share) / (10 * 100))
    assert found.n_products == 30


def test_atoms_of_a_diagonal_matrix_are_exact_with_one_rademacher_probe() -> None:
    found = density(as_operator(torch.diag(ATOMS)), probes=1)
    assert found.nodes[0].tolist() == pytest.approx([-2.0, 1.0, 5.0], abs=1e-12)
    assert found.weights[0].tolist() == pytest.approx([0.2, 0.5, 0.3], abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_weights_sum_to_one_and_the_curve_integrates_to_one(dtype: torch.dtype) -> None:
    A = gaussian_orthogonal_ensemble(300, 0).to(dtype)
    for scale in (1e-6, 1.0, 1e6):
        found = density(as_operator(A * scale), steps=40, probes=4)
        assert all(float(w.sum()) == pytest.approx(1, abs=1e-6) for w in found.weights)
        x, y, stderr = found.curve()
        assert float(torch.trapezoid(y, x)) == pytest.approx(1, abs=1e-3)
        assert found.sigma == pytest.approx(0.01 * (found.highest - found.lowest))
        assert float(x[0]) == pytest.approx(found.lowest - 5 * found.sigma, rel=1e-9)
        assert bool((stderr >= 0).all()) and float(stderr.max()) > 0


def test_the_curve_is_the_sum_of_gaussians() -> None:
    found = density(as_operator(gaussian_orthogonal_ensemble(60, 0)), steps=6, probes=2)
    x = torch.tensor([-0.3, 0.1, 2.0], dtype=torch.float64)
    expected = [
        sum(
            float(w) * math.exp(-((float(p) - float(t)) ** 2) / (2 * 0.2**2))
            for t, w in zip(torch.cat(found.nodes), torch.cat(found.weights))
        )
        / (2 * 0.2 * math.sqrt(2 * math.pi))
        for p in x
    ]
    assert found.curve(x, sigma=0.2).y.tolist() == pytest.approx(expected, rel=1e-12)


def semicircle_distance(d: int) -> float:
    found = density(as_operator(gaussian_orthogonal_ensemble(d, 1)))
    x, y, _ = found.curve()
    law = 2 / math.pi * torch.sqrt((1 - x**2).clamp_min(0))
    return float(torch.trapezoid((y - law).abs(), x))


def test_the_semicircle_law() -> None:
    assert semicircle_distance(1000) < 0.1


def test_moments_are_those_of_the_quadratic_forms() -> None:
    A = gaussian_orthogonal_ensemble(80, 2) + 0.3 * torch.eye(80, dtype=torch.float64)
    found = density(as_operator(A), steps=5, probes=6, generator=seeded(4))
    generator = seeded(4)
    V = torch.stack(
        [2.0 * torch.randint(2, (80, 1), generator=generator)[:, 0] - 1 for _ in range(6)], dim=1
    ).double() / math.sqrt(80)
    for order in range(10):  # 2 k - 1
        forms = (V * (torch.linalg.matrix_power(A, order) @ V)).sum(0)
        estimate = found.moment(order)
        assert estimate.value == pytest.approx(float(forms.mean()), rel=1e-10)
        assert estimate.stderr == pytest.approx(float(forms.std()) / math.sqrt(6), abs=1e-10)
        assert estimate.samples == 6
    beyond = (V * (torch.linalg.matrix_power(A, 10) @ V)).sum(0)
    assert found.moment(10).value != pytest.approx(float(beyond.mean()), rel=1e-10)


def test_quadrature_bounds_hold_for_the_measure_of_every_probe() -> None:
    A = gaussian_orthogonal_ensemble(120, 3)
    values, vectors = torch.linalg.eigh(A)
    for steps in (2, 4, 8):
        for seed in range(20):
            found = density(as_operator(A), steps=steps, probes=1, generator=seeded(seed))
            v = 2.0 * torch.randint(2, (120,), generator=seeded(seed)) - 1
            measure = (vectors.T @ v.double()) ** 2 / 120
            for level in (-0.9, -0.5, 0.0, 0.4, 1.2):
                mass = float(measure[values <= level].sum())
                below = found.mass_below(level)
                assert below.lower.value - 1e-12 <= mass <= below.upper.value + 1e-12
                assert below.lower.value <= below.estimate.value <= below.upper.value


def test_the_mass_of_negative_curvature_and_its_standard_error() -> None:
    spectrum = torch.cat([torch.full((300,), -1.0), torch.linspace(1, 2, 700)]).double()
    found = density(as_operator(rotated(spectrum)), steps=30, probes=20)
    below = found.mass_below(-0.5)
    assert below.estimate.samples == 20
    # sd of one probe is about sqrt(2 p (1 - p) / d)
    assert below.estimate.stderr == pytest.approx(math.sqrt(2 * 0.21 / 1000 / 20), rel=0.6)
    assert abs(below.estimate.value - 0.3) <= 4 * below.estimate.stderr
    assert found.mass_below(-10).estimate.value == 0 and found.mass_below(10).estimate.value == 1


def test_probes_side_by_side_are_probes_one_after_another() -> None:
    A = gaussian_orthogonal_ensemble(150, 5)
    counted = Counted(as_operator(A))
    together = density(counted, steps=20, probes=5)
    apart = density(as_operator(A), steps=20, probes=5, memory=20 * 150 * 8)
    pairs = density(as_operator(A), steps=20, probes=5, memory=40 * 150 * 8)
    assert counted.n_products == together.n_products == apart.n_products == 100
    for other in (apart, pairs):
        for t, s in zip(together.nodes, other.nodes):
            assert torch.allclose(t, s, atol=1e-12)


def test_little_memory_takes_fewer_steps_and_says_so() -> None:
    A = as_operator(gaussian_orthogonal_ensemble(100, 0))
    with pytest.warns(UserWarning, match="steps = 7"):
        found = density(A, steps=20, probes=2, memory=7 * 100 * 8)
    assert found.steps == 7 and len(found.nodes[0]) == 7
    with pytest.raises(ValueError, match="memory must be >= 800"):
        density(A, memory=700)


def test_more_steps_than_the_order_are_cut_off() -> None:
    found = density(as_operator(rotated(torch.arange(5).double())), steps=100, probes=2)
    assert found.steps == 5 and found.n_products == 10
    assert found.nodes[0].tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0], abs=1e-10)


def test_reproducible_by_generator_and_the_global_one_is_untouched() -> None:
    A = as_operator(gaussian_orthogonal_ensemble(100, 0))
    state = torch.get_rng_state()
    first, second, other = (
        density(A, steps=5, probes=2, generator=g) for g in (None, seeded(0), seeded(1))
    )
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.nodes[1], second.nodes[1])
    assert not torch.equal(first.nodes[1], other.nodes[1])


def test_a_constant_spectrum_has_a_curve() -> None:
    for c in (0.0, 3.0):
        found = density(as_operator(c * torch.eye(30, dtype=torch.float64)), probes=1)
        x, y, stderr = found.curve()
        assert float(torch.trapezoid(y, x)) == pytest.approx(1, abs=1e-3)
        assert bool(stderr.isnan().all())
        assert "no error bar" in str(found)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"steps": 0}, "steps must be"),
        ({"probes": 0}, "probes must be"),
        ({"probe": "radermacher"}, "did you mean 'rademacher'"),
        ({"memory": 0}, "memory must be"),
        ({"noise": -1}, "noise must be"),
    ],
)
def test_bad_input_is_named(how, text) -> None:
    with pytest.raises(ValueError, match=text):
        density(as_operator(torch.eye(3)), **how)


def test_non_finite_and_unsymmetric_operators_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        density(as_operator(torch.full((3, 3), math.nan)))
    with pytest.raises(ValueError, match="symmetric"):
        density(as_operator(torch.randn(30, 30, dtype=torch.float64, generator=seeded(0))))
