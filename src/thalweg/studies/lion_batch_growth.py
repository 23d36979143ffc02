"""The gain of Lion over AdamW grows with the batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from thalweg.optim import AdamW, Lion
from thalweg.studies.intervals import above, mean_interval
from thalweg.studies.networks import (
    SeededMLP,
    Tuned,
    cosine,
    digits,
    evaluate,
    geometric_grid,
    rows_of_steps,
    train,
    tune,
)
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Lion gains on AdamW as batches grow",
    paper="Chen et al., NeurIPS 2023, arXiv:2302.06675",
    year=2023,
    sentence="The advantage of Lion over AdamW grows with the batch size.",
    expected="a positive slope of log(AdamW loss / Lion loss) on log2 of the batch size",
    refuted_by="a slope below 0, or so small that a doubling of the batch gains less than 2 %",
)

#: The learning rates both may choose from (Lion's a tenth, its decay ten times as large).
GRID = geometric_grid(1e-3, 1.0, 8)
METHODS = ("AdamW", "Lion")
#: A gain per doubling, in log loss, that counts as none.
NEGLIGIBLE = 0.02
_SIZES: dict[str, tuple[tuple[int, ...], int, int, int]] = {
    # batch sizes, epochs, seeds that tune, seeds that count
    "smoke": ((64, 512), 4, 2, 3),
    "laptop": ((16, 64, 256, 1024), 20, 3, 10),
    "full": ((16, 32, 64, 128, 256, 512, 1024), 30, 5, 10),
}


def _losses(
    method: str, lr: float, batch: int, epochs: int, seeds: Sequence[int], part: str
) -> list[float]:
    """Held-out loss of each seed after equally many examples."""
    data = digits()
    n = len(data.train[0])
    model = SeededMLP((64, 64, 10), seeds)
    if method == "AdamW":
        optimizer: AdamW | Lion = AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    else:
        optimizer = Lion(model.parameters(), lr=lr / 10, weight_decay=0.1)
    rows = rows_of_steps(n, batch, epochs * n // batch, seeds)
    train(model, optimizer, data.train, rows, cosine)
    held_out = data.test if part == "test" else data.validation
    return [float(loss) for loss in evaluate(model, held_out, len(seeds)).loss]


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for each batch size, method and seed: the test loss at the best learning rate."""
    batches, epochs, tuning, counting = _SIZES[scale]
    tuning_seeds = range(1000 * seed + 500, 1000 * seed + 500 + tuning)
    seeds = range(1000 * seed, 1000 * seed + counting)
    for batch in batches:
        for method in METHODS:

            def score(lr: float, method: str = method, batch: int = batch) -> float:
                found = _losses(method, lr, batch, epochs, tuning_seeds, "validation")
                return float(np.mean(np.log(np.maximum(found, 1e-12))))

            tuned: Tuned = tune(GRID, score)
            tested = _losses(method, tuned.value, batch, epochs, seeds, "test")
            for s, loss in zip(seeds, tested, strict=True):
                yield {
                    "batch": batch,
                    "method": method,
                    "seed": s,
                    "lr": tuned.value if method == "AdamW" else tuned.value / 10,
                    "edge": tuned.edge,
                    "test_loss": loss,
                }


def _gains(rows: Sequence[Row]) -> tuple[list[int], np.ndarray]:
    """Batch sizes, and log(AdamW loss / Lion loss) of shape (seeds, batch sizes)."""
    loss = {(r["method"], r["seed"], r["batch"]): float(r["test_loss"]) for r in rows}
    batches = sorted({int(r["batch"]) for r in rows})
    seeds = sorted({int(r["seed"]) for r in rows})
    gains = [[math.log(loss["AdamW", s, b] / loss["Lion", s, b]) for b in batches] for s in seeds]
    return batches, np.array(gains)


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds iff the slope's interval is above 0; else refuted iff it is below the negligible.

    The slope of log(AdamW loss / Lion loss) on log2 of the batch size is taken per seed; the
    interval is Student's over seeds. A tuned learning rate at the edge of the grid: inconclusive.
    """
    batches, gains = _gains(rows)
    slopes = np.polyfit(np.log2(batches), gains.T, 1)[0]
    low, high = mean_interval(slopes)
    word = above((low, high), 0.0)
    if word is Word.INCONCLUSIVE and high < NEGLIGIBLE:
        word = Word.FAILS
    effect = float(slopes.mean())
    edges = sorted({f"{r['method']} at batch {r['batch']}" for r in rows if r["edge"]})
    parts = [
        Part("the slope of log(AdamW loss / Lion loss) per doubling of the batch is > 0",
             word, effect, (low, high),
             "refuted also where its upper end is below 0.02"),
        Part("no tuned learning rate lies at the edge of the grid",
             Word.FAILS if edges else Word.HOLDS, None, None, ", ".join(edges), control=True),
    ]  # fmt: skip
    ends = [math.exp(float(g)) for g in gains.mean(0)[[0, -1]]]
    return Verdict.all_of(
        parts,
        sentence=(
            f"Each doubling of the batch changes the ratio of AdamW's test loss to Lion's by "
            f"{100 * math.expm1(effect):+.1f} % [{100 * math.expm1(low):+.1f}, "
            f"{100 * math.expm1(high):+.1f}] (digits, one hidden layer of 64, equally many "
            f"examples): the ratio is {ends[0]:.2f} at {batches[0]} and {ends[1]:.2f} at "
            f"{batches[-1]}."
        ),
        pairs=len(slopes),
    )


def figure(rows: Sequence[Row]) -> Figure:
    """Test losses at each batch size, and their ratio."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = drawn.subplots(1, 2)
    batches, gains = _gains(rows)
    for method, colour, marker in zip(METHODS, COLOURS, "os", strict=False):
        logs = np.array([
            [math.log(float(r["test_loss"])) for r in rows
             if r["method"] == method and r["batch"] == b]
            for b in batches
        ])  # fmt: skip
        left.plot(batches, np.exp(logs.mean(1)), marker=marker, color=colour, label=method)
        for b, each in zip(batches, np.exp(logs), strict=True):
            left.plot([b] * len(each), each, ".", color=colour, alpha=0.35, markersize=4)
    left.set(title="Tuned at every batch size", xlabel="batch size (examples)",
             ylabel="test loss (nats)", yscale="log")  # fmt: skip
    left.legend()
    ends = [mean_interval(column) for column in gains.T]
    middle = gains.mean(0)
    right.errorbar(
        batches, middle,
        yerr=[middle - [e[0] for e in ends], np.array([e[1] for e in ends]) - middle],
        color=COLOURS[2], marker="D", capsize=3,
    )  # fmt: skip
    right.axhline(0, color="grey", linewidth=1)
    right.set(title="Gain of Lion, mean and 95 % interval", xlabel="batch size (examples)",
              ylabel="log(AdamW loss / Lion loss)")  # fmt: skip
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(b) for b in batches])
    return drawn
