"""The verdict in one sentence, and what to do next in another."""

from __future__ import annotations

import math

from thalweg.curvature.certificate import Certificate, Verdict
from thalweg.curvature.directional import DirectionalSharpness

HEADLINES = {
    Verdict.NOT_STATIONARY: "This is not a stationary point: the loss still falls.",
    Verdict.STRICT_SADDLE: "This is a strict saddle: the loss falls along a direction of negative "
    "curvature.",
    Verdict.LOCAL_MAX_CANDIDATE: "Every direction curves downward here: the loss falls along all "
    "of them.",
    Verdict.SECOND_ORDER_STATIONARY: "This point is second-order stationary: to the tolerances "
    "asked, neither the gradient nor negative curvature leads down.",
    Verdict.LOCAL_MINIMUM: "This is a local minimum, and a strict one.",
    Verdict.MINIMUM_MODULO_SYMMETRY: "This is a local minimum, strict up to the symmetries.",
    Verdict.INCONCLUSIVE: "It could not be decided what kind of point this is.",
}
"""The verdicts as the first sentence of a page."""


def next_step(
    certificate: Certificate, descent: DirectionalSharpness | None, share: float = 1.0
) -> str:
    """What to do now.

    Parameters
    ----------
    certificate
        Of the point.
    descent
        Slope and curvature along the gradient; None if the gradient is zero.
    share
        Of the budget of an inspection that goes to the certificate.

    Returns
    -------
    str
        One or two sentences.
    """
    v = certificate.verdict
    if v is Verdict.NOT_STATIONARY and certificate.bound != "sosp-check":
        told = "Train on."
        if descent is not None and descent.descent and math.isfinite(descent.best_lr):
            told += (
                f" Against the gradient the quadratic model falls for every lr below "
                f"{descent.largest_lr:.3g}, most at {descent.best_lr:.3g}, by "
                f"{-descent.predicted(descent.best_lr):.3g}."
            )
        elif descent is not None:
            told += " Against the gradient the loss curves down, so a large step is safe at first."
        return told
    if v.goes_down:
        return (
            "Go down with thalweg.escape(training, certificate): a step of "
            f"{certificate.step:.3g} along the direction found lowers the loss by "
            f"{certificate.decrease:.3g}, as evaluated."
        )
    if v is Verdict.SECOND_ORDER_STATIONARY:
        flat = certificate.nullity
        many = f" (about {flat.value:,.0f} flat directions)" if flat is not None else ""
        done = f"Training is done to these tolerances{many}."
        if certificate.lambda_min is not None and certificate.lambda_min.upper < 0:
            return (
                f"{done} A curvature of {certificate.lambda_min.upper:.2g} still leads down: with "
                "a smaller curvature tolerance this would be a saddle."
            )
        return (
            f"{done} For a stronger verdict ask for smaller tolerances, or name the symmetries of "
            "the model."
        )
    if v in (Verdict.LOCAL_MINIMUM, Verdict.MINIMUM_MODULO_SYMMETRY):
        return (
            "Nothing near leads further down: to do better, start elsewhere, or change the "
            "model or the data."
        )
    if certificate.settling_budget is not None:
        needed = math.ceil(certificate.settling_budget / share)
        return f"Inspect again with a budget of {needed:,} products: that would settle it."
    why = certificate.reasons[0].rstrip(".") if certificate.reasons else "no test applied"
    return f"No budget alone decides: {why}."
