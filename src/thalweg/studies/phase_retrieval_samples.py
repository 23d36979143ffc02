r"""How many measurements phase retrieval needs: Wirtinger flow and truncated amplitude flow.

n unknowns, m complex Gaussian lines, intensities without noise, both methods from the trimmed
spectral start. A run succeeds if it comes within 1e-5 of the signal, up to a global phase. The
50 % point of a method is where its success rate, made monotone and interpolated, crosses 1/2. Also
run: Wirtinger flow from the optimal start, which tells whether a better start alone would do, and
error reduction (for context).
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
from thalweg.solve.recovery import (
    PhaseRetrieval,
    error_reduction,
    truncated_amplitude_flow,
    wirtinger_flow,
)
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
    title="Truncated amplitude flow needs fewer measurements than Wirtinger flow",
    paper="Wang, Giannakis & Eldar, IEEE Trans. Information Theory 2018, arXiv:1605.08285; Chi, Lu "
    "& Chen, IEEE Trans. Signal Processing 2019, arXiv:1809.09573",
    year=2018,
    sentence="With terms of untrusted phase left out, a number of measurements proportional to "
    "that of unknowns suffices, where Wirtinger flow needs n log n.",
    expected="TAF's 50 % point lies left of Wirtinger flow's by at least 1.5 in m / n; and the "
    "optimal start moves Wirtinger flow's by less than the change of method does",
    refuted_by="50 % points closer than 1.5, or a start that moves them as far as the method",
)

WF, TAF, BETTER_START, ER = "WF", "TAF", "WF, optimal start", "error reduction"
ARMS: dict[str, tuple[Callable[..., Result[Any]], str]] = {
    WF: (wirtinger_flow, "trimmed"),
    BETTER_START: (wirtinger_flow, "optimal"),
    TAF: (truncated_amplitude_flow, "trimmed"),
    ER: (error_reduction, "trimmed"),
}
RATIOS: dict[str, tuple[float, ...]] = {
    "smoke": (3.0, 8.0),
    "laptop": (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0),
    "full": (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 9.0, 10.0),
}
UNKNOWNS = {"smoke": 32, "laptop": 64, "full": 128}
SIGNALS = {"smoke": 3, "laptop": 20, "full": 20}
MAX_STEPS = {"smoke": 300, "laptop": 800, "full": 2000}
NEAR, LEAST_SHIFT = 1e-5, 1.5


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for every signal, number of measurements and method."""
    for ratio in RATIOS[scale]:
        for k in range(SIGNALS[scale]):
            for arm in ARMS:
                yield partial(
                    solved, arm, UNKNOWNS[scale], ratio, 1000 * seed + k, MAX_STEPS[scale]
                )


def solved(arm: str, n: int, ratio: float, signal: int, max_steps: int) -> Row:
    """One method on one signal, until it is near or cannot be any more."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*measurements are fewer than")
        generator = torch.Generator().manual_seed(100 * signal + round(10 * ratio))
        problem = PhaseRetrieval.random(n, round(ratio * n), generator=generator)

    def stop(result: Result[Any]) -> None:
        if result.trace["error"][-1] <= NEAR:
            raise StopIteration

    method, start = ARMS[arm]
    result = method(problem, start=start, tol=0.0, max_steps=max_steps, callback=stop)
    error = float(problem.error(result.x))
    return {
        "ratio": ratio,
        "signal": signal,
        "method": arm,
        "error": error,
        "success": error <= NEAR,
        "steps": int(result.trace["step"][-1]),
    }


def verdict(rows: Sequence[Row]) -> Verdict:
    """The shift of the 50 % points, signals drawn again with replacement."""
    ratios = np.array(sorted({float(row["ratio"]) for row in rows}))
    successes = {arm: table(rows, arm, ratios) for arm in ARMS}
    points = {arm: half_point(ratios, wins.mean(0)) for arm, wins in successes.items()}

    def shift(samples: NDArray[np.float64]) -> float:
        wf, taf = (half_point(ratios, samples[:, i].mean(0)) for i in (0, 1))
        return wf - taf

    def left_of(second: str, first: str, by: float, statement: str) -> Part:
        both = np.stack([successes[first], successes[second]], axis=1)
        effect = points[first] - points[second]
        if len(both) < FEWEST_FOR_BOOTSTRAP:
            return Part(statement, Word.INCONCLUSIVE, effect, None, "too few signals")
        interval = bootstrap_interval(shift, both, seed=0)
        return Part(statement, above(interval, by), effect, interval)

    spans = successes[WF][:, 0].mean() < 0.5 < successes[WF][:, -1].mean()
    parts = [
        left_of(
            TAF,
            WF,
            LEAST_SHIFT,
            f"TAF's 50 % point lies left of WF's by more than {LEAST_SHIFT} in m / n",
        ),
        left_of(TAF, BETTER_START, 0.0, "it lies left of that of WF from the optimal start too"),
        Part(
            "WF fails at the fewest measurements and succeeds at the most",
            Word.HOLDS if spans else Word.FAILS,
            float(successes[WF][:, -1].mean()),
            None,
            control=True,
        ),
    ]
    return Verdict.all_of(
        parts,
        sentence=f"Half of the signals are found from m = {points[TAF]:.1f} n by TAF, "
        f"{points[WF]:.1f} n by WF, {points[BETTER_START]:.1f} n by WF from the optimal start and "
        f"{points[ER]:.1f} n by error reduction.",
        pairs=len(successes[WF]),
    )


def table(rows: Sequence[Row], arm: str, ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """Successes of a method, one row a signal, one column a number of measurements."""
    columns = [[float(row["success"]) for row in where(rows, method=arm, ratio=r)] for r in ratios]
    return np.array(columns).T


def half_point(ratios: NDArray[np.float64], rates: NDArray[np.float64]) -> float:
    """Where the success rate, made monotone and interpolated, crosses 1/2; else an end.

    Examples
    --------
    >>> half_point(np.array([2.0, 4.0, 6.0]), np.array([0.0, 0.25, 0.75]))
    5.0
    """
    monotone = np.maximum.accumulate(rates)
    if monotone[0] >= 0.5 or monotone[-1] < 0.5:
        return float(ratios[0] if monotone[0] >= 0.5 else ratios[-1])
    k = int(np.argmax(monotone >= 0.5))
    low, high = monotone[k - 1], monotone[k]
    return float(ratios[k - 1] + (0.5 - low) / (high - low) * (ratios[k] - ratios[k - 1]))


def figure(rows: Sequence[Row]) -> Figure:
    """Success rates against the number of measurements, with their 95 % intervals."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6.5, 4), layout="constrained")
    axes = drawn.subplots()
    ratios = np.array(sorted({float(row["ratio"]) for row in rows}))
    for i, (arm, colour, marker) in enumerate(zip(ARMS, COLOURS, "osD^", strict=False)):
        wins = table(rows, arm, ratios)
        rates = wins.mean(0)
        bounds = np.array([share_interval(int(w.sum()), len(w)) for w in wins.T])
        errors = np.abs(bounds.T - rates)
        x = ratios + 0.04 * (i - 1.5)  # bars beside each other
        axes.errorbar(x, rates, errors, color=colour, marker=marker, capsize=3, label=arm)
    axes.axhline(0.5, color="#999999", lw=0.8)
    axes.set_xlabel("measurements per unknown, m / n")
    axes.set_ylabel(f"share of signals found to {NEAR:g}")
    axes.set_title("Phase retrieval: success against measurements")
    axes.legend()
    return drawn
