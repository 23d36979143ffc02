r"""Sharp and flat minima: large batches, generalization, and what rescaling does to sharpness.

Three experiments on digits. First: are minima found with the full batch sharper than those found
with batches of 32, at an equal training loss (0.01)? The step decides much, so that there are two
readings: the same step for both, and each with its own fastest step. Second, the counter-claim: in
a ReLU network layer 1 is multiplied by :math:`\alpha` and the weights of layer 2 by
:math:`1/\alpha`. The function is the same, but

.. math:: H \to D H D, \qquad \lambda_{\max} \sim \alpha^2,

while the adaptive sharpness, with perturbations relative to each weight, stays. Third: over runs
with different batches and steps, is the top eigenvalue related to the test error?
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from thalweg.core.problem import Training
from thalweg.curvature import Objective, extremes, hessian
from thalweg.curvature.sharpness import worst_case
from thalweg.studies.intervals import above, mean_interval
from thalweg.studies.networks import Tuned, digits, tune
from thalweg.studies.rank_correlation import tau_interval
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word, column, where
from thalweg.studies.to_a_loss import trained_to

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Large batches find sharp minima, flat ones generalize, and sharpness can be rescaled",
    paper="Keskar et al., ICLR 2017, arXiv:1609.04836; Dinh et al., ICML 2017, arXiv:1703.04933",
    year=2017,
    sentence="Training with large batches ends at sharper minima than with small ones, and flat "
    "minima generalize better; but rescaling layers, which leaves the function unchanged, makes "
    "any minimum as sharp as one likes.",
    expected="full batch sharper at an equal step, not with each one's fastest step; lambda_max "
    "grows like alpha^2 while adaptive sharpness stays; a weak relation to the test error",
    refuted_by="smaller curvature of the full batch in both readings, a rank correlation of "
    "sharpness and test error below 0.25, or a sharpness that rescaling does not change",
)

STEP = 0.3
#: Widened once: of the full batch's (0.15, ..., 1.2), 1.2 had won.
GRIDS = {
    "small": (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6),
    "large": (0.075, 0.15, 0.3, 0.6, 1.2, 2.4, 4.8),
}
WIDENED = "widened: of the full batch's, from 0.15 to 1.2, the upper end had won"
READINGS = ("same step", "fastest step")
BATCHES = ("small", "large")
SMALL = 32
ALPHAS = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Exponent of alpha, its tolerance from alpha = 4 on; what adaptive sharpness may change by.
EXPONENT, EXPONENT_TOLERANCE, ADAPTIVE_TOLERANCE = 2.0, 0.1, 0.05
RADIUS, ADAPTIVE_RADIUS = 0.05, 0.5
CELLS = [(batch, lr) for batch in (16, 32, 128, 512) for lr in (0.2, 0.4, 0.6)]
WEAK = 0.25
TUNING_SEED = 999_983
DRAWS = 2000


class Sizes(NamedTuple):
    """Of one scale: hidden layers, training loss, seeds of the experiments, most steps."""

    hidden: tuple[int, ...]
    target: float
    seeds: tuple[int, int, int]
    steps: int
    cells: int
    alphas: tuple[float, ...] = ALPHAS


SIZES: dict[str, Sizes] = {
    "smoke": Sizes((16, 16), 2.0, (2, 1, 1), 60, 1, (1.0, 4.0, 16.0)),
    "laptop": Sizes((128, 64), 0.01, (4, 1, 3), 2000, 12),
    "full": Sizes((128, 64), 0.01, (10, 5, 5), 6000, 12),
}


def run(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    """The tuned steps; then one row for each network, and one for each factor alpha."""
    sizes, base = SIZES[scale], 1000 * seed
    first, second, third = (range(base, base + n) for n in sizes.seeds)
    # rows are made when they are asked for: those of a killed run are not made again
    group = functools.cache(functools.partial(trained_to, sizes.target, sizes.hidden, sizes.steps))

    @functools.cache
    def fastest(name: str) -> Tuned:
        return Tuned(STEP, False) if scale == "smoke" else _fastest(name, sizes)

    @functools.cache
    def measured(name: str, lr: float, index: int) -> Row:
        ends = group(first, _size(name), lr)[index]
        return {"seed": first[index], "lr": lr, **_sharpness(*ends, first[index], ball=True)}

    def step_row(name: str) -> Row:
        tuned = fastest(name)
        return {"experiment": "step", "batch": name, "lr": tuned.value, "edge": tuned.edge,
                "grid": str(GRIDS[name])}  # fmt: skip

    def batch_row(reading: str, name: str, index: int) -> Row:
        lr = STEP if reading == READINGS[0] else fastest(name).value
        about: Row = {"experiment": "batch", "reading": reading, "batch": name}
        return about | measured(name, lr, index)

    def relation_row(batch: int, lr: float, index: int) -> Row:
        row = _sharpness(*group(third, batch, lr)[index], third[index], ball=False)
        return {"experiment": "relation", "batch": batch, "lr": lr, "seed": third[index], **row}

    def rescaled_row(index: int, s: int, alpha: float) -> Row:
        return _rescaled_row(*group(second, SMALL, STEP)[index], s, alpha)

    for name in BATCHES:
        yield functools.partial(step_row, name)
    for reading in READINGS:
        for name in BATCHES:
            for index in range(len(first)):
                yield functools.partial(batch_row, reading, name, index)
    for index, s in enumerate(second):
        for alpha in sizes.alphas:
            yield functools.partial(rescaled_row, index, s, alpha)
    for batch, lr in CELLS[: sizes.cells]:
        for index in range(len(third)):
            yield functools.partial(relation_row, batch, lr, index)


def _size(name: str) -> int:
    return SMALL if name == "small" else len(digits().train[0])


def _fastest(name: str, sizes: Sizes) -> Tuned:
    """The step with which a network of another seed needs the fewest steps."""

    fewest = sizes.steps

    def steps(lr: float) -> float:
        nonlocal fewest
        # one that takes more than the fewest so far cannot win: it need not be followed
        _, taken = trained_to(
            sizes.target, sizes.hidden, fewest, [TUNING_SEED], _size(name), lr
        )[0]  # fmt: skip
        fewest = taken or fewest
        return taken if taken else math.inf

    return tune(GRIDS[name][::-1], steps)  # large steps first: they are there, or broken, early


# -- measuring -------------------------------------------------------------------------------


def _objective(model: nn.Module, dtype: torch.dtype = torch.float32) -> Objective:
    x, y = digits().train
    return Objective(Training(model, functional.cross_entropy, [(x.to(dtype), y)]))


def _sharpness(model: nn.Sequential, steps: int, seed: int, *, ball: bool) -> Row:
    """Top eigenvalue, error on images not trained on, and the rise of the loss in a ball."""
    # nothing is selected on the validation part here, so that it may be tested on as well
    data = digits()
    x, y = (torch.cat(parts) for parts in zip(data.validation, data.test, strict=True))
    with torch.no_grad():
        error = float((model(x).argmax(1) != y).double().mean())
    row: Row = {"reached": steps > 0, "steps": steps, "error": error}
    if not row["reached"]:
        return row
    objective, generator = _objective(model), torch.Generator().manual_seed(seed)
    row["lambda_max"] = extremes(hessian(objective), tol=1e-2, generator=generator).highest
    if ball:
        radius = RADIUS * float(objective.start.norm())
        row["rise"] = worst_case(objective, radius, restarts=0, generator=generator).value
    return row


def rescaled(model: nn.Sequential, alpha: float) -> nn.Sequential:
    r"""Layer 1 times alpha, the weights of layer 2 times 1/alpha: the same function, in float64.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    >>> x = torch.rand(5, 3).double()
    >>> torch.allclose(rescaled(model, 8.0)(x), model(x), atol=1e-12)
    True
    """
    changed = copy.deepcopy(model).double()
    first, second = [layer for layer in changed if isinstance(layer, nn.Linear)][:2]
    with torch.no_grad():
        first.weight.mul_(alpha)
        first.bias.mul_(alpha)
        second.weight.div_(alpha)
    return changed


def _rescaled_row(model: nn.Sequential, steps: int, seed: int, alpha: float) -> Row:
    x = digits().train[0].double()
    changed = rescaled(model, alpha)
    difference = (changed(x) - rescaled(model, 1.0)(x)).detach().abs().max()
    objective = _objective(changed, torch.float64)
    generator = torch.Generator().manual_seed(seed)
    ends = extremes(hessian(objective), tol=1e-3, generator=generator)
    adaptive = worst_case(
        objective, ADAPTIVE_RADIUS, adaptive=True, restarts=0, generator=generator
    )
    return {
        "experiment": "rescaled", "seed": seed, "alpha": alpha, "reached": steps > 0,
        "lambda_max": ends.highest, "adaptive": adaptive.value, "difference": float(difference),
    }  # fmt: skip


# -- the verdict -----------------------------------------------------------------------------


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds if all three do: larger curvature in both readings, alpha^2, and tau > 0."""
    edges = [f"{r['batch']}: {r['lr']:g}" for r in where(rows, experiment="step", edge=True)]
    grids = ", ".join(f"{r['batch']} {r['grid']}" for r in where(rows, experiment="step"))
    readings = {reading: batch_logs(rows, reading) for reading in READINGS}
    rescaling, relation = _rescaling(rows), _relation(rows)
    parts = (
        _larger(readings), *rescaling, relation,
        Part("no tuned step lies at the edge of its grid",
             Word.FAILS if edges else Word.HOLDS, None, None,
             f"grids: {grids}, {WIDENED}" + (f"; edge at {', '.join(edges)}" if edges else ""),
             control=True),
    )  # fmt: skip
    told = "; ".join(f"{math.exp(np.mean(v)):.2f} with the {k}" for k, v in readings.items() if v)
    low, high = relation.interval or (math.nan, math.nan)
    tau = math.nan if relation.effect is None else relation.effect
    sentence = (
        f"Top eigenvalue, full batch over batches of {SMALL}: {told}. It grows like "
        f"alpha^{rescaling[0].effect:.2f} when layers are rescaled and the function is not, which "
        f"adaptive sharpness does not feel. Rank correlation of the top eigenvalue with the test "
        f"error: {tau:.2f} [{low:.2f}, {high:.2f}]: whether flat minima generalize better is open."
    )
    return Verdict.all_of(parts, sentence=sentence)


