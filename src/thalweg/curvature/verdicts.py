"""The certificate of each verdict, with what it rests on and why it says no more."""

from __future__ import annotations

import math
from typing import Any

import torch

from thalweg.core.estimate import Estimate
from thalweg.curvature.certificate import Certificate, Interval, Verdict
from thalweg.curvature.certified_point import CertifiedPoint
from thalweg.curvature.ends import Ends, settling_steps
from thalweg.curvature.kinks import kink_distance
from thalweg.curvature.minimum_test import newton_kantorovich
from thalweg.curvature.objective import Objective
from thalweg.curvature.two_layer import verdict_at_kinks

SAFETY = 2  # of the rho that the minimum test uses


def not_stationary(at: CertifiedPoint) -> Certificate:
    """-g, with the step 1/L of what few products say about L."""
    ends = next(at.ends(0.0, budget=min(16, at.asked.budget, at.objective.d)))
    g = at.g.vector
    L = max(abs(ends.low), abs(ends.high))
    t = 1 / L if L > 0 else 1.0
    unit = g / g.norm()
    found = at.decrease(-unit, t * at.g.norm, lambda s: s * at.g.norm / 4)
    at.assumptions.append(
        f"to second order, a step -t g with t = 1/L = {t:.3g} (L from {at.H.n_products} "
        f"products) lowers the loss by t |g|^2 / 2 = {t * at.g.norm**2 / 2:.3g}"
    )
    if found is None:
        at.reasons.append("no step along -g lowered the loss by more than rounding")
    return about(
        at, ends, Verdict.NOT_STATIONARY,
        direction=-unit,
        step=0.0 if found is None else found.step,
        decrease=0.0 if found is None else found.decrease,
        confidence=1.0,
    )  # fmt: skip


def saddle(at: CertifiedPoint, ends: Ends) -> Certificate:
    """Negative curvature, if a step along it was seen to lower the loss."""
    y = ends.vectors()[:, 0]
    if float(y @ at.g.vector) > 0:
        y = -y
    curvature = float((y.double() @ (at.H @ y).double()) / (y.double() @ y.double()))
    found = None
    if curvature + ends.noise < -at.beta:
        found = at.decrease(y, 1.0, lambda s: abs(curvature) * s**2 / 4)
    if found is None:
        at.reasons.append(
            f"curvature {curvature:.3g} < -beta = {-at.beta:.3g}, but no step along it "
            "lowered the loss by more than rounding"
        )
        return about(at, ends, Verdict.INCONCLUSIVE)
    top = ends.upper < 0
    at.assumptions.append("the negative curvature is computed and the decrease evaluated")
    if top:
        at.assumptions.append("that all curvature is negative: " + _how_bounded(at, ends))
    return about(
        at, ends,
        Verdict.LOCAL_MAX_CANDIDATE if top else Verdict.STRICT_SADDLE,
        direction=y, curvature=curvature, step=found.step, decrease=found.decrease,
        confidence=1.0 if ends.dense or not top else 1 - at.asked.failure,
    )  # fmt: skip


def inconclusive(at: CertifiedPoint, ends: Ends) -> Certificate:
    """The lower bound does not clear -beta: the budget that would, or that none does."""
    if ends.low + at.beta - ends.noise <= 0 or at.beta <= ends.noise:
        at.reasons.append(
            f"lambda_min is within noise ({ends.noise:.2g}) of -beta = {-at.beta:.3g}: no "
            "budget decides"
        )
        return about(at, ends, Verdict.INCONCLUSIVE)
    # the lowest value found still falls towards lambda_min: down to 0, if all is well
    margin = min(ends.low, 0.0) + at.beta - ends.noise
    needed = settling_steps(ends.order, ends.width, margin, ends.failure or at.asked.failure)
    needed = max(min(needed, ends.order), at.asked.budget + 1)
    at.reasons.append(
        f"eigenvalue resolution {ends.low - ends.lower:.2g}: lambda_min is in "
        f"[{ends.lower:.3g}, {ends.low:.3g}], beta = {at.beta:.3g}: raise budget to {needed}"
    )
    return about(at, ends, Verdict.INCONCLUSIVE, settling_budget=needed)


def stationary(at: CertifiedPoint, ends: Ends) -> Certificate:
    """No gradient and no curvature below -beta: second-order stationary, or a minimum."""
    at.assumptions.append("no curvature below -beta: " + _how_bounded(at, ends))
    if ends.lower > 0:
        return minimum_test(at, ends)
    near = min(float(ends.weights[ends.nodes.abs() <= at.beta].sum()), 1.0)
    spread = 0.0 if ends.dense else math.sqrt(2 * near * (1 - near) * ends.order)
    nullity = Estimate(near * ends.order, spread, 1)
    at.reasons.append(
        f"no minimum test: lambda_min is not above zero ({ends.lower:.3g}); flat directions "
        "or symmetries would do that (supply their tangents as symmetries)"
    )
    return about(at, ends, Verdict.SECOND_ORDER_STATIONARY, nullity=nullity)


