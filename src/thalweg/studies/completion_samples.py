r"""How many samples a low-rank matrix needs: products with Gaussian matrices, or its entries.

An n x n matrix of rank r has :math:`d = r (2n - r)` degrees of freedom. A run succeeds if its
relative error reaches 1e-3 within the steps it is given. The 50 % point is the number of samples
where the success rate, made monotone and interpolated, crosses 1/2; n is doubled once. Also
counted: how often every row and column holds at least r entries, without which no method can
succeed.
"""

from __future__ import annotations

import math
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
    alternating_minimization,
    scaled_gradient,
)
from thalweg.studies.intervals import (
    FEWEST_FOR_BOOTSTRAP,
    above,
    below,
    bootstrap_interval,
    share_interval,
    within,
)
from thalweg.studies.phase_retrieval_samples import half_point
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word, column, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Samples proportional to the degrees of freedom recover a low-rank matrix",
    paper="Chi, Lu & Chen, IEEE Trans. Signal Processing 2019, arXiv:1809.09573",
    year=2019,
    sentence="Gaussian measurements recover a matrix of rank r from a number proportional to n r, "
    "its entries from one proportional to n r log n: far fewer than n squared.",
    expected="when n doubles, twice as many measurements and 2.5 times as many entries (a fixed "
    "share of the entries would be 4 times as many); and at the same size more entries than "
    "Gaussian measurements",
    refuted_by="measurements needed that grow by less than 1.6 or more than 2.5, entries by more "
    "than 3 when n doubles, or as few entries as measurements",
)

RANK, CONDITION, NEAR = 2, 2.0, 1e-3
SENSING, COMPLETION, ALTERNATING = "sensing", "completion", "completion, alternating"
SMALL, LARGE = 16, 32
RATIOS: dict[str, tuple[float, ...]] = {
    "smoke": (1.2, 4.0),
    "laptop": (1.2, 1.6, 2.0, 2.4, 2.9, 3.5, 4.2),
    "full": (1.1, 1.3, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.4, 3.8, 4.2),
}
"""Samples for each degree of freedom; 4.27 would be all entries of the smaller matrix."""
MATRICES = {"smoke": 2, "laptop": 20, "full": 50}
MAX_STEPS = {"smoke": 150, "laptop": 500, "full": 3000}


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for every matrix, size, number of samples and method."""
    for n in (SMALL, LARGE):
        for ratio in RATIOS[scale]:
            for k in range(MATRICES[scale]):
                for arm in (SENSING, COMPLETION, ALTERNATING):
                    yield partial(solved, arm, n, ratio, 1000 * seed + k, MAX_STEPS[scale])


def solved(arm: str, n: int, ratio: float, matrix: int, max_steps: int) -> Row:
    """One method on one matrix, until it is near or its steps are used up."""
    samples = round(ratio * degrees_of_freedom(n))
    generator = torch.Generator().manual_seed(1000 * matrix + round(10 * ratio))
    problem: MatrixSensing | MatrixCompletion | None
    if arm == SENSING:
        problem = MatrixSensing.random((n, n), RANK, samples, CONDITION, generator=generator)
    else:
        problem = entries(n, samples, generator)
    methods: dict[str, Callable[..., Result[Any]]] = {ALTERNATING: alternating_minimization}
    method = methods.get(arm, scaled_gradient)
    error, steps = math.inf, 0
    if problem is not None:
        result = method(problem, tol=0.0, max_steps=max_steps, callback=stop)
        error, steps = float(problem.error(result.x)), int(result.trace["step"][-1])
    return {
        "arm": arm,
        "n": n,
        "ratio": ratio,
        "matrix": matrix,
        "determined": problem is not None,
        "error": error if math.isfinite(error) else -1.0,  # -1: none
        "success": error <= NEAR,
        "steps": steps,
    }


def degrees_of_freedom(n: int) -> int:
    """Of an n x n matrix of the rank of this study.

    Examples
    --------
    >>> degrees_of_freedom(16)
    60
    """
    return RANK * (2 * n - RANK)


def entries(n: int, samples: int, generator: torch.Generator) -> MatrixCompletion | None:
    """A matrix of which exactly so many entries are seen; None if they cannot determine it.

    That is so where a row or column holds fewer than r of them.
    """
    whole = MatrixCompletion.random((n, n), RANK, 1.0, CONDITION, generator=generator)
    seen = torch.randperm(n * n, generator=generator)[:samples].sort().values
    rows, cols = whole.rows[seen], whole.cols[seen]
    if min(int(torch.bincount(at, minlength=n).min()) for at in (rows, cols)) < RANK:
        return None
    return MatrixCompletion(rows, cols, whole.values[seen], (n, n), RANK, truth=whole.truth)


def stop(result: Result[Any]) -> None:
    """Ends a run that is near."""
    if result.trace["error"][-1] <= NEAR:
        raise StopIteration


def verdict(rows: Sequence[Row]) -> Verdict:
    """Ratios of 50 % points in samples, matrices drawn again with replacement."""
    ratios = np.array(sorted({float(row["ratio"]) for row in rows}))
    arms = (SENSING, COMPLETION, ALTERNATING)
    wins = {(arm, n): table(rows, arm, n, ratios) for arm in arms for n in (SMALL, LARGE)}
    point = {
        key: half_point(ratios, w.mean(0)) * degrees_of_freedom(key[1]) for key, w in wins.items()
    }

    def compare(
        first: tuple[str, int], second: tuple[str, int], word: Callable[..., Word], statement: str
    ) -> Part:
        both = np.stack([wins[first], wins[second]], axis=1)
        of_freedom = degrees_of_freedom(first[1]) / degrees_of_freedom(second[1])

        def quotient(samples: NDArray[np.float64]) -> float:
            p, q = (half_point(ratios, samples[:, i].mean(0)) for i in (0, 1))
            return of_freedom * p / q

        if len(both) < FEWEST_FOR_BOOTSTRAP:
            effect = quotient(both)
            return Part(statement, Word.INCONCLUSIVE, effect, None, "too few matrices")
        interval = bootstrap_interval(quotient, both, seed=0)
        return Part(statement, word(interval), quotient(both), interval)

    spans = all(w[:, 0].mean() < 0.5 < w[:, -1].mean() for w in wins.values())
    parts = [
        compare(
            (SENSING, LARGE),
            (SENSING, SMALL),
            lambda i: within(i, 1.6, 2.5),
            f"sensing: from n = {SMALL} to {LARGE} the measurements needed grow by 1.6 to 2.5",
        ),
        *(
            compare(
                (arm, LARGE),
                (arm, SMALL),
                lambda i: below(i, 3.0),
                f"{name}: from n = {SMALL} to {LARGE} the entries needed grow by less than 3",
            )
            for arm, name in ((COMPLETION, "ScaledGD"), (ALTERNATING, "alternating minimization"))
        ),
        compare(
            (COMPLETION, LARGE),
            (SENSING, LARGE),
            lambda i: above(i, 1.0),
            f"n = {LARGE}: more entries are needed than Gaussian measurements",
        ),
        Part(
            "each success rate runs from below to above one half",
            Word.HOLDS if spans else Word.FAILS,
            float(min(w[:, -1].mean() for w in wins.values())),
            None,
            note="the least rate at the most samples",
            control=True,
        ),
    ]
    d = degrees_of_freedom(LARGE)
    return Verdict.all_of(
        parts,
        sentence=f"Half of the {LARGE} x {LARGE} matrices of rank {RANK} are found from "
        f"{point[SENSING, LARGE] / d:.1f} Gaussian measurements for each degree of freedom, or "
        f"from {point[COMPLETION, LARGE] / d:.1f} entries (alternating minimization: "
        f"{point[ALTERNATING, LARGE] / d:.1f}); from n = {SMALL} to {LARGE} the samples needed "
        f"grow {point[SENSING, LARGE] / point[SENSING, SMALL]:.1f}, "
        f"{point[COMPLETION, LARGE] / point[COMPLETION, SMALL]:.1f} and "
        f"{point[ALTERNATING, LARGE] / point[ALTERNATING, SMALL]:.1f} times.",
        pairs=len(wins[SENSING, LARGE]),
    )


def table(
    rows: Sequence[Row], arm: str, n: int, ratios: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Successes of a method, one row a matrix, one column a number of samples."""
    return np.array([column(where(rows, arm=arm, n=n, ratio=r), "success") for r in ratios]).T


