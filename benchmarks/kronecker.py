"""Sparse Bayesian learning behind a Kronecker product: with its structure, and without."""

from __future__ import annotations

from collections.abc import Collection

import torch
from sklearn.linear_model import ARDRegression
from timing import Comparison, Contender, Sample, Settings, Suite, interleaved

from thalweg.solve.recovery import KroneckerSparse, kronecker_sbl
from thalweg.solve.recovery.kronecker import outer
from thalweg.solve.recovery.kronecker_steps import classical_expectation, expectation


def instance(settings: Settings, dtype: torch.dtype) -> KroneckerSparse:
    """512 measurements of 1000 unknowns."""
    generator = torch.Generator().manual_seed(0)
    m, n = (4, 5) if settings.tiny else (8, 10)
    return KroneckerSparse.random((m, m, m), (n, n, n), dtype=dtype, generator=generator)


def time_steps(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Milliseconds of one E-step, nothing pruned."""
    problem = instance(settings, torch.complex128)
    y, H = problem.y.reshape(problem.measured), problem.dense()
    factors = [torch.ones(n, dtype=torch.float64) for n in problem.unknowns]
    gamma, noise = outer(factors).flatten(), torch.tensor(0.01, dtype=torch.float64)
    contenders = {
        "expectation": Contender(lambda: expectation(problem.dictionaries, y, factors, noise)),
        "classical_expectation": Contender(
            lambda: classical_expectation([H], problem.y, [gamma], noise)
        ),
    }
    chosen = {name: contender for name, contender in contenders.items() if name in names}
    return interleaved(chosen, min(settings.rounds, 10), min(settings.warm_up, 1))


def time_runs(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Milliseconds until a method stops by its own tolerance, real data."""
    problem = instance(settings, torch.float64)
    H, y = problem.dense().numpy(), problem.y.numpy()
    contenders = {
        "kronecker_sbl": Contender(lambda: kronecker_sbl(problem)),
        'kronecker_sbl, "svd"': Contender(lambda: kronecker_sbl(problem, update="svd")),
        "sklearn ARDRegression": Contender(lambda: ARDRegression(fit_intercept=False).fit(H, y)),
    }
    chosen = {name: contender for name, contender in contenders.items() if name in names}
    return interleaved(chosen, min(settings.rounds, 3), 0)


SUITES = (
    Suite(
        "sparse Bayesian learning",
        "ms",
        [Comparison("E-step, 512 x 1000", "expectation", "classical_expectation", 0.05)],
        time_steps,
    ),
    Suite(
        "sparse Bayesian learning, whole runs",
        "ms",
        [
            Comparison("512 x 1000, 8 entries", ours, "sklearn ARDRegression", 0.05)
            for ours in ("kronecker_sbl", 'kronecker_sbl, "svd"')
        ],
        time_runs,
        heavy=True,  # half a minute a run of the peer
    ),
)
