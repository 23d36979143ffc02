r"""Gradient descent on logistic regression with a large step is the batch perceptron.

With :math:`z_i = y_i a_i`, from :math:`\theta_0 = 0`:

.. math::
    \theta_{k+1} &= \theta_k + \frac{\gamma}{n} \sum_i z_i\, \sigma(-z_i^\top \theta_k)
        && \text{gradient descent} \\
    \theta_{k+1} &= \theta_k + \frac1n \sum_i z_i\, [z_i^\top \theta_k < 0]
        && \text{batch perceptron, a tie counts half}

As :math:`\gamma \to \infty`, :math:`\theta_k / \gamma` of the first tends to the second. The
normalized method divides by :math:`\sum_i \sigma(-z_i^\top \theta_k)` instead of n. Three
experiments: the limit; the steps to zero training error on planted separable sets (n = 100,
d = 20); the hard set of n - 1 points (1, 0.2) and one (-1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from thalweg.learn.normalized_logistic_regression import Separator, gradient_step, measures
from thalweg.studies.intervals import above, mean_interval
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
    title="Logistic regression with a large step is the perceptron",
    paper="Tyurin, AAAI 2025, arXiv:2412.08424",
    year=2025,
    sentence="Gradient descent on logistic regression turns into the batch perceptron as the step "
    "size grows, so a step far beyond the stable range separates the data sooner although the "
    "loss grows on the way; normalized, its number of steps does not depend on n on a hard set.",
    expected="agreement to rounding; several times fewer steps at step size 100 than at 1; slopes "
    "of log steps on log n of 1 (plain) and 0 (normalized)",
    refuted_by="another limit; less than twice as fast; a normalized method that slows down with n",
)

STEP_SIZES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e6)
LIMIT = 1e8
LIMIT_STEPS = 30
POINTS, DIMENSION = 100, 20
MOST_STEPS = 20_000
SETS = {"smoke": 6, "laptop": 20, "full": 100}
HARD_SIZES = {"smoke": (10, 100), "laptop": (10, 100, 1000), "full": (10, 100, 1000, 10_000)}
HARD_STEP_SIZE = 1e4


def run(scale: Scale, seed: int) -> Iterator[Row]:
    """The three experiments, one row a training run."""
    for number in range(SETS[scale]):
        ya = planted(seed=1000 * seed + number)
        yield {"experiment": "limit", "set": number, "difference": distance_to_perceptron(ya)}
        for step_size in STEP_SIZES:
            steps, max_loss = separate(ya, step_size=step_size, normalize=False)
            yield {
                "experiment": "step size",
                "set": number,
                "step_size": step_size,
                "steps": steps,
                "max_loss": max_loss,
            }
    for n in HARD_SIZES[scale]:
        for normalize in (False, True):
            steps, max_loss = separate(hard_set(n), step_size=HARD_STEP_SIZE, normalize=normalize)
            method = "normalized" if normalize else "plain"
            yield {"experiment": "hard set", "method": method, "n": n, "steps": steps}


def planted(seed: int) -> Tensor:
    """A separable set: Gaussian points, labels by a Gaussian hyperplane; rows are y_i a_i.

    Examples
    --------
    >>> planted(0).shape
    torch.Size([100, 20])
    """
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(POINTS, DIMENSION, dtype=torch.float64, generator=generator)
    normal = torch.randn(DIMENSION, dtype=torch.float64, generator=generator)
    return a * (a @ normal).sign()[:, None]


def hard_set(n: int) -> Tensor:
    """n - 1 points (1, 0.2) and one (-1, 1), labels included.

    Examples
    --------
    >>> hard_set(3).tolist()
    [[1.0, 0.2], [1.0, 0.2], [-1.0, 1.0]]
    """
    rows = [[1.0, 0.2]] * (n - 1) + [[-1.0, 1.0]]
    return torch.tensor(rows, dtype=torch.float64)


def perceptron_step(ya: Tensor, theta: Tensor) -> Tensor:
    r"""One step of the batch perceptron; a point on the hyperplane counts half.

    .. math::
        \theta + \frac1n \sum_i z_i
            \bigl([z_i^\top \theta < 0] + \tfrac12 [z_i^\top \theta = 0]\bigr)

    Examples
    --------
    >>> perceptron_step(torch.tensor([[2.0], [4.0]]), torch.zeros(1))
    tensor([1.5000])
    """
    wrong = torch.heaviside(-(ya @ theta), ya.new_tensor(0.5))
    return theta + ya.T @ wrong / len(ya)


def distance_to_perceptron(ya: Tensor) -> float:
    r"""Relative difference of :math:`\theta_k / \gamma` and the perceptron, k = 30, gamma = 1e8."""
    at = Separator(ya.new_zeros(ya.shape[1]), ya.new_zeros(len(ya)))
    theta = at.theta
    for _ in range(LIMIT_STEPS):
        at = gradient_step(ya, at, step_size=LIMIT, normalize=False)
        theta = perceptron_step(ya, theta)
    return float((at.theta / LIMIT - theta).norm() / theta.norm())


def separate(ya: Tensor, *, step_size: float, normalize: bool) -> tuple[int, float]:
    """Steps until every point is on its side (at most 20,000), and the largest loss on the way."""
    at = Separator(ya.new_zeros(ya.shape[1]), ya.new_zeros(len(ya)))
    max_loss = float(measures(at)["loss"])
    for steps in range(1, MOST_STEPS + 1):
        at = gradient_step(ya, at, step_size=step_size, normalize=normalize)
        max_loss = max(max_loss, float(measures(at)["loss"]))
        if bool((at.m > 0).all()):
            return steps, max_loss
    return MOST_STEPS, max_loss


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds if the limit, the loss, the gain and both slopes are as claimed."""
    difference = float(column(where(rows, experiment="limit"), "difference").max())
    spearman = [_rank_correlation(of_set) for of_set in _sets(rows)]
    gains = [_steps(of_set, 1.0) / _steps(of_set, 100.0) for of_set in _sets(rows)]
    gain = mean_interval(np.log(gains))
    slopes = {method: _slope(rows, method) for method in ("plain", "normalized")}
    parts = [
        Part(
            "theta / step size is the perceptron's theta to 1e-6 at step size 1e8",
            _holds_if(difference <= 1e-6),
            difference,
            None,
            "largest relative difference of all sets",
        ),
        Part(
            "a larger step has a larger loss on the way: rank correlation > 0.8 in every set",
            _holds_if(min(spearman) > 0.8),
            min(spearman),
            None,
            "smallest of all sets",
        ),
        Part(
            "log(steps at step size 1 / steps at 100) > log 2",
            above(gain, math.log(2)),
            float(np.log(gains).mean()),
            gain,
            f"{len(gains)} sets, a factor of {min(gains):.1f} to {max(gains):.1f}",
        ),
        Part(
            "plain: steps grow like n on the hard set, exponent in [0.8, 1.2]",
            _holds_if(0.8 <= slopes["plain"] <= 1.2),
            slopes["plain"],
            None,
        ),
        Part(
            "normalized: steps do not depend on n on the hard set, exponent in [-0.1, 0.1]",
            _holds_if(-0.1 <= slopes["normalized"] <= 0.1),
            slopes["normalized"],
            None,
        ),
    ]
    factor, low, high = np.exp([np.log(gains).mean(), *gain])
    sentence = (
        f"With a large step, gradient descent is the perceptron to {difference:.0e}; step size 100 "
        f"separates {factor:.1f} times sooner than 1 [{low:.1f}, {high:.1f}]; "
        f"on the hard set steps grow like n^{slopes['plain']:.2f} plain, "
        f"n^{slopes['normalized']:.2f} normalized."
    )
    return Verdict.all_of(parts, sentence=sentence, pairs=len(gains))


