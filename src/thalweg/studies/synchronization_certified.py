r"""How much noise the generalized power method bears before its answer is not certified any more.

Phases on the full graph, :math:`Y_{ij} = x_i \bar x_j + \sigma W_{ij}`, complex Gaussian noise,
spectral starts. The limit of a size n is the :math:`\sigma / \sqrt n` at which the share of
certified answers, made monotone and interpolated, falls to 1/2. A limit that does not depend on n
says that :math:`\sigma` may grow as :math:`\sqrt n`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.solve.recovery import PhaseSynchronization, generalized_power_method
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
    title="Synchronization is certified up to noise of the order of the square root of n",
    paper="Boumal, SIAM J. Optimization 2016, arXiv:1601.06114; Zhong & Boumal, SIAM J. "
    "Optimization 2018, arXiv:1703.06605",
    year=2018,
    sentence="The generalized power method reaches the global optimum, and its certificate proves "
    "it, for noise up to the order of the square root of n / log n.",
    expected="shares of certified answers that fall on one curve against sigma / sqrt(n), up to "
    "the logarithm: the limit of the largest n is 0.75 to 1.25 times that of the smallest, where a "
    "limit that does not grow with n would be 0.5 times",
    refuted_by="a limit of the largest n less than 0.75 times that of the smallest, or more than "
    "1.25 times",
)

SIZES = {"smoke": (20, 40), "laptop": (50, 100, 200), "full": (100, 200, 400)}
NOISES: dict[str, tuple[float, ...]] = {
    "smoke": (0.1, 0.8),
    "laptop": (0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6),
    "full": (0.2, 0.25, 0.3, 0.325, 0.35, 0.375, 0.4, 0.425, 0.45, 0.475, 0.5, 0.55, 0.6),
}
DRAWS = {"smoke": 3, "laptop": 20, "full": 50}
MAX_STEPS = {"smoke": 300, "laptop": 1000, "full": 2000}
LOW, HIGH = 0.75, 1.25


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for every draw, size and noise."""
    for n in SIZES[scale]:
        for noise in NOISES[scale]:
            for k in range(DRAWS[scale]):
                yield partial(solved, n, noise, 1000 * seed + k, MAX_STEPS[scale])


def solved(n: int, noise: float, draw: int, max_steps: int) -> Row:
    """One set of phases, and whether they are certified."""
    generator = torch.Generator().manual_seed(draw)
    problem = PhaseSynchronization.random(n, sigma=noise * n**0.5, generator=generator)
    result = generalized_power_method(problem, tol=1e-10, max_steps=max_steps)
    found = result.info["certificate"]
    return {
        "n": n,
        "noise": noise,
        "draw": draw,
        "certified": found.optimal,
        "lambda_min": found.lambda_min,
        "error": float(problem.error(result.x)),
        "steps": int(result.trace["step"][-1]),
    }


def verdict(rows: Sequence[Row]) -> Verdict:
    """The ratio of the limits of the largest and the smallest n, draws repeated at random."""
    sizes = sorted({int(row["n"]) for row in rows})
    noises = np.array(sorted({float(row["noise"]) for row in rows}))
    shares = {n: table(rows, n, noises) for n in sizes}
    limits = {n: limit_of(noises, shares[n].mean(0)) for n in sizes}
    ends = np.concatenate([shares[sizes[0]], shares[sizes[-1]]], axis=1)

    def ratio(samples: NDArray[np.float64]) -> float:
        first, last = np.split(samples.mean(0), 2)
        return limit_of(noises, last) / limit_of(noises, first)

    effect = ratio(ends)
    enough = len(ends) >= FEWEST_FOR_BOOTSTRAP
    interval = bootstrap_interval(ratio, ends, seed=0) if enough else None
    statements = (
        f"the limit of n = {sizes[-1]} is more than {LOW} times that of n = {sizes[0]}",
        f"and less than {HIGH} times",
    )
    if interval is None:
        words = [Word.INCONCLUSIVE, Word.INCONCLUSIVE]
    else:
        words = [above(interval, LOW), below(interval, HIGH)]
    parts = [
        Part(statement, word, effect, interval, "" if enough else "too few draws")
        for statement, word in zip(statements, words, strict=True)
    ]
    spans = all(s[:, 0].mean() > 0.5 > s[:, -1].mean() for s in shares.values())
    parts.append(
        Part(
            "at every n most answers are certified at the least noise and few at the most",
            Word.HOLDS if spans else Word.FAILS,
            None,
            None,
            control=True,
        )
    )
    limit = ", ".join(f"{limits[n]:.2f} (n = {n})" for n in sizes)
    return Verdict.all_of(
        parts,
        sentence=f"Half of the answers are certified up to sigma / sqrt(n) = {limit}.",
        pairs=len(ends),
    )


def table(rows: Sequence[Row], n: int, noises: NDArray[np.float64]) -> NDArray[np.float64]:
    """Certified or not, one row a draw, one column a noise."""
    some = where(rows, n=n)
    columns = [[float(row["certified"]) for row in where(some, noise=noise)] for noise in noises]
    return np.array(columns).T


def limit_of(noises: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """Where the share, made monotone and interpolated, falls to 1/2; else an end.

    Examples
    --------
    >>> limit_of(np.array([2.0, 4.0, 6.0]), np.array([1.0, 0.75, 0.25]))
    5.0
    """
    falling = np.minimum.accumulate(shares)
    if falling[0] <= 0.5 or falling[-1] > 0.5:
        return float(noises[0] if falling[0] <= 0.5 else noises[-1])
    k = int(np.argmax(falling <= 0.5))
    high, low = falling[k - 1], falling[k]
    return float(noises[k - 1] + (high - 0.5) / (high - low) * (noises[k] - noises[k - 1]))


def figure(rows: Sequence[Row]) -> Figure:
    """Shares of certified answers against the noise, with their 95 % intervals."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6.5, 4), layout="constrained")
    axes = drawn.subplots()
    noises = np.array(sorted({float(row["noise"]) for row in rows}))
    for i, n in enumerate(sorted({int(row["n"]) for row in rows})):
        certified = table(rows, n, noises)
        shares = certified.mean(0)
        bounds = np.array([share_interval(int(c.sum()), len(c)) for c in certified.T])
        axes.errorbar(
            noises + 0.004 * (i - 1),  # bars beside each other
            shares,
            np.abs(bounds.T - shares),
            color=COLOURS[i],
            marker="osD"[i % 3],
            capsize=3,
            label=f"n = {n}",
        )
    axes.axhline(0.5, color="#999999", lw=0.8)
    axes.set_xlabel("noise, sigma / sqrt(n)")
    axes.set_ylabel("share of answers certified as global")
    axes.set_title("Phase synchronization: certified answers against noise")
    axes.legend()
    return drawn
