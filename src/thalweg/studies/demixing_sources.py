r"""How many sources blind demixing takes apart: Wirtinger flow, with and without a regularizer.

s sources of two Gaussian factors of length 10 each, m Gaussian measurements without noise. A run
succeeds if it comes within 1e-4 of all sources in 400 steps (laptop scale). The capacity of a
method is the number of sources at which its success rate, made monotone and interpolated, falls to
1/2. **It is one of that many steps**: runs that fail are mostly still on their way, slower the more
sources there are, and 2,000 steps take more sources apart. The study compares speeds near the
limit, not whether the methods get there in the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.core import Result
from thalweg.solve.recovery import BlindDemixing, blind_wirtinger_flow, regularized_blind_descent
from thalweg.studies.intervals import (
    FEWEST_FOR_BOOTSTRAP,
    above,
    bootstrap_interval,
    share_interval,
)
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Demixing needs no regularizer, and measurements in proportion to the sources",
    paper="Dong & Shi, IEEE Trans. Signal Processing 2018, arXiv:1809.06796; random starts: "
    "AISTATS 2019",
    year=2018,
    sentence="Wirtinger flow takes sums of bilinear measurements apart without a regularizer, and "
    "from random starts too.",
    expected="in 400 steps as many sources without the regularizer as with it (at most half a "
    "source fewer), as many from random starts, and at least 1.6 times as many with twice the "
    "measurements",
    refuted_by="a source or more lost without the regularizer or from random starts, or less than "
    "1.6 times as many sources with twice the measurements",
)

FLOW, RANDOM, REGULARIZED = "flow", "flow, random start", "regularized"
ARMS: dict[str, tuple[Callable[..., Result[Any]], str]] = {
    FLOW: (blind_wirtinger_flow, "spectral"),
    RANDOM: (blind_wirtinger_flow, "random"),
    REGULARIZED: (regularized_blind_descent, "spectral"),
}
SOURCES: dict[str, dict[int, tuple[int, ...]]] = {
    "smoke": {60: (1, 4), 120: (1, 8)},
    "laptop": {120: (2, 3, 4, 5), 240: (4, 6, 8, 10)},
    "full": {120: (1, 2, 3, 4, 5, 6), 240: (2, 3, 4, 5, 6, 7, 8, 9, 10, 12)},
}
MIXTURES = {"smoke": 1, "laptop": 20, "full": 50}
MAX_STEPS = {"smoke": 200, "laptop": 400, "full": 1000}
LENGTH, STEP, NEAR, LOST, GAIN = 10, 0.3, 1e-4, 0.5, 1.6


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for every mixture, number of sources and of measurements, and method."""
    for m, numbers in SOURCES[scale].items():
        for s in numbers:
            for k in range(MIXTURES[scale]):
                for arm in ARMS:
                    yield partial(solved, arm, s, m, 1000 * seed + k, MAX_STEPS[scale])


def solved(arm: str, s: int, m: int, mixture: int, max_steps: int) -> Row:
    """One method on one mixture, until it is near or cannot be any more."""

    def stop(result: Result[Any]) -> None:
        if result.trace["error"][-1] <= NEAR:
            raise StopIteration

    method, start = ARMS[arm]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*measurements are fewer than")
        problem = BlindDemixing.random(
            s, m, LENGTH, LENGTH, generator=torch.Generator().manual_seed(mixture)
        )
    result = method(
        problem,
        start=start,
        step_size=STEP,
        tol=0.0,
        max_steps=max_steps,
        halvings=2,
        callback=stop,
        generator=torch.Generator().manual_seed(mixture),
    )
    error = float(problem.error(result.x))
    return {
        "measurements": m,
        "sources": s,
        "mixture": mixture,
        "method": arm,
        "error": error,
        "success": error <= NEAR,
        "steps": int(result.trace["step"][-1]),
    }


