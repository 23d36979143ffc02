r"""Stacked saddles: gradient descent needs exponentially many steps, perturbed descent does not.

The function of Du et al. in d dimensions has d saddles and one minimum (in each orthant), which are
met one after the other. With :math:`y = |x|`, the i-th part holds while the coordinates before i
are beyond :math:`2 \tau` and the i-th is not:

.. math:: f(x) = \sum_{j < i} L (y_j - 4 \tau)^2 - (i - 1) \nu + \begin{cases}
    -\gamma y_i^2 + \sum_{j > i} L y_j^2 & y_i \le \tau \\
    g_1(y_i) + g_2(y_i)\, y_{i+1}^2 + \sum_{j > i + 1} L y_j^2 & \tau < y_i < 2 \tau \end{cases}

where :math:`g_1` and :math:`g_2` join the parts, twice differentiable. While coordinate i grows
away from its saddle the later ones shrink, so that each saddle takes gradient descent a constant
factor longer than the one before it. A kick of fixed size undoes this. Steps are counted until the
last saddle is left: all coordinates beyond :math:`2 \tau`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.core.problem import Training
from thalweg.curvature import perturbed_descent
from thalweg.optim import SGD
from thalweg.studies.intervals import above, mean_interval
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word, column, where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Stacked saddles: exponential time for gradient descent, not for perturbed descent",
    paper="Du, Jin, Lee, Jordan, Singh & Poczos, NeurIPS 2017, arXiv:1705.10412",
    year=2017,
    sentence="From a random start, gradient descent passes d saddles in a number of steps that is "
    "exponential in d, and gradient descent with perturbations in one that is polynomial.",
    expected="each saddle takes gradient descent 1 + L/gamma times as long as those before it; "
    "at 5 saddles it takes at least 20 times the steps of perturbed descent",
    refuted_by="steps of gradient descent that a power of d describes better, or less than 20 "
    "times those of perturbed descent at 5 saddles",
)

TAU, GAMMA = math.e, 1.0
#: L with the numbers of saddles. The growth is fitted where float64 holds the shrunken coordinates.
GROWTH = {"smoke": {1.0: 3}, "laptop": {1.0: 6, 2.0: 5}, "full": {1.0: 6, 2.0: 5}}
#: Where both methods are compared: L and d.
COMPARED, SADDLES, FACTOR = 3.0, 5, 20.0
SEEDS = {"smoke": 2, "laptop": 10, "full": 50}
#: Of perturbed descent: radius tau / 100, a kick where |g| <= gamma tau / 100, at most every 10
#: steps, and the end where the loss then falls by less than 1e-9.
SHARE, WAIT, DECREASE = 0.01, 10, 1e-9
#: Below this a coordinate nears the end of float64: what is left is bounded from below instead.
TINIEST = 1e-300
MAX_STEPS = 20_000
#: Difference of AIC from which one description counts as better.
BETTER = 4.0


def run(scale: Scale, seed: int) -> Iterator[Row]:
    """One row for each L, number of saddles, method and seed: the steps that were needed."""
    seeds = range(1000 * seed, 1000 * seed + SEEDS[scale])
    cells = [(L, d) for L, most in GROWTH[scale].items() for d in range(1, most + 1)]
    fewest = SADDLES if scale == "smoke" else 1
    cells += [(COMPARED, d) for d in range(fewest, SADDLES + 1)]
    for L, d in cells:
        starts = torch.stack([start(d, s) for s in seeds])
        for s, (steps, exact) in zip(seeds, gradient_descent(starts, L), strict=True):
            row: Row = {"L": L, "d": d, "method": "GD", "seed": s}
            yield {**row, "steps": steps, "exact": exact, "arrived": True}
        for s, x in zip(seeds, starts, strict=True):
            steps = perturbed_steps(x, L, s)
            row = {"L": L, "d": d, "method": "PGD", "seed": s}
            yield {**row, "steps": steps, "exact": True, "arrived": steps <= MAX_STEPS}


def start(d: int, seed: int) -> Tensor:
    """Uniform in [-1, 1]^d, near the first saddle; the first coordinates do not depend on d."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(d, generator=generator, dtype=torch.float64) - 1


