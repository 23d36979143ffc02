"""The measurements of an inspection: both ends of the spectrum, its density, sharpness, slices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.estimate import Estimate
from thalweg.curvature.density import Density, density
from thalweg.curvature.directions import orthogonalized, random_direction
from thalweg.curvature.landscape import Slice, slice
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import Operator
from thalweg.curvature.sharpness import average_case, keskar, worst_case
from thalweg.curvature.spectrum import ExtremeEigenvalues, extremes
from thalweg.inspect.cost import Spent

LEAST_FOR_WORST_CASE = 200
"""Products asked for in all below which the two searches for the worst case are left out."""


KESKAR_BYTES = 8 * 45
"""For each parameter, that scipy's L-BFGS-B takes (measured: 5 iterations, with its bounds)."""
KESKAR_MEMORY = 2**31
"""Bytes beyond which Keskar's sharpness is left out."""


@dataclass(frozen=True)
class Measure:
    """A row of the sharpness table.

    Attributes
    ----------
    name
        Of the measure.
    value
        A number, or an `Estimate` with its error.
    unit
        ``"%"`` or empty.
    meaning
        What was asked, in words with its radius.
    predicted
        What the quadratic model predicts, where it does; else None.
    """

    name: str
    value: float | Estimate
    unit: str
    meaning: str
    predicted: float | None = None


def basis_memory(H: Operator) -> int:
    """Bytes for the vectors of a Krylov basis: 1 GiB, or eight vectors where they take more.

    Examples
    --------
    >>> from thalweg import Training
    >>> from thalweg.curvature import hessian
    >>> basis_memory(hessian(Training.from_function(lambda x: (x**2).sum(), torch.zeros(2))))
    1073741824
    """
    return max(2**30, 8 * H.shape[0] * H.dtype.itemsize)


