r"""Estimates of the Lipschitz constant of the Hessian near a point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thalweg.core import check

HessianAt = Callable[[Tensor, Tensor], Tensor]
"""``(x, V) -> H(x) V``."""


def hessian_lipschitz(
    product: HessianAt, x: Tensor, directions: Tensor, radii: Sequence[float], noise: float = 0.0
) -> float:
    r"""The largest change of the Hessian seen along given directions: a lower estimate of rho.

    .. math:: \hat\rho = \max_{u, s} \frac{\|(H(x + s u) - H(x))\, u\|}{s}

    Changes within the error of the products count as zero, else rounding divided by a small s
    would pass for curvature.

    Parameters
    ----------
    product
        ``(x, V) -> H(x) V`` for the columns of V.
    x
        The point, ``(d,)``.
    directions
        Unit vectors, the columns of ``(d, k)``.
    radii
        The distances s, > 0.
    noise
        Error of a product with a unit vector, >= 0.

    Returns
    -------
    float
        :math:`\hat\rho \ge 0`, without a safety factor; infinite if the loss is not finite near.

    Examples
    --------
    >>> cubic = lambda x, V: x[:, None] * V  # f = x^3 / 6
    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> round(hessian_lipschitz(cubic, one[0], one, [1e-3]), 9)
    1.0
    """
    for s in radii:
        check.number("radii", s, gt=0)
    largest = 0.0
    here = product(x, directions)
    for u, Hu in zip(directions.T, here.T):
        for s in radii:
            try:
                change = float((product(x + s * u, u[:, None])[:, 0] - Hu).norm())
            except ValueError:  # the loss or its derivatives are not finite there
                return math.inf
            if not math.isfinite(change):
                return math.inf
            if change > 2 * noise:
                largest = max(largest, change / s)
    return largest


def probe_directions(d: int, count: int, gradient: Tensor, generator: torch.Generator) -> Tensor:
    r"""`count` random unit vectors, and :math:`-g/\|g\|` unless g = 0: columns of ``(d, k)``.

    Examples
    --------
    >>> probe_directions(4, 5, torch.zeros(4), torch.Generator().manual_seed(0)).shape
    torch.Size([4, 5])
    """
    drawn = torch.randn(count, d, generator=generator, dtype=torch.float64).T
    columns = (drawn / torch.linalg.vector_norm(drawn, dim=0)).to(gradient)
    norm = gradient.norm()
    if float(norm) > 0:
        columns = torch.cat([columns, (-gradient / norm)[:, None]], dim=1)
    return columns