def batch_logs(rows: Sequence[Row], reading: str, name: str = "lambda_max") -> list[float]:
    """Of each seed, log of large over small."""
    found = where(rows, experiment="batch", reading=reading, reached=True)
    large = {r["seed"]: float(r[name]) for r in where(found, batch="large")}
    return [
        math.log(large[r["seed"]] / float(r[name]))
        for r in where(found, batch="small")
        if r["seed"] in large
    ]


def _larger(readings: dict[str, list[float]]) -> Part:
    statement = "the full batch ends at a larger top eigenvalue, in both readings"
    if any(len(logs) < 2 for logs in readings.values()):
        return Part(statement, Word.INCONCLUSIVE, None, None, "too few networks were trained")
    intervals = {name: mean_interval(logs) for name, logs in readings.items()}
    words = {above(interval, 0.0) for interval in intervals.values()}
    word = words.pop() if len(words) == 1 else Word.INCONCLUSIVE
    note = "; ".join(
        f"{name}: {np.mean(readings[name]):.2f} [{low:.2f}, {high:.2f}]"
        for name, (low, high) in intervals.items()
    )
    note = f"log ratio, {note}" + ("; the step decides" if word is Word.INCONCLUSIVE else "")
    return Part(statement, word, float(np.mean(readings[READINGS[0]])), intervals[READINGS[0]],
                note)  # fmt: skip


