r"""Time of a sweep of robust alternating minimization, against observed entries and the rank.

A sweep solves one least-squares problem for every column, then for every row: by Cholesky
factorization of the normal equations, O(entries r^2), or by conjugate gradients (CG) to a relative
accuracy of 1e-4, O(entries r) each iteration. For the entries the matrix grows with a fixed number
of entries in each row; for the rank the entries stay. What is counted is processor time of one
thread, so other programs disturb it less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.core import Result
from thalweg.solve.recovery import LowRank, MatrixCompletion, robust_alternating_minimization
from thalweg.studies.intervals import below, mean_interval, within
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, column, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Alternating minimization in nearly linear time",
    paper="Gu, Song, Yin & Zhang, ICLR 2024, arXiv:2302.11068",
    year=2024,
    sentence="With regressions that are solved inexactly, a sweep of alternating minimization "
    "takes time proportional to entries times rank, not to entries times the rank squared.",
    expected="time against entries with an exponent near 1; against the rank near 1 for conjugate "
    "gradients and near 2 for Cholesky, so that the former wins at large ranks (but hardly below "
    "32)",
    refuted_by="an exponent of the entries outside .8 to 1.2, an exponent of the rank outside .7 "
    "to 1.3 for conjugate gradients or 1.7 to 2.3 for Cholesky, or no gain at the largest rank",
)

INNER = ("cholesky", "cg")
NAMES = {"cholesky": "Cholesky", "cg": "conjugate gradients"}
SIZES: dict[str, tuple[int, ...]] = {
    "smoke": (200, 400),
    "laptop": (500, 1000, 2000, 4000),
    "full": (1000, 2000, 4000, 8000),
}
IN_EACH_ROW, RANK = 100, 16
RANKS: dict[str, tuple[int, ...]] = {
    "smoke": (4, 8, 16),
    "laptop": (8, 16, 32, 64, 128),
    "full": (8, 16, 32, 64, 128),
}
SIDE = {"smoke": 150, "laptop": 800, "full": 2000}
DENSITY = {"smoke": 0.5, "laptop": 0.5, "full": 0.2}
SEEDS = {"smoke": 2, "laptop": 4, "full": 5}
ACCURACY = 1e-4
LONG_ENOUGH = 1.0
"""A sweep of so many seconds is not timed again."""
LARGE_RANKS = 3
"""The exponent of the rank is fitted over so many of the largest: small ones are overhead."""


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for every matrix and way to solve."""
    yield lambda: {**timed("warm-up", SIZES["smoke"][0], 0.5, RANK, "cg", seed)}
    for k in range(SEEDS[scale]):
        number = 1000 * seed + k
        for inner in INNER:
            for n in SIZES[scale]:
                yield partial(timed, "entries", n, IN_EACH_ROW / n, RANK, inner, number)
            for rank in RANKS[scale]:
                yield partial(timed, "rank", SIDE[scale], DENSITY[scale], rank, inner, number)


def timed(against: str, n: int, density: float, rank: int, inner: str, seed: int) -> Row:
    """Processor time of a sweep from a random start: the faster of two, unless they are long."""
    generator = torch.Generator().manual_seed(seed)
    problem = MatrixCompletion.random((n, n), rank, density, generator=generator)
    start = LowRank(
        *(torch.randn(n, rank, dtype=torch.float64, generator=generator) for _ in range(2))
    )
    ends: list[float] = []

    def note_time(_: Result[Any]) -> None:
        ends.append(time.process_time())  # the first is before the first sweep
        if len(ends) > 1 and ends[-1] - ends[-2] > LONG_ENOUGH:
            raise StopIteration

    result = robust_alternating_minimization(
        problem,
        inner=inner,  # type: ignore[arg-type]
        accuracy=ACCURACY,
        start=start,
        tol=0.0,
        max_steps=2,
        callback=note_time,
    )
    return {
        "against": against,
        "n": n,
        "entries": len(problem.rows),
        "rank": rank,
        "inner": inner,
        "seed": seed,
        "seconds": float(np.diff(ends).min()),
        "iterations": int(result.info["iterations"][-1]),
    }


