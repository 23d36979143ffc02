r"""Wide networks: gradient descent gets to zero loss, and random labels can be fitted too.

First experiment: :math:`f(x) = m^{-1/2} \sum_r a_r \max(w_r^\top x, 0)` with fixed signs
:math:`a_r`, gradient descent with step :math:`\eta` on :math:`\tfrac12 \|u - y\|^2` over W alone.
The theorem: for wide networks, at every step t,

.. math:: \|u_t - y\|^2 \le (1 - \eta \lambda_0 / 2)^t\, \|u_0 - y\|^2, \qquad
    \lambda_0 = \lambda_{\min}\Bigl( x_i^\top x_j\,
    \frac{\pi - \arccos x_i^\top x_j}{2 \pi} \Bigr)_{ij}

(textbooks also print it with the rate :math:`1 - \eta` and a trained second layer: it is the
paper's theorem that is tested here). Second experiment: 500 digits with their labels, and with
labels drawn uniformly at random.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.data import load
from thalweg.optim import SGD, Adam
from thalweg.studies.intervals import mean_interval, share_interval, within
from thalweg.studies.networks import SeededMLP, losses, rows_of_steps
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word, column, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Wide networks reach zero loss, on random labels too",
    paper="Du, Zhai, Poczos & Singh, ICLR 2019, arXiv:1810.02054; Zhang et al., ICLR 2017, "
    "arXiv:1611.03530",
    year=2019,
    sentence="Gradient descent takes the loss of a wide two-layer ReLU network to zero at least "
    "as fast as (1 - eta lambda_0 / 2)^t, and networks with far more parameters than images fit "
    "random labels as well, only more slowly and without learning anything.",
    expected="the bound is met at every step from m = 100 on; random labels are fitted by the "
    "widest network in several times the epochs of the true ones, test accuracy 10 %",
    refuted_by="a crossing of the bound at m = 10,000, or random labels that a network with more "
    "than 20 parameters an image does not fit",
)

N, D, STEP, STEPS = 40, 20, 0.2, 2000
STEPS_WIDEST = 600
#: From this width on the bound has to be met.
WIDE = 1000
IMAGES, BATCH, LR = 500, 50, 1e-3
CHANCE, NEAR_CHANCE = 0.1, 0.02
LABELS = ("true", "random")


class Sizes(NamedTuple):
    """Of one scale: widths with their seeds, then widths, seeds and epochs on digits."""

    bound: dict[int, int]
    widths: tuple[int, ...]
    seeds: int
    epochs: int


SIZES: dict[str, Sizes] = {
    "smoke": Sizes({3: 1, 1000: 1}, (8, 64), 2, 10),
    "laptop": Sizes({1: 10, 3: 10, 10: 10, 100: 10, 1000: 5, 10_000: 2}, (8, 32, 128, 512), 5, 800),
    "full": Sizes(
        {1: 10, 2: 10, 3: 10, 10: 10, 100: 10, 1000: 10, 10_000: 3}, (8, 32, 128, 512), 5, 800
    ),
}


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for each width and seed of the bound; then one for each width, labels and seed."""
    sizes = SIZES[scale]
    for m, seeds in sizes.bound.items():
        steps = STEPS_WIDEST if m >= 10_000 or scale == "smoke" else STEPS
        for s in range(seeds):
            yield functools.partial(bound_row, m, 1000 * seed + s, steps)
    for width in sizes.widths:
        yield from label_rows(width, range(1000 * seed, 1000 * seed + sizes.seeds), sizes.epochs)


# -- the bound -------------------------------------------------------------------------------


def limiting_gram(x: Tensor) -> Tensor:
    r"""The Gram matrix of an infinitely wide network on unit vectors, the rows of x (n, d).

    .. math:: H_{ij} = x_i^\top x_j\, \frac{\pi - \arccos x_i^\top x_j}{2 \pi}

    Examples
    --------
    >>> limiting_gram(torch.eye(2))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])
    """
    cosine = (x @ x.T).clamp(-1, 1)
    return cosine * (math.pi - cosine.arccos()) / (2 * math.pi)


