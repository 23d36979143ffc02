r"""Adam can end at the worst point of a convex problem; AMSGrad does not.

Online linear losses :math:`f_k(x) = g_k x` on [-1, 1]; in all three the mean of :math:`g_k` is
positive, so -1 is the best point and +1 the worst. Steps are :math:`a/\sqrt k`.

- period 3: :math:`g_k = 3` at k = 1, 4, 7, ..., else -1; :math:`\beta = (0, 1/10)`, a = 0.2, x = 1;
- period 101: :math:`g_k = 1010` at k = 1, 102, ..., else -10; :math:`\beta = (0.9, 0.99)`, a = 0.5,
  x = 0;
- random: :math:`g_k = 1010` with probability 0.01, else -10; the rest as before.

The rare large gradient is the one that counts, but Adam divides it by its own size and forgets it
before the next one. Both are the library's, with epsilon = 0; Adam is projected by clipping, which
on an interval is the projection in any metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from thalweg import optim
from thalweg.numeric import Box
from thalweg.optim.schedules import power
from thalweg.studies.intervals import above, below, mean_interval
from thalweg.studies.study import (
    COLOURS,
    Claim,
    Part,
    Row,
    Scale,
    Verdict,
    Word,
    column,
    where,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Adam can converge to the worst point of a convex problem",
    paper="Reddi, Kale & Kumar, ICLR 2018, arXiv:1904.09237",
    year=2018,
    sentence="On some convex problems Adam converges to the worst point, since it forgets rare "
    "large gradients; with the maximum of the second moments (AMSGrad) it converges to the best.",
    expected="Adam ends at +1 and AMSGrad at -1 with period 3 and 101; at random Adam ends near +1 "
    "and AMSGrad moves down slowly",
    refuted_by="an Adam that ends below 0.9, or an AMSGrad above -0.9 or moving up",
)

BEST, WORST, TOLERANCE = -1.0, 1.0, 0.1
STEPS = {
    "smoke": {"period 3": 1000, "rare": 3000},
    "laptop": {"period 3": 30_000, "rare": 60_000},
    "full": {"period 3": 30_000, "rare": 200_000},
}
SEEDS = {"smoke": 10, "laptop": 20, "full": 20}
LOOKS = 40


def run(scale: Scale, seed: int) -> Iterator[Row]:
    """One row for every method, problem, run and look."""
    for method in ("Adam", "AMSGrad"):
        short = STEPS[scale]["period 3"]
        start = torch.ones(1, dtype=torch.float64)
        for k, x in descend(method, start, period(3, 3.0, -1.0), 0.2, (0.0, 0.1), short):
            yield {"method": method, "problem": "period 3", "run": 0, "k": k, "x": float(x)}
        # One vector: the first entry gets the periodic gradients, the others random ones.
        generator = torch.Generator().manual_seed(seed)  # both methods see the same gradients
        start = torch.zeros(1 + SEEDS[scale], dtype=torch.float64)
        gradients = rare(SEEDS[scale], generator)
        steps = STEPS[scale]["rare"]
        for k, x in descend(method, start, gradients, 0.5, (0.9, 0.99), steps):
            for i, value in enumerate(x.tolist()):
                problem = "period 101" if i == 0 else "random"
                number = max(i - 1, 0)
                yield {"method": method, "problem": problem, "run": number, "k": k, "x": value}


def period(length: int, once: float, else_: float) -> Callable[[int], Tensor]:
    """Gradients by k = 1, 2, ...: `once` at the first step of every period, else `else_`.

    Examples
    --------
    >>> gradient = period(3, 3.0, -1.0)
    >>> [float(gradient(k)) for k in range(1, 6)]
    [3.0, -1.0, -1.0, 3.0, -1.0]
    """
    large, small = (torch.full((1,), value, dtype=torch.float64) for value in (once, else_))
    return lambda k: large if k % length == 1 else small


def rare(runs: int, generator: torch.Generator) -> Callable[[int], Tensor]:
    """Gradients of the period 101 and, beside it, of `runs` random streams.

    Examples
    --------
    >>> gradient = rare(3, torch.Generator().manual_seed(0))
    >>> gradient(1).tolist()
    [1010.0, -10.0, -10.0, -10.0]
    """
    periodic = period(101, 1010.0, -10.0)

    def gradient(k: int) -> Tensor:
        large = torch.rand(runs, generator=generator, dtype=torch.float64) < 0.01
        return torch.cat((periodic(k), torch.where(large, 1010.0, -10.0).double()))

    return gradient


def descend(
    method: str,
    start: Tensor,
    gradient: Callable[[int], Tensor],
    lr: float,
    betas: tuple[float, float],
    steps: int,
) -> Iterator[tuple[int, Tensor]]:
    r"""Adam or AMSGrad on [-1, 1] with steps :math:`a/\sqrt k`: (k, x) at 40 looks.

    Examples
    --------
    >>> start = torch.ones(1, dtype=torch.float64)
    >>> *_, (k, x) = descend("AMSGrad", start, period(3, 3.0, -1.0), 0.2, (0.0, 0.1), 3000)
    >>> k, round(float(x), 1)
    (3000, -1.0)
    """
    x = torch.nn.Parameter(start.clone())
    optimizer: torch.optim.Optimizer
    if method == "AMSGrad":
        optimizer = optim.AMSGrad([x], lr=lr, betas=betas, eps=0.0, constraint=Box(BEST, WORST))
    else:
        optimizer = optim.Adam([x], lr=lr, betas=betas, eps=0.0)
    schedule = power(lr, 0.5)
    looks = {int(k) for k in np.geomspace(10, steps, LOOKS).round()}
    for k in range(1, steps + 1):
        x.grad = gradient(k)
        if method == "Adam":
            optimizer.param_groups[0]["lr"] = schedule(k)
        optimizer.step()
        if method == "Adam":
            x.data.clamp_(BEST, WORST)
        if k in looks:
            yield k, x.detach().clone()


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds if Adam ends at the worst point in all three, and AMSGrad at the best or on its way."""
    parts = []
    for problem in ("period 3", "period 101"):
        adam = _path(rows, "Adam", problem)[-1, 0]
        amsgrad = _path(rows, "AMSGrad", problem)[-1, 0]
        for name, x, holds in (
            ("Adam ends within 0.1 of +1, the worst point", adam, adam >= WORST - TOLERANCE),
            ("AMSGrad ends within 0.1 of -1, the best point", amsgrad, amsgrad <= BEST + TOLERANCE),
        ):
            word = Word.HOLDS if holds else Word.FAILS
            parts.append(Part(f"{problem}: {name}", word, float(x), None))
    adam, amsgrad = (_path(rows, method, "random") for method in ("Adam", "AMSGrad"))
    looks = np.unique(column(where(rows, problem="random"), "k"))
    tenth = int(np.argmin(np.abs(looks - looks[-1] / 10)))
    moved = amsgrad[-1] - amsgrad[tenth]
    ends, falls = mean_interval(adam[-1]), mean_interval(moved)
    parts += [
        Part(
            "random: Adam ends above +0.9",
            above(ends, WORST - TOLERANCE),
            float(adam[-1].mean()),
            ends,
        ),
        Part(
            f"random: AMSGrad moves down from k = {looks[tenth]:,.0f} to {looks[-1]:,.0f}",
            below(falls, 0.0),
            float(moved.mean()),
            falls,
            f"it ends at {amsgrad[-1].mean():.2f} on average",
        ),
    ]
    finals = [parts[i].effect for i in range(4)]
    sentence = (
        f"Adam ends at {finals[0]:.2f} and {finals[2]:.2f} where the best point is -1, AMSGrad at "
        f"{finals[1]:.2f} and {finals[3]:.2f}; with random gradients Adam ends at "
        f"{adam[-1].mean():.2f} [{ends.low:.2f}, {ends.high:.2f}] and AMSGrad moves by "
        f"{moved.mean():.2f} [{falls.low:.2f}, {falls.high:.2f}] in the last nine tenths."
    )
    return Verdict.all_of(parts, sentence=sentence, pairs=len(moved))


def figure(rows: Sequence[Row]) -> Figure:
    """The position against the step, one panel for each problem."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(12, 3.8), layout="constrained")
    panels = drawn.subplots(1, 3, sharey=True)
    for axes, problem in zip(panels, ("period 3", "period 101", "random"), strict=True):
        for method, colour in (("Adam", COLOURS[1]), ("AMSGrad", COLOURS[0])):
            path = _path(rows, method, problem)
            k = np.unique(column(where(rows, problem=problem), "k"))
            if path.shape[1] > 1:
                axes.plot(k, path, color=colour, linewidth=0.4, alpha=0.4)
            axes.plot(k, path.mean(1), color=colour, label=method)
        axes.axhline(BEST, color=COLOURS[2], linestyle="--", linewidth=0.8, label="best point")
        axes.set(title=f"Gradients: {problem}", xscale="log", xlabel="step k")
    panels[0].set_ylabel("x in [-1, 1]")
    panels[0].legend(loc="center right")
    return drawn


def _path(rows: Sequence[Row], method: str, problem: str) -> np.ndarray:
    """Positions, shape (looks, runs)."""
    ours = where(rows, method=method, problem=problem)
    runs = len({row["run"] for row in ours})
    return column(ours, "x").reshape(-1, runs)
