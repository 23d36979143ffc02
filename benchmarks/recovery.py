"""Recovery of low-rank matrices: linear time, batches, gross errors, real ratings."""

from __future__ import annotations

import functools
import importlib.util
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import torch
from memory import peak_bytes
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


def one_pass(problem: MatrixCompletion, x: LowRank) -> LowRank:
    """One scaled step, with its misfit."""
    return scaled_step(x, problem.pull_back(problem.misfit(x)), 0.5)


def slope_of_time(most: float, settings: Settings) -> float:
    """Slope of log time of one pass on log entries, from 1e5 up; minima of interleaved passes."""
    sizes = (300, 1000) if settings.tiny else (1e5, 3e5, 1e6, *([3e6, 1e7] if most >= 1e7 else ()))
    side = 50 if settings.tiny else SIDE
    passes = {
        str(size): Contender(functools.partial(one_pass, *completion(int(size), side)))
        for size in sizes
    }
    times = interleaved(passes, 1 if settings.tiny else 9, min(settings.warm_up, 1))
    logs = [math.log(size) for size in sizes]
    return statistics.linear_regression(logs, [math.log(s.least) for s in times.values()]).slope


def measure_slopes(names: Collection[str], settings: Settings) -> Mapping[str, Sample]:
    slopes = {name: slope_of_time(float(name.split()[-1]), settings) for name in names}
    return {name: Sample([abs(s - 1) if "distance" in name else s]) for name, s in slopes.items()}


def measure_memory(names: Collection[str], settings: Settings) -> Mapping[str, Sample]:
    """Bytes per entry that one pass needs beside the problem, at most at one time."""
    entries, side = (1000, 50) if settings.tiny else (3_000_000, SIDE)
    problem, x = completion(entries, side)
    peak = peak_bytes(lambda: one_pass(problem, x))
    return dict.fromkeys(names, Sample([peak / len(problem.rows)]))


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
    chosen = {name: contender for name, contender in contenders.items() if name in names}
    rounds = min(settings.rounds, 3)
    measured = interleaved(chosen, rounds, min(settings.warm_up, 1))
    return {name: measured.get(name, Sample([math.nan])) for name in names}


class Ratings:
    """MovieLens, 100 000 ratings; a fifth of them is kept for the test."""

    shape, best = (671, 9066), 12.0

    def __init__(self) -> None:
        from thalweg.data import load

        data = load("movielens")
        order = torch.randperm(len(data.targets), generator=seeded())
        fifth = len(order) // 5
        self.test, self.train = order[:fifth], order[fifth:]
        self.users, self.films = data.inputs.T
        self.stars = data.targets.double()

    def alternating(self) -> torch.Tensor:
        """Means of users and films, then two sweeps over what is left; the test predictions."""
        users, films = self.users[self.train], self.films[self.train]
        means = self.means(users, films, self.stars[self.train])
        left = self.stars[self.train] - sum_of(means, users, films)
        problem = MatrixCompletion(users, films, left, self.shape, RANK, ridge=self.best)
        x = alternating_minimization(problem, max_steps=2).x
        users, films = self.users[self.test], self.films[self.test]
        return sum_of(means, users, films) + (x.U[users] * x.V[films]).sum(-1)

    def means(
        self, users: torch.Tensor, films: torch.Tensor, stars: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of all, and the deviations of users and films, each as if three more had had none."""
        overall = stars.mean()
        of_users, of_films = (overall.new_zeros(n) for n in self.shape)
        numbers = [
            torch.bincount(k, minlength=n) + 3
            for k, n in zip((users, films), self.shape, strict=True)
        ]
        for _ in range(3):
            left = stars - overall - of_users[users]
            of_films = torch.zeros_like(of_films).index_add(0, films, left) / numbers[1]
            left = stars - overall - of_films[films]
            of_users = torch.zeros_like(of_users).index_add(0, users, left) / numbers[0]
        return overall, of_users, of_films

    def trainset(self) -> Any:
        from surprise import Trainset

        of_users, of_films = defaultdict(list), defaultdict(list)
        kept = (self.users, self.films, self.stars)
        for user, film, star in zip(*(t[self.train].tolist() for t in kept), strict=True):
            of_users[user].append((film, star))
            of_films[film].append((user, star))
        ids = [{k: k for k in range(n)} for n in self.shape]
        return Trainset(of_users, of_films, *self.shape, len(self.train), (0.5, 5), *ids)

    def stochastic(self, trainset: Any) -> torch.Tensor:
        """The peer, with the rate, decay and epochs that were best on a grid for it."""
        from surprise import SVD

        fitted = SVD(RANK, n_epochs=20, lr_all=0.02, reg_all=0.1, random_state=0).fit(trainset)
        users, films = self.users[self.test], self.films[self.test]
        U, V, *means = map(torch.as_tensor, (fitted.pu, fitted.qi, fitted.bu, fitted.bi))
        overall = torch.tensor(trainset.global_mean)
        return sum_of((overall, *means), users, films) + (U[users] * V[films]).sum(-1)

    def rmse(self, predicted: torch.Tensor) -> float:
        return float((predicted.clamp(0.5, 5) - self.stars[self.test]).square().mean().sqrt())


def sum_of(
    means: tuple[torch.Tensor, ...], users: torch.Tensor, films: torch.Tensor
) -> torch.Tensor:
    return means[0] + means[1][users] + means[2][films]


ALS, SVD = "alternating minimization", "surprise SVD"


def time_ratings(names: Collection[str], settings: Settings) -> Mapping[str, Sample]:
    """Milliseconds from the ratings to the predictions; ours may not predict worse."""
    ratings = Ratings()
    contenders = {ALS: Contender(ratings.alternating)}
    if importlib.util.find_spec("surprise") is not None:
        trainset = ratings.trainset()  # not in its time
        contenders[SVD] = Contender(lambda: ratings.stochastic(trainset))
        ours, theirs = (ratings.rmse(c.run()) for c in contenders.values())
        if ours > theirs:
            raise RuntimeError(f"the test error is {ours:.4f}, above the peer's {theirs:.4f}")
    elif SVD in names:
        print("skipped: surprise is not installed (scikit-surprise)", file=sys.stderr)
    chosen = {name: contender for name, contender in contenders.items() if name in names}
    measured = interleaved(chosen, min(settings.rounds, 7), min(settings.warm_up, 1))
    return {name: measured.get(name, Sample([math.nan])) for name in names}


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
        [
            Comparison(
                "10 000 x 10 000, 1e5 to 1e7 entries",
                "distance of the slope from 1, up to 1e7",
                limit=0.1,
            )
        ],
        measure_slopes,
        heavy=True,
    ),
    Suite(
        "recovery: memory of one pass",
        "bytes an entry",
        [Comparison("3e6 entries; the matrix itself would take 270", "one pass", limit=48.0)],
        measure_memory,
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
        ],
        time_solvers,
    ),
    Suite(
        "recovery: ratings",
        "ms",
        [
            Comparison("MovieLens 100k, rank 8, to a test RMSE of 0.883", ALS, limit=10_000.0),
            Comparison("MovieLens 100k, rank 8, to a test RMSE of 0.883", ALS, SVD, 1.0),
        ],
        time_ratings,
    ),
)
