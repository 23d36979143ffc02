r"""Stochastic gradient descent leaves strict saddles, from wherever it starts.

.. math:: f(x, y) = \tfrac14 (x^2 - 1)^2 + \tfrac12 y^2

has a strict saddle at 0 (eigenvalue -1 along x) and minima at :math:`(\pm 1, 0)`. Runs start on the
saddle, and at (0, 1) on its stable manifold, which gradient descent never leaves. The noise of the
gradient is uniform on the unit circle: bounded and uniformly exciting, as the theorem asks. Steps
are :math:`c/(k + 20)^p`. What is counted: the share of runs with :math:`|x| < 0.2` after K steps.
Also reported: perturbed SGD, SGLD, and the monkey saddle :math:`x^3 - 3 x y^2 + (x^2 + y^2)^2/4`,
which is degenerate and not covered by the theorem.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thalweg import optim
from thalweg.optim.schedules import Schedule, power
from thalweg.studies.intervals import below, share_interval
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
    title="SGD avoids strict saddles with probability one",
    paper="Mertikopoulos, Hallak, Kavis & Cevher, NeurIPS 2020, arXiv:2006.11144",
    year=2020,
    sentence="With bounded, uniformly exciting noise and steps of order 1/k^p, p in (0, 1], SGD "
    "leaves strict saddles from any start, even the saddle itself, while gradient descent stays "
    "on the stable manifold for ever.",
    expected="the share of runs still near the saddle falls to 0, slowly for p = 1 and small c "
    "(the distance grows like k^(c |lambda_min|)); gradient descent: all stay",
    refuted_by="a share above 1 % in the end for p < 1, or one that stops falling for p = 1",
)

EXPONENTS, FACTORS, OFFSET = (0.5, 0.75, 1.0), (0.5, 1.0, 2.0), 20.0
STARTS = {"saddle": (0.0, 0.0), "stable manifold": (0.0, 1.0)}
RUNS = {"smoke": 500, "laptop": 1000, "full": 2000}
CHECKPOINTS = {
    "smoke": (100, 300, 1000),
    "laptop": (100, 1000, 10_000),
    "full": (100, 1000, 10_000, 30_000),
}
NEAR = 0.2
GD_STEP, CONSTANT_STEP, TEMPERATURE = 0.1, 0.05, 0.05
SMALL_SHARE = 0.01


def run(scale: Scale, seed: int) -> Iterator[Row]:
    """One row for every method, start and checkpoint: how many runs are still near the saddle."""
    generator = torch.Generator().manual_seed(seed)
    n, checkpoints = RUNS[scale], CHECKPOINTS[scale]
    starts = torch.tensor(list(STARTS.values()), dtype=torch.float64)
    for k, x in gradient_descent(starts, checkpoints):
        for name, near in zip(STARTS, x[:, 0].abs() < NEAR, strict=True):
            yield {"method": "GD", "start": name, "k": k, "near": int(near), "runs": 1}

    arms = [(p, c) for p in EXPONENTS for c in FACTORS]
    schedules = [power(c, p, OFFSET) for p, c in arms]
    both = starts.repeat_interleave(n, dim=0)
    for k, x in noisy_descent(gradient, both, schedules, checkpoints, generator):
        near = (x[..., 0].abs() < NEAR).view(len(arms), len(STARTS), n).sum(2)
        for (p, c), counts in zip(arms, near.tolist(), strict=True):
            for name, count in zip(STARTS, counts, strict=True):
                row: Row = {"method": "SGD", "start": name, "k": k, "near": count, "runs": n}
                yield {**row, "p": p, "c": c}
    yield from _reported(n, checkpoints, generator)


def gradient(x: Tensor) -> Tensor:
    r"""The gradient :math:`(x (x^2 - 1), y)` of :math:`f(x, y) = (x^2 - 1)^2/4 + y^2/2`.

    Examples
    --------
    >>> gradient(torch.tensor([[-1.0, 1.0], [2.0, 0.0]])).tolist()
    [[-0.0, 1.0], [6.0, 0.0]]
    """
    first, second = x.unbind(-1)
    return torch.stack((first * (first**2 - 1), second), dim=-1)


def monkey_gradient(x: Tensor) -> Tensor:
    r"""The gradient of the monkey saddle :math:`x^3 - 3 x y^2 + (x^2 + y^2)^2/4`.

    Examples
    --------
    >>> monkey_gradient(torch.tensor([1.0, 1.0])).tolist()
    [2.0, -4.0]
    """
    first, second = x.unbind(-1)
    saddle = torch.stack((3 * first**2 - 3 * second**2, -6 * first * second), dim=-1)
    return saddle + (x**2).sum(-1, keepdim=True) * x


def on_the_circle(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Directions, uniform on the unit circle, of shape (*shape, 2).

    Examples
    --------
    >>> on_the_circle((5,), torch.Generator().manual_seed(0)).norm(dim=1).round(decimals=6)
    tensor([1., 1., 1., 1., 1.], dtype=torch.float64)
    """
    angle = 2 * math.pi * torch.rand(*shape, generator=generator, dtype=torch.float64)
    return torch.stack((angle.cos(), angle.sin()), dim=-1)


