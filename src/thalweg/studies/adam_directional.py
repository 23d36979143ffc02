"""Why Adam beats SGD on transformers: its direction is less sharp."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.core.problem import Training
from thalweg.curvature import Objective
from thalweg.curvature.directional import DirectionalSharpness, directional
from thalweg.data.models import CharacterTransformer, mlp
from thalweg.optim import SGD, Adam, clip_coordinates_
from thalweg.optim.adam import adam_direction
from thalweg.studies.intervals import above, mean_interval
from thalweg.studies.markov_corpus import LENGTH, TOKENS, corpus
from thalweg.studies.networks import Tuned, digits, rows_of_steps, tune
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Adam's direction on a transformer is less sharp",
    paper="Pan & Li, 2023, arXiv:2306.00204",
    year=2023,
    sentence=(
        "On transformers the curvature along Adam's direction is far smaller than along the "
        "gradient, and clipping the gradient's largest coordinates lowers it too."
    ),
    expected="sharpness along the gradient over that along Adam's direction: 2.5 to 17",
    refuted_by="a ratio below 2 at step 100 or 300 of either trajectory, or clipping that sharpens",
)

#: Learning rates to choose from, equally many for both.
GRIDS = {
    "Adam": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "SGD": (3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0),
}
PATHS = tuple(GRIDS)
DIRECTIONS = ("gradient", "Adam", "clipped")
#: Share of the coordinates that are clipped.
FRACTION = 0.1
BATCH = 32
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


class Size(NamedTuple):
    """How much is run: `tuned` False takes a middle learning rate as it is."""

    steps: tuple[int, ...]
    seeds: int
    tuned: bool
    models: tuple[str, ...]


_SIZES: dict[str, Size] = {
    "smoke": Size((2, 6, 10), 2, False, ("transformer",)),
    "laptop": Size((10, 100, 300), 10, True, ("transformer", "MLP")),
    "full": Size((10, 100, 300), 10, True, ("transformer", "MLP")),
}


# ---------------------------------------------------------------- what is trained on


class Trajectory:
    """A model and the batch of each step: the same for every optimizer with this seed.

    Parameters
    ----------
    model
        ``"transformer"`` (2 blocks, on the Markov corpus) or ``"MLP"`` (on digits).
    steps
        How many batches of 32 there are.
    seed
        Of the model's start and of the batches.

    Examples
    --------
    >>> run = Trajectory("MLP", steps=3, seed=0)
    >>> run.loss(0).shape, len(run.params)
    (torch.Size([]), 4)
    """

    def __init__(self, model: str, steps: int, seed: int) -> None:
        torch.manual_seed(seed)
        if model == "transformer":
            self.model: nn.Module = CharacterTransformer(
                TOKENS, LENGTH, width=32, heads=1, blocks=2
            )
            sequences = corpus(BATCH * steps, seed).split(BATCH)
            self.batches = [(s[:, :-1], s[:, 1:]) for s in sequences]
        else:
            self.model = mlp((64, 128, 10))
            x, y = digits().train
            rows = rows_of_steps(len(x), BATCH, steps, [seed])[:, 0]
            self.batches = [(x[chosen], y[chosen]) for chosen in rows]

    @property
    def params(self) -> list[Tensor]:
        """The model's parameters, in its order."""
        return list(self.model.parameters())

    def loss(self, step: int) -> Tensor:
        """Mean cross-entropy of this step's batch, a scalar with its graph."""
        return self.training(step).batch_loss(self.batches[step])

    def training(self, step: int) -> Training:
        """This step's batch as all of the data, as instruments take it."""
        return Training(self.model, _cross_entropy, [self.batches[step]])

    def along(
        self, step: int, directions: Sequence[Sequence[Tensor]]
    ) -> list[DirectionalSharpness]:
        """Slope and curvature of the step's loss along each direction, at the parameters now."""
        objective = Objective(self.training(step))
        return [directional(objective, objective.flatten(v)) for v in directions]


def _cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), classes.flatten())


def _optimizer(path: str, params: Sequence[Tensor], lr: float) -> torch.optim.Optimizer:
    return Adam(params, lr=lr, betas=(_BETA1, _BETA2), eps=_EPS) if path == "Adam" else SGD(
        params, lr=lr
    )  # fmt: skip


# ---------------------------------------------------------------- what is measured


