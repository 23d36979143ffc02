r"""The sub-gradient method from a small start: gross outliers, and a rank that is set too high.

A positive semidefinite matrix of rank 2, Gaussian measurements, a tenth of them with outliers ten
times the size of the matrix. The factor has r' columns: the rank itself, a few more, or as many as
the matrix has. Matrices and measurements are the same for all arms of a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.solve.recovery import MatrixSensing, RobustSensing, gradient_descent, subgradient
from thalweg.studies.intervals import above, below, mean_interval, within
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, column, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="The sub-gradient method against gross outliers, with a rank set too high",
    paper="Ma & Fattahi, JMLR 2023, arXiv:2202.08788",
    year=2023,
    sentence="From a small start the sub-gradient method recovers a low-rank matrix from grossly "
    "corrupted measurements without knowing its rank: how far the rank is set too high matters "
    "neither for the error nor for the measurements that are needed, and a smaller start gives a "
    "smaller error.",
    expected="the same error and the same need for measurements with r' = 10 columns as with "
    "r' = d = 20; an error that falls with the start like a power; but a much smaller error where "
    "r' is the rank itself",
    refuted_by="errors of r' = 10 and r' = d more than 20 % apart, success rates that differ by "
    "more than a fifth, an error that does not fall with the start, or one with r' = d as small "
    "as with the rank itself",
)

D, RANK, WIDE = 20, 2, 10
SEEDS = {"smoke": 2, "laptop": 6, "full": 20}
ENOUGH = 600
FEW: dict[str, tuple[int, ...]] = {
    "smoke": (150,),
    "laptop": (100, 130, 160, 200),
    "full": (100, 120, 140, 160, 180, 200, 250, 300, 400),
}
STARTS = (1e-2, 1e-3, 1e-4)
ALPHA, DECAY = 1e-3, 0.993
SUCCESS = 1e-2
LEAST_GAIN = 1e3
"""By how much the exact rank is to be better than r' = d."""


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for every run."""
    for k in range(SEEDS[scale]):
        arms = [(ENOUGH, columns, ALPHA) for columns in (RANK, WIDE, D)]
        arms += [(ENOUGH, WIDE, alpha) for alpha in STARTS if alpha != ALPHA]
        arms += [(m, columns, ALPHA) for m in FEW[scale] for columns in (WIDE, D)]
        number = 1000 * seed + k
        for arm in arms:
            yield lambda s=number, arm=arm: solved(s, *arm)  # type: ignore[misc]
        yield lambda s=number: least_squares(s)  # type: ignore[misc]


def instance(seed: int, m: int) -> RobustSensing:
    """The matrix and the measurements of a seed."""
    generator = torch.Generator().manual_seed(seed)
    return RobustSensing.random(D, RANK, m, 0.1, 2.0, generator=generator)


def solved(seed: int, m: int, columns: int, alpha: float) -> Row:
    """One run of the sub-gradient method; the smaller the start, the longer its steps live."""
    problem = instance(seed, m)
    # The sum of the steps grows with log(1 / alpha), as the growth of the start needs.
    decay = 1 - (1 - DECAY) * np.log(1 / ALPHA) / np.log(1 / alpha)
    result = subgradient(
        problem, alpha=alpha, columns=columns, decay=float(decay), tol=0.0, xtol=1e-8
    )
    return {
        "method": "SubGM",
        "seed": seed,
        "m": m,
        "columns": columns,
        "alpha": alpha,
        "error": float(problem.error(result.x)),
        "reason": result.reason.name,
    }


def least_squares(seed: int) -> Row:
    """The control: gradient descent on the squared misfit of the same data."""
    problem = instance(seed, ENOUGH)
    x = gradient_descent(MatrixSensing(problem.A, problem.y, RANK), max_steps=300).x
    error = float(problem.error(x))
    return {"method": "least squares", "seed": seed, "error": error}


def verdict(rows: Sequence[Row]) -> Verdict:
    """Student's intervals of paired differences, of logarithms where errors are compared."""
    exact, wide, full = (log_error(rows, c) for c in (RANK, WIDE, D))
    squares = column(where(rows, method="least squares"), "error")
    few = fewer(rows)
    seeds = sorted({int(row["seed"]) for row in few})
    rates = np.array(
        [
            [np.mean(column(where(few, seed=s, columns=c), "error") <= SUCCESS) for c in (WIDE, D)]
            for s in seeds
        ]
    )
    slopes = powers(rows)

    def ratio(differences: NDArray[np.float64]) -> tuple[float, float]:
        low, high = mean_interval(differences)
        return float(np.exp(low)), float(np.exp(high))

    difference = rates[:, 1] - rates[:, 0]
    parts = [
        Part(
            "(a) the error with r' = d is within 20 % of that with r' = 10",
            within(ratio(full - wide), 1 / 1.2, 1.2),
            float(np.exp(np.mean(full - wide))),
            ratio(full - wide),
            note="ratio of geometric means",
        ),
        Part(
            f"(a) the error with r' = d is more than {LEAST_GAIN:g} times that with the exact rank",
            above(ratio(full - exact), LEAST_GAIN),
            float(np.exp(np.mean(full - exact))),
            ratio(full - exact),
            note="so a rank set too high does cost accuracy",
        ),
        Part(
            "(b) the share of successes with few measurements differs by less than .2 between "
            "r' = d and r' = 10",
            within(mean_interval(difference), -0.2, 0.2),
            float(difference.mean()),
            mean_interval(difference),
        ),
        Part(
            "(c) the error falls with the start, as a power of alpha above .2",
            above(mean_interval(slopes), 0.2),
            float(slopes.mean()),
            mean_interval(slopes),
        ),
        Part(
            "r' = d succeeds with 600 measurements: the error is below .01",
            below(ratio(full), SUCCESS),
            float(np.exp(full.mean())),
            ratio(full),
            control=True,
        ),
        Part(
            "least squares fails on the same data: its error is above .5",
            above(mean_interval(squares), 0.5),
            float(squares.mean()),
            mean_interval(squares),
            control=True,
        ),
    ]
    return Verdict.all_of(
        parts,
        sentence=f"With a tenth of gross outliers the relative error ends at "
        f"{np.exp(exact.mean()):.1g} with the exact 2 columns, {np.exp(wide.mean()):.1g} with 10 "
        f"and {np.exp(full.mean()):.1g} with all 20; it falls as alpha^{slopes.mean():.2f}; least "
        f"squares ends at {squares.mean():.2g}.",
        pairs=len(full),
    )


