"""Momentum in the input of an LSTM: faster training on sequences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from thalweg.nn import MomentumLSTM
from thalweg.optim import Adam
from thalweg.studies.intervals import above, below, mean_interval
from thalweg.studies.networks import Tuned, digits, losses, rows_of_steps, tune
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Momentum cells train faster than the LSTM",
    paper="Nguyen et al., NeurIPS 2020, arXiv:2006.06919",
    year=2020,
    sentence=(
        "Heavy-ball momentum in the input of an LSTM makes it train faster on sequences, with an "
        "accuracy that is not lower."
    ),
    expected="a training loss below the LSTM's after equally many epochs; no size is claimed here",
    refuted_by="a higher loss on either task, or an accuracy more than one point lower",
)

#: Reaches to 0.3: a grid that ended at 0.1 had its best values there.
GRID = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
#: mu and step of the cell; the first is the LSTM itself.
METHODS = {"LSTM": (0.0, 1.0), "MomentumLSTM": (0.6, 0.6)}
HIDDEN = 32
#: The norm that each network's gradient is clipped to.
CLIP = 1.0
SYMBOLS, REMEMBERED, DELAY = 8, 3, 15
CHUNKS = 10
#: How much lower an accuracy may be to count as not lower.
MARGIN = 0.01


class Size(NamedTuple):
    """How much is run: epochs on digits, pixels read at once, steps of the copy task, seeds."""

    epochs: int
    pixels: int
    copy_steps: int
    tuning_seeds: int
    seeds: int
    grid: tuple[float, ...]


_SIZES: dict[str, Size] = {
    "smoke": Size(1, 8, 10, 1, 2, GRID[2:3]),
    "laptop": Size(30, 8, 250, 2, 8, GRID),
    "full": Size(30, 1, 2000, 3, 8, GRID),
}

Batch = tuple[Tensor, Tensor]
"""Inputs (seeds, sequences, time, features); classes of the last outputs (seeds, sequences, r)."""


# ---------------------------------------------------------------- tasks


class DigitRows:
    """Classify an image that is read `pixels` at a time."""

    name, classes = "digits", 10

    def __init__(self, size: Size) -> None:
        self.features = size.pixels
        self.data = digits()
        self.steps = size.epochs * len(self.data.train[0]) // 128

    def _batch(self, x: Tensor, y: Tensor) -> Batch:
        return x.unflatten(-1, (-1, self.features)), y.unsqueeze(-1)

    def batches(self, seeds: Sequence[int]) -> Iterator[Batch]:
        """The steps of the training: 128 images each, every seed's own shuffled epochs."""
        x, y = self.data.train
        for chosen in rows_of_steps(len(x), 128, self.steps, seeds):
            yield self._batch(x[chosen], y[chosen])

    def measured(self, seeds: int, *, held_out: bool) -> Batch:
        """All test images, or all training images: the same for each of so many seeds."""
        x, y = self.data.test if held_out else self.data.train
        return self._batch(x.expand(seeds, *x.shape), y.expand(seeds, *y.shape))


class Copy:
    """Repeat symbols seen before a pause: the input is one-hot, with a blank for the pause."""

    name, classes, features = "copy", SYMBOLS, SYMBOLS + 1

    def __init__(self, size: Size) -> None:
        self.steps = size.copy_steps

    def _batch(self, sequences: int, seeds: Sequence[int]) -> Batch:
        drawn = [
            torch.randint(
                SYMBOLS, (sequences, REMEMBERED), generator=torch.Generator().manual_seed(s)
            )
            for s in seeds
        ]
        symbols = torch.stack(drawn)
        blank = torch.full((*symbols.shape[:2], DELAY + REMEMBERED), SYMBOLS)
        codes = torch.cat([symbols, blank], dim=-1)
        return nn.functional.one_hot(codes, SYMBOLS + 1).float(), symbols

    def batches(self, seeds: Sequence[int]) -> Iterator[Batch]:
        """The steps of the training: 64 new sequences each, every seed's own."""
        for step in range(self.steps):
            yield self._batch(64, [10_000 * s + step for s in seeds])

    def measured(self, seeds: int, *, held_out: bool) -> Batch:
        """512 sequences, others if held out, that are the same for each of so many seeds."""
        x, y = self._batch(512, [2**40 + held_out])
        return x.expand(seeds, *x.shape[1:]), y.expand(seeds, *y.shape[1:])


# ---------------------------------------------------------------- networks


class Reader(nn.Module):
    """A recurrent layer and a linear map from its output at every time."""

    def __init__(self, features: int, classes: int, mu: float, step: float) -> None:
        super().__init__()
        self.layer = MomentumLSTM(features, HIDDEN, mu=mu, step=step, batch_first=True)
        self.readout = nn.Linear(HIDDEN, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (sequences, time, classes) from inputs (sequences, time, features)."""
        return self.readout(self.layer(x)[0])


class Networks:
    """One reader for each seed, evaluated together; the start is the same for both methods."""

    def __init__(self, task: DigitRows | Copy, method: str, seeds: Sequence[int]) -> None:
        made = []
        for s in seeds:
            torch.manual_seed(s)
            made.append(Reader(task.features, task.classes, *METHODS[method]))
        self.one = made[0]
        stacked, _ = stack_module_state(made)
        self.params = {name: nn.Parameter(p.detach()) for name, p in stacked.items()}

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss and accuracy of each seed."""
        x, y = batch
        outputs = vmap(lambda p, x: functional_call(self.one, p, (x,)))(self.params, x)
        logits = outputs[:, :, -y.shape[-1] :].flatten(1, 2)
        targets = y.flatten(1)
        right = (logits.argmax(-1) == targets).double().mean(1)
        return losses(logits, targets), right

    def clip(self) -> None:
        """Shorten the gradient of each seed's network to norm `CLIP`."""
        gradients = [p.grad for p in self.params.values() if p.grad is not None]
        square = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
        factor = (CLIP / (square.sqrt() + 1e-6)).clamp(max=1.0)
        for g in gradients:
            g.mul_(factor.view(-1, *[1] * (g.dim() - 1)))


def _train(
    task: DigitRows | Copy, method: str, lr: float, seeds: Sequence[int]
) -> tuple[Networks, list[Tensor]]:
    """The trained networks, and each seed's mean loss in every tenth of the training."""
    networks = Networks(task, method, seeds)
    optimizer = Adam(networks.params.values(), lr=lr)
    history = []
    for batch in task.batches(seeds):
        optimizer.zero_grad()
        loss, _ = networks(batch)
        loss.sum().backward()
        networks.clip()
        optimizer.step()
        history.append(loss.detach())
    return networks, [chunk.mean(0) for chunk in torch.stack(history).tensor_split(CHUNKS)]


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for each task, method and seed."""
    size = _SIZES[scale]
    tuning = range(1000 * seed + 500, 1000 * seed + 500 + size.tuning_seeds)
    seeds = range(1000 * seed, 1000 * seed + size.seeds)
    for task in (DigitRows(size), Copy(size)):
        for method in METHODS:

            def score(lr: float, task: DigitRows | Copy = task, method: str = method) -> float:
                networks, _ = _train(task, method, lr, tuning)
                with torch.no_grad():
                    return float(
                        networks(task.measured(len(tuning), held_out=False))[0].log().mean()
                    )

            tuned = tune(size.grid, score) if len(size.grid) > 1 else Tuned(size.grid[0], False)
            networks, history = _train(task, method, tuned.value, seeds)
            with torch.no_grad():
                loss, _ = networks(task.measured(len(seeds), held_out=False))
                _, accuracy = networks(task.measured(len(seeds), held_out=True))
            for i, s in enumerate(seeds):
                curve = {f"loss_{j}": float(h[i]) for j, h in enumerate(history)}
                yield {
                    "task": task.name, "method": method, "seed": s, "lr": tuned.value,
                    "edge": tuned.edge, "loss": float(loss[i]), "accuracy": float(accuracy[i]),
                    "pixels": size.pixels, **curve,
                }  # fmt: skip


# ---------------------------------------------------------------- what follows


def _paired(rows: Sequence[Row], task: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A value of each seed, of the LSTM and of the MomentumLSTM."""
    found = [
        [float(r[name]) for r in rows if r["task"] == task and r["method"] == method]
        for method in METHODS
    ]
    return np.array(found[0]), np.array(found[1])


def _loss_part(rows: Sequence[Row], task: str) -> Part:
    plain, momentum = _paired(rows, task, "loss")
    logs = np.log(momentum / plain)
    interval = mean_interval(logs)
    return Part(
        f"{task}: the loss of the MomentumLSTM over the LSTM's is < 1", below(interval, 0.0),
        math.exp(logs.mean()), (math.exp(interval[0]), math.exp(interval[1])),
    )  # fmt: skip


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds iff the loss is lower on both tasks, and the accuracy on digits not a point lower.

    Losses by the interval (Student's over seeds) of the log ratio against 0; the accuracy by that
    of the difference against -1 point. A tuned learning rate at an edge: inconclusive.
    """
    plain, momentum = _paired(rows, "digits", "accuracy")
    interval = mean_interval(momentum - plain)
    edges = sorted({f"{r['method']} on {r['task']}" for r in rows if r["edge"]})
    parts = (
        _loss_part(rows, "digits"),
        _loss_part(rows, "copy"),
        Part("digits: the test accuracy is not more than one point lower",
             above(interval, -MARGIN), float((momentum - plain).mean()), interval),
        Part("no tuned learning rate lies at the edge of the grid",
             Word.FAILS if edges else Word.HOLDS, None, None, ", ".join(edges), control=True),
    )  # fmt: skip

    def said(part: Part) -> str:
        low, high = part.interval or (math.nan, math.nan)
        return f"{part.effect:.2f} times [{low:.2f}, {high:.2f}]"

    pixels = int(rows[0]["pixels"])
    return Verdict.all_of(
        parts,
        sentence=(
            f"With momentum the final loss is {said(parts[0])} the LSTM's on digits, read in "
            f"{64 // pixels} steps, and {said(parts[1])} on the copy task, "
            f"{DELAY + 2 * REMEMBERED} steps; test accuracy on digits changes by "
            f"{100 * float((momentum - plain).mean()):+.1f} points "
            f"[{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]. The paper's sequences have "
            "hundreds of steps."
        ),
        pairs=len(plain),
    )


def figure(rows: Sequence[Row]) -> Figure:
    """Loss during training on both tasks."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    drawn = Figure(figsize=(9, 3.8), layout="constrained")
    axes = drawn.subplots(1, 2)
    share = 100 * (np.arange(CHUNKS) + 0.5) / CHUNKS
    pixels = int(rows[0]["pixels"])
    titles = {
        "digits": f"Digits, {64 // pixels} steps of {pixels} pixel{'s' * (pixels > 1)}",
        "copy": f"Copy {REMEMBERED} of {SYMBOLS} symbols after {DELAY} blanks",
    }
    for ax, (task, title) in zip(axes, titles.items(), strict=True):
        for method, colour, marker in zip(METHODS, COLOURS, "os", strict=False):
            curves = np.array([
                [float(r[f"loss_{j}"]) for j in range(CHUNKS)]
                for r in rows if r["task"] == task and r["method"] == method
            ])  # fmt: skip
            ax.plot(share, curves.T, color=colour, alpha=0.3, linewidth=1)
            lr = next(r["lr"] for r in rows if r["task"] == task and r["method"] == method)
            ax.plot(share, np.exp(np.log(curves).mean(0)), color=colour, marker=marker,
                    label=f"{method} (learning rate {lr:g})")  # fmt: skip
        ax.set(title=title, xlabel="share of the training (%)", ylabel="training loss (nats)",
               yscale="log")  # fmt: skip
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.legend(fontsize=8)
    return drawn
