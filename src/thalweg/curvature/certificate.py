"""`Certificate`: the verdict on a point, what it rests on, and its words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg.core.estimate import Estimate


class Verdict(Enum):
    """What kind of point it is; the value is the sentence shown to the user.

    Examples
    --------
    >>> Verdict.STRICT_SADDLE.value
    'a strict saddle: the loss falls along a direction of negative curvature'
    """

    NOT_STATIONARY = "not stationary: the loss still falls along a first-order direction"
    STRICT_SADDLE = "a strict saddle: the loss falls along a direction of negative curvature"
    LOCAL_MAX_CANDIDATE = "every direction curves downward: a local maximum, if stationary"
    SECOND_ORDER_STATIONARY = "second-order stationary: no curvature below -beta"
    LOCAL_MINIMUM = "a strict local minimum is within delta, and the loss is alpha-convex there"
    MINIMUM_MODULO_SYMMETRY = "a local minimum, strict up to the symmetries"
    INCONCLUSIVE = "inconclusive"

    @property
    def goes_down(self) -> bool:
        """Whether a certificate of this verdict holds a direction along which the loss falls."""
        return self in (
            Verdict.NOT_STATIONARY,
            Verdict.STRICT_SADDLE,
            Verdict.LOCAL_MAX_CANDIDATE,
        )


class Interval(NamedTuple):
    """An interval that holds an eigenvalue."""

    lower: float
    upper: float

    def __str__(self) -> str:
        return f"[{self.lower:.6g}, {self.upper:.6g}]"


@dataclass(frozen=True, eq=False)
class Certificate:
    r"""The verdict on one point, as `thalweg.certify` returns it; ``print`` it.

    With g the gradient, H the Hessian of f over the given data, both at the point, and the
    tolerances :math:`\epsilon` (gradient) and :math:`\beta` (curvature):

    .. math::
        \|g\| > \epsilon, \qquad \lambda_{\min}(H) < -\beta, \qquad
        \|g\| \le \epsilon \wedge \lambda_{\min}(H) > -\beta, \qquad
        f \text{ is } \alpha\text{-convex near a minimum within } \delta

    are NOT_STATIONARY, STRICT_SADDLE, SECOND_ORDER_STATIONARY and LOCAL_MINIMUM.

    Attributes
    ----------
    verdict
        A `Verdict`.
    loss
        f at the point.
    gradient_norm, gradient_noise
        :math:`\|g\|`, and by how much g depends on how the rows are grouped.
    gradient_tolerance, curvature_tolerance
        :math:`\epsilon` and :math:`\beta` (infinite while it was not needed).
    d
        Number of unknowns.
    lambda_min, lambda_max
        Intervals that hold the extreme eigenvalues; None if no eigenvalue was looked for. The
        inner ends are Rayleigh quotients, always valid; the outer ends hold with probability at
        least 1 - `failure`.
        With symmetries: of H on the complement of their tangents.
    bound
        Where the outer ends come from: ``"dense"`` (all eigenvalues), ``"lanczos"`` (a random
        start), ``"sosp-check"`` (the exact test at kinks of a two-layer ReLU network), or "".
    confidence
        Probability, over the random starts, that the verdict's claim is not wrong; 1 for verdicts
        that rest on no draw.
    failure
        Probability, over the random starts, that an outer end is wrong; 0 where none was drawn.
    hessian_noise
        Error of a product of H with a unit vector.
    direction
        Unit vector ``(d,)`` along which the loss falls; None for the verdicts without one. See
        `unflattened`.
    curvature
        :math:`y^\top H y` along `direction`, from a fresh product; None without one.
    step, decrease
        f(point) - f(point + step * direction) = decrease, evaluated; 0 without a direction.
    alpha, delta
        Of LOCAL_MINIMUM: modulus of strong convexity, and the distance to the minimum.
    hessian_lipschitz
        The constant :math:`\rho` of :math:`\|H(x) - H(y)\| \le \rho \|x - y\|` that was used.
    nullity
        Estimated number of eigenvalues within :math:`\beta` of zero; None if not estimated.
    kink_distance
        To the nearest kink of an activation, at first order; infinite if none was met.
    piecewise
        Whether that is less than the step or radius used: H belongs to one cell only.
    assumptions
        Sentences: what the verdict rests on.
    reasons
        Sentences: why no stronger verdict was given.
    products
        Hessian-vector products spent.
    settling_budget
        The budget that would settle an inconclusive verdict; None if none would.
    seed
        Of the random starts.

    Examples
    --------
    >>> from thalweg import Training, certify
    >>> start = torch.zeros(2, dtype=torch.float64)
    >>> saddle = Training.from_function(lambda x: x[0] ** 2 - x[1] ** 2, start)
    >>> certificate = certify(saddle)
    >>> certificate.verdict.name, str(certificate.lambda_min), certificate.decrease
    ('STRICT_SADDLE', '[-2, -2]', 1.0)
    >>> certificate.unflattened()["x.0"].abs().tolist()
    [0.0, 1.0]
    """

    verdict: Verdict
    loss: float
    gradient_norm: float
    gradient_noise: float
    gradient_tolerance: float
    curvature_tolerance: float
    d: int
    lambda_min: Interval | None = None
    lambda_max: Interval | None = None
    bound: str = ""
    confidence: float = 1.0
    failure: float = 0.0
    hessian_noise: float = 0.0
    direction: Tensor | None = field(default=None, repr=False)
    curvature: float | None = None
    step: float = 0.0
    decrease: float = 0.0
    alpha: float | None = None
    delta: float | None = None
    hessian_lipschitz: float | None = None
    nullity: Estimate | None = None
    kink_distance: float = math.inf
    piecewise: bool = False
    assumptions: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    products: int = 0
    settling_budget: int | None = None
    seed: int = 0
    shapes: dict[str, torch.Size] = field(default_factory=dict, repr=False)

    def unflattened(self) -> dict[str, Tensor]:
        """`direction` in the shapes of the parameters, by name.

        Raises
        ------
        ValueError
            If the certificate has no direction.
        """
        if self.direction is None:
            raise ValueError(f"the certificate must have a direction, got {self.verdict.name}")
        parts = self.direction.split([shape.numel() for shape in self.shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def to_dict(self) -> dict[str, Any]:
        """Numbers and words for JSON, without the direction; infinities and NaN as None."""
        names = ("loss", "gradient_norm", "gradient_noise", "gradient_tolerance",
                 "curvature_tolerance", "d", "bound", "confidence", "failure", "hessian_noise",
                 "curvature", "step", "decrease", "alpha", "delta", "hessian_lipschitz",
                 "kink_distance", "piecewise", "products", "settling_budget", "seed")  # fmt: skip
        found: dict[str, Any] = {
            "verdict": self.verdict.name,
            "sentence": self.sentence,
            **{name: _plain(getattr(self, name)) for name in names},
        }
        for name in ("lambda_min", "lambda_max"):
            interval = getattr(self, name)
            found[name] = None if interval is None else [_plain(end) for end in interval]
        found["nullity"] = None
        if self.nullity is not None:
            found["nullity"] = [_plain(self.nullity.value), _plain(self.nullity.stderr)]
        found["assumptions"], found["reasons"] = list(self.assumptions), list(self.reasons)
        return found

    @property
    def sentence(self) -> str:
        """The verdict with its numbers, one sentence."""
        v = self.verdict
        eps, beta = self.gradient_tolerance, self.curvature_tolerance
        if v is Verdict.NOT_STATIONARY:
            if self.bound == "sosp-check":
                return f"{v.value} (a kink: the loss falls by {self.decrease:.3g})"
            return f"{v.value} (|g| = {self.gradient_norm:.3g} > {eps:.3g})"
        if v is Verdict.SECOND_ORDER_STATIONARY and self.bound == "sosp-check":
            return "second-order stationary, with the kinks: no direction goes down at this order"
        if v is Verdict.SECOND_ORDER_STATIONARY:
            return f"{v.value} (beta = {beta:.3g}, |g| <= {eps:.3g})"
        if v in (Verdict.LOCAL_MINIMUM, Verdict.MINIMUM_MODULO_SYMMETRY) and self.delta is not None:
            return f"{v.value} (alpha = {self.alpha:.3g}, delta = {self.delta:.3g})"
        if v is Verdict.INCONCLUSIVE and self.reasons:
            return f"{v.value}: {self.reasons[0]}"
        if v.goes_down:
            return f"{v.value} (by {self.decrease:.3g} at a step of {self.step:.3g})"
        return v.value

    def __str__(self) -> str:
        lines = [
            f"{self.verdict.name}: {self.sentence}",
            f"  loss {self.loss:.8g}, gradient norm {self.gradient_norm:.3g} "
            f"+- {self.gradient_noise:.1g}, d = {self.d}",
        ]
        if self.lambda_min is not None:
            how = {
                "dense": "all eigenvalues",
                "lanczos": f"outer ends with probability >= {1 - self.failure:g}",
            }.get(self.bound, "")
            lines.append(
                f"  lambda_min in {self.lambda_min}, lambda_max in {self.lambda_max} ({how})"
            )
        if self.direction is not None:
            along = "" if self.curvature is None else f", curvature {self.curvature:.6g}"
            lines.append(
                f"  direction{along}: the loss falls by {self.decrease:.6g} at step {self.step:.3g}"
            )
        if self.nullity is not None:
            lines.append(
                f"  flat directions: about {self.nullity.value:.0f} of {self.d} eigenvalues within "
                "the curvature tolerance of zero"
            )
        if math.isfinite(self.kink_distance):
            lines.append(f"  nearest kink at {self.kink_distance:.3g}")
        lines.append(f"  confidence {self.confidence:g}; {self.products} Hessian-vector products")
        if self.settling_budget is not None:
            lines.append(f"  budget={self.settling_budget} would settle it")
        for title, sentences in (("assumes", self.assumptions), ("why not more", self.reasons)):
            lines += [f"  {title}: {sentence}" for sentence in sentences]
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
