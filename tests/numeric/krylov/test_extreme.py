"""Both ends of a spectrum: exact cases, bounds that hold, invariances, memory, bad input."""

from __future__ import annotations

import math

import numpy
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thalweg.numeric.krylov import ExtremeEigenvalues, extreme_eigenvalues, krylov_epsilon
from thalweg.numeric.operator import Counted, as_operator

DELTA = 0.05


def symmetric(n: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    B = torch.randn(n, n, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return (B + B.mH) / (2 * n**0.5)


def rotated(eigenvalues: Tensor, seed: int) -> Tensor:
    n = len(eigenvalues)
    B = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    Q = torch.linalg.qr(B)[0]
    A = (Q * eigenvalues) @ Q.T
    return (A + A.T) / 2


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def power_iteration(A: Tensor, generator: torch.Generator, steps: int = 100, tol: float = 1e-3):
    """The loop of pyhessian 0.1, `hessian.eigenvalues(maxIter=100, tol=1e-3, top_n=1)`."""
    v = torch.randn(len(A), dtype=A.dtype, generator=generator)
    v, value = v / (v.norm() + 1e-6), None
    for products in range(1, steps + 1):  # noqa: B007
        Hv = A @ v
        new = float(Hv @ v)
        v = Hv / (Hv.norm() + 1e-6)
        if value is not None and abs(value - new) / (abs(value) + 1e-6) < tol:
            break
        value = new
    return value, products


@pytest.mark.parametrize("seed", range(5))
def test_plus_and_minus_one_are_found_exactly_where_power_iteration_fails(seed: int) -> None:
    A = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    found = extreme_eigenvalues(as_operator(A), dense=False, generator=seeded(seed))
    assert found.values.tolist() == pytest.approx([-1.0, 1.0], abs=1e-15)
    assert found.steps == 2 and float(found.residuals.max()) <= 1e-15
    assert -1 - 1e-13 <= found.lower_bound <= -1 and 1 <= found.upper_bound <= 1 + 1e-13
    # the two eigenvalues tie in modulus: the Rayleigh quotient never moves from its start
    value, products = power_iteration(A, seeded(seed))
    assert products == 2 and abs(abs(value) - 1) > 0.01


def ensembles(d: int, seed: int) -> Tensor:
    """Eigenvalues of four kinds: semicircle, few outliers, decaying, a gap in the middle."""
    x = torch.rand(d, dtype=torch.float64, generator=seeded(seed))
    kinds = (
        lambda: torch.linalg.eigvalsh(symmetric(d, seed)),
        lambda: torch.cat([1 + 50 * x[:5], 0.1 * (x[5:] - 0.3)]),
        lambda: torch.arange(1, d + 1, dtype=torch.float64) ** -2.0 * (x - 0.2).sign(),
        lambda: torch.where(x < 0.5, x - 1, x + 1),
    )
    return kinds[seed % 4]()


def violations(count: int, steps: int, d: int = 200, **how) -> int:
    bad = 0
    for seed in range(count):
        # Lanczos from a start uniform on the sphere sees only the eigenvalues
        values = ensembles(d, seed)
        operator = as_operator(lambda v, t=values: t * v if v.ndim == 1 else t[:, None] * v, d,
                               torch.float64)  # fmt: skip
        found = extreme_eigenvalues(operator, steps=steps, delta=DELTA, dense=False,
                                    generator=seeded(seed), **how)  # fmt: skip
        low, high = float(values.min()), float(values.max())
        assert low <= found.lowest + found.noise and found.highest - found.noise <= high
        bad += not (found.lower_bound <= low and high <= found.upper_bound)
    return bad


@pytest.mark.parametrize(
    "how",
    [
        {"steps": 20},
        {"steps": 40},
        {"steps": 4},
        {"steps": 20, "starts": 3},
        {"steps": 10, "block": 3},
        {"steps": 60, "memory": 200 * 8 * 20},
        {"steps": 60, "tol": 1e-2},
    ],
    ids=str,
)
def test_the_bound_is_violated_at_most_as_often_as_it_says(how) -> None:
    count = 40
    assert violations(count, **how) <= DELTA * count


@pytest.mark.slow
@pytest.mark.parametrize("steps", [20, 40])
def test_the_bound_is_violated_at_most_as_often_as_it_says_1000_matrices(steps: int) -> None:
    assert violations(1000, steps) <= DELTA * 1000


def test_a_start_without_the_extreme_eigenvector_violates_the_bound() -> None:
    # the probability is about the start: here it is wrong on purpose, and the bound fails
    values = torch.cat([torch.linspace(-1, 1, 599).double(), torch.tensor([5.0]).double()])

    class Blind:
        shape, dtype, device = (600, 600), torch.float64, torch.device("cpu")

        def __matmul__(self, v: Tensor) -> Tensor:
            d = values.clone()
            d[-1] = 0.0
            return d[:, None] * v if v.ndim == 2 else d * v

    found = extreme_eigenvalues(Blind(), steps=100)
    assert found.upper_bound < 5.0 and found.upper_bound == pytest.approx(1.0, abs=0.02)


def test_a_triple_eigenvalue_is_found_by_a_block_of_four_only() -> None:
    values = torch.cat([torch.linspace(-1, 1, 597).double(), torch.full((3,), 3.0).double()])
    A = as_operator(rotated(values, 0))
    one = extreme_eigenvalues(A, 4, steps=20)  # rounding brings copies, some steps later
    four = extreme_eigenvalues(A, 4, steps=20, block=4)
    assert int((one.values > 2.999).sum()) == 1
    assert four.values[-4:].tolist() == pytest.approx([1.0, 3.0, 3.0, 3.0], abs=1e-2)
    assert four.values[-3:].tolist() == pytest.approx([3.0] * 3, abs=1e-10)
    V = four.vectors[:, -3:]
    assert float((V.T @ V - torch.eye(3)).abs().max()) <= 1e-10


@given(exponent=st.integers(-8, 8), seed=st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_scaling_the_operator_scales_everything(exponent: int, seed: int) -> None:
    A, c = symmetric(150, seed), 10.0**exponent
    plain = extreme_eigenvalues(as_operator(A), 2, steps=30, dense=False)
    scaled = extreme_eigenvalues(as_operator(c * A), 2, steps=30, dense=False)
    for name in ("lower_bound", "upper_bound", "lowest", "highest", "noise"):
        assert getattr(scaled, name) == pytest.approx(c * getattr(plain, name), rel=1e-9)
    assert torch.allclose(scaled.residuals, c * plain.residuals, rtol=1e-6, atol=1e-12 * c)
    assert scaled.n_products == plain.n_products and scaled.eps == plain.eps


@given(shift=st.floats(-3, 3), seed=st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_shifting_the_operator_shifts_the_bounds(shift: float, seed: int) -> None:
    A = symmetric(150, seed)
    eye = torch.eye(150, dtype=torch.float64)
    plain = extreme_eigenvalues(as_operator(A), steps=25, dense=False)
    shifted = extreme_eigenvalues(as_operator(A + shift * eye), steps=25, dense=False)
    for name in ("lower_bound", "upper_bound", "lowest", "highest"):
        assert getattr(shifted, name) == pytest.approx(getattr(plain, name) + shift, abs=1e-11)


@pytest.mark.parametrize(
    "how", [{}, {"block": 3}, {"starts": 2}, {"memory": 24 * 600 * 8}], ids=str
)
def test_residuals_and_vectors_are_what_they_say(how) -> None:
    A = symmetric(600, 5)
    found = extreme_eigenvalues(as_operator(A), 2, steps=40, **how)
    Y = found.vectors
    fresh = torch.linalg.vector_norm(A @ Y - Y * found.values, dim=0)
    norm = float(torch.linalg.matrix_norm(A, 2))
    assert float((fresh - found.residuals).abs().max()) <= 1e-8 * norm
    assert float((Y.T @ Y - torch.eye(4)).abs().max()) <= 1e-12
    exact = torch.linalg.eigvalsh(A)
    for value, residual in zip(found.values, found.residuals):  # fact (b)
        assert float((exact - value).abs().min()) <= float(residual) + found.noise


def test_agrees_with_arpack() -> None:
    A = symmetric(600, 2)
    found = extreme_eigenvalues(as_operator(A), 3, steps=400, tol=1e-10)
    low = numpy.sort(scipy.sparse.linalg.eigsh(A.numpy(), 3, which="SA", return_eigenvectors=False))
    high = numpy.sort(
        scipy.sparse.linalg.eigsh(A.numpy(), 3, which="LA", return_eigenvectors=False)
    )
    assert found.values.numpy() == pytest.approx(numpy.concatenate([low, high]), abs=1e-8)


def test_several_starts_and_lobpcg_agree_with_the_dense_path() -> None:
    A = as_operator(symmetric(510, 7))
    exact = extreme_eigenvalues(A, 2, dense=True)
    assert exact.dense and exact.eps == 0 and exact.n_products == 510
    for how in ({"starts": 2}, {"block": 2}, {"method": "lobpcg"}, {"memory": 30 * 510 * 8}):
        found = extreme_eigenvalues(A, 2, steps=400, tol=1e-8, dense=False, **how)
        assert found.values.tolist() == pytest.approx(exact.values.tolist(), abs=1e-8)
        assert found.lower_bound <= exact.lowest and exact.highest <= found.upper_bound
    lowest = extreme_eigenvalues(A, 2, method="lobpcg", steps=400)
    assert lowest.lower_bound == -math.inf and "no bound" in str(lowest)


def test_dense_below_500_unless_told_otherwise() -> None:
    A = symmetric(499, 1)
    found = extreme_eigenvalues(as_operator(A), 3)
    exact = torch.linalg.eigvalsh(A)
    assert found.dense and found.n_products == 499 and found.delta == 0
    assert torch.allclose(found.values, torch.cat([exact[:3], exact[-3:]]), atol=1e-13)
    assert found.lower_bound == pytest.approx(float(exact[0]), abs=1e-12)
    assert not extreme_eigenvalues(as_operator(A), dense=False).dense
    assert not extreme_eigenvalues(as_operator(symmetric(500, 1))).dense
    assert extreme_eigenvalues(as_operator(symmetric(500, 1)), steps=500).dense  # no dearer
    assert len(extreme_eigenvalues(as_operator(symmetric(3, 1)), 5).values) == 3


def test_an_invariant_space_that_misses_an_eigenvalue_is_started_again() -> None:
    # I + 1e-3 e e^T in single precision: every product looks like the identity
    d = 100_000
    e = torch.randn(d, generator=seeded(9))
    e /= torch.linalg.vector_norm(e, dtype=torch.float64).float()

    def product(v: Tensor) -> Tensor:
        return v + 1e-3 * e * (e @ v)

    A = as_operator(product, d, torch.float32, columnwise=True)
    once = extreme_eigenvalues(A, delta=1e-2)
    assert once.steps <= 3 and once.upper_bound >= 1.001
    again = extreme_eigenvalues(A, delta=1e-2, tol=1e-3)
    # every claim that might have been made has its share of delta: 1/2, 1/4, ...
    share = 1e-2 / 2**again.starts
    assert again.starts > 1
    assert again.eps == pytest.approx(krylov_epsilon(d, 1, share, again.starts))  # shortest: 1 step
    assert 1.001 - 1e-5 <= again.upper_bound <= max(once.upper_bound, 1.01)


def test_noise_of_single_precision_enters_the_interval() -> None:
    A = symmetric(600, 3)
    exact = torch.linalg.eigvalsh(A)
    found = extreme_eigenvalues(as_operator(A.float()), steps=200)
    assert found.noise == pytest.approx(1e-6 * 1.42, rel=0.1)
    assert found.lower_bound <= float(exact[0]) - found.noise / 2
    assert abs(found.lowest - float(exact[0])) <= found.noise
    wide = extreme_eigenvalues(as_operator(A.float()), steps=200, noise=0.1)
    assert wide.lower_bound == pytest.approx(found.lower_bound - 0.1 + found.noise, abs=1e-6)


def test_memory_bounds_the_basis_and_the_bounds_are_those_of_the_first_cycle() -> None:
    A = as_operator(symmetric(600, 3))
    short = extreme_eigenvalues(A, steps=100, memory=20 * 600 * 8)
    first = extreme_eigenvalues(A, steps=20)
    full = extreme_eigenvalues(A, steps=100)
    assert short.eps == first.eps > full.eps
    assert short.lower_bound == pytest.approx(first.lower_bound, 1e-12)
    assert short.lower_bound < full.lower_bound
    assert short.lowest == pytest.approx(full.lowest, abs=1e-6)
    with pytest.raises(ValueError, match="memory must be >= "):
        extreme_eigenvalues(A, memory=2 * 600 * 8)


def test_stopping_early_costs_fewer_products_and_less_certainty() -> None:
    values = torch.cat([torch.tensor([-2.0, 10.0]).double(), torch.linspace(-0.1, 0.1, 998)])
    A = Counted(as_operator(torch.diag(values)))
    found = extreme_eigenvalues(A, tol=1e-3, steps=200)
    assert found.n_products == A.n_products <= 30
    assert (found.lowest, found.highest) == (pytest.approx(-2, abs=1e-4), pytest.approx(10, 1e-4))
    assert float(found.residuals.max()) <= 1e-3 * 10
    assert found.lower_bound < extreme_eigenvalues(A, steps=200).lower_bound <= -2


def test_complex_hermitian_operators() -> None:
    A = symmetric(520, 4, torch.complex128)
    found = extreme_eigenvalues(as_operator(A), 2, steps=250, tol=1e-9)
    exact = torch.linalg.eigvalsh(A)
    assert torch.allclose(found.values, torch.cat([exact[:2], exact[-2:]]), atol=1e-9)
    assert found.vectors.dtype == torch.complex128


def test_reproducible_by_generator_and_the_global_one_is_untouched() -> None:
    A = as_operator(symmetric(600, 8))
    state = torch.get_rng_state()
    first, second, other = (
        extreme_eigenvalues(A, steps=10, generator=g) for g in (None, seeded(0), seeded(1))
    )
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.values, second.values) and first.lower_bound == second.lower_bound
    assert not torch.equal(first.values, other.values)


def test_it_prints_what_it_knows() -> None:
    A = as_operator(symmetric(600, 8))
    text = str(extreme_eigenvalues(A, 2, steps=50))
    assert "lambda_min in [" in text and "probability >= 0.999" in text and "54 products" in text
    assert "all eigenvalues" in str(extreme_eigenvalues(A, dense=True))
    assert isinstance(extreme_eigenvalues(A, steps=3), ExtremeEigenvalues)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"k": 0}, "k must be"),
        ({"steps": 0}, "steps must be"),
        ({"tol": 0.0}, "tol must be"),
        ({"delta": 1.0}, "delta must be"),
        ({"starts": 0}, "starts must be"),
        ({"block": 0}, "block must be"),
        ({"memory": 0}, "memory must be"),
        ({"noise": -1.0}, "noise must be"),
        ({"method": "lanzcos"}, "did you mean 'lanczos'"),
        ({"dense": "yes"}, "dense must be one of"),
    ],
)
def test_bad_input_is_named(how, text) -> None:
    with pytest.raises(ValueError, match=text):
        extreme_eigenvalues(as_operator(symmetric(10, 0)), **how)


@pytest.mark.parametrize("dense", [True, False])
def test_unsymmetric_and_non_finite_operators_are_refused(dense: bool) -> None:
    B = torch.randn(40, 40, dtype=torch.float64, generator=seeded(0))
    with pytest.raises(ValueError, match="symmetric"):
        extreme_eigenvalues(as_operator(B), dense=dense)
    with pytest.raises(ValueError, match="not finite"):
        extreme_eigenvalues(as_operator(B.T @ B * math.inf), dense=dense)