def stacked_saddles(x: Tensor, L: float) -> Tensor:
    r"""The function, at points of shape (..., d); its least value is :math:`-d \nu`.

    Examples
    --------
    >>> x = torch.tensor([[0.0, 0.0], [4 * math.e, 0.0], [4 * math.e, 4 * math.e]])
    >>> (stacked_saddles(x.double(), 1.0) / drop(1.0)).round(decimals=6).tolist()
    [0.0, -1.0, -2.0]
    """
    y = x.abs()
    passed = (y >= 2 * TAU).long().cumprod(-1)
    i = passed.sum(-1, keepdim=True)  # as many saddles have been left
    index = torch.arange(x.shape[-1])
    well, bowl = L * (y - 4 * TAU) ** 2, L * y**2
    at = torch.where(y <= TAU, -GAMMA * y**2, _g1(y, L))
    before = torch.nn.functional.pad(y, (1, 0))[..., :-1]  # the coordinate before each
    next_one = torch.where(before <= TAU, bowl, _g2(before, L) * y**2)
    terms = torch.where(
        index < i, well, torch.where(index == i, at, torch.where(index == i + 1, next_one, bowl))
    )
    return terms.sum(-1) - drop(L) * i[..., 0]


def drop(L: float) -> float:
    r""":math:`\nu`, by which each minimum of a part lies below the one before.

    .. math:: \nu = 4 L \tau^2 - g_1(2 \tau)
    """
    return 4 * L * TAU**2 - float(_g1(torch.tensor(2 * TAU, dtype=torch.float64), L))


def _g1(y: Tensor, L: float) -> Tensor:
    r"""Joins :math:`-\gamma y^2` at :math:`\tau` to :math:`L (y - 4 \tau)^2` at :math:`2 \tau`."""
    t = y - TAU
    cubic = (10 * GAMMA - 14 * L) / (3 * TAU) * t**3
    return -GAMMA * y**2 + cubic + (5 * L - 3 * GAMMA) / (2 * TAU**2) * t**4


def _g2(y: Tensor, L: float) -> Tensor:
    r"""Joins L at :math:`\tau` to :math:`-\gamma` at :math:`2 \tau`, flat at both ends."""
    t = y / TAU - 2
    return -GAMMA - (L + GAMMA) * (10 * t**3 + 15 * t**4 + 6 * t**5)


def gradient_descent(starts: Tensor, L: float) -> list[tuple[int, bool]]:
    """Steps of gradient descent from each row, and whether they were counted or bounded below.

    A coordinate below 1e-300 grows by the factor 1 + 2 eta gamma a step at most: the steps it needs
    to tau are added, and the run ends there.

    Examples
    --------
    >>> gradient_descent(torch.tensor([[1.0], [1e-301]], dtype=torch.float64), 1.0)
    [(5, True), (1707, False)]
    """
    eta = 1 / (4 * L)
    x = nn.Parameter(starts.clone())
    optimizer = SGD([x], lr=eta)
    found: dict[int, tuple[int, bool]] = {}
    remaining = math.ceil(math.log(TAU / TINIEST) / math.log1p(2 * eta * GAMMA))
    for k in range(MAX_STEPS):
        y = x.detach().abs()
        for j in (y >= 2 * TAU).all(1).nonzero()[:, 0].tolist():
            found.setdefault(j, (k, True))
        for j in (y < TINIEST).any(1).nonzero()[:, 0].tolist():
            found.setdefault(j, (k + remaining, False))
        if len(found) == len(starts):
            break
        optimizer.zero_grad()
        stacked_saddles(x, L).sum().backward()
        optimizer.step()
    return [found.get(j, (MAX_STEPS, False)) for j in range(len(starts))]


def perturbed_steps(x: Tensor, L: float, seed: int) -> int:
    """Steps of perturbed gradient descent until the last saddle is left; more than the most: never.

    Examples
    --------
    >>> perturbed_steps(torch.tensor([0.0], dtype=torch.float64), 1.0, 0) < 50
    True
    """
    d, settled = len(x), torch.full((len(x),), 2 * TAU, dtype=torch.float64)
    result = perturbed_descent(
        Training.from_function(lambda z: stacked_saddles(z, L), x),
        lr=1 / (4 * L), gradient_threshold=SHARE * GAMMA * TAU, radius=SHARE * TAU, wait=WAIT,
        decrease_threshold=DECREASE, max_steps=500 * d, seed=seed,
    )  # fmt: skip
    # at 2 tau the loss is that of the last well's edge or less, and above it before
    edge = float(stacked_saddles(settled, L)) - 4 * L * TAU**2 * (d - 1)
    left = np.flatnonzero(result.trace["loss"] <= edge)
    return int(result.trace["step"][left[0]]) if len(left) else MAX_STEPS + 1


