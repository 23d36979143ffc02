"""Going down from a point with kinks, and showing it; and the loop to a point that cannot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.core import check
from thalweg.curvature.relu.losses import FORMULAS, Floats
from thalweg.curvature.relu.network import Direction, TwoLayerReLU

if TYPE_CHECKING:
    from thalweg.curvature.relu.check import ReluVerdict
    from thalweg.curvature.relu.expansion import KinkedPoint

SMALLEST_STEP = 1e-10
ROUNDING = 1e-14
"""A decrease counts if it is above this times 1 + |R|."""

SMALL = 1e-3
"""A decrease below this times 1 + |R| may mean that a kink is close by, yet beyond tau."""
NEAR = 1e-4
"""The relative distance at which the default optimizer takes a kink for one it stalled at."""
COARSER = (10.0, 100.0, 1000.0)

Descend = Callable[[TwoLayerReLU], TwoLayerReLU]


@dataclass(frozen=True, eq=False)
class Decrease:
    """A step that lowered the risk.

    Attributes
    ----------
    network
        The network after it.
    t
        The step size along the direction.
    risk_before, risk_after
        R before and after.
    decrease
        Their difference, summed exactly over the samples.
    """

    network: TwoLayerReLU
    t: float
    risk_before: float
    risk_after: float
    decrease: float


def go_down(
    network: TwoLayerReLU, eta: Direction, slope_or_curvature: float, order: int
) -> Decrease | None:
    r"""Halve t from 1 until the risk falls by half of what the expansion predicts.

    .. math::
        R(z + t\eta) \le R(z) - t\,|\mathrm{slope}| / 2 \quad\text{(order 1)}, \qquad
        R(z + t\eta) \le R(z) - t^2 |q| / 2 \quad\text{(order 2)}

    Parameters
    ----------
    network
        z.
    eta
        The direction, not normalized here.
    slope_or_curvature
        The derivative, or q(eta): negative.
    order
        1 or 2.

    Returns
    -------
    Decrease or None
        None if no t >= 1e-10 lowers the risk by more than 1e-14 (1 + |R|): below rounding.

    Examples
    --------
    >>> net = TwoLayerReLU([[1.0]], [0.0], [[1.0]], [0.0], [[-1], [0], [1]], [-1, 1, 1], "mse")
    >>> up = Direction(np.array([[0.0, 1.0]]), np.zeros((1, 1)), np.zeros(1))
    >>> step = go_down(net, up, -1.0, 1)  # R(t) = 1 - t + t^2
    >>> step.t, step.decrease
    (0.5, 0.25)
    """
    formulas = FORMULAS[network.loss]
    before = formulas.value(network.outputs(), network.y)
    risk, t = math.fsum(before), 1.0
    while t >= SMALLEST_STEP:
        moved = network.moved(eta, t)
        after = formulas.value(moved.outputs(), moved.y)
        decrease = -math.fsum(after - before)
        needed = abs(slope_or_curvature) * t**order / 2
        if decrease >= needed and decrease > ROUNDING * (1 + abs(risk)):
            return Decrease(moved, t, risk, math.fsum(after), decrease)
        t /= 2
    return None


def escape_kink(verdict: ReluVerdict) -> Decrease:
    """Take the step a descent verdict found, and show by how much the risk falls.

    Parameters
    ----------
    verdict
        DESCENT_FIRST_ORDER or DESCENT_SECOND_ORDER, of `check_local_optimality`.

    Returns
    -------
    Decrease
        From the snapped point (`verdict.network`).

    Raises
    ------
    ValueError
        If the verdict has no direction.

    Examples
    --------
    >>> from thalweg.curvature.relu.check import check_local_optimality
    >>> net = TwoLayerReLU([[1.0]], [0.0], [[1.0]], [0.0], [[-1], [0], [1]], [-1, 1, 1], "mse")
    >>> escape_kink(check_local_optimality(net, polish=False)).decrease
    0.25
    """
    if verdict.step is None:
        raise ValueError(
            f"verdict must have a descent direction, got {verdict.verdict.name} ({verdict.reason})"
        )
    return verdict.step


def polish_and_certify(
    network: TwoLayerReLU, *, descend: Descend | None = None, rounds: int = 20, **options: Any
) -> tuple[ReluVerdict, ...]:
    """Descend, test, escape along what the test finds, and again, until it finds nothing.

    Optimizers blind to kinks stall at a little distance from them. So where an escape gains next to
    nothing (1e-3 (1 + |R|)), the point is tested again with tau 10, 100 and 1000 times as large; a
    verdict without descent is then taken, with the displacement it reports.

    Parameters
    ----------
    network
        Where to begin.
    descend
        Any optimizer, as a function from a network to a lower one. Default: `lbfgs`.
    rounds
        At most so many tests, >= 1. Default 20.
    **options
        For `check_local_optimality`.

    Returns
    -------
    tuple of ReluVerdict
        One per round; the last one is a descent verdict only if the rounds were used up.

    Examples
    --------
    >>> net = TwoLayerReLU([[1.0]], [0.0], [[1.0]], [0.0], [[-1], [0], [1]], [-1, 1, 1], "mse")
    >>> found = polish_and_certify(net, descend=lambda network: network)
    >>> found[0].verdict.name, found[0].network.risk() > found[-1].network.risk()
    ('DESCENT_FIRST_ORDER', True)

    References
    ----------
    Yun, Sra & Jadbabaie 2019, section 1: run an optimizer, test, escape, repeat.
    """
    from thalweg.curvature.relu.check import Verdict, check_local_optimality

    check.number("rounds", rounds, ge=1, integer=True)
    descend = lbfgs if descend is None else descend
    verdicts = []
    for _ in range(rounds):
        network = descend(network)
        verdict = check_local_optimality(network, **options)
        for factor in COARSER:
            small = SMALL * (1 + abs(verdict.network.risk()))
            if verdict.step is None or verdict.step.decrease > small:
                break
            tau = factor * options.get("tau", 1e-6)
            coarser = check_local_optimality(network, **{**options, "tau": tau})
            if coarser.step is None and coarser.verdict is not Verdict.DEGENERATE:
                verdict = coarser
        verdicts.append(verdict)
        if verdicts[-1].step is None:
            break
        network = verdicts[-1].step.network
    return tuple(verdicts)


def lbfgs(network: TwoLayerReLU) -> TwoLayerReLU:
    """SciPy's L-BFGS on all parameters, then along the kinks it stalled at.

    The first run takes h'(0) = s- and is blind to kinks. The second begins at the snapped point
    (tau = 1e-4) and moves only where no sample leaves its kink; it is kept if it ends lower.

    Examples
    --------
    >>> net = TwoLayerReLU([[1.0]], [1.0], [[1.0]], [0.0], [[0.0], [1.0]], [1.0, 3.0], "mse")
    >>> lbfgs(net).risk() < 1e-8
    True
    """
    from thalweg.curvature.relu.expansion import KinkedPoint
    from thalweg.curvature.relu.snap import snap

    nowhere = np.zeros((len(network.X), len(network.W)), dtype=bool)
    blind = _lbfgs_on_kinks(KinkedPoint(network, nowhere))
    snapped = snap(blind, NEAR, polish=False)
    if snapped.reason or not snapped.point.boundary.any():
        return blind
    along = _lbfgs_on_kinks(snapped.point)
    return along if along.risk() < blind.risk() else blind


def _lbfgs_on_kinks(point: KinkedPoint) -> TwoLayerReLU:
    from scipy.optimize import minimize  # here: importing thalweg must stay quick

    from thalweg.curvature.relu.expansion import Coordinates, KinkedPoint
    from thalweg.curvature.relu.snap import kept_kinks

    network = point.network
    coordinates = Coordinates(network, tuple(range(len(network.W))))
    free = kept_kinks(point, coordinates)

    def risk_and_gradient(x: Floats) -> tuple[float, Floats]:
        at = KinkedPoint(network.moved(coordinates.direction(free @ x)), point.boundary)
        return at.network.risk(), free.T @ coordinates.vector(at.first_order())

    answer = minimize(
        risk_and_gradient,
        np.zeros(free.shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10000, "ftol": 1e-16, "gtol": 1e-12},
    )
    return network.moved(coordinates.direction(free @ answer.x))