def log_error(rows: Sequence[Row], columns: int, alpha: float = ALPHA) -> NDArray[np.float64]:
    """The logarithms of the errors with enough measurements, in the order of the seeds."""
    found = where(rows, method="SubGM", m=ENOUGH, columns=columns, alpha=alpha)
    return np.log(column(sorted(found, key=lambda row: int(row["seed"])), "error"))


def fewer(rows: Sequence[Row]) -> list[Row]:
    """The runs with few measurements."""
    return [row for row in rows if row["method"] == "SubGM" and row["m"] != ENOUGH]


def powers(rows: Sequence[Row]) -> NDArray[np.float64]:
    """For each seed the slope of log error against log alpha."""
    logs = np.stack([log_error(rows, WIDE, a) for a in STARTS])
    return np.polyfit(np.log(STARTS), logs, 1)[0]


def figure(rows: Sequence[Row]) -> Figure:
    """Errors by the width of the factor, by the start, and successes by the measurements."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10, 3.4), layout="constrained")
    width, start, few = drawn.subplots(1, 3)
    for x, (name, errors) in enumerate(
        {
            f"{RANK} (exact)": np.exp(log_error(rows, RANK)),
            str(WIDE): np.exp(log_error(rows, WIDE)),
            f"{D} (= d)": np.exp(log_error(rows, D)),
            "least\nsquares": column(where(rows, method="least squares"), "error"),
        }.items()
    ):
        colour = COLOURS[x if x < 3 else 6]
        width.scatter(np.full(len(errors), x), errors, s=18, color=colour, label=name)
    width.set_xticks(range(4), [f"{RANK}\n(exact)", str(WIDE), f"{D}\n(= d)", "least\nsquares"])
    width.set_xlabel("columns of the factor")
    width.set_yscale("log")
    width.set_ylabel("relative error")
    width.set_title(f"{ENOUGH} measurements, 10 % outliers")

    logs = np.stack([log_error(rows, WIDE, a) for a in STARTS])
    start.loglog(STARTS, np.exp(logs), color="#999999", lw=0.8)
    start.loglog(STARTS, np.exp(logs.mean(1)), color=COLOURS[1], marker="s", label="mean")
    start.set_xlabel("size of the start, alpha")
    start.set_ylabel("relative error")
    start.set_title(f"{WIDE} columns")
    start.legend()

    found = fewer(rows)
    sizes = sorted({int(row["m"]) for row in found})
    for columns, colour, marker, size in ((WIDE, COLOURS[1], "s", 9), (D, COLOURS[2], "o", 5)):
        rates = [
            np.mean(column(where(found, m=m, columns=columns), "error") <= SUCCESS) for m in sizes
        ]
        few.plot(sizes, rates, color=colour, marker=marker, ms=size, label=f"{columns} columns")
    few.set_xlabel("measurements")
    few.set_ylabel(f"share with an error below {SUCCESS:g}")
    few.set_ylim(-0.05, 1.05)
    few.set_title("Few measurements")
    few.legend()
    return drawn
