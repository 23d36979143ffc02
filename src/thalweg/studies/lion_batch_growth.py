"""The gain of Lion over AdamW grows with the batch size.

On a fully connected network (digits), and on a small transformer (sequences of a Markov chain, each
seen once). The transformer's loss is counted above that of the chain itself, which no model
beats: else its ratio would say little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.data.models import CharacterTransformer
from thalweg.optim import AdamW, Lion
from thalweg.studies.intervals import above, mean_interval
from thalweg.studies.markov_corpus import LENGTH, TOKENS, chain_loss, corpus
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
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word, column, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
GRIDS = {"MLP": geometric_grid(1e-3, 1.0, 8), "transformer": geometric_grid(3e-4, 0.3, 7)}
MODELS = {"MLP": "digits, one hidden layer of 64", "transformer": "a transformer of one block"}
METHODS = ("AdamW", "Lion")
#: A gain per doubling, in log loss, that counts as none.
NEGLIGIBLE = 0.02
#: Sequences that measure the transformer, and their seeds.
HELD_OUT, HELD_OUT_SEEDS = 256, {"validation": 999_983, "test": 999_979}


class Size(NamedTuple):
    """Of one model; `examples` is how many are seen, at every batch size."""

    batches: tuple[int, ...]
    examples: int
    tuning_seeds: int
    seeds: int


_SIZES: dict[str, dict[str, Size]] = {
    "smoke": {
        "MLP": Size((64, 512), 4 * 1078, 2, 3),
        "transformer": Size((8, 16), 64, 1, 3),
    },
    "laptop": {
        "MLP": Size((16, 64, 256, 1024), 20 * 1078, 3, 10),
        "transformer": Size((8, 32, 128), 2048, 1, 8),
    },
    "full": {
        "MLP": Size((16, 32, 64, 128, 256, 512, 1024), 30 * 1078, 5, 10),
        "transformer": Size((16, 32, 64, 128, 256, 512, 1024), 2**16, 3, 10),
    },
}


def _optimizer(method: str, model: nn.Module, lr: float) -> AdamW | Lion:
    if method == "AdamW":
        return AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    return Lion(model.parameters(), lr=lr / 10, weight_decay=0.1)


def _mlp_losses(
    method: str, lr: float, batch: int, examples: int, seeds: Sequence[int], part: str
) -> list[float]:
    """Held-out loss of each seed after equally many examples."""
    data = digits()
    model = SeededMLP((64, 64, 10), seeds)
    rows = rows_of_steps(len(data.train[0]), batch, examples // batch, seeds)
    train(model, _optimizer(method, model, lr), data.train, rows, cosine)
    held_out = data.test if part == "test" else data.validation
    return [float(loss) for loss in evaluate(model, held_out, len(seeds)).loss]


def _transformer_losses(
    method: str, lr: float, batch: int, examples: int, seeds: Sequence[int], part: str
) -> list[float]:
    """Held-out loss of each seed above the chain's own, after equally many sequences."""
    held_out = corpus(HELD_OUT, HELD_OUT_SEEDS[part])
    return [
        _next_token_loss(_transformer(method, lr, batch, examples, s), held_out)
        - chain_loss(held_out)
        for s in seeds
    ]


def _transformer(method: str, lr: float, batch: int, examples: int, seed: int) -> nn.Module:
    """Trained on sequences of its own seed, each seen once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CharacterTransformer(TOKENS, LENGTH, width=32, heads=1, blocks=1)
    optimizer, batches = _optimizer(method, model, lr), corpus(examples, seed).split(batch)
    for step, tokens in enumerate(batches):
        optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * cosine(step, len(batches))
        optimizer.zero_grad()
        _cross_entropy(model, tokens).backward()
        optimizer.step()
    return model


def _cross_entropy(model: nn.Module, tokens: Tensor) -> Tensor:
    return functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def _next_token_loss(model: nn.Module, tokens: Tensor) -> float:
    return float(_cross_entropy(model, tokens))


_LOSSES = {"MLP": _mlp_losses, "transformer": _transformer_losses}


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for each model, batch size, method and seed: test loss at the best learning rate."""
    for model, size in _SIZES[scale].items():
        for batch in size.batches:
            for method in METHODS:
                yield from _rows(model, size, batch, method, 1000 * seed)


