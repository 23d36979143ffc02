"""`certify`: what kind of point is this? The tests, in the order that spends least."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.estimate import Estimate
from thalweg.core.problem import Training
from thalweg.curvature.certificate import Certificate, Interval, Verdict
from thalweg.curvature.ends import Ends, dense_ends, lanczos_ends, settling_steps
from thalweg.curvature.gradient_noise import MeasuredGradient, measured_gradient
from thalweg.curvature.kinks import kink_distance
from thalweg.curvature.lipschitz import hessian_lipschitz as estimated_lipschitz
from thalweg.curvature.lipschitz import probe_directions
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import How, Operator, hessian, prepared
from thalweg.curvature.symmetry import (
    Tangents,
    check_symmetries,
    orthonormal_basis,
    tangent_matrix,
)
from thalweg.curvature.two_layer import verdict_at_kinks

GRADIENT_TOLERANCE = 1e-4
DENSE_BELOW = 500
PROBES = 5  # random directions in each estimate of rho
SAFETY = 2  # of the rho that the minimum test uses


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
    search = _Search(
        objective, float(eps), curvature_tolerance, int(budget), float(failure),
        hessian_lipschitz, S, int(seed), dense, int(basis_memory),
    )  # fmt: skip
    return search.certificate()


@dataclass
class _Decrease:
    direction: Tensor
    step: float
    decrease: float


class _Search:
    """One certificate in the making."""

    def __init__(
        self, objective: Objective, eps: float, beta: float | None, budget: int, failure: float,
        rho: float | None, S: Tensor | None, seed: int, dense: bool | Literal["auto"], memory: int,
    ) -> None:  # fmt: skip
        self.objective, self.eps, self.given_beta = objective, eps, beta
        self.budget, self.failure, self.rho, self.seed = budget, failure, rho, seed
        self.memory = memory
        self.generator = torch.Generator().manual_seed(seed)
        self.x = objective.start
        self.H: Operator = hessian(objective)
        self.elsewhere = 0  # products at other points
        self.S = S
        self.basis = None if S is None else orthonormal_basis(S)
        self.dense = dense is True or (
            dense == "auto" and objective.d < DENSE_BELOW and objective.d <= budget
        )
        self.dense = self.dense or objective.d == 1
        self.loss = objective.value()
        self.g: MeasuredGradient = measured_gradient(objective)
        self.beta = math.inf if beta is None else float(beta)
        self.assumptions = [
            f"the function is the mean loss over the given data ({objective.mode} mode), "
            f"in {str(objective.dtype).removeprefix('torch.')}"
        ]
        self.reasons: list[str] = []

    # -- the order of the tests --------------------------------------------------------------

    def certificate(self) -> Certificate:
        kinked = self._at_kinks()
        if kinked is not None:
            return kinked
        if self.g.norm - self.g.noise > self.eps:
            return self._not_stationary()
        least = self._symmetry_defect()
        beta = self._default_tolerance() if self.given_beta is None else self.given_beta
        ends = self._settled_ends(least, beta)
        if self.basis is not None:
            self._check_symmetries(ends.noise)
        if ends.low + ends.noise < -self.beta:
            return self._saddle(ends)
        if ends.lower <= -self.beta:
            return self._inconclusive(ends)
        if self.g.norm + self.g.noise > self.eps:
            self.reasons.append(
                f"gradient noise {self.g.noise:.2g}: |g| = {self.g.norm:.3g} is above or below "
                f"the tolerance {self.eps:.3g}, who knows"
            )
            return self._about(ends, Verdict.INCONCLUSIVE)
        return self._stationary(ends)

    def _settled_ends(self, least: float, beta: float) -> Ends:
        """Look at both ends until the verdict is clear or the budget is spent."""
        ends, warned, raised = None, False, False
        for ends in self._ends(least):
            if self.given_beta is None:
                # twice: a lowest value anywhere above -beta/2 is then decided
                self.beta = max(beta, 2 * ends.resolution, sys.float_info.min)
                raised = self.beta > beta
            if self._clear(ends):
                break
            if self.given_beta is not None and ends.resolution > self.beta and not warned:
                warned = True
                check.warn(
                    f"curvature_tolerance must be above the resolution {ends.resolution:.3g} of "
                    f"budget={self.budget}, got {self.beta:.3g}: expect an inconclusive verdict"
                )
        assert ends is not None
        if raised:
            self.assumptions.append(
                f"the curvature tolerance was raised from {beta:.3g} to {self.beta:.3g}, "
                "twice the resolution of the budget"
            )
        return ends

    def _clear(self, ends: Ends) -> bool:
        if ends.low + ends.noise < -self.beta:  # a saddle, or perhaps a maximum
            return ends.high > 0 or ends.upper < 0
        if ends.lower <= -self.beta:
            return False
        margin = ends.low - ends.noise
        if ends.lower > 0 or margin <= 0:
            return True
        return settling_steps(ends.order, ends.width, margin, ends.failure) > self.budget

    def _ends(self, least: float, budget: int | None = None) -> Iterator[Ends]:
        if self.dense and budget is None:
            return iter([dense_ends(self.H, self.basis, least)])
        return lanczos_ends(
            self.H, self.basis, least, budget or self.budget, self.failure, self.generator,
            self.memory,
        )  # fmt: skip

    # -- the verdicts ------------------------------------------------------------------------

    def _not_stationary(self) -> Certificate:
        """-g, with the step 1/L of what few products say about L."""
        ends = next(self._ends(0.0, budget=min(16, self.budget, self.objective.d)))
        g = self.g.vector
        L = max(abs(ends.low), abs(ends.high))
        t = 1 / L if L > 0 else 1.0
        unit = g / g.norm()
        found = self._decrease(-unit, t * self.g.norm, lambda s: s * self.g.norm / 4)
        self.assumptions.append(
            f"to second order, a step -t g with t = 1/L = {t:.3g} (L from {self.H.n_products} "
            f"products) lowers the loss by t |g|^2 / 2 = {t * self.g.norm**2 / 2:.3g}"
        )
        if found is None:
            self.reasons.append("no step along -g lowered the loss by more than rounding")
        return self._about(
            ends, Verdict.NOT_STATIONARY,
            direction=-unit,
            step=0.0 if found is None else found.step,
            decrease=0.0 if found is None else found.decrease,
            confidence=1.0,
        )  # fmt: skip

    def _saddle(self, ends: Ends) -> Certificate:
        y = ends.vectors()[:, 0]
        if float(y @ self.g.vector) > 0:
            y = -y
        curvature = float((y.double() @ (self.H @ y).double()) / (y.double() @ y.double()))
        found = None
        if curvature + ends.noise < -self.beta:
            found = self._decrease(y, 1.0, lambda s: abs(curvature) * s**2 / 4)
        if found is None:
            self.reasons.append(
                f"curvature {curvature:.3g} < -beta = {-self.beta:.3g}, but no step along it "
                "lowered the loss by more than rounding"
            )
            return self._about(ends, Verdict.INCONCLUSIVE)
        top = ends.upper < 0
        self.assumptions.append("the negative curvature is computed and the decrease evaluated")
        if top:
            self.assumptions.append("that all curvature is negative: " + self._how_bounded(ends))
        return self._about(
            ends,
            Verdict.LOCAL_MAX_CANDIDATE if top else Verdict.STRICT_SADDLE,
            direction=y, curvature=curvature, step=found.step, decrease=found.decrease,
            confidence=1.0 if ends.dense or not top else 1 - self.failure,
        )  # fmt: skip

    def _inconclusive(self, ends: Ends) -> Certificate:
        if ends.low + self.beta - ends.noise <= 0 or self.beta <= ends.noise:
            self.reasons.append(
                f"lambda_min is within noise ({ends.noise:.2g}) of -beta = {-self.beta:.3g}: no "
                "budget decides"
            )
            return self._about(ends, Verdict.INCONCLUSIVE)
        # the lowest value found still falls towards lambda_min: down to 0, if all is well
        margin = min(ends.low, 0.0) + self.beta - ends.noise
        needed = settling_steps(ends.order, ends.width, margin, ends.failure or self.failure)
        needed = max(min(needed, ends.order), self.budget + 1)
        self.reasons.append(
            f"eigenvalue resolution {ends.low - ends.lower:.2g}: lambda_min is in "
            f"[{ends.lower:.3g}, {ends.low:.3g}], beta = {self.beta:.3g}: raise budget to {needed}"
        )
        return self._about(ends, Verdict.INCONCLUSIVE, settling_budget=needed)

    def _stationary(self, ends: Ends) -> Certificate:
        self.assumptions.append("no curvature below -beta: " + self._how_bounded(ends))
        if ends.lower > 0:
            return self._minimum_test(ends)
        near = min(float(ends.weights[ends.nodes.abs() <= self.beta].sum()), 1.0)
        spread = 0.0 if ends.dense else math.sqrt(2 * near * (1 - near) * ends.order)
        nullity = Estimate(near * ends.order, spread, 1)
        self.reasons.append(
            f"no minimum test: lambda_min is not above zero ({ends.lower:.3g}); flat directions "
            "or symmetries would do that (supply their tangents as symmetries)"
        )
        return self._about(ends, Verdict.SECOND_ORDER_STATIONARY, nullity=nullity)

    def _minimum_test(self, ends: Ends) -> Certificate:
        """Newton-Kantorovich."""
        mu, G = ends.lower, self.g.norm + self.g.noise
        rho = self.rho
        if rho is None:
            rho = SAFETY * self._lipschitz(ends, max(2 * G / mu, 1e-4 * (1 + float(self.x.norm()))))
            self.assumptions.append(
                f"rho = {rho:.3g} is {SAFETY} times an estimate near the point: not a proof"
            )
        else:
            self.assumptions.append(f"certified given hessian_lipschitz = {rho:.3g}")
        h = rho * G / mu**2
        more: dict[str, Any] = {"hessian_lipschitz": rho}
        if h >= 0.5 or not math.isfinite(h):
            self.reasons.append(
                f"no minimum test: rho (|g| + noise) / mu^2 = {h:.3g} > 1/2 with mu = {mu:.3g}; "
                "a smaller gradient would do"
            )
            return self._about(ends, Verdict.SECOND_ORDER_STATIONARY, **more)
        radius = 2 * (G / mu) / (1 + math.sqrt(1 - 2 * h))
        alpha = mu - 3 * rho * radius
        if alpha <= 0:
            self.reasons.append(
                f"a local minimum lies within {radius:.3g}, but strong convexity does not reach "
                f"twice as far around it (rho (|g| + noise) / mu^2 = {h:.3g} >= 5/18)"
            )
            return self._about(ends, Verdict.SECOND_ORDER_STATIONARY, **more)
        modulo = self.basis is not None
        if self.basis is not None:
            self.assumptions.append(
                f"f is exactly invariant under the {self.basis.shape[1]} symmetries supplied"
            )
        return self._about(
            ends,
            Verdict.MINIMUM_MODULO_SYMMETRY if modulo else Verdict.LOCAL_MINIMUM,
            alpha=alpha, delta=radius, **more,
        )  # fmt: skip

    def _at_kinks(self) -> Certificate | None:
        """The exact test of two-layer ReLU networks, where the point lies on their kinks."""
        found = verdict_at_kinks(self.objective)
        if found is None:
            return None
        verdict, direction, step, sentence, displacement = found
        decrease = 0.0
        if direction is not None:
            demonstrated = self._decrease(direction, step, lambda s: 0.0)
            if demonstrated is None:
                verdict, direction, step = Verdict.INCONCLUSIVE, None, 0.0
            else:
                step, decrease = demonstrated.step, demonstrated.decrease
        self.assumptions.append(
            "at kinks of a two-layer ReLU network: the exact test (SOSP-Check), at the point put "
            f"on its kinks, {displacement:.2g} away; the tolerances are those of that test"
        )
        if verdict is not Verdict.NOT_STATIONARY:
            self.reasons.append(sentence)
        else:
            self.assumptions.append(sentence)
        return Certificate(
            verdict, self.loss, self.g.norm, self.g.noise, self.eps, self.beta, self.objective.d,
            bound="sosp-check", direction=direction, step=step, decrease=decrease,
            kink_distance=displacement, piecewise=True, assumptions=tuple(self.assumptions),
            reasons=tuple(self.reasons), seed=self.seed, shapes=self._shapes(),
        )  # fmt: skip

    # -- parts -------------------------------------------------------------------------------

    def _about(self, ends: Ends, verdict: Verdict, **more: Any) -> Certificate:
        """The certificate with what the spectrum says and the kinks add."""
        direction = more.get("direction")
        nearest, along = kink_distance(self.objective, direction)
        reach = more.get("step") or 3 * (more.get("delta") or 0.0)
        piecewise = (along if direction is not None else nearest) <= reach
        if math.isfinite(nearest):
            self.assumptions.append(
                f"activations with kinks, the nearest at {nearest:.2g} (first order): H is that "
                "of the cell the point is in"
                + (f", which is left within {reach:.2g} (piecewise)" if piecewise else "")
            )
            if piecewise and verdict in (Verdict.LOCAL_MINIMUM, Verdict.MINIMUM_MODULO_SYMMETRY):
                verdict = Verdict.SECOND_ORDER_STATIONARY
                self.reasons.append("no minimum test: a kink is nearer than 3 delta")
        more.setdefault("confidence", 1.0 if ends.dense else 1 - self.failure)
        return Certificate(
            verdict, self.loss, self.g.norm, self.g.noise, self.eps, self.beta, self.objective.d,
            lambda_min=Interval(ends.lower, ends.low + ends.noise),
            lambda_max=Interval(ends.high - ends.noise, ends.upper),
            bound="dense" if ends.dense else "lanczos", hessian_noise=ends.noise,
            failure=0.0 if ends.dense else self.failure,
            kink_distance=nearest, piecewise=piecewise, assumptions=tuple(self.assumptions),
            reasons=tuple(self.reasons), products=self.H.n_products + self.elsewhere,
            seed=self.seed, shapes=self._shapes(), **more,
        )  # fmt: skip

    def _shapes(self) -> dict[str, torch.Size]:
        return dict(zip(self.objective.names, self.objective.shapes, strict=True))

    def _how_bounded(self, ends: Ends) -> str:
        if ends.dense:
            return "all eigenvalues were computed"
        return f"with probability >= {1 - self.failure:g} over the random start of Lanczos"

    def _decrease(self, direction: Tensor, step: float, needed: Any) -> _Decrease | None:
        """Halve the step until the loss falls by what is needed, and by more than rounding."""
        rounding = 8 * torch.finfo(self.objective.dtype).eps * abs(self.loss)
        smallest = 1e-8 * (1 + float(self.x.norm()))
        s = step
        while s >= min(smallest, step):
            try:
                decrease = self.loss - self.objective.value(self.x + s * direction)
            except ValueError:  # not finite there
                decrease = -math.inf
            if decrease > max(needed(s), rounding):
                return _Decrease(direction, s, decrease)
            s /= 2
        return None

    def _symmetry_defect(self) -> float:
        """max |u^T H v - v^T H u| / 2 over three pairs of random unit vectors."""
        d = self.objective.d
        if self.dense or d < 3:
            return 0.0  # the dense path has the whole matrix
        U = probe_directions(d, 3, torch.zeros_like(self.x), self.generator)
        K = U.double().T @ (self.H @ U).double()
        return float((K - K.T).abs().max()) / 2

    def _default_tolerance(self) -> float:
        r""":math:`\sqrt{\rho\, \epsilon}`, the usual pairing; 0 where rho is not to be had."""
        rho = self.rho
        if rho is None:
            rho = self._lipschitz(None, 1e-3 * (1 + float(self.x.norm())))
        if not math.isfinite(rho):
            self.reasons.append("the loss is not finite near the point: no estimate of rho")
            return 0.0
        return math.sqrt(rho * self.eps)

    def _lipschitz(self, ends: Ends | None, r: float) -> float:
        """rho along random directions and -g, at r; and along the eigenvectors, at 3 r as well."""
        U = probe_directions(self.objective.d, PROBES, self.g.vector, self.generator)
        radii = [r]
        if ends is not None:
            U, radii = torch.cat([ends.vectors(), U], dim=1), [r, 3 * r]
        if self.basis is not None:
            U = U - self.basis @ (self.basis.T @ U)
            norms = torch.linalg.vector_norm(U, dim=0)
            U = U[:, norms > 1e-3] / norms[norms > 1e-3]

        def product(x: Tensor, V: Tensor) -> Tensor:
            if x is self.x:
                return self.H @ V
            self.elsewhere += V.shape[1]
            return self.objective.hvp(V, x)

        noise = 0.0 if ends is None else ends.noise
        return estimated_lipschitz(product, self.x, U, radii, noise)

    def _check_symmetries(self, noise: float) -> None:
        assert self.S is not None and self.basis is not None
        check_symmetries(
            self.S, self.basis, self.H @ self.S, self.g.vector,
            gradient_bound=self.g.noise + 1e-6 * self.g.largest_batch_norm, product_noise=noise,
        )  # fmt: skip
