r"""Is a network at a local minimum where SGD stops? A certificate says, before and after a polish.

Gradient descent converges to minima, not to strict saddles: that is about the limit. Here small
networks are trained on digits as is usual, and `thalweg.certify` says what kind of point they
stopped at, over the whole training set. Then a second-order method goes on from there
(`thalweg.curvature.polish`), and the same certificate is asked again: the control that "minimum" is
an answer it can give. The loss has an :math:`\ell_2` term, since without one there is no minimum
to be at: the cross-entropy of separable data has none.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.core.problem import Training
from thalweg.curvature import Objective, certify, extremes, hessian, polish
from thalweg.curvature import Verdict as Kind
from thalweg.data import Batches
from thalweg.optim import SGD
from thalweg.studies.intervals import above, mean_interval, share_interval
from thalweg.studies.networks import cosine, digits
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, column, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Gradient descent ends at minima?",
    paper="Lee, Simchowitz, Jordan & Recht, COLT 2016, arXiv:1602.04915",
    year=2016,
    sentence="Gradient descent converges to local minimizers; read as is common: where SGD "
    "usually stops, the network is at a minimum.",
    expected="where SGD stops, |lambda_min| / lambda_max of 1e-3 to 1e-2 below zero is left and "
    "the point is not stationary; after a second-order polish it is second-order stationary",
    refuted_by="fewer than half of the networks certified as second-order stationary where SGD "
    "stops, or negative curvature proven at more than half of them",
)

HIDDEN, WEIGHT_DECAY = 16, 1e-3
BATCH, LR, MOMENTUM = 32, 0.1, 0.9
NETWORKS = {"smoke": 1, "laptop": 12, "full": 20}
EPOCHS = {"smoke": 5, "laptop": 30, "full": 100}
POLISH_STEPS = {"smoke": 10, "laptop": 200, "full": 1000}
GRADIENT_TOLERANCE = 1e-5
STATIONARY = {
    Kind.SECOND_ORDER_STATIONARY,
    Kind.LOCAL_MINIMUM,
    Kind.MINIMUM_MODULO_SYMMETRY,
}
POINTS = ("SGD", "polished")


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """One row for each network: what kind of point it is at, before and after the polish."""
    for s in range(1000 * seed, 1000 * seed + NETWORKS[scale]):
        yield functools.partial(network_row, s, EPOCHS[scale], POLISH_STEPS[scale])


class Regularized(nn.Module):
    r"""A tanh network 64-16-10 in float64, with :math:`\tfrac c2 \|x\|^2` beside its logits."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Linear(64, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 10)
        self.layers = nn.Sequential(*layers).double()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and penalty."""
        squares = sum((p.square().sum() for p in self.parameters()), start=x.new_zeros(()))
        return self.layers(x), WEIGHT_DECAY / 2 * squares


def loss(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """Cross-entropy and penalty: `Training` calls it."""
    return functional.cross_entropy(output[0], target) + output[1]


def network_row(seed: int, epochs: int, polish_steps: int) -> Row:
    """Train, certify, polish, certify."""
    x, y = digits().train
    x = x.double()
    torch.manual_seed(seed)
    model = Regularized()
    optimizer = SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    batches = Batches(x, y, batch_size=BATCH, seed=seed)
    step, steps = 0, epochs * len(batches)
    for _ in range(epochs):
        for inputs, target in batches:
            optimizer.param_groups[0]["lr"] = LR * cosine(step, steps)
            optimizer.zero_grad()
            loss(model(inputs), target).backward()
            optimizer.step()
            step += 1
    objective = Objective(Training(model, loss, [(x, y)]))
    row: Row = {"seed": seed, "epochs": epochs, **_about(objective, "SGD", seed)}
    before = objective.start
    result = polish(
        objective, gradient_tolerance=GRADIENT_TOLERANCE, max_steps=polish_steps, seed=seed
    )
    return {
        **row, **_about(objective, "polished", seed),
        "polish_steps": int(result.trace["step"][-1]), "polish_products": result.info["products"],
        "escapes": result.info["escapes"],
        "distance": float((objective.start - before).norm() / before.norm()),
    }  # fmt: skip


def _about(objective: Objective, point: str, seed: int) -> Row:
    """The certificate's verdict and both ends of the spectrum."""
    certificate = certify(objective, gradient_tolerance=1e-4, seed=seed)
    # of a point that is not stationary, the certificate takes but a glance at the spectrum
    ends = extremes(hessian(objective), steps=60, generator=torch.Generator().manual_seed(seed))
    return {
        f"{point}_kind": certificate.verdict.name, f"{point}_loss": certificate.loss,
        f"{point}_gradient": certificate.gradient_norm,
        f"{point}_lambda_min": ends.lowest, f"{point}_lambda_max": ends.highest,
        f"{point}_noise": ends.noise,
    }  # fmt: skip


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds if more than half of the networks are stationary and without negative curvature."""
    n = len(rows)
    stationary = {p: sum(Kind[str(r[f"{p}_kind"])] in STATIONARY for r in rows) for p in POINTS}
    flat = sum(float(r["SGD_lambda_min"]) + float(r["SGD_noise"]) >= 0 for r in rows)
    ratio = column(rows, "SGD_lambda_min") / column(rows, "SGD_lambda_max")
    falls = column(rows, "SGD_loss") - column(rows, "polished_loss")
    parts = (
        _share("most networks are second-order stationary where SGD stops", stationary["SGD"], n,
               _kinds(rows, "SGD")),
        _share("most have no direction of proven negative curvature there", flat, n,
               f"lambda_min / lambda_max: median {np.median(ratio):.2g}, from {ratio.min():.2g} "
               f"to {ratio.max():.2g}"),
        _share("most are second-order stationary after a second-order polish",
               stationary["polished"], n, _kinds(rows, "polished"), control=True),
    )  # fmt: skip
    low, high = mean_interval(falls) if n > 1 else (math.nan, math.nan)
    sentence = (
        f"Where SGD stops {stationary['SGD']} of {n} networks are second-order stationary, and "
        f"{n - flat} have proven negative curvature (median lambda_min / lambda_max "
        f"{np.median(ratio):.2g}; |gradient| {np.median(column(rows, 'SGD_gradient')):.2g}); "
        f"after {np.median(column(rows, 'polish_steps')):.0f} steps of Newton-CG (median) "
        f"{stationary['polished']} are, {falls.mean():.2g} [{low:.2g}, {high:.2g}] lower in loss."
    )
    return Verdict.all_of(parts, sentence=sentence)


def _share(statement: str, count: int, n: int, note: str, *, control: bool = False) -> Part:
    interval = share_interval(count, n)
    return Part(statement, above(interval, 0.5), count / n, interval, note, control)


def _kinds(rows: Sequence[Row], point: str) -> str:
    kinds = [str(row[f"{point}_kind"]) for row in rows]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))


def figure(rows: Sequence[Row]) -> Figure:
    """Gradient norm against the least eigenvalue, and both ends of the spectrum."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    kinds = sorted({str(row[f"{p}_kind"]) for row in rows for p in POINTS})
    for point, marker, name in zip(POINTS, "os", ("where SGD stops", "polished"), strict=True):
        for kind in kinds:
            found = where(rows, **{f"{point}_kind": kind})
            if found:
                left.plot(
                    column(found, f"{point}_gradient"), column(found, f"{point}_lambda_min"),
                    marker, color=COLOURS[kinds.index(kind)], alpha=0.8,
                    label=f"{name}: {kind.lower().replace('_', ' ')}",
                )  # fmt: skip
    left.axhline(0, color=COLOURS[7], linewidth=0.8)
    left.set(xscale="log", xlabel="norm of the gradient", ylabel="least eigenvalue of the Hessian",
             title="Each network before and after the polish")  # fmt: skip
    left.legend(fontsize=8)
    for point, colour, marker in zip(POINTS, COLOURS, "os", strict=False):
        ratio = column(rows, f"{point}_lambda_min") / column(rows, f"{point}_lambda_max")
        right.plot(
            np.sort(ratio),
            (np.arange(len(rows)) + 0.5) / len(rows),
            marker + "-",
            color=colour,
            label="where SGD stops" if point == "SGD" else "polished",
        )
    right.axvline(0, color=COLOURS[7], linewidth=0.8)
    right.set(xlabel="least / largest eigenvalue", ylabel="share of networks below",
              title="What negative curvature is left")  # fmt: skip
    right.legend(loc="upper left")
    return drawn
