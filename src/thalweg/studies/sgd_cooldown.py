r"""The rate of SGD with a vanishing step, and a vanishing step at the end of training a network.

Rate: :math:`f(x, y) = (x^2 - 1)^2/4 + y^2/2` from its minimum (1, 0), noise uniform on the unit
circle, steps :math:`c/(k + 20)^p`; what is fitted is the slope of :math:`\log E[f(x_k)]` on
:math:`\log k`, in 10 blocks of runs. The theorem gives :math:`O(1/k^p)`; p = 1 needs
:math:`c \mu > 1` with :math:`\mu = 1` the smallest eigenvalue at the minimum.

Cool-down: the step is constant up to the cut-off epoch :math:`e_0`, then it falls like
:math:`1/k`. The noise must not vanish near the solution, or there is nothing to cool: every label
of digits is replaced at every visit with probability 0.4 by a uniform one, and the training loss is
its expectation under that noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from thalweg import optim
from thalweg.optim.schedules import Schedule, cooldown, power
from thalweg.studies import networks
from thalweg.studies.intervals import below, mean_interval, within
from thalweg.studies.sgd_saddles import gradient, noisy_descent
from thalweg.studies.study import (
    COLOURS,
    Claim,
    Part,
    Row,
    Scale,
    Verdict,
    Word,
    column,
    where,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="A vanishing step: the rate 1/k^p, and a cool-down at the end of training",
    paper="Mertikopoulos, Hallak, Kavis & Cevher, NeurIPS 2020, arXiv:2006.11144",
    year=2020,
    sentence="Near a regular minimum SGD with steps of order 1/k^p converges like 1/k^p and with a "
    "constant step not at all, so a step that vanishes in the last epochs lowers the loss.",
    expected="slopes of -p; slope 0 with a constant step; a training loss lower by some 0.01 with "
    "a cool-down in the last quarter or half, the test error no higher",
    refuted_by="a slope above -p + 0.15, or a training loss that the cool-down raises or leaves as "
    "it is (within 0.002)",
)

ARMS: dict[str, tuple[Schedule, float]] = {  # each with the p of its rate
    "p = 1": (power(2.0, 1.0, 20.0), 1.0),
    "p = 0.75": (power(1.0, 0.75, 20.0), 0.75),
    "p = 0.5": (power(0.5, 0.5, 20.0), 0.5),
    "constant 0.05": (power(0.05, 0.0), 0.0),
    "constant 0.025": (power(0.025, 0.0), 0.0),
}
BLOCKS = 10
RUNS = {"smoke": 500, "laptop": 2000, "full": 2000}
STEPS = {"smoke": 1000, "laptop": 30_000, "full": 30_000}
SLACK = 0.15

SIZES, BATCH, REPLACED = (64, 128, 10), 16, 0.4
GRID = (0.03, 0.1, 0.3, 1.0)
SEEDS = {"smoke": 3, "laptop": 10, "full": 20}
TUNING_SEEDS = {"smoke": 2, "laptop": 5, "full": 5}
EPOCHS = {"smoke": 4, "laptop": 40, "full": 40}
CUTS = {"smoke": (1, 2, 3), "laptop": (10, 20, 30), "full": (10, 20, 30)}
NO_EFFECT, NO_HARM = 0.002, 0.005


def run(scale: Scale, seed: int) -> Iterator[Row]:
    """The rate: a row per arm, block and step. The network: a row per step size, cut and seed."""
    yield from _rate_rows(scale, seed)
    first = 1000 * seed
    tuning = [first + 500 + i for i in range(TUNING_SEEDS[scale])]
    never = EPOCHS[scale]
    scores = {}
    for lr in GRID:
        trained = train(lr, never, never, tuning)
        scores[lr] = float(trained.loss.mean())
        for i, loss in zip(tuning, trained.loss.tolist(), strict=True):
            yield {"experiment": "tuning", "lr": lr, "seed": i, "loss": loss}
    lr = networks.best(scores).value
    seeds = [first + i for i in range(SEEDS[scale])]
    for cut in (*CUTS[scale], never):
        trained = train(lr, cut, never, seeds)
        for i, loss, error in zip(
            seeds, trained.loss.tolist(), (1 - trained.accuracy).tolist(), strict=True
        ):
            row: Row = {"experiment": "cool-down", "lr": lr, "cut": cut, "epochs": never}
            yield {**row, "seed": i, "loss": loss, "test_error": error}


def train(lr: float, cut: int, epochs: int, seeds: Sequence[int]) -> networks.Scores:
    """Train one network per seed, cooling down from epoch `cut` on.

    Parameters
    ----------
    lr
        The step size up to the cut-off.
    cut
        Epoch of the cut-off; `epochs` for never.
    epochs
        How long.
    seeds
        Each decides its network, its batches and its noise, whatever the cut-off: runs are paired.

    Returns
    -------
    networks.Scores
        Per seed: expected training loss under the label noise, and accuracy on clean test data.

    Examples
    --------
    >>> train(0.1, cut=1, epochs=1, seeds=[0, 1]).loss.shape
    torch.Size([2])
    """
    data = networks.digits()
    x, y = data.train
    model = networks.SeededMLP(SIZES, seeds)
    optimizer = optim.SGD(model.parameters(), lr=lr, compile=False)
    per_epoch = len(x) // BATCH
    schedule = cooldown(lr, start=cut * per_epoch)
    rows = networks.rows_of_steps(len(x), BATCH, epochs * per_epoch, seeds)
    labels = torch.stack([_noisy_labels(y[rows[:, i]], s) for i, s in enumerate(seeds)], dim=1)
    for k, (chosen, noisy) in enumerate(zip(rows, labels, strict=True), start=1):
        optimizer.param_groups[0]["lr"] = schedule(k)
        optimizer.zero_grad()
        networks.losses(model(x[chosen]), noisy).sum().backward()
        optimizer.step()
    with torch.no_grad():
        loss = expected_loss(model(x.expand(len(seeds), *x.shape)), y)
    accuracy = networks.evaluate(model, data.test, len(seeds)).accuracy
    return networks.Scores(loss.double(), accuracy)


def expected_loss(logits: Tensor, targets: Tensor) -> Tensor:
    r"""The mean cross-entropy under the label noise.

    .. math:: 0.6\, \ell(z, y) + 0.4 \cdot \tfrac1{10} \sum_c \ell(z, c)

    Parameters
    ----------
    logits
        Shape (seeds, rows, 10).
    targets
        The clean labels, shape (rows,).

    Returns
    -------
    Tensor
        Shape (seeds,).

    Examples
    --------
    >>> expected_loss(torch.zeros(1, 2, 10), torch.tensor([3, 4]))  # log 10
    tensor([2.3026])
    """
    each = -functional.log_softmax(logits, dim=-1)
    clean = each.gather(-1, targets.expand(logits.shape[:-1])[..., None]).squeeze(-1)
    return ((1 - REPLACED) * clean + REPLACED * each.mean(-1)).mean(-1)


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds if every slope is as claimed and the two later cool-downs lower the loss harmlessly."""
    slopes = {arm: _slopes(rows, arm) for arm in ARMS}
    parts = []
    for arm, (_, p) in ARMS.items():
        interval = mean_interval(slopes[arm])
        statement, word = (
            (f"{arm}: the slope is <= {-p:g} + {SLACK}", below(interval, -p + SLACK))
            if p
            else (f"{arm}: the slope is within {SLACK} of 0", within(interval, -SLACK, SLACK))
        )
        parts.append(Part(statement, word, float(slopes[arm].mean()), interval))
    ours = where(rows, experiment="cool-down")
    early, *late = sorted({int(row["cut"]) for row in ours if row["cut"] != row["epochs"]})
    for cut in late:
        parts += [_lower_loss(ours, cut), _no_higher_error(ours, cut)]
    tuned = networks.best(_tuning_scores(rows))
    parts.append(
        Part(
            f"the tuned step size {tuned.value:g} is not at an edge of {GRID}",
            Word.FAILS if tuned.edge else Word.HOLDS,
            None,
            None,
            control=True,
        )
    )
    gain, low, high = (100 * v for v in _effect(ours, late[0], "loss"))
    sentence = (
        "Slopes "
        + ", ".join(
            f"{round(values.mean(), 2) + 0.0:.2f} ({arm})" for arm, values in slopes.items()
        )
        + f"; a cool-down from epoch {late[0]} of {ours[0]['epochs']} changes the training loss by "
        f"{gain:.2f} [{low:.2f}, {high:.2f}] hundredths (from epoch {early}: "
        f"{100 * _effect(ours, early, 'loss')[0]:.2f}, reported only)."
    )
    pairs = len(where(ours, cut=late[0]))
    return Verdict.all_of(parts, sentence=sentence, pairs=pairs)


