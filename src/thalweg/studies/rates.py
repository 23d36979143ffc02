r"""The rate of SGD: what smoothness, strong growth and the Polyak-Lojasiewicz inequality promise.

Least squares :math:`f(x) = \frac1{2n} \|A x - b\|^2` with rows of length 1, one row a step. If it
can be interpolated (n < d), :math:`\frac1n \sum_i \|g_i\|^2 = 2 f`, so that strong growth,
:math:`\frac1n \sum_i \|g_i\|^2 \le \rho \|\nabla f\|^2`, holds with :math:`\rho = 1/\mu`, where
:math:`\mu` (PL) and L are the smallest and largest eigenvalue of :math:`A A^\top / n`.

.. math::
    a = \frac{1}{L \sqrt N}:\quad & \tfrac1N \textstyle\sum_{k<N} E\|\nabla f(x_k)\|^2
        = O(1/\sqrt N) && \text{smooth} \\
    a = \frac{1}{\rho L}:\quad & \min_{j<k} E\|\nabla f(x_j)\|^2
        \le 2 \rho L (f_0 - f^*)/k && \text{and strong growth} \\
    & E f(x_k) - f^* \le (1 - \mu/(\rho L))^k (f_0 - f^*) && \text{and PL}

The first row assumes noise of bounded variance: there the gradient is the full one plus Gaussian
noise. Below the others, step 1 (randomized Kaczmarz): with interpolation it converges linearly, and
with noisy labels (n > d) a constant step stalls at a floor proportional to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from thalweg import optim
from thalweg.numeric.intervals import Interval
from thalweg.optim.schedules import sqrt_horizon
from thalweg.studies.intervals import (
    below,
    bootstrap_interval,
    mean_interval,
    within,
)
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
    title="Rates of SGD: smooth, strong growth, strong growth and PL",
    paper="Vaswani, Bach & Schmidt, AISTATS 2019, arXiv:1810.07288",
    year=2019,
    sentence="With a constant step SGD has the rate 1/sqrt(N) on smooth problems, 1/k under strong "
    "growth, and a linear one if the problem is PL too; without interpolation it stalls at a floor "
    "proportional to the step.",
    expected="slopes of -0.5 and below -0.9 in log-log, a straight line in semilog; the bounds are "
    "met with room",
    refuted_by="another slope, a curve in semilog, a bound that is crossed, a floor that keeps "
    "falling or does not follow the step",
)

RUNS = 20
SHAPE = {"smoke": (20, 80), "laptop": (50, 80), "full": (50, 80)}
NOISY_SHAPE, NOISE = (200, 20), 0.5
SMALL_STEPS = {"smoke": 400, "laptop": 4000, "full": 4000}
LINEAR_STEPS = {"smoke": 2000, "laptop": 40_000, "full": 60_000}  # down to SETTLED
FLOOR_STEPS = {"smoke": 1500, "laptop": 30_000, "full": 30_000}
FLOOR_LR = (0.2, 0.1)
HORIZONS = {
    "smoke": (50, 150, 500),
    "laptop": (100, 300, 1000, 3000, 10_000),
    "full": (100, 300, 1000, 3000, 10_000, 30_000),
}
LOOKS, SETTLED = 60, 1e-24


class LeastSquares(NamedTuple):
    """f(x) = ||A x - b||^2 / 2n, rows of A of length 1."""

    a: Tensor
    b: Tensor
    smoothness: float
    """L"""
    mu: float
    """The PL constant: the smallest eigenvalue that is not 0."""
    minimum: float


def least_squares(shape: tuple[int, int], noise: float, seed: int) -> LeastSquares:
    """A random problem: Gaussian rows scaled to length 1, labels A x* plus noise.

    Examples
    --------
    >>> problem = least_squares((5, 8), noise=0.0, seed=0)
    >>> problem.a.norm(dim=1).round(decimals=6).tolist(), problem.minimum < 1e-20
    ([1.0, 1.0, 1.0, 1.0, 1.0], True)
    """
    generator = torch.Generator().manual_seed(seed)
    n, d = shape
    a = torch.randn(n, d, generator=generator, dtype=torch.float64)
    a /= a.norm(dim=1, keepdim=True)
    b = a @ torch.randn(d, generator=generator, dtype=torch.float64)
    b += noise * torch.randn(n, generator=generator, dtype=torch.float64)
    eigenvalues = torch.linalg.svdvals(a) ** 2 / n
    residual = a @ torch.linalg.lstsq(a, b[:, None]).solution.squeeze(1) - b
    minimum = float(residual.square().mean() / 2)
    return LeastSquares(a, b, float(eigenvalues.max()), float(eigenvalues.min()), minimum)


def descend(
    problem: LeastSquares, lr: float, looks: Sequence[int], seed: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    r"""SGD from 0, 20 runs at once: :math:`k, f(x_k) - f^*, \|\nabla f(x_k)\|^2` at the looks.

    Examples
    --------
    >>> problem = least_squares((5, 8), noise=0.0, seed=0)
    >>> ((_, start, _), (_, end, _)) = descend(problem, 1.0, [0, 200], seed=0)
    >>> bool((end < 1e-3 * start).all())
    True
    """
    a, b = problem.a, problem.b
    n = len(a)
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.Parameter(a.new_zeros(RUNS, a.shape[1]))
    optimizer = optim.SGD([x], lr=lr)
    wanted = set(looks)
    for k in range(max(looks) + 1):
        at = x.detach()
        if k in wanted:
            residual = at @ a.T - b
            gap = residual.square().mean(1) / 2 - problem.minimum
            yield k, gap, (residual @ a / n).square().sum(1)
        i = torch.randint(n, (RUNS,), generator=generator)
        row = a[i]
        x.grad = ((at * row).sum(1) - b[i])[:, None] * row
        optimizer.step()


def descend_with_noise(problem: LeastSquares, horizon: int, seed: int) -> Tensor:
    r"""Gradient descent with gradient noise of variance 1, step :math:`1/(L \sqrt N)`, 20 runs.

    Returns
    -------
    Tensor
        The mean of :math:`\|\nabla f(x_k)\|^2` over k < N, by run.

    Examples
    --------
    >>> problem = least_squares((9, 4), noise=0.0, seed=0)
    >>> descend_with_noise(problem, horizon=10, seed=0).shape
    torch.Size([20])
    """
    a, b = problem.a, problem.b
    n, d = a.shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.Parameter(a.new_zeros(RUNS, d))
    optimizer = optim.SGD([x], lr=sqrt_horizon(problem.smoothness, horizon)(1))
    total = a.new_zeros(RUNS)
    for _ in range(horizon):
        full = (x.detach() @ a.T - b) @ a / n
        total += full.square().sum(1)
        noise = torch.randn(RUNS, d, generator=generator, dtype=a.dtype)
        x.grad = full + noise / math.sqrt(d)
        optimizer.step()
    return total / horizon


def run(scale: Scale, seed: int) -> Iterator[Row]:
    """One row for every experiment, run and look; for the smooth rate, every horizon and run."""
    problem = least_squares(SHAPE[scale], 0.0, seed)
    growth = 1 / problem.mu
    small = 1 / (growth * problem.smoothness)
    yield {
        "experiment": "constants",
        "mu": problem.mu,
        "smoothness": problem.smoothness,
        "growth": growth,
    }
    noisy = least_squares(NOISY_SHAPE, NOISE, seed)
    arms = (
        ("strong growth", problem, small, SMALL_STEPS[scale]),
        ("linear", problem, 1.0, LINEAR_STEPS[scale]),
        *((f"floor {lr:g}", noisy, lr, FLOOR_STEPS[scale]) for lr in FLOOR_LR),
    )
    for experiment, least, lr, steps in arms:
        looks = [int(k) for k in np.linspace(0, steps, LOOKS + 1).round()]
        for k, gaps, squares in descend(least, lr, looks, seed):
            for i, (gap, square) in enumerate(zip(gaps.tolist(), squares.tolist(), strict=True)):
                row: Row = {"experiment": experiment, "lr": lr, "run": i, "k": k}
                yield {**row, "gap": gap, "gradient_square": square}
    for horizon in HORIZONS[scale]:
        for i, mean in enumerate(descend_with_noise(noisy, horizon, seed).tolist()):
            row = {"experiment": "smooth", "run": i, "horizon": horizon}
            yield {**row, "gradient_square": mean}


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds if the three rates, their bounds, and the floor are as promised."""
    horizons = np.unique(column(where(rows, experiment="smooth"), "horizon"))
    smooth = _with_interval(
        _log_log_slope(horizons), _table(rows, "smooth", "gradient_square", "horizon")
    )
    k = _looks(rows, "strong growth")
    growth = _with_interval(
        _log_log_slope(k[k > k[-1] / 2], smallest_so_far=True),
        _table(rows, "strong growth", "gradient_square"),
    )
    semilog, r_squared = _semilog(rows)
    late = _late_slope(rows, FLOOR_LR[0])
    floors = [_floor(rows, lr) for lr in FLOOR_LR]
    ratio = np.log(floors[0] / floors[1])
    ratio_interval = mean_interval(ratio)
    ratio_low, ratio_high = ratio_interval
    crossed = {name: _largest_ratio(rows, name) for name in ("gradient_square", "gap")}
    parts = [
        Part(
            "smooth, noisy gradients: slope of the mean squared gradient on N in -0.5 +- 0.15",
            within(smooth[1], -0.65, -0.35),
            *smooth,
        ),
        Part(
            "strong growth: slope of the smallest squared gradient on k < -0.9",
            below(growth[1], -0.9),
            *growth,
            "over the second half of the steps",
        ),
        Part(
            "strong growth: the bound 2 rho L (f_0 - f*) / k is met at every look",
            Word.HOLDS if crossed["gradient_square"] <= 1 else Word.FAILS,
            crossed["gradient_square"],
            None,
            "largest ratio of the mean of 20 runs to the bound, which is loose",
        ),
        Part(
            "strong growth and PL: the bound (1 - mu / (rho L))^k (f_0 - f*) is met at every look",
            Word.HOLDS if crossed["gap"] <= 1 else Word.FAILS,
            crossed["gap"],
            None,
            "largest ratio of the mean of 20 runs to the bound, which is loose",
        ),
        Part(
            "strong growth and PL, step 1: a falling straight line in semilog, R^2 > 0.99",
            Word.HOLDS if semilog < 0 and r_squared > 0.99 else Word.FAILS,
            r_squared,
            None,
            f"slope {semilog:.2e} a step",
        ),
        Part(
            "noisy labels, constant step: over the second half |slope| < 1 % of that",
            within(late[1], -0.01 * abs(semilog), 0.01 * abs(semilog)),
            *late,
        ),
        Part(
            "noisy labels: half the step, half the floor (log ratio in log 2 +- 0.3)",
            within(ratio_interval, math.log(2) - 0.3, math.log(2) + 0.3),
            float(ratio.mean()),
            ratio_interval,
        ),
    ]
    sentence = (
        f"N^{smooth[0]:.2f} with noise, k^{growth[0]:.2f} under strong growth, linear with PL "
        f"(R^2 = {r_squared:.4f}); with noisy labels a floor that doubles with the step: "
        f"{math.exp(ratio.mean()):.2f} [{math.exp(ratio_low):.2f}, {math.exp(ratio_high):.2f}]."
    )
    return Verdict.all_of(parts, sentence=sentence, pairs=RUNS)


