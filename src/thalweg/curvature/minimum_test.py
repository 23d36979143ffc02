"""The minimum test: a gradient and a lowest eigenvalue that put a strict minimum near by."""

from __future__ import annotations

import math
from typing import NamedTuple


class MinimumTest(NamedTuple):
    r"""What Newton-Kantorovich says.

    Attributes
    ----------
    h
        :math:`\rho G / \mu^2`; above 1/2 nothing is said.
    radius
        :math:`\delta`: a unique critical point lies within; infinite where h > 1/2.
    alpha
        Modulus of strong convexity in the ball of twice that radius around it; the test is passed
        where it is positive (h < 5/18).
    """

    h: float
    radius: float
    alpha: float


def newton_kantorovich(mu: float, gradient: float, rho: float) -> MinimumTest:
    r"""The strict minimum near a point of small gradient and positive curvature.

    .. math:: h = \frac{\rho\, G}{\mu^2} \le \frac12, \qquad
              \delta = \frac{\mu}{\rho} \bigl(1 - \sqrt{1 - 2h}\bigr)
                     = \frac{2 G / \mu}{1 + \sqrt{1 - 2 h}}, \qquad
              \alpha = \mu - 3 \rho\, \delta

    The second form of :math:`\delta` is evaluated: it survives :math:`\rho = 0`. Points of the ball
    of radius :math:`2 \delta` around the minimum are up to :math:`3 \delta` from here.

    Parameters
    ----------
    mu
        A lower bound of the eigenvalues here, > 0.
    gradient
        G, a bound of the norm of the gradient, >= 0.
    rho
        Lipschitz constant of the Hessian in the ball of radius :math:`3 \delta`, >= 0.

    Returns
    -------
    MinimumTest

    Examples
    --------
    >>> newton_kantorovich(2.0, 0.0, 1.0)
    MinimumTest(h=0.0, radius=0.0, alpha=2.0)
    >>> newton_kantorovich(1.0, 5 / 18, 1.0).alpha < 1e-15  # the border
    True

    References
    ----------
    Kantorovich, "On Newton's method for functional equations", Dokl. Akad. Nauk SSSR 59, 1948.
    """
    h = rho * gradient / mu**2
    if not h <= 0.5:
        return MinimumTest(h, math.inf, -math.inf)
    radius = 2 * (gradient / mu) / (1 + math.sqrt(1 - 2 * h))
    return MinimumTest(h, radius, mu - 3 * rho * radius)