def bound_row(m: int, seed: int, steps: int) -> Row:
    """Gradient descent on a network of width m, against the bound at every step."""
    generator = torch.Generator().manual_seed(seed)
    x, y, w, signs = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((N, D), (N,), (m, D), (m,))
    )
    x = x / x.norm(dim=1, keepdim=True)
    a = signs.sign() / math.sqrt(m)
    lambda_0 = float(torch.linalg.eigvalsh(limiting_gram(x))[0])
    first = w.clone()
    weights = nn.Parameter(w)
    optimizer = SGD([weights], lr=STEP)
    squares = np.empty(steps + 1)
    for t in range(steps + 1):
        z = x @ weights.detach().T
        residual = z.relu() @ a - y
        squares[t] = float(residual.square().sum())
        weights.grad = (residual[:, None] * (z > 0) * a).T @ x
        if t < steps:
            optimizer.step()
    rate = math.log1p(-STEP * lambda_0 / 2)
    bound = squares[0] * np.exp(rate * np.arange(steps + 1))
    moved = float((weights.detach() - first).norm(dim=1).max())
    at = {f"square_{t}": float(squares[t]) for t in range(0, steps + 1, max(1, steps // 40))}
    return {
        "experiment": "bound", "m": m, "seed": seed, "steps": steps, "lambda_0": lambda_0,
        "crossings": int((squares > bound).sum()), "final": float(squares[-1] / squares[0]),
        "rate_bound": rate, "rate_linear": 2 * math.log1p(-STEP * lambda_0),
        "rate": decay_rate(squares), "moved": moved, **at,
    }  # fmt: skip


def decay_rate(squares: np.ndarray, floor: float = 1e-20) -> float:
    """Slope of log loss on the step: second half of what lies above `floor` times the start.

    Examples
    --------
    >>> round(decay_rate(0.9 ** np.arange(2000)), 6) == round(math.log(0.9), 6)
    True
    """
    below = np.flatnonzero(squares <= floor * squares[0])
    end = int(below[0]) if len(below) else len(squares)
    t = np.arange(end // 2, end)
    return float(np.polyfit(t, np.log(squares[t]), 1)[0])


# -- random labels ---------------------------------------------------------------------------


def label_rows(width: int, seeds: Sequence[int], epochs: int) -> Iterator[Row]:
    """True and random labels of all seeds in one batch dimension, until all are fitted."""
    data = load("digits")
    inputs, targets = data.inputs / 16, data.targets
    networks = [(labels, s) for labels in LABELS for s in seeds]
    drawn, unseen = [], []
    for labels, s in networks:
        generator = torch.Generator().manual_seed(s)
        order = torch.randperm(len(targets), generator=generator)
        random = torch.randint(10, (len(targets),), generator=generator)
        drawn.append((inputs[order], (targets if labels == "true" else random)[order]))
        # those of the other images are fresh: they had no part in training
        unseen.append(targets[order][IMAGES:])
    x, y = (torch.stack(part) for part in zip(*drawn, strict=True))
    train, rest = (x[:, :IMAGES], y[:, :IMAGES]), (x[:, IMAGES:], y[:, IMAGES:])
    model = SeededMLP((64, width, 10), [s for _, s in networks])
    optimizer = Adam(model.parameters(), lr=LR)
    rows = rows_of_steps(IMAGES, BATCH, epochs * IMAGES // BATCH, [s for _, s in networks])
    each = torch.arange(len(networks))[:, None]
    fitted = torch.zeros(len(networks), dtype=torch.long)
    correct, truly = torch.zeros(2, len(networks))
    accuracy = torch.zeros(len(networks), dtype=torch.float64)
    for step, chosen in enumerate(rows, start=1):
        optimizer.zero_grad()
        losses(model(train[0][each, chosen]), train[1][each, chosen]).sum().backward()
        optimizer.step()
        if step % (IMAGES // BATCH) == 0:
            with torch.no_grad():
                right = (model(train[0]).argmax(-1) == train[1]).double().mean(1)
            accuracy = torch.maximum(accuracy, right)
            new = (accuracy == 1) & (fitted == 0)
            fitted[new] = step * BATCH // IMAGES
            last = step == len(rows)
            if new.any() or last:
                with torch.no_grad():
                    guesses = model(rest[0]).argmax(-1)
                here = new | ((fitted == 0) & last)
                correct[here] = (guesses == rest[1]).sum(1).float()[here]
                truly[here] = (guesses == torch.stack(unseen)).double().mean(1).float()[here]
            if (fitted > 0).all():
                break
    for index, (labels, s) in enumerate(networks):
        yield {
            "experiment": "labels", "width": width, "parameters": 75 * width + 10,
            "labels": labels, "seed": s, "fitted": bool(fitted[index] > 0),
            "epochs": int(fitted[index]) or epochs, "train_accuracy": float(accuracy[index]),
            "correct": int(correct[index]), "unseen": len(targets) - IMAGES,
            "true_accuracy": float(truly[index]),
        }  # fmt: skip


# -- the verdict -----------------------------------------------------------------------------


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds if random labels are fitted, late and in vain, and the bound is never crossed."""
    bound, labels = where(rows, experiment="bound"), where(rows, experiment="labels")
    widest = int(column(labels, "width").max())
    true, random = (where(labels, width=widest, labels=name) for name in LABELS)
    parts = (_fitted(random, widest), _chance(random), _later(true, random), _bound(bound))
    ratio = np.log(column(random, "epochs") / column(true, "epochs"))
    low, high = np.exp(mean_interval(ratio))
    wide = [r for r in bound if float(r["m"]) >= WIDE]
    rates = column(wide, "rate") / column(wide, "rate_bound")
    linear = column(wide, "rate") / column(wide, "rate_linear")
    return Verdict.all_of(
        parts,
        sentence=(
            f"Width {widest} fits random labels of {IMAGES} digits on {_count(random)} seeds, in "
            f"{np.exp(ratio.mean()):.1f} [{low:.1f}, {high:.1f}] times the epochs of the true "
            f"ones, and guesses fresh labels at {100 * float(parts[1].effect or 0):.1f} %; with "
            f"m >= {WIDE:,} the loss crosses the bound on "
            f"{sum(int(r['crossings']) > 0 for r in wide)} of {len(wide)} runs and falls "
            f"{rates.mean():.1f} times as fast ({linear.mean():.2f} times the linear dynamics' "
            "rate 2 log(1 - eta lambda_0))."
        ),
        pairs=len(true),
    )


def _count(rows: Sequence[Row]) -> str:
    return f"{sum(bool(r['fitted']) for r in rows)} of {len(rows)}"


def _fitted(random: Sequence[Row], widest: int) -> Part:
    parameters = int(random[0]["parameters"])
    enough = parameters > 20 * IMAGES
    fitted = all(bool(r["fitted"]) for r in random)
    word = Word.HOLDS if fitted else Word.FAILS if enough else Word.INCONCLUSIVE
    return Part(
        f"the widest network (width {widest}, {parameters:,} parameters) fits random labels",
        word, float(np.mean([bool(r["fitted"]) for r in random])), None,
        f"100 % training accuracy on {_count(random)} seeds",
    )  # fmt: skip


def _chance(random: Sequence[Row]) -> Part:
    correct, unseen = (int(column(random, name).sum()) for name in ("correct", "unseen"))
    interval = share_interval(correct, unseen)
    return Part(
        "its accuracy on fresh random labels is within 2 points of 10 %",
        within(interval, CHANCE - NEAR_CHANCE, CHANCE + NEAR_CHANCE),
        correct / unseen, interval,
        "on the true labels of those images "
        f"{100 * float(column(random, 'true_accuracy').mean()):.0f} %",
    )  # fmt: skip


def _later(true: Sequence[Row], random: Sequence[Row]) -> Part:
    logs = np.log(column(random, "epochs") / column(true, "epochs"))
    later = int((logs > 0).sum())
    word = Word.INCONCLUSIVE
    if later == len(logs):
        word = Word.HOLDS
    elif (logs < 0).all():
        word = Word.FAILS
    low, high = np.exp(mean_interval(logs))
    return Part(
        "random labels take it more epochs than the true ones, on every seed",
        word, float(np.exp(logs.mean())), (float(low), float(high)),
        f"on {later} of {len(logs)} seeds; effect: ratio of the epochs, geometric mean",
    )  # fmt: skip


def _bound(bound: Sequence[Row]) -> Part:
    crossed = {int(r["m"]) for r in bound if int(r["m"]) >= WIDE and int(r["crossings"]) > 0}
    word = Word.HOLDS
    if crossed:
        word = Word.FAILS if max(crossed) >= 10_000 else Word.INCONCLUSIVE
    narrow = sorted({int(r["m"]) for r in bound if int(r["crossings"]) > 0 and int(r["m"]) < WIDE})
    return Part(
        f"the loss is below the bound at every step, for every m >= {WIDE:,} and seed",
        word, None, None,
        f"crossed by some runs at m = {', '.join(map(str, narrow))}" if narrow else "",
    )  # fmt: skip


def figure(rows: Sequence[Row]) -> Figure:
    """Loss against step and bound, movement against width, epochs against width."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(13, 4), layout="constrained")
    left, middle, right = drawn.subplots(1, 3)
    bound, labels = where(rows, experiment="bound"), where(rows, experiment="labels")
    widths = sorted({int(r["m"]) for r in bound})
    seed = bound[0]["seed"]  # one data set for all widths, so that there is one bound
    longest = np.arange(0)
    for m, colour in zip(widths, COLOURS, strict=False):
        row = where(bound, m=m, seed=seed)[0]
        steps = sorted(int(k[7:]) for k in row if k.startswith("square_"))
        values = [max(float(row[f"square_{t}"]) / float(row["square_0"]), 1e-32) for t in steps]
        left.plot(steps, values, color=colour, label=f"m = {m:,}")
        longest = max(longest, np.array(steps), key=len)
    left.plot(longest, np.exp(float(row["rate_bound"]) * longest), "k--", label="bound")
    left.set(yscale="log", xlabel="step", ylabel="loss / loss at the start",
             title="Gradient descent, seed 0")  # fmt: skip
    left.legend(fontsize=8)
    moved = [np.exp(np.log(column(where(bound, m=m), "moved")).mean()) for m in widths]
    middle.plot(widths, moved, "o-", color=COLOURS[0], label="measured")
    middle.plot(widths, moved[-1] * (np.array(widths) / widths[-1]) ** -0.5, "--",
                color=COLOURS[7], label="slope -1/2")  # fmt: skip
    middle.set(xscale="log", yscale="log", xlabel="width m", title="Farthest move of a neuron",
               ylabel="max over r of |w_r(T) - w_r(0)|")  # fmt: skip
    middle.legend()
    for name, colour, marker in zip(LABELS, COLOURS, "os", strict=False):
        for fitted, face in ((True, colour), (False, "none")):
            found = where(labels, labels=name, fitted=fitted)
            right.plot(column(found, "width"), column(found, "epochs"), marker, color=colour,
                       markerfacecolor=face, linestyle="none",
                       label=f"{name} labels" + ("" if fitted else ", not fitted"))  # fmt: skip
    right.set(xscale="log", yscale="log", xlabel="width of the hidden layer",
              ylabel="epochs to 100 % training accuracy", title="500 digits")  # fmt: skip
    right.legend(fontsize=8)
    return drawn