def figure(rows: Sequence[Row]) -> Figure:
    """The three rates and the floor, one panel each."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10, 7.2), layout="constrained")
    smooth, growth, linear, floor = drawn.subplots(2, 2).flat
    horizons = np.unique(column(where(rows, experiment="smooth"), "horizon"))
    means = _table(rows, "smooth", "gradient_square", "horizon").mean(0)
    smooth.loglog(horizons, means, "o-", color=COLOURS[0], label="SGD, step 1 / (L sqrt N)")
    smooth.loglog(horizons, means[0] * (horizons / horizons[0]) ** -0.5, "k:", label="1 / sqrt N")
    smooth.set(title="Smooth, noisy gradients", xlabel="number of steps N")
    smooth.set_ylabel("mean squared gradient")
    k = _looks(rows, "strong growth")[1:]
    squares = np.minimum.accumulate(_table(rows, "strong growth", "gradient_square").mean(0))[1:]
    growth.loglog(k, squares, color=COLOURS[0], label="SGD, step 1 / (rho L)")
    growth.loglog(k, _bounds(rows, "gradient_square"), "k:", label="bound")
    growth.set(title="Strong growth", xlabel="step k", ylabel="smallest squared gradient")
    gaps = np.exp(np.log(np.maximum(_table(rows, "linear", "gap"), 1e-300)).mean(0))
    fitted = gaps > SETTLED * gaps[0]
    linear.semilogy(
        _looks(rows, "linear")[fitted], gaps[fitted], color=COLOURS[0], label="SGD, step 1"
    )
    linear.set(title="Strong growth and PL", xlabel="step k", ylabel="f - f* (geometric mean)")
    for lr, colour in zip(FLOOR_LR, COLOURS, strict=False):
        level = _table(rows, f"floor {lr:g}", "gap").mean(0)
        floor.semilogy(_looks(rows, f"floor {lr:g}"), level, color=colour, label=f"step {lr:g}")
    floor.set(title="Noisy labels, constant step", xlabel="step k", ylabel="mean of f - f*")
    for axes in (linear, floor):
        axes.locator_params(axis="x", nbins=4)
    for axes in (smooth, growth, linear, floor):
        axes.legend(fontsize="small")
    return drawn


def _table(rows: Sequence[Row], experiment: str, name: str, by: str = "k") -> np.ndarray:
    """Values by run and look, shape (runs, looks)."""
    ours = where(rows, experiment=experiment)
    looks = len({row[by] for row in ours})
    return column(ours, name).reshape(looks, -1).T


def _looks(rows: Sequence[Row], experiment: str) -> np.ndarray:
    return np.unique(column(where(rows, experiment=experiment), "k"))


def _bounds(rows: Sequence[Row], name: str) -> np.ndarray:
    """The bound at every look but the first."""
    mu, smoothness, growth = (
        float(where(rows, experiment="constants")[0][key]) for key in ("mu", "smoothness", "growth")
    )
    start = float(_table(rows, "strong growth", "gap").mean(0)[0])
    k = _looks(rows, "strong growth")[1:]
    if name == "gap":
        return np.asarray((1 - mu / (growth * smoothness)) ** k * start)
    return np.asarray(2 * growth * smoothness * start / k)


def _largest_ratio(rows: Sequence[Row], name: str) -> float:
    means = _table(rows, "strong growth", name).mean(0)
    if name == "gradient_square":
        means = np.minimum.accumulate(means)
    return float((means[1:] / _bounds(rows, name)).max())


def _with_interval(
    statistic: Callable[[np.ndarray], float], table: np.ndarray
) -> tuple[float, Interval]:
    """A statistic of all runs and its interval; rows of the table are runs."""
    return statistic(table), bootstrap_interval(statistic, table, seed=0)


def _log_log_slope(x: np.ndarray, *, smallest_so_far: bool = False) -> Callable[..., float]:
    """The slope of the logarithm of the mean over runs on the logarithm of `x`, as a statistic."""

    def slope(table: np.ndarray) -> float:
        means = table.mean(0)
        values = np.minimum.accumulate(means) if smallest_so_far else means
        return float(np.polyfit(np.log(x), np.log(values[-len(x) :]), 1)[0])

    return slope


def _semilog(rows: Sequence[Row]) -> tuple[float, float]:
    """Slope and R^2 of the mean logarithm of the gap on k, as long as it is above 1e-24."""
    k = _looks(rows, "linear")
    gaps = _table(rows, "linear", "gap")
    logs = np.log(np.maximum(gaps, 1e-300)).mean(0)
    above = logs > logs[0] + math.log(SETTLED)
    slope, start = np.polyfit(k[above], logs[above], 1)
    residual = logs[above] - (slope * k[above] + start)
    return float(slope), float(1 - residual.var() / logs[above].var())


def _late_slope(rows: Sequence[Row], lr: float) -> tuple[float, Interval]:
    """The slope of the logarithm of the mean gap on k, over the second half of the steps."""
    k = _looks(rows, f"floor {lr:g}")
    late = k > k[-1] / 2

    def slope(table: np.ndarray) -> float:
        return float(np.polyfit(k[late], np.log(table.mean(0)[late]), 1)[0])

    return _with_interval(slope, _table(rows, f"floor {lr:g}", "gap"))


def _floor(rows: Sequence[Row], lr: float) -> np.ndarray:
    """The mean gap over the second half of the steps, by run."""
    k = _looks(rows, f"floor {lr:g}")
    return np.asarray(_table(rows, f"floor {lr:g}", "gap")[:, k > k[-1] / 2].mean(1))