# -- the verdict -----------------------------------------------------------------------------


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds if GD grows exponentially, PGD like a power, and they are 20 times apart at d = 5."""
    parts = []
    for L in sorted({float(r["L"]) for r in rows if r["L"] != COMPARED}):
        for method in ("GD", "PGD"):
            parts.append(_growth(where(rows, L=L, method=method), method, L))
    gd, pgd = (where(rows, L=COMPARED, d=SADDLES, method=m) for m in ("GD", "PGD"))
    logs = np.log(column(gd, "steps") / column(pgd, "steps"))
    low, high = mean_interval(logs)
    bounded = sum(not r["exact"] for r in gd)
    word = above((low, high), math.log(FACTOR))
    if word is Word.FAILS and bounded:
        word = Word.INCONCLUSIVE  # some counts of GD are lower bounds
    ratio = float(np.exp(logs.mean()))
    parts += [
        Part(
            f"at {SADDLES} saddles and L = {COMPARED:g} gradient descent takes more than "
            f"{FACTOR:g} times the steps",
            word, ratio, (math.exp(low), math.exp(high)),
            f"for {bounded} of {len(gd)} seeds its steps are a lower bound: a coordinate got "
            "below 1e-300",
        ),
        Part(
            "perturbed descent leaves every saddle",
            Word.HOLDS if all(r["arrived"] for r in rows) else Word.FAILS, None, None,
            control=True,
        ),
    ]  # fmt: skip
    factors = ", ".join(
        f"{math.exp(_slope(rows, L)):.2g} for L = {L:g}"
        for L in sorted({float(r["L"]) for r in rows if r["L"] != COMPARED})
    )
    return Verdict.all_of(
        parts,
        sentence=(
            f"Each further saddle multiplies the steps of gradient descent by {factors}; at "
            f"{SADDLES} saddles with L = {COMPARED:g} it takes at least {ratio:.0f} "
            f"[{math.exp(low):.0f}, {math.exp(high):.0f}] times the "
            f"{column(pgd, 'steps').mean():.0f} steps of perturbed descent."
        ),
        pairs=len(gd),
    )


def _means(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of saddles, and the mean logarithm of the steps for each.

    Where most counts are lower bounds the number is left out.
    """
    saddles = [d for d in sorted({int(r["d"]) for r in rows}) if _counted(where(rows, d=d))]
    means = [np.log(np.maximum(column(where(rows, d=d), "steps"), 1)).mean() for d in saddles]
    return np.array(saddles, dtype=float), np.array(means)


def _counted(rows: Sequence[Row]) -> bool:
    return 2 * sum(bool(r["exact"]) for r in rows) > len(rows)


def _slope(rows: Sequence[Row], L: float) -> float:
    d, means = _means(where(rows, L=L, method="GD"))
    return float(np.polyfit(d, means, 1)[0])


def _growth(rows: Sequence[Row], method: str, L: float) -> Part:
    """AIC of a power of d minus that of an exponential: from 4 up the exponential is better."""
    d, means = _means(rows)
    squares = [
        float(((means - np.polyval(np.polyfit(t, means, 1), t)) ** 2).sum())
        for t in (np.log(d), d)
    ]  # fmt: skip
    difference = len(d) * math.log(max(squares[0], 1e-300) / max(squares[1], 1e-300))
    claimed = difference if method == "GD" else -difference
    word = Word.INCONCLUSIVE
    if abs(difference) >= BETTER:
        word = Word.HOLDS if claimed > 0 else Word.FAILS
    name = "an exponential" if method == "GD" else "a power"
    who = "gradient descent" if method == "GD" else "perturbed descent"
    other = "a power" if method == "GD" else "an exponential"
    return Part(
        f"L = {L:g}: {name} of d describes the steps of {who} better than {other}",
        word, claimed, None, "effect: difference of AIC, from 4 up",
    )  # fmt: skip


def figure(rows: Sequence[Row]) -> Figure:
    """Steps against the number of saddles, one panel for each L."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(12, 4), layout="constrained")
    arms = sorted({float(r["L"]) for r in rows})
    panels = drawn.subplots(1, len(arms), sharey=True)
    names = {"GD": "gradient descent", "PGD": "perturbed"}
    for axes, L in zip(panels, arms, strict=True):
        for method, colour, marker in zip(names, COLOURS, "os", strict=False):
            found = where(rows, L=L, method=method)
            shift = 0.06 if method == "PGD" else -0.06
            for exact, shape in ((True, marker), (False, "^")):
                some = where(found, exact=exact)
                axes.plot(column(some, "d") + shift, column(some, "steps"), shape, color=colour,
                          markersize=4, alpha=0.4)  # fmt: skip
            d, means = _means(found)
            axes.plot(d + shift, np.exp(means), "-" + marker, color=colour, label=names[method])
        axes.set(yscale="log", xlabel="number of saddles d", title=f"L = {L:g}, gamma = 1",
                 xticks=sorted({int(r["d"]) for r in where(rows, L=L)}))  # fmt: skip
    panels[0].set_ylabel("steps until the last saddle is left\n(triangles: at least)")
    panels[0].legend(loc="upper left")
    return drawn
