r"""Batch normalization does not always smooth the landscape, least of all of shallow networks.

Fully connected ReLU networks of depth 1 to 6 on digits, with and without batch normalization after
each hidden layer. Measured is the largest eigenvalue of the Hessian of the full training loss, when
that loss first is <= 0.05: at equal epochs the losses differ by a factor of 10, and the curvature
with them. The loss and its Hessian are those of evaluation mode, with the running statistics, as in
the paper's library; with the statistics of the full batch (training mode) the answer can differ,
so it is printed too.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.core.problem import Training
from thalweg.curvature import Objective, extremes, hessian, trace
from thalweg.data import Batches
from thalweg.optim import SGD
from thalweg.studies.intervals import above, below, mean_interval
from thalweg.studies.networks import Tuned, digits, tune
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word, column, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from thalweg.curvature.objective import Mode

claim = Claim(
    title="Batch normalization does not always smooth the landscape",
    paper="Yao, Gholami, Keutzer & Mahoney, IEEE Big Data 2020, arXiv:1912.07145",
    year=2020,
    sentence="Shallow networks have a larger top Hessian eigenvalue with batch normalization than "
    "without; only for deep ones does it make the landscape smoother.",
    expected="in evaluation mode the ratio with / without is about 2 at depth 1 and falls with "
    "depth; in training mode it is below 1 already at depth 1",
    refuted_by="a ratio below 1 at depth 1, or one that rises with depth",
)

WIDTH, BATCH, MOMENTUM = 64, 32, 0.9
TARGET, CHECKS_PER_EPOCH = 0.05, 8
#: Widened once, and coarser for it: of 0.005 to 0.2, 0.2 had won at depth 1 with normalization.
GRID = (0.002, 0.006, 0.02, 0.06, 0.2, 0.6, 2.0)
WIDENED = "widened from 0.005 to 0.2, whose upper end had won at depth 1 with normalization"
TUNING_SEED = 999_983
MODES: tuple[Mode, ...] = ("eval", "train")
FEWEST_DEPTHS = 3


class Sizes(NamedTuple):
    """Of one scale; a grid of one step is not tuned; only "full" goes on after the target."""

    depths: tuple[int, ...]
    seeds: int
    epochs: int
    grid: tuple[float, ...]
    probes: int


SIZES: dict[str, Sizes] = {
    "smoke": Sizes((1,), 2, 4, (0.2,), 0),
    "laptop": Sizes((1, 2, 4, 6), 5, 10, GRID, 10),
    "full": Sizes((1, 2, 4, 6), 5, 15, GRID, 100),
}


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """For each depth, with and without: the tuned step, then one row a seed."""
    sizes = SIZES[scale]
    for depth in sizes.depths:
        for normalized in (True, False):
            tuned = _tuned(depth, normalized, sizes)
            yield {
                "measure": "step", "depth": depth, "normalized": normalized, "lr": tuned.value,
                "edge": tuned.edge and len(sizes.grid) > 1, "grid": str(sizes.grid),
            }  # fmt: skip
            for s in range(1000 * seed, 1000 * seed + sizes.seeds):
                yield functools.partial(_row, depth, normalized, tuned.value, s, sizes)


def network(depth: int, normalized: bool) -> nn.Sequential:
    """`depth` hidden layers of width 64, Kaiming-normal weights, biases 0.

    Examples
    --------
    >>> [type(layer).__name__ for layer in network(1, True)]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    layers: list[nn.Module] = []
    for before in [64] + [WIDTH] * (depth - 1):
        layers.append(nn.Linear(before, WIDTH))
        layers += [nn.BatchNorm1d(WIDTH)] if normalized else []
        layers.append(nn.ReLU())
    layers.append(nn.Linear(WIDTH, 10))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def trained(
    depth: int, normalized: bool, lr: float, seed: int, epochs: int
) -> Iterator[tuple[int, float, nn.Sequential]]:
    """Train by SGD; 8 times an epoch: the check's number, the evaluation-mode loss, the network."""
    x, y = digits().train
    torch.manual_seed(seed)
    model = network(depth, normalized)
    optimizer = SGD(model.parameters(), lr=lr, momentum=MOMENTUM)
    batches = Batches(x, y, batch_size=BATCH, seed=seed)
    every, step = len(batches) // CHECKS_PER_EPOCH, 0
    for _ in range(epochs):
        for inputs, target in batches:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), target).backward()
            optimizer.step()
            step += 1
            if step % every == 0:
                yield step // every, _loss(model, x, y), model


