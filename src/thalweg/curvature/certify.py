"""`certify`: what kind of point is this? The tests, in the order that spends least."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Literal, Unpack

from torch import nn

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.curvature import verdicts
from thalweg.curvature.certificate import Certificate, Verdict
from thalweg.curvature.certified_point import Asked, CertifiedPoint
from thalweg.curvature.ends import Ends, settling_steps
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import How, prepared
from thalweg.curvature.symmetry import Tangents, tangent_matrix

GRADIENT_TOLERANCE = 1e-4


def certify(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    gradient_tolerance: float | None = None,
    curvature_tolerance: float | None = None,
    budget: int = 400,
    failure: float = 1e-3,
    hessian_lipschitz: float | None = None,
    symmetries: Tangents | None = None,
    seed: int = 0,
    dense: bool | Literal["auto"] = "auto",
    basis_memory: int = 2**31,
    **how: Unpack[How],
) -> Certificate:
    r"""Say what kind of point the model is at, and what that rests on. Nothing is changed.

    With g and H the gradient and Hessian of the loss over the whole data set, the first that holds:

    1. :math:`\|g\| - \nu_g > \epsilon`: NOT_STATIONARY;
    2. a unit y with :math:`y^\top H y < -\beta` and a step s with
       :math:`f(x + s y) < f(x) - |y^\top H y|\, s^2 / 4`, evaluated: STRICT_SADDLE;
    3. :math:`\lambda_{\min} > \mu` with :math:`\mu > 0` and, for the Lipschitz constant
       :math:`\rho` of H near x,

       .. math:: h = \frac{\rho\, (\|g\| + \nu_g)}{\mu^2} < \frac{5}{18}, \quad
                 \delta = \frac{2 (\|g\| + \nu_g) / \mu}{1 + \sqrt{1 - 2 h}}, \quad
                 \alpha = \mu - 3 \rho\, \delta > 0

       : LOCAL_MINIMUM (Newton-Kantorovich: it lies within :math:`\delta`);
    4. :math:`\lambda_{\min} > -\beta` and :math:`\|g\| + \nu_g \le \epsilon`:
       SECOND_ORDER_STATIONARY;

    else INCONCLUSIVE, with the reason and the budget that would settle it.

    Parameters
    ----------
    training
        The network, its loss and its data; or an `Objective`.
    parameters
        The unknowns. Default: all with ``requires_grad``.
    gradient_tolerance
        :math:`\epsilon > 0`, in units of the gradient. Default 1e-4.
    curvature_tolerance
        :math:`\beta > 0`, in units of the Hessian. Default :math:`\sqrt{\rho \epsilon}` with an
        estimate of :math:`\rho`, raised to what the budget can decide.
    budget
        Hessian-vector products for the spectrum, >= 1. Default 400. Checks around it take up to
        30 more.
    failure
        Probability, over the random start, with which a bound may fail; in (0, 1). Default 1e-3.
    hessian_lipschitz
        :math:`\rho \ge 0`, where it is known. Default: estimated, and said so.
    symmetries
        Tangents of known symmetries: columns ``(d, s)``, flat vectors, or mappings from parameter
        names to tensors. The tests are then made on the complement.
    seed
        Of the random starts. Default 0. Equal seeds, equal certificates.
    dense
        Compute all eigenvalues, from d products. ``"auto"`` (default): if d < 500 and the budget
        allows it.
    basis_memory
        Bytes of Lanczos vectors; beyond them thick restarts are made. Default 2 GiB.
    **how
        ``mode``, ``weight``, ``memory``, ``group``: see `Objective`.

    Returns
    -------
    Certificate
        ``print`` it; ``.verdict``, ``.direction``, ``.to_dict()``.

    Raises
    ------
    ValueError
        For an argument out of range, a stochastic loss, a loss or gradient that is not finite, or
        tangents that belong to no symmetry here.
    TypeError
        For parameters in half precision.

    Warns
    -----
    UserWarning
        If `curvature_tolerance` is below what the budget can decide.

    Examples
    --------
    >>> import torch
    >>> start = torch.zeros(2, dtype=torch.float64)
    >>> bowl = Training.from_function(lambda x: (x**2).sum(), start)
    >>> certificate = certify(bowl)
    >>> certificate.verdict.name, certificate.alpha > 1.99
    ('LOCAL_MINIMUM', True)

    References
    ----------
    Ge, Huang, Jin & Yuan, COLT 2015 (arXiv 1503.02101); Kuczynski & Wozniakowski, SIAM J. Matrix
    Anal. Appl. 13(4), 1992; Yun, Sra & Jadbabaie, ICLR 2019 (arXiv 1809.10858).
    """
    eps = GRADIENT_TOLERANCE if gradient_tolerance is None else gradient_tolerance
    check.number("gradient_tolerance", eps, gt=0)
    if curvature_tolerance is not None:
        check.number("curvature_tolerance", curvature_tolerance, gt=0)
    check.number("budget", budget, ge=1, integer=True)
    check.number("failure", failure, gt=0, lt=1)
    if hessian_lipschitz is not None:
        check.number("hessian_lipschitz", hessian_lipschitz, ge=0)
    check.number("seed", seed, ge=0, integer=True)
    check.choice("dense", dense, (True, False, "auto"))
    objective = prepared(training, parameters, how)
    S = None if symmetries is None else tangent_matrix(objective, symmetries)
    asked = Asked(
        float(eps), curvature_tolerance, int(budget), float(failure), hessian_lipschitz, int(seed),
        dense, int(basis_memory),
    )  # fmt: skip
    return _certified(CertifiedPoint(objective, asked, S))


def _certified(at: CertifiedPoint) -> Certificate:
    """The first test that holds, in the order that spends least."""
    kinked = verdicts.at_kinks(at)
    if kinked is not None:
        return kinked
    if at.g.norm - at.g.noise > at.asked.eps:
        return verdicts.not_stationary(at)
    least = at.symmetry_defect()
    beta = at.default_tolerance() if at.asked.beta is None else at.asked.beta
    ends = _settled_ends(at, least, beta)
    if at.basis is not None:
        at.check_symmetries(ends.noise)
    if ends.low + ends.noise < -at.beta:
        return verdicts.saddle(at, ends)
    if ends.lower <= -at.beta:
        return verdicts.inconclusive(at, ends)
    if at.g.norm + at.g.noise > at.asked.eps:
        at.reasons.append(
            f"gradient noise {at.g.noise:.2g}: |g| = {at.g.norm:.3g} is above or below "
            f"the tolerance {at.asked.eps:.3g}, who knows"
        )
        return verdicts.about(at, ends, Verdict.INCONCLUSIVE)
    return verdicts.stationary(at, ends)


def _settled_ends(at: CertifiedPoint, least: float, beta: float) -> Ends:
    """Look at both ends until the verdict is clear or the budget is spent."""
    ends, warned, raised = None, False, False
    for ends in at.ends(least):
        if at.asked.beta is None:
            # twice: a lowest value anywhere above -beta/2 is then decided
            at.beta = max(beta, 2 * ends.resolution, sys.float_info.min)
            raised = at.beta > beta
        if _clear(at, ends):
            break
        if at.asked.beta is not None and ends.resolution > at.beta and not warned:
            warned = True
            check.warn(
                f"curvature_tolerance must be above the resolution {ends.resolution:.3g} of "
                f"budget={at.asked.budget}, got {at.beta:.3g}: expect an inconclusive verdict"
            )
    assert ends is not None
    if raised:
        at.assumptions.append(
            f"the curvature tolerance was raised from {beta:.3g} to {at.beta:.3g}, "
            "twice the resolution of the budget"
        )
    return ends


def _clear(at: CertifiedPoint, ends: Ends) -> bool:
    if ends.low + ends.noise < -at.beta:  # a saddle, or perhaps a maximum
        return ends.high > 0 or ends.upper < 0
    if ends.lower <= -at.beta:
        return False
    margin = ends.low - ends.noise
    if ends.lower > 0 or margin <= 0:
        return True
    return settling_steps(ends.order, ends.width, margin, ends.failure) > at.asked.budget
