r"""Steps against the condition number: gradient descent, and the same with scaled steps (ScaledGD).

Matrices of low rank whose singular values are evenly spaced from 1 to :math:`1/\kappa`, from
Gaussian measurements or from three tenths of their entries. Counted are the steps until the
relative error is 1e-6. Each method's step size is tuned at the largest condition number, on other
matrices, and used at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.core import Result
from thalweg.solve.recovery import (
    MatrixCompletion,
    MatrixSensing,
    gradient_descent,
    scaled_gradient,
)
from thalweg.studies.intervals import above, mean_interval, within
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word, column, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Scaled gradient descent does not mind the condition number",
    paper="Tong, Ma & Chi, JMLR 2021, arXiv:2005.08898",
    year=2021,
    sentence="The number of steps of scaled gradient descent does not depend on the condition "
    "number of the matrix; that of gradient descent grows in proportion to it.",
    expected="the same number of steps for kappa = 1 and 20 to within a fifth, and more than 8 "
    "times as many for gradient descent",
    refuted_by="numbers of scaled steps more than a fifth apart, or fewer than 8 times as many "
    "steps of gradient descent",
)

METHODS: dict[str, Callable[..., Result[Any]]] = {
    "GD": gradient_descent,
    "ScaledGD": scaled_gradient,
}
PROBLEMS = ("sensing", "completion")
KAPPAS = {"smoke": (1, 10), "laptop": (1, 5, 20), "full": (1, 5, 10, 20)}
SEEDS = {"smoke": 2, "laptop": 8, "full": 20}
TUNED_ON = {"smoke": 0, "laptop": 2, "full": 3}
GRID = (0.25, 0.35, 0.5, 0.7, 1.0)
DEFAULT = 0.5
NEAR, MAX_STEPS = 1e-6, 5000
SAME, LEAST_GROWTH, LEAST_POWER = 1.2, 8.0, 0.75


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for every problem, method, step size and matrix: those of the tuning first."""
    hardest = KAPPAS[scale][-1]
    for name in PROBLEMS:
        for method in METHODS:
            tuning: list[Row] = []
            for eta in GRID:
                for k in range(TUNED_ON[scale]):
                    row = solved(scale, name, method, hardest, eta, 10_000 + 1000 * seed + k)
                    tuning.append({**row, "tuning": True})
            yield from tuning
            eta = best_step_size(tuning) if tuning else DEFAULT
            for kappa in KAPPAS[scale]:
                for k in range(SEEDS[scale]):
                    yield partial(solved, scale, name, method, kappa, eta, 1000 * seed + k)


def instance(scale: Scale, name: str, kappa: int, seed: int) -> MatrixSensing | MatrixCompletion:
    """A matrix and what is seen of it: the same for both methods."""
    generator = torch.Generator().manual_seed(seed)
    if name == "sensing":
        n = 15 if scale == "smoke" else 30
        return MatrixSensing.random((n, n), 2, 16 * n, kappa, generator=generator)
    n, rank = {"smoke": (80, 2), "laptop": (120, 3), "full": (300, 5)}[scale]
    return MatrixCompletion.random((n, n), rank, 0.3, kappa, generator=generator)


def solved(scale: Scale, name: str, method: str, kappa: int, eta: float, seed: int) -> Row:
    """The steps of one run until it is near; MAX_STEPS + 1 if it never is."""
    problem = instance(scale, name, kappa, seed)

    def stop(result: Result[Any]) -> None:
        if result.trace["error"][-1] <= NEAR:
            raise StopIteration

    result = METHODS[method](
        problem, step_size=eta, tol=0.0, max_steps=MAX_STEPS, halvings=0, callback=stop
    )
    near = bool(result.trace["error"].min() <= NEAR)
    return {
        "problem": name,
        "method": method,
        "kappa": kappa,
        "step_size": eta,
        "seed": seed,
        "tuning": False,
        "steps": int(result.trace["step"][-1]) if near else MAX_STEPS + 1,
        "near": near,
    }


def best_step_size(tuning: Sequence[Row]) -> float:
    """The step size of the grid with the fewest steps in the mean."""
    means = {eta: column(where(tuning, step_size=eta), "steps").mean() for eta in GRID}
    return min(GRID, key=lambda eta: means[eta])