def gradient_descent(start: Tensor, checkpoints: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Gradient descent with step 0.1 from each row of `start`: (k, positions) at checkpoints."""
    x = torch.nn.Parameter(start.clone())
    optimizer = optim.SGD([x], lr=GD_STEP)
    for k in range(1, max(checkpoints) + 1):
        x.grad = gradient(x.detach())
        optimizer.step()
        if k in checkpoints:
            yield k, x.detach().clone()


def noisy_descent(
    gradient_of: Callable[[Tensor], Tensor],
    start: Tensor,
    schedules: Sequence[Schedule],
    checkpoints: Sequence[int],
    generator: torch.Generator,
) -> Iterator[tuple[int, Tensor]]:
    """SGD on many runs at once, one parameter group for each schedule.

    Parameters
    ----------
    gradient_of
        From positions of shape (..., 2) to gradients.
    start
        Shape (runs, 2).
    schedules
        The step sizes; every one gets all runs.
    checkpoints
        When to look.
    generator
        Of the noise, uniform on the unit circle.

    Yields
    ------
    tuple
        k and the positions, shape (schedules, runs, 2).

    Examples
    --------
    >>> start, generator = torch.zeros(4, 2, dtype=torch.float64), torch.Generator().manual_seed(0)
    >>> ((k, x),) = noisy_descent(gradient, start, [power(0.5)], [1], generator)
    >>> x.norm(dim=2).round(decimals=6)
    tensor([[0.5000, 0.5000, 0.5000, 0.5000]], dtype=torch.float64)
    """
    x = start.repeat(len(schedules), 1, 1)
    arms = [torch.nn.Parameter(part) for part in x]  # views of x: a step moves x itself
    optimizer = optim.SGD([{"params": [arm], "lr": 0.0} for arm in arms])
    for k in range(1, max(checkpoints) + 1):
        g = gradient_of(x) + on_the_circle(x.shape[:2], generator)
        for group, schedule in zip(optimizer.param_groups, schedules, strict=True):
            group["lr"] = schedule(k)
        for arm, part in zip(arms, g, strict=True):
            arm.grad = part
        optimizer.step()
        if k in checkpoints:
            yield k, x.clone()


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds if the share gets below 1 % for p < 1 and falls for p = 1; GD has to stay."""
    sgd = where(rows, method="SGD")
    parts = []
    for p in EXPONENTS:
        for c in FACTORS:
            for start in STARTS:
                arm = where(sgd, p=p, c=c, start=start)
                parts.append(_falls(arm, c, start) if p == 1 else _vanishes(arm, p, c, start))
    stayed = all(row["near"] == row["runs"] for row in where(rows, method="GD"))
    parts.append(
        Part(
            "gradient descent stays, from both starts",
            Word.HOLDS if stayed else Word.FAILS,
            None,
            None,
            control=True,
        )
    )
    last = int(column(rows, "k").max())
    worst = {p: max(_share(row) for row in where(sgd, p=p, k=last)) for p in EXPONENTS}
    sentence = (
        f"After {last:,} steps at most {100 * max(worst[0.5], worst[0.75]):.2g} % of runs "
        f"are still near the saddle for p < 1; for p = 1 at most {100 * worst[1.0]:.2g} %, with "
        f"the smallest factor c; gradient descent {'stays' if stayed else 'does not stay'}."
    )
    return Verdict.all_of(parts, sentence=sentence)


def figure(rows: Sequence[Row]) -> Figure:
    """The share of runs near the saddle against the step, one panel for each exponent."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(12, 4), layout="constrained")
    panels = drawn.subplots(1, len(EXPONENTS), sharey=True)
    sgd = where(rows, method="SGD", start="saddle")
    smallest = 0.5 / float(column(sgd, "runs").max())
    for axes, p in zip(panels, EXPONENTS, strict=True):
        for i, (c, colour, marker) in enumerate(zip(FACTORS, COLOURS, "osD", strict=False)):
            arm = where(sgd, p=p, c=c)
            beside = 1.12 ** (i - 1)  # equal shares would hide each other
            shares = [max(_share(row), smallest) for row in arm]
            limits = [_interval(row) for row in arm]
            errors = [
                [
                    share - max(low, smallest)
                    for share, (low, _) in zip(shares, limits, strict=True)
                ],
                [high - share for share, (_, high) in zip(shares, limits, strict=True)],
            ]
            label = f"SGD, c = {c:g}"
            k = column(arm, "k") * beside
            axes.errorbar(k, shares, errors, fmt=f"{marker}-", color=colour, label=label)
        gd = where(rows, method="GD", start="saddle")
        axes.plot(column(gd, "k"), [1.0] * len(gd), "--", color=COLOURS[6], label="GD")
        axes.axhline(smallest, color=COLOURS[7], linewidth=0.8, linestyle=":")
        axes.set(title=f"steps c / (k + 20)^{p:g}", xscale="log", yscale="log", xlabel="step k")
    panels[0].legend(loc="center right")
    panels[0].set_ylabel("share of runs with |x| < 0.2\n(dotted line: none)")
    drawn.suptitle("Started exactly on the saddle")
    return drawn


def _reported(n: int, checkpoints: Sequence[int], generator: torch.Generator) -> Iterator[Row]:
    """What enters no verdict: other methods from the saddle, and the monkey saddle."""
    start = torch.zeros(n, 2, dtype=torch.float64)
    # The library perturbs all parameters with one vector of length r: with r = sqrt(n) each run
    # gets noise of mean square length 1, nearly Gaussian.
    perturbed, langevin = (torch.nn.Parameter(start.clone()) for _ in range(2))
    methods = {
        "perturbed SGD": optim.PerturbedSGD(
            [perturbed], lr=CONSTANT_STEP, radius=math.sqrt(n), generator=generator
        ),
        "SGLD": optim.SGLD(
            [langevin], lr=CONSTANT_STEP, temperature=TEMPERATURE, generator=generator
        ),
    }
    for method, optimizer in methods.items():
        x = optimizer.param_groups[0]["params"][0]
        for k in range(1, min(max(checkpoints), 10_000) + 1):
            x.grad = gradient(x.detach())
            optimizer.step()
            if k in checkpoints:
                near = int((x.detach()[:, 0].abs() < NEAR).sum())
                yield {"method": method, "start": "saddle", "k": k, "near": near, "runs": n}
    monkey = noisy_descent(
        monkey_gradient, start, [power(1.0, 0.75, OFFSET)], checkpoints, generator
    )
    for k, x in monkey:
        near = int((x[0].norm(dim=1) < NEAR).sum())
        yield {"method": "SGD, monkey saddle", "start": "saddle", "k": k, "near": near, "runs": n}


def _vanishes(arm: Sequence[Row], p: float, c: float, start: str) -> Part:
    interval = _interval(arm[-1])
    return Part(
        f"p = {p:g}, c = {c:g}, from the {start}: less than 1 % are left in the end",
        below(interval, SMALL_SHARE),
        _share(arm[-1]),
        interval,
    )


def _falls(arm: Sequence[Row], c: float, start: str) -> Part:
    """For p = 1 the escape is slow: the share has to fall, not to be small yet."""
    shares, (first, early, last) = [_share(row) for row in arm], (arm[0], arm[1], arm[-1])
    never_rises = all(after <= before for before, after in pairwise(shares))
    if never_rises and _interval(last)[1] < _interval(first)[0]:
        word = Word.HOLDS
    elif shares[-1] > SMALL_SHARE and not _interval(last)[1] < _interval(early)[0]:
        word = Word.FAILS
    else:
        word = Word.INCONCLUSIVE
    return Part(
        f"p = 1, c = {c:g}, from the {start}: the share falls all the time",
        word,
        shares[-1],
        _interval(last),
        f"c |lambda_min| = {c:g}; {100 * shares[0]:.2g} % at k = {first['k']}",
    )


def _share(row: Row) -> float:
    return float(row["near"]) / float(row["runs"])


def _interval(row: Row) -> tuple[float, float]:
    return share_interval(int(row["near"]), int(row["runs"]))
