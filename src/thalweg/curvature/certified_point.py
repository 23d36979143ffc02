"""A point that is being certified: what is known of it, and what can be evaluated there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thalweg.curvature.ends import Ends, dense_ends, lanczos_ends
from thalweg.curvature.gradient_noise import MeasuredGradient, measured_gradient
from thalweg.curvature.lipschitz import hessian_lipschitz, probe_directions
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import Operator, hessian
from thalweg.curvature.symmetry import check_symmetries, orthonormal_basis

DENSE_BELOW = 500
PROBES = 5  # random directions in each estimate of rho


@dataclass(frozen=True)
class Asked:
    """What a certificate is asked for; see `thalweg.certify`."""

    eps: float
    beta: float | None
    budget: int
    failure: float
    rho: float | None
    seed: int
    dense: bool | Literal["auto"]
    memory: int


@dataclass(frozen=True)
class Decrease:
    """A step that was seen to lower the loss."""

    direction: Tensor
    step: float
    decrease: float


class CertifiedPoint:
    """The point the model is at.

    Attributes
    ----------
    objective, asked
        The function, and what is to be said of it.
    x, loss, g, H
        The flat vector, its loss, the measured gradient, and the Hessian.
    beta
        The curvature tolerance; infinite until it is settled.
    S, basis
        Tangents of symmetries and an orthonormal basis of them, or None.
    elsewhere
        Products made at other points.
    assumptions, reasons
        Sentences for the certificate: what it rests on, and why it says no more.
    """

    def __init__(self, objective: Objective, asked: Asked, S: Tensor | None) -> None:
        self.objective, self.asked = objective, asked
        self.generator = torch.Generator().manual_seed(asked.seed)
        self.x = objective.start
        self.H: Operator = hessian(objective)
        self.elsewhere = 0
        self.S = S
        self.basis = None if S is None else orthonormal_basis(S)
        self.dense = asked.dense is True or (
            asked.dense == "auto" and objective.d < DENSE_BELOW and objective.d <= asked.budget
        )
        self.dense = self.dense or objective.d == 1
        self.loss = objective.value()
        self.g: MeasuredGradient = measured_gradient(objective)
        self.beta = math.inf if asked.beta is None else float(asked.beta)
        self.assumptions = [
            f"the function is the mean loss over the given data ({objective.mode} mode), "
            f"in {str(objective.dtype).removeprefix('torch.')}"
        ]
        self.reasons: list[str] = []

    @property
    def products(self) -> int:
        """Hessian-vector products so far."""
        return self.H.n_products + self.elsewhere

    def ends(self, least_noise: float, budget: int | None = None) -> Iterator[Ends]:
        """Both ends of the spectrum, closer and closer; of fewer products if `budget` is given."""
        if self.dense and budget is None:
            return iter([dense_ends(self.H, self.basis, least_noise)])
        return lanczos_ends(
            self.H, self.basis, least_noise, budget or self.asked.budget, self.asked.failure,
            self.generator, self.asked.memory,
        )  # fmt: skip

    def decrease(
        self, direction: Tensor, step: float, needed: Callable[[float], float]
    ) -> Decrease | None:
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
                return Decrease(direction, s, decrease)
            s /= 2
        return None

    def symmetry_defect(self) -> float:
        """max |u^T H v - v^T H u| / 2 over three pairs of random unit vectors."""
        d = self.objective.d
        if self.dense or d < 3:
            return 0.0  # the dense path has the whole matrix
        U = probe_directions(d, 3, torch.zeros_like(self.x), self.generator)
        K = U.double().T @ (self.H @ U).double()
        return float((K - K.T).abs().max()) / 2

    def default_tolerance(self) -> float:
        r""":math:`\sqrt{\rho\, \epsilon}`, the usual pairing; 0 where rho is not to be had."""
        rho = self.asked.rho
        if rho is None:
            rho = self.lipschitz(None, 1e-3 * (1 + float(self.x.norm())))
        if not math.isfinite(rho):
            self.reasons.append("the loss is not finite near the point: no estimate of rho")
            return 0.0
        return math.sqrt(rho * self.asked.eps)

    def lipschitz(self, ends: Ends | None, r: float) -> float:
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
        return hessian_lipschitz(product, self.x, U, radii, noise)

    def check_symmetries(self, noise: float) -> None:
        """Refuse tangents along which the function is not constant here."""
        assert self.S is not None and self.basis is not None
        check_symmetries(
            self.S, self.basis, self.H @ self.S, self.g.vector,
            gradient_bound=self.g.noise + 1e-6 * self.g.largest_batch_norm, product_noise=noise,
        )  # fmt: skip