def figure(rows: Sequence[Row]) -> Figure:
    """Success rates against samples for each degree of freedom, with their 95 % intervals."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 3.8), layout="constrained")
    panels = drawn.subplots(1, 2, sharey=True)
    ratios = np.array(sorted({float(row["ratio"]) for row in rows}))
    names = {
        SENSING: "Gaussian measurements",
        COMPLETION: "entries, ScaledGD",
        ALTERNATING: "entries, alternating minimization",
    }
    for axes, n in zip(panels, (SMALL, LARGE), strict=True):
        for i, (arm, label) in enumerate(names.items()):
            wins = table(rows, arm, n, ratios)
            bounds = np.array([share_interval(int(w.sum()), len(w)) for w in wins.T])
            x = ratios + 0.03 * (i - 1)  # bars beside each other
            errors = np.abs(bounds.T - wins.mean(0))
            axes.errorbar(
                x, wins.mean(0), errors, color=COLOURS[i], marker="osD"[i], capsize=3, label=label
            )
        found = where(rows, arm=COMPLETION, n=n)
        possible = [column(where(found, ratio=r), "determined").mean() for r in ratios]
        axes.plot(
            ratios,
            possible,
            color="#999999",
            ls="--",
            label=f">= {RANK} entries in every row and column",
        )
        axes.axhline(0.5, color="#999999", lw=0.8)
        axes.set_title(f"{n} x {n} matrices of rank {RANK}")
        axes.set_xlabel("samples for each degree of freedom")
    panels[0].set_ylabel(f"share found to {NEAR:g}")
    panels[1].legend(fontsize="small")
    return drawn