def _rescaling(rows: Sequence[Row]) -> tuple[Part, Part]:
    """Exact statements: the worst seed decides."""
    found = where(rows, experiment="rescaled")
    exponents, changes = [], []
    for s in sorted({int(r["seed"]) for r in found}):
        mine = where(found, seed=s)
        large = [r for r in mine if float(r["alpha"]) >= 4]
        logs = np.log(column(large, "alpha")), np.log(column(large, "lambda_max"))
        exponents.append(float(np.polyfit(*logs, 1)[0]))
        adaptive = column(mine, "adaptive")
        changes.append(float(np.abs(adaptive / adaptive[0] - 1).max()))
    worst = max(exponents, key=lambda e: abs(e - EXPONENT))
    same = float(column(found, "difference").max())
    grows = abs(worst - EXPONENT) <= EXPONENT_TOLERANCE and same <= 1e-10
    stays = max(changes) <= ADAPTIVE_TOLERANCE
    return (
        Part("lambda_max grows like alpha^2, +- 0.1, while the function stays",
             Word.HOLDS if grows else Word.FAILS, worst, None,
             f"outputs differ by {same:.1g} at most; effect: exponent from alpha = 4 on"),
        Part("adaptive sharpness stays within 5 %", Word.HOLDS if stays else Word.FAILS,
             max(changes), None, f"over alpha = 1 to {max(ALPHAS):g}; effect: largest change"),
    )  # fmt: skip