def both_ends(H: Operator, budget: int, spent: Spent, seed: int) -> ExtremeEigenvalues:
    """The lowest and highest eigenvalues, up to five at each end, within `budget` products.

    Examples
    --------
    >>> from thalweg import Training
    >>> from thalweg.curvature import hessian
    >>> f = Training.from_function(lambda x: x[0] ** 2 - x[1] ** 2, torch.zeros(2))
    >>> both_ends(hessian(f), 20, Spent("ends"), seed=0).values.tolist()
    [-2.0, 2.0]
    """
    d = H.shape[0]
    fits = basis_memory(H) // (d * H.dtype.itemsize)
    k = max(1, min(5, budget // 12, d // 2, fits // 4))
    # fresh products for the residuals come on top of the steps
    steps = max(2, min(budget - 2 * k, d))
    ends = extremes(
        H, k, steps=steps, dense=d <= budget, memory=basis_memory(H), generator=_generator(seed)
    )
    spent.products += ends.n_products
    return ends


def whole_density(H: Operator, budget: int, spent: Spent, seed: int) -> Density:
    """The density from 2 to 8 probes of at most 100 steps, within `budget` products."""
    probes = min(8, max(2, budget // 30))
    fits = basis_memory(H) // (H.shape[0] * H.dtype.itemsize)
    steps = max(2, min(100, budget // probes, H.shape[0], fits))
    found = density(
        H, steps=steps, probes=probes, memory=basis_memory(H), generator=_generator(seed)
    )
    spent.products += found.n_products
    return found


def too_large_for_keskar(d: int) -> str | None:
    """Why Keskar's sharpness is not measured for d parameters; None if it is.

    Examples
    --------
    >>> too_large_for_keskar(10**6)
    >>> too_large_for_keskar(10**7)
    'its search takes 3.4 GiB for 10,000,000 parameters, and may take 2'
    """
    needed = KESKAR_BYTES * d
    if needed <= KESKAR_MEMORY:
        return None
    return f"its search takes {needed / 2**30:.1f} GiB for {d:,} parameters, and may take 2"


def sharpness(objective: Objective, budget: int, spent: Spent, seed: int) -> list[Measure]:
    r"""Sharpness of every kind: Keskar's, worst cases in balls, and the mean under noise.

    The balls have the radius :math:`0.05 \|x\|` (0.05 at the origin), and 0.05 where every
    parameter is measured by its own size (adaptive); the noise is as long as the first.
    """
    x = objective.start
    size = float(x.norm())
    rho = 0.05 * (size or 1.0)
    found = []
    if too_large_for_keskar(objective.d) is None:
        box = keskar(objective, iterations=5, generator=_generator(seed))
        spent.passes += box.evaluations
        found.append(
            Measure(
                "Keskar et al.", box.value, "%",
                f"largest rise in the box |change of x_i| <= {box.radius:g} (|x_i| + 1), "
                "in per cent of 1 + f",
            )
        )  # fmt: skip
    if budget >= LEAST_FOR_WORST_CASE:
        for adaptive in (False, True) if size > 0 else (False,):
            radius = 0.05 if adaptive else rho
            worst = worst_case(
                objective, radius, adaptive=adaptive, steps=5, restarts=0,
                generator=_generator(seed),
            )  # fmt: skip
            # the search for the top eigenvector is the part that takes products
            spent.passes += worst.evaluations
            where = "||change / |x||| <= " if adaptive else "||change|| <= "
            found.append(
                Measure(
                    "Worst case, adaptive" if adaptive else "Worst case",
                    worst.value, "", f"largest rise found within {where}{radius:.3g}",
                    worst.second_order,
                )
            )  # fmt: skip
    pairs = max(4, min(30, budget // 20))
    sigma = rho / math.sqrt(objective.d)
    noise = average_case(objective, sigma, pairs=pairs, generator=_generator(seed))
    spent.passes += 2 * pairs + 1
    found.append(
        Measure(
            "Average case", noise, "",
            f"mean rise under Gaussian noise of standard deviation {sigma:.3g}",
        )
    )  # fmt: skip
    return found


def along(
    objective: Objective, direction: Tensor, eigenvalue: float, value: float, spent: Spent,
    points: int = 41,
) -> Slice:  # fmt: skip
    r"""The loss along an eigenvector, as far as the quadratic model changes by half the loss.

    .. math:: r = \sqrt{2 \Delta / |\lambda|}, \qquad \Delta = \max(|f| / 2, 10^{-3})

    at most half the distance to the origin (plus one half), and nearer where the loss rises by
    more than ten times as much.
    """
    change = max(abs(value) / 2, 1e-3)
    far = (1 + float(objective.start.norm())) / 2
    radius = min(math.sqrt(2 * change / max(abs(eigenvalue), 1e-300)), far)
    for _ in range(6):  # where the loss rises far more steeply, nearer
        try:
            ends = [
                objective.value(objective.start + sign * radius * direction) for sign in (1, -1)
            ]
        except ValueError:
            ends = [math.inf]
        spent.passes += 2
        if max(ends) - value <= 10 * change:
            break
        radius /= 2
    return _finite_slice(objective, [direction], radius, points, spent)


def plane(objective: Objective, spent: Spent, seed: int, points: int = 17) -> Slice | None:
    """The loss on a plane of two filter-normalized directions; None for a single unknown."""
    if objective.d < 2:
        return None
    generator = _generator(seed)
    directions = [random_direction(objective, generator=generator) for _ in range(2)]
    if not all(float(D.norm()) > 0 for D in directions):  # nothing but biases, or all at zero
        draws = [torch.randn(objective.d, generator=generator, dtype=torch.float64) for _ in "ab"]
        directions = [(D / D.norm()).to(objective.start) for D in draws]
    return _finite_slice(objective, [*orthogonalized(*directions)], 1.0, points, spent)


def _finite_slice(
    objective: Objective, directions: list[Tensor], radius: float, points: int, spent: Spent
) -> Slice:
    """A slice as wide as `radius`, or narrower where the loss is not finite out there."""
    for _ in range(3):
        try:
            found = slice(objective, directions, extent=radius, points=points)
        except ValueError as error:
            spent.passes += points  # at most; it stopped at the first infinite one
            if "finite" not in str(error):
                raise
            radius /= 8
        else:
            break
    else:
        raise ValueError(f"the loss must be finite around the point, got none within {radius:.2g}")
    spent.passes += points ** len(directions) + 1
    spent.products += len(directions)
    return found


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