def _follow(
    model: str, path: str, lr: float, steps: Sequence[int], seed: int
) -> tuple[list[dict[str, DirectionalSharpness]], float]:
    """What each direction meets at the given steps of a trajectory, and its last mean loss."""
    run = Trajectory(model, max(steps), seed)
    params = run.params
    optimizer = _optimizer(path, params, lr)
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in params]
    measured, history = [], []
    for k in range(1, max(steps) + 1):
        optimizer.zero_grad()
        loss = run.loss(k - 1)
        loss.backward()
        history.append(float(loss.detach()))
        gradients = [p.grad for p in params if p.grad is not None]
        moved = [
            adam_direction(g, *m, k=k, beta1=_BETA1, beta2=_BETA2, eps=_EPS)
            for g, m in zip(gradients, moments, strict=True)
        ]
        moments = [(m, v) for _, m, v in moved]
        if k in steps:
            clipped = [g.clone() for g in gradients]
            clip_coordinates_(clipped, FRACTION)
            directions = (gradients, [u for u, _, _ in moved], clipped)
            along = run.along(k - 1, [[u.detach() for u in v] for v in directions])
            measured.append(dict(zip(DIRECTIONS, along, strict=True)))
        optimizer.step()
    return measured, float(np.mean(history[-max(1, len(history) // 6) :]))


def _tuned(model: str, path: str, size: Size, seed: int) -> Tuned:
    """The learning rate with the lowest loss over the last sixth of the steps, on another seed."""
    if not size.tuned:
        return Tuned(GRIDS[path][2], edge=False)
    steps = max(size.steps)

    def score(lr: float) -> float:
        run = Trajectory(model, steps, seed)
        optimizer = _optimizer(path, run.params, lr)
        history = []
        for k in range(steps):
            optimizer.zero_grad()
            loss = run.loss(k)
            loss.backward()
            optimizer.step()
            history.append(float(loss.detach()))
        return float(np.mean(history[-steps // 6 :]))

    return tune(GRIDS[path], score)


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for each model, trajectory, seed, step and direction."""
    size = _SIZES[scale]
    for model in size.models:
        for path in PATHS:
            tuned = cache(partial(_tuned, model, path, size, 1000 * seed + 500))
            for s in range(1000 * seed, 1000 * seed + size.seeds):
                yield from _rows(model, path, tuned, size.steps, s)


def _rows(
    model: str, path: str, tuned: Callable[[], Tuned], steps: Sequence[int], seed: int
) -> Iterator[Callable[[], Row]]:
    """The rows of one trajectory, which is followed when the first of them is wanted."""

    @cache
    def followed() -> tuple[list[dict[str, DirectionalSharpness]], float]:
        return _follow(model, path, tuned().value, steps, seed)

    def row(i: int, direction: str) -> Row:
        measured, loss = followed()
        along = measured[i][direction]
        return {
            "model": model, "path": path, "lr": tuned().value, "edge": tuned().edge,
            "seed": seed, "step": steps[i], "early": i == 0, "direction": direction,
            "sharpness": along.sharpness, "slope": along.slope / along.norm, "last_loss": loss,
        }  # fmt: skip

    for i in range(len(steps)):
        for direction in DIRECTIONS:
            yield partial(row, i, direction)


# ---------------------------------------------------------------- what follows


def _values(
    rows: Sequence[Row], model: str, path: str, step: int, name: str
) -> dict[str, np.ndarray]:
    """A measured value of each seed, by direction."""
    cell = [r for r in rows if (r["model"], r["path"], r["step"]) == (model, path, step)]
    return {d: np.array([float(r[name]) for r in cell if r["direction"] == d]) for d in DIRECTIONS}


def _ratio(sharpness: dict[str, np.ndarray], other: str) -> np.ndarray:
    """log(sharpness along the gradient / along another direction), where both are positive."""
    g, o = sharpness["gradient"], sharpness[other]
    positive = (g > 0) & (o > 0)
    return np.log(g[positive] / o[positive])


def _part(rows: Sequence[Row], path: str, step: int, other: str, threshold: float) -> Part:
    sharpness = _values(rows, "transformer", path, step, "sharpness")
    logs = _ratio(sharpness, other)
    statement = (
        f"{path}'s trajectory, step {step}: sharpness gradient / {other} > {threshold:.0f}"
    )  # fmt: skip
    missing = len(sharpness["gradient"]) - len(logs)
    note = f"{missing} seeds without a positive sharpness" if missing else ""
    if missing > 1 or len(logs) < 2:
        return Part(statement, Word.INCONCLUSIVE, None, None, note)
    interval = mean_interval(logs)
    return Part(
        statement, above(interval, math.log(threshold)), math.exp(logs.mean()),
        (math.exp(interval[0]), math.exp(interval[1])), note,
    )  # fmt: skip


def _decreases_more(rows: Sequence[Row], path: str, step: int) -> dict[str, bool]:
    """Whether most seeds have a best local decrease, slope^2 / (2 sharpness), above the gradient's.

    Without positive sharpness there is no limit to it.
    """
    sharpness = _values(rows, "transformer", path, step, "sharpness")
    slope = _values(rows, "transformer", path, step, "slope")
    best = {d: np.full(len(slope[d]), math.inf) for d in DIRECTIONS}
    for d in DIRECTIONS:
        positive = sharpness[d] > 0
        best[d][positive] = slope[d][positive] ** 2 / (2 * sharpness[d][positive])
    return {d: bool((best[d] > best["gradient"]).mean() > 0.5) for d in DIRECTIONS[1:]}


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds iff on both trajectories at steps 100 and 300 the ratios are above their thresholds.

    The interval (Student's, of the log ratio over seeds) of gradient / Adam must lie above 2, that
    of gradient / clipped above 1. A cell with more than one sharpness that is not positive decides
    nothing. The first step measured enters no verdict: Adam's sharpness is about 0 there.
    """
    cells = [
        (path, step)
        for path in PATHS
        for step in sorted({int(r["step"]) for r in rows if not r["early"]})
    ]
    parts = [_part(rows, *cell, "Adam", 2.0) for cell in cells]
    parts += [_part(rows, *cell, "clipped", 1.0) for cell in cells]
    edges = sorted({str(r["path"]) for r in rows if r["edge"] and r["model"] == "transformer"})
    parts.append(
        Part("no tuned learning rate lies at the edge of its grid",
             Word.FAILS if edges else Word.HOLDS, None, None, ", ".join(edges), control=True)
    )  # fmt: skip
    adam = [p.effect for p in parts[: len(cells)] if p.effect is not None]
    clipped = [p.effect for p in parts[len(cells) : -1] if p.effect is not None]
    decreases = [_decreases_more(rows, *cell) for cell in cells]
    better = sum(any(d.values()) for d in decreases)
    seeds = len({r["seed"] for r in rows})
    return Verdict.all_of(
        parts,
        sentence=(
            f"The curvature along the gradient is {_range(adam)} times that along Adam's direction "
            f"and {_range(clipped)} times that along the clipped gradient (means of {len(cells)} "
            f"cells). The best local decrease of Adam or clipping exceeds the gradient's in "
            f"{better} of {len(cells)} cells (Adam alone: "
            f"{sum(d['Adam'] for d in decreases)}).{_control(rows, cells)}"
        ),
        pairs=seeds if seeds > 1 else None,
    )


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2g} to {max(values):.2g}" if values else "an undefined number of"


def _control(rows: Sequence[Row], cells: Sequence[tuple[str, int]]) -> str:
    ratios = [_ratio(_values(rows, "MLP", *cell, "sharpness"), "Adam") for cell in cells]
    means = [math.exp(r.mean()) for r in ratios if len(r)]
    return f" On a fully connected network: {_range(means)} times Adam's." if means else ""


def figure(rows: Sequence[Row]) -> Figure:
    """Ratios of sharpness at each step, on both trajectories."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 3.8), layout="constrained")
    axes = drawn.subplots(1, 2, sharey=True)
    steps = sorted({int(r["step"]) for r in rows})
    models = [m for m in ("transformer", "MLP") if any(r["model"] == m for r in rows)]
    series = [(m, d) for m in models for d in DIRECTIONS[1:]]
    for ax, path in zip(axes, PATHS, strict=True):
        for i, (model, direction) in enumerate(series):
            for j, step in enumerate(steps):
                logs = _ratio(_values(rows, model, path, step, "sharpness"), direction)
                x = j + 0.16 * (i - (len(series) - 1) / 2)
                ax.plot([x] * len(logs), np.exp(logs), ".", color=COLOURS[i], alpha=0.5)
                if len(logs):
                    ax.plot(
                        [x], [math.exp(logs.mean())], "osD^"[i], color=COLOURS[i], markersize=7,
                        label=f"{model}, over {'Adam' if direction == 'Adam' else 'clipped'}"
                        if j == len(steps) - 1 else None,
                    )  # fmt: skip
        ax.axhline(2, color="grey", linewidth=1, linestyle="--")
        ax.axhline(1, color="grey", linewidth=1)
        ax.set(title=f"On {path}'s trajectory", xlabel="step", yscale="log")
        ax.set_xticks(range(len(steps)), [str(step) for step in steps])
    axes[0].set_ylabel("sharpness along the gradient\n/ along the other direction")
    axes[1].legend(fontsize=8)
    return drawn