def figure(rows: Sequence[Row]) -> Figure:
    """Steps and largest loss against the step size; steps against n on the hard set."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(12, 3.8), layout="constrained")
    steps, loss, hard = drawn.subplots(1, 3)
    sets = _sets(rows)
    for axes, name in ((steps, "steps"), (loss, "max_loss")):
        values = np.array([column(of_set, name) for of_set in sets])
        axes.plot(STEP_SIZES, values.T, color=COLOURS[7], linewidth=0.7)
        axes.plot(STEP_SIZES, np.median(values, axis=0), "o-", color=COLOURS[0], label="median")
        axes.set(xscale="log", yscale="log", xlabel="step size (no unit)")
        axes.legend(title=f"{len(sets)} planted sets")
    steps.set(title="Sooner with a larger step...", ylabel="steps to zero training error")
    loss.set(title="...although the loss is larger", ylabel="largest logistic loss on the way")
    for method, colour, marker in (("plain", COLOURS[1], "s"), ("normalized", COLOURS[2], "o")):
        of_method = where(rows, experiment="hard set", method=method)
        hard.plot(
            column(of_method, "n"),
            column(of_method, "steps"),
            f"{marker}-",
            color=colour,
            label=f"{method}: $n^{{{_slope(rows, method):.2f}}}$",
        )
    hard.set(
        title="The hard set",
        xscale="log",
        yscale="log",
        xlabel="number of points n",
        ylabel="steps to zero training error",
    )
    hard.legend()
    return drawn


def _sets(rows: Sequence[Row]) -> list[list[Row]]:
    ours = where(rows, experiment="step size")
    return [where(ours, set=number) for number in sorted({int(row["set"]) for row in ours})]


def _steps(of_set: Sequence[Row], step_size: float) -> float:
    return float(column(where(of_set, step_size=step_size), "steps")[0])


def _rank_correlation(of_set: Sequence[Row]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(column(of_set, "step_size"), column(of_set, "max_loss")).statistic)


def _slope(rows: Sequence[Row], method: str) -> float:
    ours = where(rows, experiment="hard set", method=method)
    slope = np.polyfit(np.log(column(ours, "n")), np.log(column(ours, "steps")), 1)[0]
    return round(float(slope), 9) + 0.0  # a constant number of steps is 0, not -1e-17


def _holds_if(condition: bool) -> Word:
    return Word.HOLDS if condition else Word.FAILS