def verdict(rows: Sequence[Row]) -> Verdict:
    """Student's intervals over the matrices, of slopes of log time and of log ratios."""
    parts: list[Part] = []
    exponents: dict[tuple[str, str], float] = {}
    rules = {
        ("cholesky", "entries"): (0.8, 1.2),
        ("cg", "entries"): (0.8, 1.2),
        ("cholesky", "rank"): (1.7, 2.3),
        ("cg", "rank"): (0.7, 1.3),
    }
    ranks = sorted({int(row["rank"]) for row in where(rows, against="rank")})
    for (inner, against), (low, high) in rules.items():
        found = slopes(rows, against, inner)
        exponents[inner, against] = float(found.mean())
        fitted = f" (fitted from {ranks[-LARGE_RANKS]})" if against == "rank" else ""
        iterations = ""
        if (inner, against) == ("cg", "rank"):
            few, many = (
                column(where(rows, against="rank", inner="cg", rank=k), "iterations").mean()
                for k in (ranks[-LARGE_RANKS], ranks[-1])
            )
            iterations = f"iterations a sweep grow from {few:.0f} to {many:.0f}"
        parts.append(
            Part(
                f"{NAMES[inner]}: exponent of the {against}{fitted} within {low:g} to {high:g}",
                within(mean_interval(found), low, high),
                float(found.mean()),
                mean_interval(found),
                note=iterations,
            )
        )
    gains = {k: log_seconds(rows, "cg", k) - log_seconds(rows, "cholesky", k) for k in ranks}
    interval = mean_interval(gains[ranks[-1]])
    parts.append(
        Part(
            f"at rank {ranks[-1]} a sweep by conjugate gradients takes less time than by Cholesky",
            below((float(np.exp(interval[0])), float(np.exp(interval[1]))), 1.0),
            float(np.exp(gains[ranks[-1]].mean())),
            (float(np.exp(interval[0])), float(np.exp(interval[1]))),
            note="ratio of times",
        )
    )
    pays = [k for k in ranks if gains[k].mean() < 0]
    where_it_pays = f"pays from rank {pays[0]}" if pays else "does not pay at any rank tried"
    return Verdict.all_of(
        parts,
        sentence="A sweep takes time like entries to the power "
        f"{exponents['cg', 'entries']:.2f} by conjugate gradients "
        f"({exponents['cholesky', 'entries']:.2f} by Cholesky) and like the rank to the power "
        f"{exponents['cg', 'rank']:.2f} ({exponents['cholesky', 'rank']:.2f}); it {where_it_pays}"
        f", at {ranks[-1]} it takes {np.exp(gains[ranks[-1]].mean()):.2f} times as long.",
        pairs=len(gains[ranks[-1]]),
    )


def slopes(rows: Sequence[Row], against: str, inner: str) -> NDArray[np.float64]:
    """For each matrix the slope of log time, against the entries or the largest ranks."""
    found = where(rows, against=against, inner=inner)
    fits = []
    for seed in sorted({int(row["seed"]) for row in found}):
        one = sorted(where(found, seed=seed), key=lambda row: int(row[against]))
        if against == "rank":
            one = one[-LARGE_RANKS:]
        x, seconds = (np.log(column(one, name)) for name in (against, "seconds"))
        fits.append(float(np.polyfit(x, seconds, 1)[0]))
    return np.array(fits)


def log_seconds(rows: Sequence[Row], inner: str, rank: int) -> NDArray[np.float64]:
    """Logarithms of the times at a rank, in the order of the seeds."""
    found = where(rows, against="rank", inner=inner, rank=rank)
    return np.log(column(sorted(found, key=lambda row: int(row["seed"])), "seconds"))


def figure(rows: Sequence[Row]) -> Figure:
    """Time of a sweep against the entries and against the rank, and the iterations."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 3.6), layout="constrained")
    panels = drawn.subplots(1, 3)
    for axes, against in zip(panels, ("entries", "rank"), strict=False):
        for inner, colour, marker in zip(INNER, COLOURS[1::-1], "so", strict=True):
            found = where(rows, against=against, inner=inner)
            x, seconds = column(found, against), column(found, "seconds")
            axes.scatter(x, seconds, s=14, color=colour, marker=marker, alpha=0.6)
            slope = slopes(rows, against, inner).mean()
            kept = x >= np.unique(x)[-LARGE_RANKS] if against == "rank" else x > 0
            level = np.mean(np.log(seconds[kept]) - slope * np.log(x[kept]))
            ends = np.array([x[kept].min(), x.max()])
            label = f"{NAMES[inner]}: power {slope:.2f}"
            axes.plot(ends, np.exp(level) * ends**slope, color=colour, label=label)
        axes.set_yscale("log")
        axes.set_ylim(None, 3 * column(where(rows, against=against), "seconds").max())
        axes.set_ylabel("processor time of a sweep (s)")
        axes.legend(fontsize="small", loc="upper left")
    ranks = sorted({int(row["rank"]) for row in where(rows, against="rank")})
    inexact = where(rows, against="rank", inner="cg")
    means = [column(where(inexact, rank=k), "iterations").mean() for k in ranks]
    panels[2].plot(ranks, means, color=COLOURS[0], marker="o")
    panels[2].set_ylim(0, None)
    panels[2].set_ylabel("iterations of a sweep, both halves")
    sizes = [n * IN_EACH_ROW for n in sorted({int(r["n"]) for r in where(rows, against="entries")})]
    for axes, ticks, name in zip(
        panels, (sizes, ranks, ranks), ("observed entries", "rank", "rank"), strict=True
    ):
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.set_xlabel(name)
    panels[0].set_title(f"Rank {RANK}, {IN_EACH_ROW} entries in each row")
    panels[1].set_title(f"{column(inexact, 'entries').mean():,.0f} entries")
    panels[2].set_title("Conjugate gradients")
    return drawn