@torch.no_grad()
def _loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    loss = float(functional.cross_entropy(model(x), y))
    model.train()
    return loss


def _tuned(depth: int, normalized: bool, sizes: Sizes) -> Tuned:
    """The step with which a network of another seed is there first."""
    if len(sizes.grid) == 1:
        return Tuned(sizes.grid[0], False)

    fastest = math.inf

    def checks(lr: float) -> float:
        nonlocal fastest
        for check, loss, _ in trained(depth, normalized, lr, TUNING_SEED, sizes.epochs):
            if loss <= TARGET:
                fastest = min(fastest, check + loss)
                return check + loss  # the lower loss wins a tie
            if check > fastest or not math.isfinite(loss):
                break  # it cannot win any more
        return math.inf

    return tune(sizes.grid[::-1], checks)  # large steps first: they are there, or broken, early


def _row(depth: int, normalized: bool, lr: float, seed: int, sizes: Sizes) -> Row:
    row: Row = {
        "measure": "curvature", "depth": depth, "normalized": normalized, "seed": seed, "lr": lr,
        "reached": False,
    }  # fmt: skip
    loss, model = math.inf, None
    for check, loss, model in trained(depth, normalized, lr, seed, sizes.epochs):
        if loss <= TARGET and not row["reached"]:
            row |= {"reached": True, "loss": loss, "epoch": check / CHECKS_PER_EPOCH}
            row |= _curvature(model, seed, sizes.probes)
            if sizes is not SIZES["full"]:
                return row
    row |= {"last_loss": loss}
    if row["reached"] and model is not None:  # equal epochs: reported only
        row |= {f"last_{k}": v for k, v in _curvature(model, seed, 0).items()}
    return row


def _curvature(model: nn.Module, seed: int, probes: int) -> Row:
    """The largest eigenvalue, and the trace if there are probes, in both modes."""
    training = Training(model, functional.cross_entropy, [digits().train])
    found: Row = {}
    for mode in MODES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # batch statistics are what is asked for
            H = hessian(Objective(training, mode=mode))
        generator = torch.Generator().manual_seed(seed)
        found[f"lambda_max_{mode}"] = extremes(H, tol=1e-3, generator=generator).highest
        if probes:
            traced = trace(H, max_products=probes, method="hutchinson", generator=generator)
            found[f"trace_{mode}"] = float(traced.value)
    return found


# -- the verdict -----------------------------------------------------------------------------


def log_ratios(rows: Sequence[Row], name: str) -> dict[int, dict[int, float]]:
    """Of each seed that got to the target both ways, by depth: log of with / without."""
    found: dict[int, dict[int, float]] = {}
    reached = where(rows, measure="curvature", reached=True)
    for row in where(reached, normalized=True):
        seed, depth = int(row["seed"]), int(row["depth"])
        for other in where(reached, normalized=False, seed=seed, depth=depth):
            value = math.log(max(float(row[name]), 1e-30) / max(float(other[name]), 1e-30))
            found.setdefault(depth, {})[seed] = value
    return found


