r"""Spectral initializers of phase retrieval, by what they know of the signal.

n unknowns, :math:`m = \delta n` complex Gaussian lines, intensities without noise. Each initializer
weighs the lines by :math:`T(y)` and takes the leading eigenvector v of their weighted covariance;
what is measured is its correlation :math:`|v^* x| / \|x\|` with the signal. All initializers see
the same signals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from thalweg.solve.recovery import PhaseRetrieval, spectral_start
from thalweg.solve.recovery.phase_start import Initializer
from thalweg.studies.intervals import above, mean_interval
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, column, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="The optimal spectral initializer of phase retrieval",
    paper="Luo, Alghamdi & Lu, IEEE Trans. Signal Processing 2019, arXiv:1811.04420",
    year=2019,
    sentence="The weight 1 - 1/y correlates best with the signal at every number of measurements; "
    "below it come the weight of Mondelli and Montanari, orthogonality-promoting, trimmed and "
    "plain weights, in this order.",
    expected="mean correlations at n = 100, m = 4 n near .86, .78, .57, .51 and .51; the same "
    "order at 6, 8 and 10 n",
    refuted_by="a pair in the other order at any number of measurements (plain weights may lead "
    "trimmed ones by .005)",
)

ORDER: tuple[Initializer, ...] = ("plain", "trimmed", "orthogonality", "mm", "optimal")
RATIOS = (4, 6, 8, 10)
SEEDS = {"smoke": 4, "laptop": 100, "full": 200}
UNKNOWNS = {"smoke": 40, "laptop": 100, "full": 256}
AS_GOOD = 0.005
"""By how much plain weights may lead trimmed ones: at n = 100 few intensities are trimmed."""


def run(scale: Scale, seed: int) -> Iterator[Row]:
    """One row for every signal, number of measurements and initializer."""
    n = UNKNOWNS[scale]
    for ratio in RATIOS:
        for k in range(SEEDS[scale]):
            generator = torch.Generator().manual_seed(100_000 * seed + 1000 * ratio + k)
            problem = PhaseRetrieval.random(n, ratio * n, generator=generator)
            x = problem.truth
            assert x is not None
            for kind in ORDER:
                z = spectral_start(problem, kind)
                correlation = float(torch.vdot(z, x).abs() / (z.norm() * x.norm()))
                yield {"ratio": ratio, "signal": k, "start": kind, "correlation": correlation}


def verdict(rows: Sequence[Row]) -> Verdict:
    """Every neighbouring pair in order, at every number of measurements, by paired intervals."""
    parts = []
    for ratio in sorted({int(row["ratio"]) for row in rows}):
        for lower, higher in pairwise(ORDER):
            slack = AS_GOOD if higher == "trimmed" else 0.0
            gain = correlations(rows, ratio, higher) - correlations(rows, ratio, lower) + slack
            interval = mean_interval(gain)
            parts.append(
                Part(
                    f"m = {ratio} n: {higher} above {lower}"
                    + (f" (to within {slack:g})" if slack else ""),
                    above(interval, 0.0),
                    float(gain.mean()) - slack,
                    (interval[0] - slack, interval[1] - slack),
                )
            )
    pairs = len(correlations(rows, RATIOS[0], "optimal"))
    best = [correlations(rows, ratio, "optimal").mean() for ratio in RATIOS]
    next_best = [correlations(rows, ratio, "mm").mean() for ratio in RATIOS]
    return Verdict.all_of(
        parts,
        sentence=f"From m = {RATIOS[0]} n to {RATIOS[-1]} n the optimal weights correlate "
        f"{best[0]:.2f} to {best[-1]:.2f} with the signal, those of Mondelli and Montanari "
        f"{next_best[0]:.2f} to {next_best[-1]:.2f}.",
        pairs=pairs,
    )


def correlations(rows: Sequence[Row], ratio: int, start: str) -> np.ndarray:
    """One number a signal."""
    return column(where(rows, ratio=ratio, start=start), "correlation")


def figure(rows: Sequence[Row]) -> Figure:
    """Mean correlation against the number of measurements, with its 95 % interval."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8, 4), layout="constrained")
    axes = drawn.subplots()
    ratios = sorted({int(row["ratio"]) for row in rows})
    for kind, colour, marker in zip(reversed(ORDER), COLOURS, "osD^v", strict=False):
        samples = [correlations(rows, ratio, kind) for ratio in ratios]
        means = [float(sample.mean()) for sample in samples]
        half = [mean - mean_interval(s)[0] for mean, s in zip(means, samples, strict=True)]
        dashed = "--" if kind == "plain" else "-"
        name = "Mondelli and Montanari" if kind == "mm" else kind
        axes.errorbar(
            ratios, means, half, color=colour, marker=marker, ls=dashed, capsize=3, label=name
        )
    axes.set_xlabel("measurements per unknown, m / n")
    axes.set_ylabel("correlation with the signal")
    axes.set_title("Spectral initializers of phase retrieval")
    axes.set_xticks(ratios)
    axes.set_ylim(None, 1)
    axes.legend(title="weights", loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn
