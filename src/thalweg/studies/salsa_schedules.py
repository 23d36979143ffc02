"""SALSA, without a learning rate to tune, against a hand-tuned schedule of drops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from thalweg.optim import SALSA, SGD
from thalweg.studies.intervals import mean_interval, within
from thalweg.studies.networks import (
    SeededMLP,
    Tuned,
    digits,
    evaluate,
    losses,
    rows_of_steps,
    train,
    tune,
)
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="SALSA matches a hand-tuned schedule",
    paper="Zhang, Lang, Liu & Xiao, 2020, arXiv:2002.10597",
    year=2020,
    sentence=(
        "A line search that finds the step size and a statistical test that lowers it train as "
        "well as a learning rate and a schedule of drops tuned by hand."
    ),
    expected="test accuracy within one point of the tuned schedule's",
    refuted_by="an accuracy more than one point away",
)

#: Learning rates that the schedule may start from; SALSA starts from 1e-3 always.
GRID = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
MARGIN = 0.01
BATCH, SIZES = 32, (64, 128, 10)
POINTS = 50
METHODS = ("schedule", "SALSA")


class Size(NamedTuple):
    """How much is run; the first test of SALSA comes after 8 min_samples steps."""

    epochs: int
    tuning_seeds: int
    seeds: int
    grid: tuple[float, ...]
    min_samples: int


_SIZES: dict[str, Size] = {
    "smoke": Size(4, 1, 2, GRID[3:4], 100),
    "laptop": Size(100, 2, 10, GRID, 200),
    "full": Size(150, 5, 10, GRID, 200),
}


def drops(step: int, steps: int) -> float:
    """A tenth from half of the steps on, a hundredth from three quarters on."""
    return 1.0 if 2 * step < steps else 0.1 if 4 * step < 3 * steps else 0.01


def _schedule(lr: float, size: Size, seeds: Sequence[int]) -> SeededMLP:
    data = digits()
    model = SeededMLP(SIZES, seeds)
    n = len(data.train[0])
    rows = rows_of_steps(n, BATCH, size.epochs * n // BATCH, seeds)
    train(model, SGD(model.parameters(), lr=lr, momentum=0.9), data.train, rows, drops)
    return model


def _salsa(size: Size, seed: int) -> tuple[SeededMLP, list[float], int]:
    """The trained network, its step size at `POINTS` moments, and the number of drops."""
    x, y = digits().train
    model = SeededMLP(SIZES, [seed])
    steps = size.epochs * len(x) // BATCH
    rows = rows_of_steps(len(x), BATCH, steps, [seed])
    optimizer = SALSA(
        model.parameters(), lr=1e-3, batch_size=BATCH, n=len(x), min_samples=size.min_samples
    )
    path: list[float] = []
    for chosen in rows:
        path.append(float(optimizer.param_groups[0]["lr"]))
        inputs, targets = x[chosen], y[chosen]
        optimizer.zero_grad()
        losses(model(inputs), targets).sum().backward()

        def loss(eval_mode: bool, inputs=inputs, targets=targets):  # type: ignore[no-untyped-def]
            return losses(model(inputs), targets).sum().detach()

        optimizer.step(loss)
    at = np.linspace(0, steps - 1, POINTS).round().astype(int)
    return model, [path[i] for i in at], sum(event.dropped for event in optimizer.history)


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for each seed of the tuned schedule, and of SALSA with its step sizes."""
    size = _SIZES[scale]
    data = digits()
    tuning = range(1000 * seed + 500, 1000 * seed + 500 + size.tuning_seeds)
    seeds = range(1000 * seed, 1000 * seed + size.seeds)

    def score(lr: float) -> float:
        found = evaluate(_schedule(lr, size, tuning), data.validation, len(tuning))
        # the error decides, the loss only between equal errors
        return float((1 - found.accuracy).mean() + 1e-6 * found.loss.mean())

    tuned = tune(size.grid, score) if len(size.grid) > 1 else Tuned(size.grid[0], edge=False)
    model = _schedule(tuned.value, size, seeds)
    test = evaluate(model, data.test, len(seeds))
    fit = evaluate(model, data.train, len(seeds))
    for i, s in enumerate(seeds):
        yield {
            "method": "schedule", "seed": s, "lr": tuned.value, "edge": tuned.edge,
            "test_accuracy": float(test.accuracy[i]), "train_loss": float(fit.loss[i]),
            "epochs": size.epochs,
        }  # fmt: skip
    for s in seeds:

        def row(s: int = s) -> Row:
            model, path, dropped = _salsa(size, s)
            steps = {f"lr_{i}": lr for i, lr in enumerate(path)}
            return {
                "method": "SALSA", "seed": s, "lr": 1e-3, "edge": False,
                "test_accuracy": float(evaluate(model, data.test, 1).accuracy),
                "train_loss": float(evaluate(model, data.train, 1).loss),
                "epochs": size.epochs, "drops": dropped, **steps,
            }  # fmt: skip

        yield row


def _paired(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """A value of each seed, of the schedule and of SALSA."""
    found = [[float(r[name]) for r in rows if r["method"] == method] for method in METHODS]
    return np.array(found[0]), np.array(found[1])


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds iff the 90 % interval of the difference of accuracies lies within one point of 0.

    That is a test of equivalence at level 5 %; refuted iff the interval lies outside. The ratio of
    training losses is reported.
    """
    schedule, salsa = _paired(rows, "test_accuracy")
    difference = salsa - schedule
    low, high = mean_interval(difference, 0.90)
    edge = any(r["edge"] for r in rows)
    parts = (
        Part("the test accuracy differs by less than one point (90 % interval)",
             within((low, high), -MARGIN, MARGIN), float(difference.mean()), (low, high)),
        Part("the schedule's learning rate does not lie at the edge of the grid",
             Word.FAILS if edge else Word.HOLDS, None, None, control=True),
    )  # fmt: skip
    losses = _paired(rows, "train_loss")
    ratio = float(np.exp(np.log(losses[1] / losses[0]).mean()))
    dropped = sum(int(r["drops"]) > 0 for r in rows if r["method"] == "SALSA")
    lr = next(r["lr"] for r in rows if r["method"] == "schedule")
    return Verdict.all_of(
        parts,
        sentence=(
            f"SALSA's test accuracy differs by {100 * difference.mean():+.2f} points "
            f"[{100 * low:+.2f}, {100 * high:+.2f}] (90 %) from that of SGD with momentum, the "
            f"best of {len(GRID)} learning rates ({lr:g}) and two drops "
            f"({100 * schedule.mean():.1f} %), after {rows[0]['epochs']} epochs on digits; its "
            f"training loss is {ratio:.2g} times the schedule's, and it lowered its step size on "
            f"{dropped} of {len(salsa)} seeds."
        ),
        pairs=len(difference),
    )


def figure(rows: Sequence[Row]) -> Figure:
    """SALSA's step sizes beside the schedule, and the accuracies in pairs."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = drawn.subplots(1, 2, width_ratios=(3, 2))
    epochs = np.linspace(0, float(rows[0]["epochs"]), POINTS)
    salsa = [r for r in rows if r["method"] == "SALSA"]
    for i, r in enumerate(salsa):
        left.plot(epochs, [float(r[f"lr_{j}"]) for j in range(POINTS)], color=COLOURS[1], alpha=0.6,
                  linewidth=1, label=None if i else "SALSA, each seed")  # fmt: skip
    lr = next(float(r["lr"]) for r in rows if r["method"] == "schedule")
    # SALSA averages gradients, the momentum of SGD sums them: 10 times the length
    tuned = [10 * lr * drops(j, POINTS) for j in range(POINTS)]
    left.step(epochs, tuned, where="post", color=COLOURS[0], linewidth=2, label="tuned schedule")
    left.set(title="Step size", xlabel="epoch", ylabel="step size of the average gradient",
             yscale="log")  # fmt: skip
    left.legend()
    for pair in np.stack(_paired(rows, "test_accuracy"), axis=1):
        right.plot([0, 1], 100 * pair, "o-", color=COLOURS[2], alpha=0.6, linewidth=1)
    right.set(title="Each seed with both", ylabel="test accuracy (%)", xlim=(-0.3, 1.3))
    right.set_xticks([0, 1], ["tuned schedule", "SALSA"])
    return drawn
