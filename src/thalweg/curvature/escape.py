"""`escape`: go down from a saddle along its negative curvature, and say by how much."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Unpack

import torch
from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.curvature.certificate import Certificate
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import How, prepared


@dataclass(frozen=True, eq=False)
class Escape:
    r"""A step that lowered the loss; ``print`` it.

    Attributes
    ----------
    before, after
        The loss, evaluated at both ends.
    step
        s: the point moved to is x + s * direction.
    direction
        The unit vector y, ``(d,)``.
    x
        The point moved to, ``(d,)``.
    guaranteed
        The decrease that theory promises for this step; 0 where :math:`\rho` was not given.
    applied
        Whether the model holds `x` now.
    """

    before: float
    after: float
    step: float
    direction: Tensor = field(repr=False)
    x: Tensor = field(repr=False)
    guaranteed: float = 0.0
    applied: bool = False

    @property
    def decrease(self) -> float:
        """before - after."""
        return self.before - self.after

    def __str__(self) -> str:
        moved = "the model is there" if self.applied else "the model has not moved"
        return (
            f"loss {self.before:.8g} -> {self.after:.8g} (down by {self.decrease:.3g}) at step "
            f"{self.step:.3g}; {moved}"
        )


def escape(
    training: Training | Objective,
    certificate: Certificate,
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    hessian_lipschitz: float | None = None,
    apply: bool = True,
    **how: Unpack[How],
) -> Escape:
    r"""Take the step down that a certificate found. **This moves the model.**

    .. math:: x \leftarrow x + s\, y, \qquad f(x + s y) \le f(x) - \frac{|\ell|\, s^2}{2}
              + \frac{\rho\, s^3}{6}, \qquad \ell = y^\top H y < 0

    Without :math:`\rho`, s is halved from 1 until :math:`f(x + s y) < f(x) - |\ell| s^2 / 4`. With
    it, :math:`s = 2 |\ell| / \rho`, whose decrease is at least :math:`2 |\ell|^3 / (3 \rho^2)`. For
    NOT_STATIONARY the step is the certificate's, along :math:`-g`.

    Parameters
    ----------
    training
        What was certified; or its `Objective`.
    certificate
        Of the point the model holds, with a direction.
    parameters
        The unknowns, as for `certify`.
    hessian_lipschitz
        :math:`\rho > 0`, where it is known.
    apply
        Write the point into the model's parameters. Default True. ``apply=False`` changes nothing.
    **how
        ``mode``, ``weight``, ``memory``, ``group``: as for `certify`.

    Returns
    -------
    Escape
        ``before``, ``after``, ``decrease``, ``step``, evaluated.

    Raises
    ------
    ValueError
        If the certificate has no direction or is of another point, or no step goes down.

    Examples
    --------
    >>> from thalweg import certify
    >>> start = torch.zeros(2, dtype=torch.float64)
    >>> training = Training.from_function(lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 4, start)
    >>> print(escape(training, certify(training)))
    loss 0 -> -0.75 (down by 0.75) at step 1; the model is there

    References
    ----------
    Liu & Yang, arXiv 1709.08571; Carmon, Duchi, Hinder & Sidford, SIAM J. Optim. 28(2), 2018.
    """
    if hessian_lipschitz is not None:
        check.number("hessian_lipschitz", hessian_lipschitz, gt=0)
    if not certificate.verdict.goes_down or certificate.direction is None:
        raise ValueError(
            f"certificate must have a direction that goes down, got {certificate.verdict.name}"
        )
    objective = prepared(training, parameters, how)
    x, y = objective.start, certificate.direction
    if len(y) != objective.d:
        raise ValueError(f"certificate must be of {objective.d} unknowns, got {len(y)}")
    before = objective.value()
    if abs(before - certificate.loss) > 1e-6 * max(abs(before), abs(certificate.loss), 1e-12):
        raise ValueError(
            f"certificate must be of the point the model holds (loss {before:.8g}), got one of a "
            f"point of loss {certificate.loss:.8g}"
        )
    guaranteed = 0.0
    if certificate.curvature is None:
        step = certificate.step
        after = objective.value(x + step * y)
    elif hessian_lipschitz is not None:
        step = 2 * abs(certificate.curvature) / hessian_lipschitz
        guaranteed = guaranteed_decrease(certificate.curvature, step, hessian_lipschitz)
        after = objective.value(x + step * y)
    else:
        smallest = 1e-8 * (1 + float(x.norm()))
        found = backtracked(objective.value, x, y, certificate.curvature, before, smallest=smallest)
        step, after = (0.0, before) if found is None else found
    if not after < before:
        raise ValueError(
            f"no step along the direction lowers the loss {before:.8g}: got {after:.8g} at "
            f"{step:.3g}"
            + ("; hessian_lipschitz may be too small" if hessian_lipschitz is not None else "")
        )
    x = x + step * y
    if apply:
        objective.write(x)
    return Escape(before, after, step, y, x, guaranteed, apply)


def guaranteed_decrease(curvature: float, step: float, hessian_lipschitz: float) -> float:
    r"""What a step along negative curvature lowers the loss by, at least.

    .. math:: \frac{|\ell|\, s^2}{2} - \frac{\rho\, s^3}{6}

    for :math:`g^\top y \le 0`: :math:`|\ell|^3 / (3 \rho^2)` at the cautious
    :math:`s = |\ell| / \rho`, and the most, :math:`2 |\ell|^3 / (3 \rho^2)`, at twice that.

    Examples
    --------
    >>> round(guaranteed_decrease(-1.0, 1.0, 1.0), 4), round(guaranteed_decrease(-1.0, 2.0, 1.0), 4)
    (0.3333, 0.6667)
    """
    return abs(curvature) * step**2 / 2 - hessian_lipschitz * step**3 / 6


def signed(y: Tensor, gradient: Tensor, generator: torch.Generator) -> Tensor:
    r"""y or -y, so that :math:`g^\top y \le 0`; a random sign where it is 0.

    Examples
    --------
    >>> signed(torch.ones(2), torch.ones(2), torch.Generator()).tolist()
    [-1.0, -1.0]
    """
    slope = float(y @ gradient)
    if slope == 0:
        return y if bool(torch.rand((), generator=generator) < 0.5) else -y
    return -y if slope > 0 else y


def backtracked(
    value: Callable[[Tensor], float],
    x: Tensor,
    y: Tensor,
    curvature: float,
    before: float,
    *,
    largest: float = 1.0,
    smallest: float = 1e-8,
) -> tuple[float, float] | None:
    r"""Halve s until :math:`f(x + s y) < f(x) - |\ell| s^2 / 4`, and by more than rounding.

    Parameters
    ----------
    value
        f.
    x, y
        The point, and a unit vector along which it curves downward.
    curvature
        :math:`\ell < 0`.
    before
        f(x).
    largest, smallest
        Steps.

    Returns
    -------
    tuple or None
        s and f(x + s y); None if no step does.

    Examples
    --------
    >>> backtracked(lambda x: float(-(x**2) + x**4), torch.zeros(1), torch.ones(1), -2.0, 0.0)
    (0.5, -0.1875)
    """
    rounding = 8 * torch.finfo(x.dtype).eps * abs(before)
    s = largest
    while s >= smallest:
        after = finite_value(value, x + s * y)
        if before - after > max(abs(curvature) * s**2 / 4, rounding):
            return s, after
        s /= 2
    return None


def finite_value(value: Callable[[Tensor], float], x: Tensor) -> float:
    """f(x), and infinity where it is not finite.

    Examples
    --------
    >>> finite_value(lambda x: math.nan, torch.zeros(1))
    inf
    """
    try:
        f = value(x)
    except ValueError:  # of `Objective`: not finite there
        return math.inf
    return f if math.isfinite(f) else math.inf