def _relation(rows: Sequence[Row]) -> Part:
    found = where(rows, experiment="relation")
    cells = sorted({(int(r["batch"]), float(r["lr"])) for r in found})
    seeds = sorted({int(r["seed"]) for r in found})
    table = np.full((len(cells), len(seeds), 2), math.nan)
    for r in where(found, reached=True):
        cell = cells.index((int(r["batch"]), float(r["lr"])))
        table[cell, seeds.index(int(r["seed"]))] = float(r["lambda_max"]), float(r["error"])
    runs = int(np.isfinite(table).all(2).sum())
    statement = "flat minima generalize better: tau of top eigenvalue and test error > 0"
    if runs < 10:
        return Part(statement, Word.INCONCLUSIVE, None, None, f"{runs} runs only")
    tau, low, high = tau_interval(table, draws=DRAWS)
    word = Word.HOLDS if low > 0 else Word.FAILS if high < WEAK else Word.INCONCLUSIVE
    return Part(statement, word, tau, (low, high),
                f"{runs} runs of {len(cells)} cells; does not hold if the upper end is < {WEAK:g}; "
                "interval: seeds and cells drawn again")  # fmt: skip


def figure(rows: Sequence[Row]) -> Figure:
    """Eigenvalues of both batches, what alpha does, and sharpness against test error."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = drawn.subplots(1, 3)
    for position, reading in enumerate(READINGS):
        found = where(rows, experiment="batch", reading=reading, reached=True)
        for name, colour, marker, shift in zip(BATCHES, COLOURS, "os", (-0.1, 0.1), strict=False):
            values = column(where(found, batch=name), "lambda_max")
            label = f"batch {SMALL}" if name == "small" else "full batch"
            left.plot([position + shift] * len(values), values, marker, color=colour, alpha=0.6,
                      label=label if position == 0 else None)  # fmt: skip
    left.set(yscale="log", xticks=[0, 1], xlim=(-0.5, 1.5), title="Batch size",
             ylabel="top eigenvalue of the Hessian")  # fmt: skip
    left.set_xticklabels(READINGS)
    left.legend()
    found = where(rows, experiment="rescaled")
    for index, s in enumerate(sorted({int(r["seed"]) for r in found})):
        mine = where(found, seed=s)
        alpha = column(mine, "alpha")
        for name, colour, marker, label in (
            ("lambda_max", COLOURS[0], "o", "top eigenvalue"),
            ("adaptive", COLOURS[1], "s", "adaptive sharpness"),
        ):
            values = column(mine, name)
            middle.plot(alpha, values / values[0], marker + "-", color=colour, alpha=0.7,
                        label=label if index == 0 else None)  # fmt: skip
    middle.plot(ALPHAS, np.array(ALPHAS) ** 2, ":", color=COLOURS[6], label="alpha^2")
    middle.set(xscale="log", yscale="log", xlabel="alpha", ylabel="relative to alpha = 1",
               title="The same function, rescaled")  # fmt: skip
    middle.legend()
    found = where(rows, experiment="relation", reached=True)
    for batch, colour, marker in zip((16, 32, 128, 512), COLOURS, "osD^", strict=False):
        mine = where(found, batch=batch)
        right.plot(column(mine, "lambda_max"), 100 * column(mine, "error"), marker, color=colour,
                   alpha=0.7, linestyle="none", label=f"batch {batch}")  # fmt: skip
    right.set(xlim=(0, None),  xlabel="top eigenvalue of the Hessian", ylabel="test error [%]",
              title="Sharpness and test error")  # fmt: skip
    right.legend(fontsize=8)
    return drawn
