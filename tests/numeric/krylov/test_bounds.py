"""What may be claimed about eigenvalues that were not seen."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.numeric.krylov import (
    RunEnds,
    invariance_allowance,
    krylov_epsilon,
    lanczos,
    random_start_bounds,
    width_allowance,
)
from thalweg.numeric.krylov.lanczos import sphere
from thalweg.numeric.operator import as_operator


@given(d=st.integers(1, 10**9), k=st.integers(1, 1000), delta=st.floats(1e-9, 0.5),
       r=st.integers(1, 8))  # fmt: skip
def test_epsilon_solves_the_inequality_of_kuczynski_and_wozniakowski(d, k, delta, r) -> None:
    eps = krylov_epsilon(d, k, delta, r)
    failure = 1.648 * math.sqrt(d) * math.exp(-math.sqrt(eps) * (2 * k - 1))
    assert failure**r == pytest.approx(delta / 2, rel=1e-6)


def test_the_numbers_of_the_card() -> None:
    assert krylov_epsilon(10**6, 100, 1e-3) == pytest.approx(5.7e-3, rel=0.01)
    assert krylov_epsilon(10**6, 400, 1e-3) == pytest.approx(3.5e-4, rel=0.02)
    # one run of r k steps is sharper than r runs of k
    assert krylov_epsilon(10**6, 400, 1e-3) < krylov_epsilon(10**6, 100, 1e-3, starts=4)
    assert math.isinf(width_allowance(1.0, 0.5)) and width_allowance(1.0, 0.4) == pytest.approx(2.0)
    assert invariance_allowance(10**4, 1e-3, 1e-2) == pytest.approx(1.648 * 100 * 1e-3 / 1e-2)
    assert invariance_allowance(10**4, 1e-3, 1e-2, 2) == pytest.approx(1.648 * 100 * 1e-3 / 1e-1)


def test_the_smaller_allowance_is_taken_at_each_end() -> None:
    wide, narrow = RunEnds(-1.0, 2.0, 1e9, 100), RunEnds(-1.0, 2.0, 0.0, 1)
    by_width = random_start_bounds(1000, [wide], 1e-3)
    allowed = width_allowance(3.0, krylov_epsilon(1000, 100, 1e-3))
    assert by_width.lower == pytest.approx(-1 - allowed)
    assert by_width.upper == pytest.approx(2 + allowed)
    by_invariance = random_start_bounds(1000, [narrow], 1e-3)
    assert (by_invariance.lower, by_invariance.upper) == (-1.0, 2.0)
    few = random_start_bounds(1000, [RunEnds(-1.0, 2.0, 1.0, 2)], 1e-3)  # eps >= 1/2
    assert few.upper == pytest.approx(2 + invariance_allowance(1000, 1.0, 1e-3))


def test_of_several_runs_the_loosest_invariance_bound_counts() -> None:
    # which of the starts was good is unknown: an invariant run proves nothing alone
    runs = [RunEnds(0.0, 1.0, 0.0, 1), RunEnds(0.0, 1.0, 1e-4, 1)]
    bounds = random_start_bounds(100, runs, 1e-2)
    assert bounds.lower == pytest.approx(-invariance_allowance(100, 1e-4, 1e-2, 2))
    runs = [RunEnds(0.5, 1.0, 0.0, 1), RunEnds(0.0, 0.9, 0.0, 1)]
    bounds = random_start_bounds(100, runs, 1e-2)
    assert (bounds.lower, bounds.upper) == (0.0, 1.0)


def test_noise_widens_both_ends() -> None:
    exact = random_start_bounds(100, [RunEnds(-1.0, 1.0, 0.1, 30)], 1e-2)
    noisy = random_start_bounds(100, [RunEnds(-1.0, 1.0, 0.1, 30)], 1e-2, noise=0.25)
    assert noisy.lower == pytest.approx(exact.lower - 0.25)
    assert noisy.upper == pytest.approx(exact.upper + 0.25)


def test_the_invariance_bound_follows_from_the_component_of_the_start() -> None:
    # (t_1 - lambda_1) |<q_1, e_1>| <= beta_k, whatever the start
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        B = torch.randn(30, 30, dtype=torch.float64, generator=generator)
        A = B + B.T
        values, vectors = torch.linalg.eigh(A)
        q = sphere(30, 1, generator, torch.float64)
        for steps in (1, 3, 8):
            process = lanczos(as_operator(A), q, steps)
            t = process.ritz().values
            for value, ritz, e in (
                (values[0], t[0], vectors[:, 0]),
                (values[-1], t[-1], vectors[:, -1]),
            ):
                overlap = float((q[:, 0] @ e).abs())
                assert float((value - ritz).abs()) * overlap <= process.coupling * (1 + 1e-10)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 1, 0.1), "d must be"),
        ((10, 0, 0.1), "steps must be"),
        ((10, 1, 0.0), "delta must be"),
        ((10, 1, 1.0), "delta must be"),
        ((10, 1, 0.1, 0), "starts must be"),
    ],
)
def test_bad_input_is_named(arguments, text) -> None:
    with pytest.raises(ValueError, match=text):
        krylov_epsilon(*arguments)