def verdict(rows: Sequence[Row]) -> Verdict:
    """Student's intervals of the logarithms of ratios, the same seed at both ends."""
    found = where(rows, tuning=False)
    kappas = sorted({int(row["kappa"]) for row in found})
    least, most = kappas[0], kappas[-1]
    parts: list[Part] = []
    told: list[str] = []

    def log_growth(name: str, method: str, first: int = least) -> NDArray[np.float64]:
        return np.log(steps(found, name, method, most)) - np.log(steps(found, name, method, first))

    for name in PROBLEMS:
        for method in ("ScaledGD", "GD"):
            growth = log_growth(name, method)
            low, high = np.exp(mean_interval(growth))
            effect, interval = float(np.exp(growth.mean())), (float(low), float(high))
            ratio = f"{name}: {method}'s steps at kappa = {most} over those at {least}"
            if method == "ScaledGD":
                word = within(interval, 1 / SAME, SAME)
                parts.append(Part(f"{ratio} within 1 / {SAME} to {SAME}", word, effect, interval))
            else:
                word = above(interval, LEAST_GROWTH)
                parts.append(Part(f"{ratio} above {LEAST_GROWTH:g}", word, effect, interval))
            ends = [np.exp(np.log(steps(found, name, method, k)).mean()) for k in (least, most)]
            told.append(f"{method} takes {ends[0]:.0f} and {ends[1]:.0f} steps ({name})")
        if len(kappas) > 2:
            middle = kappas[1]
            powers = log_growth(name, "GD", middle) / np.log(most / middle)
            parts.append(
                Part(
                    f"{name}: from kappa = {middle} to {most} GD's steps grow like a power of "
                    f"kappa above {LEAST_POWER}",
                    above(mean_interval(powers), LEAST_POWER),
                    float(powers.mean()),
                    mean_interval(powers),
                )
            )
    near = column(found, "near")
    parts.append(
        Part(
            f"all runs reach an error of {NEAR:g}",
            Word.HOLDS if near.all() else Word.FAILS,
            float(near.mean()),
            None,
            control=True,
        )
    )
    inside, note = tuned_inside(rows)
    parts.append(
        Part("no tuned step size lies at the edge of the grid", inside, None, None, note, True)
    )
    return Verdict.all_of(
        parts,
        sentence=f"For kappa = {least} and {most}, " + ", ".join(told) + ".",
        pairs=len(steps(found, PROBLEMS[0], "GD", most)),
    )


def tuned_inside(rows: Sequence[Row]) -> tuple[Word, str]:
    """Whether every step size that won lies within the grid, and the winners in words."""
    if not where(rows, tuning=True):
        return Word.INCONCLUSIVE, "not tuned at this scale"
    best = {
        (name, method): best_step_size(where(rows, tuning=True, problem=name, method=method))
        for name in PROBLEMS
        for method in METHODS
    }
    inside = all(GRID[0] < eta < GRID[-1] for eta in best.values())
    told = ", ".join(f"{name} {method} {eta:g}" for (name, method), eta in best.items())
    grid = ", ".join(f"{eta:g}" for eta in GRID)
    return (Word.HOLDS if inside else Word.FAILS), f"grid {grid}; best: {told}"


def steps(rows: Sequence[Row], name: str, method: str, kappa: int) -> NDArray[np.float64]:
    """One number a matrix, in the order of the seeds."""
    found = where(rows, problem=name, method=method, kappa=kappa)
    return column(sorted(found, key=lambda row: int(row["seed"])), "steps")


def figure(rows: Sequence[Row]) -> Figure:
    """Steps against the condition number, every matrix and their geometric mean."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8.5, 3.8), layout="constrained")
    panels = drawn.subplots(1, 2, sharey=True)
    found = where(rows, tuning=False)
    kappas = sorted({int(row["kappa"]) for row in found})
    for axes, name in zip(panels, PROBLEMS, strict=True):
        for method, colour, marker in zip(METHODS, (COLOURS[1], COLOURS[0]), "so", strict=True):
            counts = np.stack([steps(found, name, method, kappa) for kappa in kappas])
            axes.plot(kappas, counts, color=colour, lw=0.6, alpha=0.4)
            mean = np.exp(np.log(counts).mean(1))
            axes.plot(kappas, mean, color=colour, marker=marker, lw=2, label=method)
        first = np.exp(np.log(steps(found, name, "GD", kappas[0])).mean())
        line = first * np.array(kappas) / kappas[0]
        axes.plot(kappas, line, color="#999999", ls="--", label="in proportion")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(kappas, [str(kappa) for kappa in kappas])
        axes.minorticks_off()
        axes.set_xlabel("condition number kappa")
        axes.set_title({"sensing": "Gaussian measurements", "completion": "entries"}[name])
    panels[0].set_ylabel(f"steps to a relative error of {NEAR:g}")
    panels[0].legend(loc="upper left")
    return drawn