def minimum_test(at: CertifiedPoint, ends: Ends) -> Certificate:
    """A strict minimum, if Newton-Kantorovich finds one near by."""
    mu, G = ends.lower, at.g.norm + at.g.noise
    rho = at.asked.rho
    if rho is None:
        rho = SAFETY * at.lipschitz(ends, max(2 * G / mu, 1e-4 * (1 + float(at.x.norm()))))
        at.assumptions.append(
            f"rho = {rho:.3g} is {SAFETY} times an estimate near the point: not a proof"
        )
    else:
        at.assumptions.append(f"certified given hessian_lipschitz = {rho:.3g}")
    h, radius, alpha = newton_kantorovich(mu, G, rho)
    more: dict[str, Any] = {"hessian_lipschitz": rho}
    if h >= 0.5 or not math.isfinite(h):
        at.reasons.append(
            f"no minimum test: rho (|g| + noise) / mu^2 = {h:.3g} > 1/2 with mu = {mu:.3g}; "
            "a smaller gradient would do"
        )
        return about(at, ends, Verdict.SECOND_ORDER_STATIONARY, **more)
    if alpha <= 0:
        at.reasons.append(
            f"a local minimum lies within {radius:.3g}, but strong convexity does not reach "
            f"twice as far around it (rho (|g| + noise) / mu^2 = {h:.3g} >= 5/18)"
        )
        return about(at, ends, Verdict.SECOND_ORDER_STATIONARY, **more)
    modulo = at.basis is not None
    if at.basis is not None:
        at.assumptions.append(
            f"f is exactly invariant under the {at.basis.shape[1]} symmetries supplied"
        )
    return about(
        at, ends,
        Verdict.MINIMUM_MODULO_SYMMETRY if modulo else Verdict.LOCAL_MINIMUM,
        alpha=alpha, delta=radius, **more,
    )  # fmt: skip


def at_kinks(at: CertifiedPoint) -> Certificate | None:
    """The exact test of two-layer ReLU networks, where the point lies on their kinks."""
    asked = at.asked
    found = verdict_at_kinks(
        at.objective, budget=asked.budget, failure=asked.failure, seed=asked.seed
    )
    if found is None:
        return None
    verdict, direction, step, sentence, displacement, failure = found
    decrease = 0.0
    if direction is not None:
        demonstrated = at.decrease(direction, step, lambda s: 0.0)
        if demonstrated is None:
            verdict, direction, step = Verdict.INCONCLUSIVE, None, 0.0
        else:
            step, decrease = demonstrated.step, demonstrated.decrease
    at.assumptions.append(
        "at kinks of a two-layer ReLU network: the exact test (SOSP-Check), at the point put "
        f"on its kinks, {displacement:.2g} away; the tolerances are those of that test"
    )
    if verdict is not Verdict.NOT_STATIONARY:
        at.reasons.append(sentence)
    else:
        at.assumptions.append(sentence)
    return Certificate(
        verdict, at.loss, at.g.norm, at.g.noise, asked.eps, at.beta, at.objective.d,
        bound="sosp-check", confidence=1 - failure, failure=failure, direction=direction,
        step=step, decrease=decrease,
        kink_distance=displacement, piecewise=True, assumptions=tuple(at.assumptions),
        reasons=tuple(at.reasons), seed=asked.seed, shapes=_shapes(at.objective),
    )  # fmt: skip


def about(at: CertifiedPoint, ends: Ends, verdict: Verdict, **more: Any) -> Certificate:
    """The certificate with what the spectrum says and the kinks add."""
    direction = more.get("direction")
    nearest, along = kink_distance(at.objective, direction)
    reach = more.get("step") or 3 * (more.get("delta") or 0.0)
    piecewise = (along if direction is not None else nearest) <= reach
    if math.isfinite(nearest):
        at.assumptions.append(
            f"activations with kinks, the nearest at {nearest:.2g} (first order): H is that "
            "of the cell the point is in"
            + (f", which is left within {reach:.2g} (piecewise)" if piecewise else "")
        )
        if piecewise and verdict in (Verdict.LOCAL_MINIMUM, Verdict.MINIMUM_MODULO_SYMMETRY):
            verdict = Verdict.SECOND_ORDER_STATIONARY
            at.reasons.append("no minimum test: a kink is nearer than 3 delta")
    more.setdefault("confidence", 1.0 if ends.dense else 1 - at.asked.failure)
    return Certificate(
        verdict, at.loss, at.g.norm, at.g.noise, at.asked.eps, at.beta, at.objective.d,
        lambda_min=Interval(ends.lower, ends.low + ends.noise),
        lambda_max=Interval(ends.high - ends.noise, ends.upper),
        bound="dense" if ends.dense else "lanczos", hessian_noise=ends.noise,
        failure=0.0 if ends.dense else at.asked.failure,
        kink_distance=nearest, piecewise=piecewise, assumptions=tuple(at.assumptions),
        reasons=tuple(at.reasons), products=at.products,
        seed=at.asked.seed, shapes=_shapes(at.objective), **more,
    )  # fmt: skip


def _how_bounded(at: CertifiedPoint, ends: Ends) -> str:
    if ends.dense:
        return "all eigenvalues were computed"
    return f"with probability >= {1 - at.asked.failure:g} over the random start of Lanczos"


def _shapes(objective: Objective) -> dict[str, torch.Size]:
    return dict(zip(objective.names, objective.shapes, strict=True))
