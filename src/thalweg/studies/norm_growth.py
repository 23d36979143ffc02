"""Momentum inflates scale-invariant weights; dropping the radial part of the step prevents it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.data import Batches
from thalweg.optim import SGD, SGDP
from thalweg.studies.intervals import mean_interval
from thalweg.studies.networks import cosine, digits
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Momentum inflates scale-invariant weights",
    paper="Heo et al., ICLR 2021, arXiv:2006.08217",
    year=2021,
    sentence=(
        "Weights before batch normalization grow faster with momentum than without at an equal "
        "effective first step, so that their effective step decays prematurely; SGDP, which "
        "drops the radial part of the step, prevents it."
    ),
    expected="final norm: momentum > SGD, and SGDP < momentum, on every seed",
    refuted_by="either order reversed on every seed",
)

MOMENTUM = 0.9
#: Learning rate of the methods with momentum; SGD's is 1 / (1 - 0.9) times as large.
LR = 0.1
METHODS = ("SGD", "momentum", "SGDP")
_SIZES: dict[str, tuple[int, int, tuple[float, ...]]] = {  # epochs, seeds, learning rates
    "smoke": (3, 2, (LR,)),
    "laptop": (15, 8, (LR, 0.03)),
    "full": (15, 8, (LR, 0.03, 0.01, 0.003)),
}


class Trained(NamedTuple):
    """The norm of the scale-invariant weights after each epoch (first: at the start)."""

    norms: list[float]
    accuracy: float


def network() -> nn.Sequential:
    """64-64-64-64-10; batch normalization makes the length of the hidden weights irrelevant."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def scale_invariant(model: nn.Sequential) -> list[Tensor]:
    """The weights that a normalization follows."""
    return [layer.weight for layer in model if isinstance(layer, nn.Linear)][:-1]


def _optimizer(method: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    if method == "SGD":
        return SGD(model.parameters(), lr=lr / (1 - MOMENTUM))
    if method == "momentum":
        return SGD(model.parameters(), lr=lr, momentum=MOMENTUM)
    return SGDP(model.parameters(), lr=lr, momentum=MOMENTUM)


def _norm(weights: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(w.detach().double().square().sum()) for w in weights))


def _train(method: str, lr: float, epochs: int, seed: int) -> Trained:
    data = digits()
    torch.manual_seed(seed)
    model = network()
    optimizer = _optimizer(method, model, lr)
    first = float(optimizer.param_groups[0]["lr"])
    batches = Batches(*data.train, batch_size=64, seed=seed)
    norms, step, steps = [_norm(scale_invariant(model))], 0, epochs * len(batches)
    for _ in range(epochs):
        for x, y in batches:
            optimizer.param_groups[0]["lr"] = first * cosine(step, steps)
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            step += 1
        norms.append(_norm(scale_invariant(model)))
    model.eval()
    with torch.no_grad():
        x, y = data.test
        accuracy = float((model(x).argmax(1) == y).double().mean())
    return Trained(norms, accuracy)


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for each learning rate, seed and method, with the norm after every epoch."""
    epochs, seeds, lrs = _SIZES[scale]
    for lr in lrs:
        for s in range(1000 * seed, 1000 * seed + seeds):
            for method in METHODS:

                def row(lr: float = lr, s: int = s, method: str = method) -> Row:
                    trained = _train(method, lr, epochs, s)
                    grown = [norm / trained.norms[0] for norm in trained.norms]
                    after = {f"growth_{epoch}": value for epoch, value in enumerate(grown)}
                    return {
                        "lr": lr, "seed": s, "method": method,
                        "growth": grown[-1], "test_accuracy": trained.accuracy, **after,
                    }  # fmt: skip

                yield row


def _growth(rows: Sequence[Row], lr: float, value: str = "growth") -> dict[str, np.ndarray]:
    """A value of each seed, by method."""
    return {
        method: np.array([float(r[value]) for r in rows if r["method"] == method and r["lr"] == lr])
        for method in METHODS
    }


def _everywhere(larger: np.ndarray, smaller: np.ndarray, statement: str) -> Part:
    """Holds iff the order is seen on all seeds, refuted iff it is reversed on all."""
    logs = np.log(larger / smaller)
    seen = int((logs > 0).sum())
    word = Word.INCONCLUSIVE
    if seen == len(logs):
        word = Word.HOLDS
    elif (logs < 0).all():
        word = Word.FAILS
    return Part(
        statement, word, float(np.exp(logs.mean())),
        (float(np.exp(mean_interval(logs)[0])), float(np.exp(mean_interval(logs)[1]))),
        f"on {seen} of {len(logs)} seeds; effect: ratio of the final norms, geometric mean",
    )  # fmt: skip


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds iff, at learning rate 0.1, both orders are seen on every seed.

    With 8 seeds chance does so in 0.8 % of all cases (two-sided). Refuted iff either is reversed on
    every seed.
    """
    growth = _growth(rows, LR)
    accuracy = _growth(rows, LR, "test_accuracy")
    parts = (
        _everywhere(growth["momentum"], growth["SGD"],
                    "the final norm is larger with momentum than without, on every seed"),
        _everywhere(growth["momentum"], growth["SGDP"],
                    "the final norm is smaller with SGDP than with momentum, on every seed"),
    )  # fmt: skip
    means = {m: float(np.exp(np.log(growth[m]).mean())) for m in METHODS}
    shown = {m: 100 * float(accuracy[m].mean()) for m in METHODS}
    low, high = parts[0].interval or (math.nan, math.nan)
    return Verdict.all_of(
        parts,
        sentence=(
            f"At an equal effective first step the weights grow to {means['SGD']:.2f} times their "
            f"norm with SGD, {means['momentum']:.2f} with momentum ({parts[0].effect:.3f} times "
            f"SGD's [{low:.3f}, {high:.3f}]) and {means['SGDP']:.2f} with SGDP; test accuracy "
            f"{shown['SGD']:.1f}, {shown['momentum']:.1f} and {shown['SGDP']:.1f} % "
            "(digits, batch normalization, learning rate 0.1, cosine decay)."
        ),
    )


def figure(rows: Sequence[Row]) -> Figure:
    """Growth of the norm over epochs, and the effective step that is left."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = drawn.subplots(1, 2)
    epochs = max(int(key[7:]) for key in rows[0] if key.startswith("growth_"))
    for method, colour, marker in zip(METHODS, COLOURS, "osD", strict=False):
        curves = np.array([
            [float(r[f"growth_{e}"]) for e in range(epochs + 1)]
            for r in rows if r["method"] == method and r["lr"] == LR
        ])  # fmt: skip
        for curve in curves:
            left.plot(curve, color=colour, alpha=0.3, linewidth=1)
        middle = np.exp(np.log(curves).mean(0))
        left.plot(middle, color=colour, marker=marker, markersize=4, label=method)
        right.plot(middle**-2.0, color=colour, marker=marker, markersize=4, label=method)
    left.set(title="Norm of the scale-invariant weights", xlabel="epoch",
             ylabel="norm / norm at the start")  # fmt: skip
    right.set(title="What the growth leaves of the effective step", xlabel="epoch",
              ylabel="(norm at the start / norm)²")  # fmt: skip
    left.legend()
    return drawn
