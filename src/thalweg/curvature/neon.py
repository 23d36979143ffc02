"""Neon and Neon2: directions of negative curvature from gradients alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import How, prepared
from thalweg.numeric.krylov.lanczos import sphere


@dataclass(frozen=True, eq=False)
class NegativeCurvature:
    r"""A direction, and the curvature along it by a difference of gradients.

    Attributes
    ----------
    direction
        Unit vector ``(d,)``.
    curvature
        :math:`u^\top (\nabla f(x + u) - \nabla f(x)) / \|u\|^2`; not negative: none was found.
    gradients
        Gradients spent (whole data; of single batches for `neon2_online`).
    """

    direction: Tensor = field(repr=False)
    curvature: float
    gradients: int


def neon(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    lr: float,
    steps: int = 200,
    radius: float = 1e-3,
    largest: float = 1e-2,
    seed: int = 0,
    **how: Unpack[How],
) -> NegativeCurvature:
    r"""Follow gradient descent around the point, until its most negative curvature shows.

    .. math:: u \leftarrow u - \eta\, (\nabla f(x + u) - \nabla f(x)), \qquad
              u_0 \text{ uniform on the sphere of radius } r

    the power method on :math:`I - \eta H`. u is scaled back to r when it leaves the ball of radius
    U, where the gradient is no longer linear in it.

    Parameters
    ----------
    training, parameters
        The function, and its unknowns.
    lr
        :math:`\eta > 0`, at most :math:`1/L`.
    steps
        Steps, >= 1. Default 200.
    radius, largest
        r and U, in units of 1 + the norm of the point, 0 < r < U. Default 1e-3 and 1e-2.
    seed
        Of the start. Default 0.
    **how
        ``mode``, ``weight``, ``memory``, ``group``: see `Objective`.

    Returns
    -------
    NegativeCurvature
        The direction and the curvature along it.

    Raises
    ------
    ValueError
        For an argument out of range.

    Examples
    --------
    >>> start = torch.zeros(2, dtype=torch.float64)
    >>> found = neon(Training.from_function(lambda x: x[0] ** 2 - x[1] ** 2, start), lr=0.5)
    >>> round(found.curvature, 6)
    -2.0

    References
    ----------
    Xu, Jin & Yang, "First-order stochastic algorithms for escaping from saddle points in almost
    linear time", 2018 (arXiv 1711.01944).
    """
    check.number("lr", lr, gt=0)
    check.number("steps", steps, ge=1, integer=True)
    check.number("largest", largest, gt=0)
    check.number("radius", radius, gt=0, lt=largest)
    objective = prepared(training, parameters, how)
    x, g = objective.start, objective.gradient()
    scale = 1 + float(x.norm())
    r, U = radius * scale, largest * scale
    u = r * _sphere(objective, seed)
    for _ in range(steps):
        u = u - lr * (objective.gradient(x + u) - g)
        size = float(u.norm())
        if size == 0:
            break  # the Hessian is 1/lr times the identity: nothing is left of u
        if size > U:
            u = u * (r / size)
    return _measured(objective, x, g, u, r, steps + 1)


def neon2(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    smoothness: float,
    tolerance: float,
    steps: int | None = None,
    failure: float = 1e-3,
    radius: float = 1e-3,
    seed: int = 0,
    **how: Unpack[How],
) -> NegativeCurvature:
    r"""Neon with Chebyshev polynomials: the square root of the steps.

    .. math::
        y_{t+1} = 2 M(y_t) - y_{t-1}, \quad z_{t+1} = y_{t+1} - M(y_t), \quad
        M(y) = -\frac1L (\nabla f(x + y) - \nabla f(x)) + \Bigl(1 - \frac{3 \tau}{4 L}\Bigr) y

    from :math:`y_0 = 0` and a small random :math:`y_1`, until :math:`\|z\|` has grown to r: then
    :math:`z / \|z\|` is a direction of curvature below :math:`-\tau / 2`, or there is none below
    :math:`-\tau`, with probability >= 1 - `failure`.

    Parameters
    ----------
    training, parameters
        The function, and its unknowns.
    smoothness
        L > 0: the gradient's Lipschitz constant.
    tolerance
        :math:`\tau` in (0, L].
    steps
        Most steps. Default :math:`\lceil 2 \ln(d / \delta) \sqrt{L / \tau} \rceil` and as many as
        the growth from the start to r needs.
    failure
        :math:`\delta` in (0, 1). Default 1e-3.
    radius
        r, in units of 1 + the norm of the point. Default 1e-3.
    seed
        Of the start. Default 0.
    **how
        ``mode``, ``weight``, ``memory``, ``group``: see `Objective`.

    Returns
    -------
    NegativeCurvature
        With the curvature measured: it decides, not the growth.

    Raises
    ------
    ValueError
        For an argument out of range.

    Examples
    --------
    >>> start = torch.zeros(2, dtype=torch.float64)
    >>> training = Training.from_function(lambda x: x[0] ** 2 - x[1] ** 2 / 10, start)
    >>> found = neon2(training, smoothness=2.0, tolerance=0.1)
    >>> round(found.curvature, 3), found.gradients < 60
    (-0.2, True)

    References
    ----------
    Allen-Zhu & Li, "Neon2: finding local minima via first-order oracles", 2018 (arXiv 1711.06673),
    algorithm 5.
    """
    check.number("smoothness", smoothness, gt=0)
    check.number("tolerance", tolerance, gt=0, le=smoothness)
    check.number("failure", failure, gt=0, lt=1)
    check.number("radius", radius, gt=0)
    objective = prepared(training, parameters, how)
    if steps is None:
        needed = math.log(objective.d / failure) + math.log(1e3)
        steps = math.ceil(2 * needed * math.sqrt(smoothness / tolerance))
    check.number("steps", steps, ge=1, integer=True)
    x, g = objective.start, objective.gradient()
    r = radius * (1 + float(x.norm()))

    def M(y: Tensor) -> Tensor:
        change = objective.gradient(x + y) - g
        return (1 - 3 * tolerance / (4 * smoothness)) * y - change / smoothness

    before, y = torch.zeros_like(x), 1e-3 * r * _sphere(objective, seed)
    z, spent = y, 1
    while spent <= steps and float(z.norm()) < r:
        moved = M(y)
        spent += 1
        before, y = y, 2 * moved - before
        z = y - moved
    return _measured(objective, x, g, z, r, spent)


def neon2_online(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    lr: float,
    tolerance: float,
    steps: int = 1000,
    restarts: int = 5,
    samples: int = 100,
    radius: float = 1e-3,
    growth: float = 100.0,
    seed: int = 0,
    **how: Unpack[How],
) -> NegativeCurvature:
    r"""Neon2 with the gradients of single batches, restarted, and tested by averaging.

    .. math:: u \leftarrow u - \eta\, (\nabla f_i(x + u) - \nabla f_i(x))

    with a batch i drawn for each step, until u has grown `growth` times; its curvature is then the
    mean of :math:`v^\top (\nabla f_j(x + r v) - \nabla f_j(x)) / r` over drawn batches j, and it is
    returned if that is at most :math:`-3 \tau / 4`; else it starts again.

    Parameters
    ----------
    training, parameters
        The function, and its unknowns; its batches are the draws, in proportion to their weights.
    lr
        :math:`\eta > 0`.
    tolerance
        :math:`\tau > 0`.
    steps, restarts, samples
        Steps per start; starts; draws of the test.
    radius
        r, the largest size of u, in units of 1 + the norm of the point. Default 1e-3.
    growth
        From the start to r, > 1. Default 100.
    seed
        Of all draws. Default 0.
    **how
        ``mode``, ``weight``, ``memory``: see `Objective`.

    Returns
    -------
    NegativeCurvature
        The first accepted direction, else the one of lowest curvature.

    Raises
    ------
    ValueError
        For an argument out of range, or data sharded over processes.

    Examples
    --------
    >>> start = torch.zeros(2, dtype=torch.float64)
    >>> training = Training.from_function(lambda x: x[0] ** 2 - x[1] ** 2, start)
    >>> round(neon2_online(training, lr=0.3, tolerance=1.0).curvature, 2)
    -2.0

    References
    ----------
    Allen-Zhu & Li, 2018 (arXiv 1711.06673), algorithms 1 and 2.
    """
    check.number("lr", lr, gt=0)
    check.number("tolerance", tolerance, gt=0)
    for name, value in (("steps", steps), ("restarts", restarts), ("samples", samples)):
        check.number(name, value, ge=1, integer=True)
    check.number("radius", radius, gt=0)
    check.number("growth", growth, gt=1)
    objective = prepared(training, parameters, how)
    if objective.group is not None:
        raise ValueError("neon2_online draws single batches: its data must not be sharded")
    batches = list(objective.batches())
    weights = torch.tensor([weight for _, weight in batches], dtype=torch.float64)
    generator = torch.Generator().manual_seed(int(check.number("seed", seed, ge=0, integer=True)))
    x = objective.start
    r = radius * (1 + float(x.norm()))
    spent = 0

    def change(u: Tensor) -> Tensor:
        nonlocal spent
        spent += 2
        batch = batches[int(torch.multinomial(weights, 1, generator=generator))][0]
        return _batch_gradient(objective, x + u, batch) - _batch_gradient(objective, x, batch)

    best: NegativeCurvature | None = None
    for _ in range(restarts):
        u = (r / growth) * sphere(objective.d, 1, generator, x.dtype, x.device)[:, 0]
        for _ in range(steps):
            u = u - lr * change(u)
            if not r / growth**2 < float(u.norm()) < r:
                break
        v = u / u.norm()
        drawn = [float(v @ change(r * v)) / r for _ in range(samples)]
        found = NegativeCurvature(v, sum(drawn) / samples, spent)
        if best is None or found.curvature < best.curvature:
            best = found
        if best.curvature <= -0.75 * tolerance:
            break
    assert best is not None
    return NegativeCurvature(best.direction, best.curvature, spent)


def _sphere(objective: Objective, seed: int) -> Tensor:
    check.number("seed", seed, ge=0, integer=True)
    generator = torch.Generator().manual_seed(seed)
    return sphere(objective.d, 1, generator, objective.dtype, objective.device)[:, 0]


def _measured(
    objective: Objective, x: Tensor, g: Tensor, u: Tensor, r: float, spent: int
) -> NegativeCurvature:
    v = u / u.norm() if float(u.norm()) > 0 else u
    curvature = float(v @ (objective.gradient(x + r * v) - g)) / r
    return NegativeCurvature(v, curvature, spent + 1)


def _batch_gradient(objective: Objective, x: Tensor, batch: Any) -> Tensor:
    leaves = objective.leaves(x)
    with objective.measuring():
        return objective.flat(objective.derivative(objective.loss(leaves, batch), leaves))