def _rows(model: str, size: Size, batch: int, method: str, first: int) -> Iterator[Row]:
    tuning_seeds = range(first + 500, first + 500 + size.tuning_seeds)
    seeds = range(first, first + size.seeds)

    def losses(lr: float, seeds: Sequence[int], part: str) -> list[float]:
        return _LOSSES[model](method, lr, batch, size.examples, seeds, part)

    def score(lr: float) -> float:
        found = losses(lr, tuning_seeds, "validation")
        return float(np.mean(np.log(np.maximum(found, 1e-12))))

    tuned: Tuned = tune(GRIDS[model], score)
    for s, loss in zip(seeds, losses(tuned.value, seeds, "test"), strict=True):
        yield {
            "model": model,
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
    """Holds iff each model's interval of the slope is above 0; refuted iff one's is negligible.

    The slope of log(AdamW loss / Lion loss) on log2 of the batch size is taken per seed; the
    interval is Student's over seeds. Refuted is a model where it lies below 0, or its upper end
    below the negligible. A tuned learning rate at the edge of the grid: inconclusive.
    """
    models = [model for model in MODELS if where(rows, model=model)]
    parts, told, pairs = [], [], 0
    for model in models:
        batches, gains = _gains(where(rows, model=model))
        slopes = np.polyfit(np.log2(batches), gains.T, 1)[0]
        low, high = mean_interval(slopes)
        word = above((low, high), 0.0)
        if word is Word.INCONCLUSIVE and high < NEGLIGIBLE:
            word = Word.FAILS
        effect, pairs = float(slopes.mean()), len(slopes)
        parts.append(
            Part(f"{model}: the slope of log(AdamW loss / Lion loss) per doubling of the batch "
                 "is > 0", word, effect, (low, high),
                 "refuted also where its upper end is below 0.02")
        )  # fmt: skip
        ends = [math.exp(float(g)) for g in gains.mean(0)[[0, -1]]]
        told.append(
            f"{100 * math.expm1(effect):+.1f} % [{100 * math.expm1(low):+.1f}, "
            f"{100 * math.expm1(high):+.1f}] ({MODELS[model]}: the ratio is {ends[0]:.2f} at "
            f"{batches[0]} and {ends[1]:.2f} at {batches[-1]})"
        )
    edges = [f"{r['model']}, {r['method']} at batch {r['batch']}" for r in rows if r["edge"]]
    control = Part("no tuned learning rate lies at the edge of the grid",
                   Word.FAILS if edges else Word.HOLDS, None, None,
                   "; ".join(dict.fromkeys(edges)), control=True)  # fmt: skip
    sentence = (
        "Each doubling of the batch, equally many examples seen, changes the ratio of AdamW's test "
        f"loss to Lion's by {' and by '.join(told)}."
    )
    return Verdict.all_of([*parts, control], sentence=sentence, pairs=pairs)


def figure(rows: Sequence[Row]) -> Figure:
    """For each model: test losses at each batch size, and their ratio."""
    from matplotlib.figure import Figure

    models = [model for model in MODELS if where(rows, model=model)]
    drawn = Figure(figsize=(9, 3.8 * len(models)), layout="constrained")
    for model, axes in zip(models, drawn.subplots(len(models), 2, squeeze=False), strict=True):
        _draw(where(rows, model=model), model, *axes)
    return drawn


def _draw(rows: Sequence[Row], model: str, left: Axes, right: Axes) -> None:
    batches, gains = _gains(rows)
    for method, colour, marker in zip(METHODS, COLOURS, "os", strict=False):
        losses = [column(where(rows, method=method, batch=b), "test_loss") for b in batches]
        means = [np.exp(np.log(each).mean()) for each in losses]
        left.plot(batches, means, marker=marker, color=colour, label=method)
        for b, each in zip(batches, losses, strict=True):
            left.plot([b] * len(each), each, ".", color=colour, alpha=0.35, markersize=4)
    unit = "test loss (nats)" if model == "MLP" else "test loss above the chain's (nats)"
    left.set(title=f"{model}, tuned at every batch size", xlabel="batch size (examples)",
             ylabel=unit, yscale="log")  # fmt: skip
    left.legend()
    ends = np.array([mean_interval(each) for each in gains.T])
    middle = gains.mean(0)
    right.errorbar(batches, middle, yerr=[middle - ends[:, 0], ends[:, 1] - middle],
                   color=COLOURS[2], marker="D", capsize=3)  # fmt: skip
    right.axhline(0, color="grey", linewidth=1)
    right.set(title=f"{model}, gain of Lion: mean and 95 % interval",
              xlabel="batch size (examples)", ylabel="log(AdamW loss / Lion loss)")  # fmt: skip
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(b) for b in batches])
