"""Step sizes by exponentiated gradient recover from a shift of the labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from thalweg.optim import EGDD, SGD
from thalweg.studies.intervals import below, mean_interval
from thalweg.studies.networks import (
    SeededMLP,
    Tuned,
    cosine,
    digits,
    evaluate,
    geometric_grid,
    losses,
    rows_of_steps,
    tune,
)
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Adapted step sizes recover from a shift",
    paper="Amid, Anil, Fifty & Warmuth, 2022, arXiv:2202.00145",
    year=2022,
    sentence=(
        "Step sizes adapted by exponentiated gradient recover from a shift of the distribution "
        "faster than a learning rate tuned before it."
    ),
    expected=(
        "fewer steps to 95 % training accuracy after the labels are permuted than constant SGD; "
        "no size is claimed here"
    ),
    refuted_by="more steps than SGD with the constant learning rate tuned before the shift",
)

METHODS = ("EGDD", "constant", "cosine")
GRID = geometric_grid(1e-3, 1.0, 7)
BATCH, TARGET = 32, 0.95
#: Steps between two looks at the training accuracy.
LOOK = 5


class Size(NamedTuple):
    """How much is run: epochs on either side of the shift."""

    epochs: int
    tuning_seeds: int
    seeds: int
    grid: tuple[float, ...]


_SIZES: dict[str, Size] = {
    "smoke": Size(3, 1, 2, GRID[4:5]),
    "laptop": Size(15, 3, 10, GRID),
    "full": Size(60, 5, 20, GRID),
}


def _schedule(method: str) -> Callable[[int, int], float]:
    """Cosine decay spans both halves: it does not know of the shift."""
    return cosine if method == "cosine" else lambda step, steps: 1.0


def _optimizer(method: str, model: SeededMLP, lr: float) -> torch.optim.Optimizer:
    if method == "EGDD":
        return EGDD(model.parameters(), lr=lr, momentum=0.9)
    return SGD(model.parameters(), lr=lr, momentum=0.9)


def _permuted(targets: Tensor, seeds: Sequence[int]) -> Tensor:
    """Targets of shape (seeds, rows) under each seed's own permutation of the ten labels."""
    orders = [torch.randperm(10, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return torch.stack([order[targets] for order in orders])


def _train(
    method: str, lr: float, size: Size, seeds: Sequence[int], *, shift: bool
) -> tuple[SeededMLP, Tensor]:
    """Train up to the shift, or past it; training accuracies (looks, seeds), of each half.

    The scale of EGDD is common to all tensors: its seeds must come one by one.
    """
    x, y = digits().train
    half = size.epochs * len(x) // BATCH
    model = SeededMLP((64, 64, 10), seeds)
    optimizer = _optimizer(method, model, lr)
    rows = rows_of_steps(len(x), BATCH, 2 * half, seeds)
    before = y.expand(len(seeds), -1)
    targets = before
    looks: list[Tensor] = []
    for step, chosen in enumerate(rows if shift else rows[:half]):
        if step == half:
            targets = _permuted(y, seeds)
        optimizer.param_groups[0]["lr"] = lr * _schedule(method)(step, 2 * half)
        optimizer.zero_grad()
        losses(model(x[chosen]), targets.gather(1, chosen)).sum().backward()
        optimizer.step()
        if (step % half + 1) % LOOK == 0 and shift:
            with torch.no_grad():
                right = model(x.expand(len(seeds), *x.shape)).argmax(-1) == targets
                looks.append(right.double().mean(1))
    return model, torch.stack(looks) if looks else torch.empty(0, len(seeds))


def _validation_loss(method: str, size: Size, seeds: Sequence[int], lr: float) -> float:
    """Mean log loss on validation data just before the shift."""
    together = [[s] for s in seeds] if method == "EGDD" else [list(seeds)]
    logs = []
    for group in together:
        model, _ = _train(method, lr, size, group, shift=False)
        logs.append(evaluate(model, digits().validation, len(group)).loss.log())
    return float(torch.cat(logs).mean())


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for each method and seed, with the training accuracies after the shift."""
    size = _SIZES[scale]
    tuning = range(1000 * seed + 500, 1000 * seed + 500 + size.tuning_seeds)
    seeds = range(1000 * seed, 1000 * seed + size.seeds)
    for method in METHODS:
        score = partial(_validation_loss, method, size, tuning)
        tuned = tune(size.grid, score) if len(size.grid) > 1 else Tuned(size.grid[0], edge=False)
        for group in [[s] for s in seeds] if method == "EGDD" else [list(seeds)]:
            _, looks = _train(method, tuned.value, size, group, shift=True)
            before, after = looks[: len(looks) // 2], looks[len(looks) // 2 :]
            for i, s in enumerate(group):
                reached = (after[:, i] >= TARGET).nonzero()
                curve = {f"accuracy_{j}": float(a) for j, a in enumerate(after[:, i])}
                yield {
                    "method": method, "seed": s, "lr": tuned.value, "edge": tuned.edge,
                    "steps": LOOK * (int(reached[0]) + 1 if len(reached) else len(after)),
                    "censored": not len(reached),
                    "before": float(before[-1, i]), "looks": len(after), **curve,
                }  # fmt: skip


def _steps(rows: Sequence[Row], method: str) -> np.ndarray:
    return np.array([float(r["steps"]) for r in rows if r["method"] == method])


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds iff the interval of log(steps of EGDD / steps of constant SGD) is below 0.

    Steps are those to 95 % training accuracy after the shift; a run that does not get there enters
    with all its steps, and if most runs of a method do not, nothing is decided. Cosine decay is
    reported only: its learning rate is small by then. A tuned rate at an edge: inconclusive.
    """
    egdd, constant = _steps(rows, "EGDD"), _steps(rows, "constant")
    logs = np.log(egdd / constant)
    interval = mean_interval(logs)
    edges = sorted({str(r["method"]) for r in rows if r["edge"] and r["method"] != "cosine"})
    censored = {m: sum(bool(r["censored"]) for r in rows if r["method"] == m) for m in METHODS}
    reached = all(2 * censored[m] <= len(logs) for m in ("EGDD", "constant"))
    parts = (
        Part("EGDD needs fewer steps than constant SGD to 95 % training accuracy after the shift",
             below(interval, 0.0), math.exp(logs.mean()),
             (math.exp(interval[0]), math.exp(interval[1])), "ratio of steps, geometric mean"),
        Part("most runs get there", Word.HOLDS if reached else Word.FAILS, None, None,
             f"never: {censored['EGDD']} of EGDD, {censored['constant']} of constant SGD",
             control=True),
        Part("no tuned learning rate lies at the edge of the grid",
             Word.FAILS if edges else Word.HOLDS, None, None, ", ".join(edges), control=True),
    )  # fmt: skip
    medians = {m: float(np.median(_steps(rows, m))) for m in METHODS}
    low, high = parts[0].interval or (math.nan, math.nan)
    return Verdict.all_of(
        parts,
        sentence=(
            f"After the labels are permuted, EGDD needs {parts[0].effect:.2f} times [{low:.2f}, "
            f"{high:.2f}] the steps of SGD with the constant learning rate tuned before "
            f"(medians {medians['EGDD']:.0f} and {medians['constant']:.0f}); cosine decay "
            + (
                "mostly does not get there."
                if 2 * censored["cosine"] > len(logs)
                else f"needs {medians['cosine']:.0f}."
            )
        ),
        pairs=len(logs),
    )


def figure(rows: Sequence[Row]) -> Figure:
    """Training accuracy after the shift, and the steps to 95 %."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = drawn.subplots(1, 2, width_ratios=(3, 2))
    steps = LOOK * (1 + np.arange(int(rows[0]["looks"])))
    for i, method in enumerate(METHODS):
        own = [r for r in rows if r["method"] == method]
        curves = np.array(
            [[100 * float(r[f"accuracy_{j}"]) for j in range(len(steps))] for r in own]
        )
        name = "EGDD" if method == "EGDD" else f"SGD, {method}"
        left.plot(steps, curves.T, color=COLOURS[i], alpha=0.2, linewidth=1)
        left.plot(steps, curves.mean(0), color=COLOURS[i], linewidth=2,
                  label=f"{name} (learning rate {float(own[0]['lr']):g})")  # fmt: skip
        right.plot([i] * len(own), [float(r["steps"]) for r in own], "osD"[i], color=COLOURS[i],
                   alpha=0.6)  # fmt: skip
    left.axhline(100 * TARGET, color="grey", linewidth=1, linestyle="--")
    left.set(title="After the labels are permuted", xlabel="steps since the shift",
             ylabel="training accuracy (%)", xscale="log")  # fmt: skip
    left.legend(fontsize=8)
    never = sum(bool(r["censored"]) for r in rows)
    right.set(title=f"Each seed ({never} never get there)" if never else "Each seed",
              ylabel="steps to 95 %", xlim=(-0.5, 2.5))  # fmt: skip
    right.set_ylim(bottom=0)
    right.set_xticks(range(3), ["EGDD", "constant", "cosine"])
    return drawn