def figure(rows: Sequence[Row]) -> Figure:
    """The error against the step; the change of loss and test error for each cut-off."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    drawn = Figure(figsize=(14, 4), layout="constrained")
    rate, loss, error = drawn.subplots(1, 3)
    for (arm, (_, p)), colour in zip(ARMS.items(), COLOURS, strict=False):
        k, gaps = _mean_gap(rows, arm)
        line = "-" if p else "--"
        rate.loglog(
            k,
            gaps,
            line,
            color=colour,
            label=f"{arm}: {round(_slopes(rows, arm).mean(), 2) + 0.0:.2f}",
        )
    rate.set(title="Rate near the minimum", xlabel="step k", ylabel="mean of f - f*")
    rate.xaxis.set_minor_formatter(NullFormatter())  # less than a decade: labels would overlap
    rate.set_xticks([k[0], k[-1]], [f"{k[0]:,.0f}", f"{k[-1]:,.0f}"])
    rate.legend(title="slope", fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    ours = where(rows, experiment="cool-down")
    cuts = sorted({int(row["cut"]) for row in ours if row["cut"] != row["epochs"]})
    panels = ((loss, "loss", 1, "expected training loss"), (error, "test_error", 100, "test error"))
    for axes, name, unit, title in panels:
        effects = [tuple(unit * v for v in _effect(ours, cut, name)) for cut in cuts]
        means = [mean for mean, _, _ in effects]
        bars = [
            [mean - low for mean, low, _ in effects],
            [high - mean for mean, _, high in effects],
        ]
        axes.errorbar([str(cut) for cut in cuts], means, bars, fmt="o", color=COLOURS[0], capsize=4)
        axes.axhline(0, color=COLOURS[6], linewidth=0.8)
        axes.set(
            title=f"Cool-down: {title}",
            xlabel=f"epoch of the cut-off (of {ours[0]['epochs']})",
            ylabel="change against none" + (" (points)" if unit == 100 else " (nats)"),
        )
    return drawn


def _rate_rows(scale: Scale, seed: int) -> Iterator[Row]:
    generator = torch.Generator().manual_seed(seed)
    steps, n = STEPS[scale], RUNS[scale]
    checkpoints = [int(k) for k in np.geomspace(steps / 10, steps, 11).round()]
    start = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(n, 1)
    schedules = [schedule for schedule, _ in ARMS.values()]
    for k, x in noisy_descent(gradient, start, schedules, checkpoints, generator):
        gaps = (x[..., 0] ** 2 - 1) ** 2 / 4 + x[..., 1] ** 2 / 2
        blocks = gaps.view(len(ARMS), BLOCKS, -1).mean(2)
        for arm, of_arm in zip(ARMS, blocks.tolist(), strict=True):
            for block, gap in enumerate(of_arm):
                yield {"experiment": "rate", "arm": arm, "block": block, "k": k, "gap": gap}


def _noisy_labels(labels: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    replaced = torch.rand(labels.shape, generator=generator) < REPLACED
    return torch.where(replaced, torch.randint(10, labels.shape, generator=generator), labels)


def _slopes(rows: Sequence[Row], arm: str) -> np.ndarray:
    """The slope of log E[f - f*] on log k of every block."""
    ours = where(rows, experiment="rate", arm=arm)
    slopes = []
    for block in sorted({int(row["block"]) for row in ours}):
        of_block = where(ours, block=block)
        k, gap = column(of_block, "k"), column(of_block, "gap")
        slopes.append(np.polyfit(np.log(k), np.log(gap), 1)[0])
    return np.array(slopes)


def _mean_gap(rows: Sequence[Row], arm: str) -> tuple[np.ndarray, np.ndarray]:
    ours = where(rows, experiment="rate", arm=arm)
    k = np.unique(column(ours, "k"))
    return k, np.array([column(where(ours, k=int(at)), "gap").mean() for at in k])


def _tuning_scores(rows: Sequence[Row]) -> dict[float, float]:
    ours = where(rows, experiment="tuning")
    return {lr: float(column(where(ours, lr=lr), "loss").mean()) for lr in GRID}


def _differences(ours: Sequence[Row], cut: int, name: str) -> np.ndarray:
    """With this cut-off minus never, by seed."""
    with_it, without = where(ours, cut=cut), where(ours, cut=ours[0]["epochs"])
    return column(with_it, name) - column(without, name)


def _effect(ours: Sequence[Row], cut: int, name: str) -> tuple[float, float, float]:
    d = _differences(ours, cut, name)
    return (float(d.mean()), *mean_interval(d))


def _lower_loss(ours: Sequence[Row], cut: int) -> Part:
    mean, low, high = _effect(ours, cut, "loss")
    word = below((low, high), 0.0)
    if word is not Word.HOLDS and low > -NO_EFFECT and high < NO_EFFECT:
        word = Word.FAILS
    return Part(f"cut-off {cut}: the training loss is lower", word, mean, (low, high))


def _no_higher_error(ours: Sequence[Row], cut: int) -> Part:
    mean, low, high = _effect(ours, cut, "test_error")
    statement = f"cut-off {cut}: the test error is at most {100 * NO_HARM:g} points higher"
    return Part(statement, below((low, high), NO_HARM), mean, (low, high))