def verdict(rows: Sequence[Row]) -> Verdict:
    """Differences and ratios of capacities, mixtures drawn again with replacement."""
    few, many = sorted({int(row["measurements"]) for row in rows})
    numbers, wins, capacity = {}, {}, {}
    for m in (few, many):
        numbers[m] = np.array(
            sorted({float(row["sources"]) for row in where(rows, measurements=m)})
        )
        for arm in ARMS:
            wins[arm, m] = table(rows, arm, m)
            capacity[arm, m] = capacity_of(numbers[m], wins[arm, m].mean(0))

    def part(
        statement: str, a: tuple[str, int], b: tuple[str, int], ratio: bool, by: float
    ) -> Part:
        def statistic(samples: NDArray[np.float64]) -> float:
            first, second = np.split(samples.mean(0), [len(numbers[a[1]])])
            x, y = capacity_of(numbers[a[1]], first), capacity_of(numbers[b[1]], second)
            return x / y if ratio else x - y

        samples = np.concatenate([wins[a], wins[b]], axis=1)
        effect = capacity[a] / capacity[b] if ratio else capacity[a] - capacity[b]
        if len(samples) < FEWEST_FOR_BOOTSTRAP:
            return Part(statement, Word.INCONCLUSIVE, effect, None, "too few mixtures")
        interval = bootstrap_interval(statistic, samples, seed=0)
        return Part(statement, above(interval, by), effect, interval)

    spans = all(w[:, 0].mean() > 0.5 > w[:, -1].mean() for (arm, _), w in wins.items())
    parts = [
        part(
            f"without the regularizer at most {LOST} sources fewer (m = {many})",
            (FLOW, many),
            (REGULARIZED, many),
            False,
            -LOST,
        ),
        part(
            f"from random starts at most {LOST} sources fewer (m = {many})",
            (RANDOM, many),
            (FLOW, many),
            False,
            -LOST,
        ),
        part(
            f"more than {GAIN} times as many sources with twice the measurements",
            (FLOW, many),
            (FLOW, few),
            True,
            GAIN,
        ),
        Part(
            "every method succeeds with the fewest sources and fails with the most",
            Word.HOLDS if spans else Word.FAILS,
            None,
            None,
            control=True,
        ),
    ]
    amounts = "; ".join(
        f"{arm} {capacity[arm, few]:.1f} and {capacity[arm, many]:.1f}" for arm in ARMS
    )
    return Verdict.all_of(
        parts,
        sentence=f"Half of the mixtures come apart, in the steps allowed, up to so many sources "
        f"(m = {few} and {many}): {amounts}. Most of those that do not are slow rather than lost.",
        pairs=len(wins[FLOW, many]),
    )


def table(rows: Sequence[Row], arm: str, m: int) -> NDArray[np.float64]:
    """Successes of a method, one row a mixture, one column a number of sources."""
    some = where(rows, method=arm, measurements=m)
    numbers = sorted({int(row["sources"]) for row in some})
    columns = [[float(row["success"]) for row in where(some, sources=s)] for s in numbers]
    return np.array(columns).T


def capacity_of(numbers: NDArray[np.float64], rates: NDArray[np.float64]) -> float:
    """Where the success rate, made monotone and interpolated, falls to 1/2; else an end.

    Examples
    --------
    >>> capacity_of(np.array([2.0, 4.0, 6.0]), np.array([1.0, 0.75, 0.25]))
    5.0
    """
    falling = np.minimum.accumulate(rates)
    if falling[0] <= 0.5 or falling[-1] > 0.5:
        return float(numbers[0] if falling[0] <= 0.5 else numbers[-1])
    k = int(np.argmax(falling <= 0.5))
    high, low = falling[k - 1], falling[k]
    return float(numbers[k - 1] + (high - 0.5) / (high - low) * (numbers[k] - numbers[k - 1]))


def figure(rows: Sequence[Row]) -> Figure:
    """Success rates against the number of sources, with their 95 % intervals."""
    from matplotlib.figure import Figure

    amounts = sorted({int(row["measurements"]) for row in rows})
    drawn = Figure(figsize=(9, 3.8), layout="constrained")
    panels = drawn.subplots(1, len(amounts), sharey=True, squeeze=False)[0]
    for axes, m in zip(panels, amounts, strict=True):
        numbers = np.array(sorted({float(row["sources"]) for row in where(rows, measurements=m)}))
        for i, (arm, colour, marker) in enumerate(zip(ARMS, COLOURS, "osD", strict=False)):
            wins = table(rows, arm, m)
            rates = wins.mean(0)
            bounds = np.array([share_interval(int(w.sum()), len(w)) for w in wins.T])
            x = numbers + 0.05 * (i - 1)  # bars beside each other
            axes.errorbar(
                x,
                rates,
                np.abs(bounds.T - rates),
                color=colour,
                marker=marker,
                capsize=3,
                label=arm,
            )
        axes.axhline(0.5, color="#999999", lw=0.8)
        axes.set_xlabel("sources, each of two factors of length 10")
        axes.set_xticks(numbers, [f"{number:.0f}" for number in numbers])
        axes.set_title(f"{m} measurements")
    panels[0].set_ylabel(f"share taken apart to {NEAR:g}, in the steps allowed")
    panels[0].legend()
    return drawn