def slopes(ratios: dict[int, dict[int, float]]) -> list[float]:
    """Per seed, the slope of the log ratio on depth, where there are at least 3 depths.

    Examples
    --------
    >>> [round(s, 6) for s in slopes({1: {0: 3.0}, 2: {0: 2.0}, 3: {0: 1.0}})]
    [-1.0]
    """
    seeds = sorted({s for values in ratios.values() for s in values})
    found = []
    for s in seeds:
        depths = [d for d in ratios if s in ratios[d]]
        if len(depths) >= FEWEST_DEPTHS:
            found.append(float(np.polyfit(depths, [ratios[d][s] for d in depths], 1)[0]))
    return found


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds if, in evaluation mode, the log ratio is > 0 at depth 1 and falls with depth."""
    measured = {mode: log_ratios(rows, f"lambda_max_{mode}") for mode in MODES}
    shallow = list(measured["eval"].get(1, {}).values())
    falls = slopes(measured["eval"])
    failed = sum(not r["reached"] for r in where(rows, measure="curvature"))
    edges = [f"depth {r['depth']} {'with' if r['normalized'] else 'without'}: {r['lr']:g}"
             for r in where(rows, measure="step", edge=True)]  # fmt: skip
    grid = str(where(rows, measure="step")[0]["grid"])
    parts = (
        _part("depth 1: log of the ratio of top eigenvalues, with / without, is > 0", shallow,
              above, "evaluation mode, at a training loss of 0.05"),
        _part("the log ratio falls with depth: slope < 0", falls, below,
              f"per layer; {failed} networks did not get to the loss and are left out"),
        Part("no tuned step lies at the edge of the grid",
             Word.FAILS if edges else Word.HOLDS, None, None,
             f"grid {grid}, {WIDENED}" + (f"; edge at {', '.join(edges)}" if edges else ""),
             control=True),
    )  # fmt: skip
    told = {
        mode: ", ".join(
            f"{math.exp(np.mean(list(values.values()))):.2g} (depth {depth})"
            for depth, values in sorted(ratios.items())
        )
        for mode, ratios in measured.items()
    }
    low, high = parts[0].interval or (math.nan, math.nan)
    train = list(measured["train"].get(1, {}).values())
    looks = "unknown" if not train else "larger" if np.mean(train) > 0 else "smaller"
    sentence = (
        f"At equal loss the top eigenvalue with batch normalization is {told['eval']} times that "
        f"without, with the running statistics (depth 1: [{math.exp(low):.2g}, "
        f"{math.exp(high):.2g}]); with the statistics of the full batch it is {told['train']}: "
        f"there it is {looks} at depth 1."
    )
    return Verdict.all_of(parts, sentence=sentence, pairs=len(shallow) if shallow else None)


def _part(
    statement: str, values: Sequence[float],
    rule: Callable[[tuple[float, float], float], Word], note: str,
) -> Part:  # fmt: skip
    if len(values) < 2:
        return Part(statement, Word.INCONCLUSIVE, None, None, f"{note}; {len(values)} seeds only")
    interval = mean_interval(values)
    return Part(statement, rule(interval, 0.0), float(np.mean(values)), interval, note)


def figure(rows: Sequence[Row]) -> Figure:
    """At equal loss: the ratio against depth in both modes, and the eigenvalues themselves."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    names = {"eval": "running statistics", "train": "statistics of the full batch"}
    reached = where(rows, measure="curvature", reached=True)
    for mode, colour, marker in zip(MODES, COLOURS, "os", strict=False):
        ratios = log_ratios(rows, f"lambda_max_{mode}")
        depths = sorted(ratios)
        for depth in depths:
            values = np.exp(list(ratios[depth].values()))
            left.plot([depth] * len(values), values, marker, color=colour, alpha=0.3)
        means = [math.exp(np.mean(list(ratios[d].values()))) for d in depths]
        left.plot(depths, means, marker + "-", color=colour, label=names[mode])
        found = where(reached, normalized=True)
        right.plot(column(found, "depth"), column(found, f"lambda_max_{mode}"), marker,
                   color=colour, alpha=0.6, label=f"with, {names[mode]}")  # fmt: skip
    found = where(reached, normalized=False)
    right.plot(column(found, "depth"), column(found, "lambda_max_eval"), "D", color=COLOURS[6],
               alpha=0.6, label="without")  # fmt: skip
    left.axhline(1, color=COLOURS[7], linewidth=0.8)
    ticks = sorted({int(r["depth"]) for r in rows})
    left.set(yscale="log", xlabel="hidden layers", xticks=ticks,
             ylabel="top eigenvalue, with / without", title="Ratio, seed by seed")  # fmt: skip
    right.set(yscale="log", xlabel="hidden layers", xticks=ticks,
              ylabel="top eigenvalue of the Hessian", title="Each network")  # fmt: skip
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    drawn.suptitle("When the training loss first is <= 0.05")
    return drawn
