"""The generalized power method of phase synchronization, and its certificate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thalweg.core import Result, check
from thalweg.core.catalogue import method
from thalweg.numeric.krylov import leading_eigs
from thalweg.solve.recovery.descent import descend
from thalweg.solve.recovery.synchronization import PhaseSynchronization


@method(
    paper="Boumal, SIAM J. Optimization 2016, arXiv:1601.06114; Zhong, Boumal, arXiv:1703.06605",
    year=2016,
    family="synchronization",
    problems=(PhaseSynchronization,),
)
def generalized_power_method(
    problem: PhaseSynchronization,
    *,
    beta: float = 0.0,
    certify: bool = True,
    start: str | Tensor = "spectral",
    tol: float = 1e-12,
    xtol: float | None = None,
    max_steps: int = 1000,
    max_seconds: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[Tensor]:
    r"""Multiply with Y and keep the phases, until they stay; then see whether any are better.

    .. math:: u = Y z + \beta z, \qquad z_i \leftarrow u_i / |u_i|

    Blocks: the polar factor of :math:`u_i`. Where :math:`u_i = 0`, :math:`z_i` stays.

    Parameters
    ----------
    problem
        A `PhaseSynchronization`.
    beta
        >= 0; from :math:`-\lambda_{\min}(Y)` on, :math:`z^* Y z` never falls. Default 0, which is
        faster; should it fall, or a cycle begin, the method goes on with that value.
    certify
        Look for proof that no other phases are better: ``info["certificate"]``, see `certificate`.
        Default True; one eigenvalue problem.
    start
        ``"spectral"`` (default), ``"random"``, or a tensor to continue from.
    tol
        Stop at this fixed-point gap :math:`\|P(Y z) - z\| / \sqrt n`, >= 0. Default 1e-12.
    xtol
        Stop at this relative change. Default 1e-12 (4 roundings in float32).
    max_steps, max_seconds
        Limits. Default 1000 steps, no limit of time.
    generator
        Of what is random in the start.
    callback, progress
        As in `thalweg.core.iterate`.

    Returns
    -------
    Result
        ``info`` has ``"certificate"``, the ``"beta"`` in use at the end, and ``"components"``, the
        number of components of the graph.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> problem = PhaseSynchronization.random(60, sigma=0.5, generator=generator)
    >>> result = generalized_power_method(problem)
    >>> print(result.info["certificate"].sentence)
    a global maximum, and the only one up to a common factor
    """
    check.number("beta", beta, ge=0)
    seen = _Seen(problem)
    shift, before, lowest = float(beta), None, float("inf")
    rounding = 100 * torch.finfo(problem.Y.dtype).eps

    def step(x: Tensor, misfit: Tensor) -> Tensor:
        nonlocal shift, before, lowest
        value = float(seen.value_of(x, misfit).max())
        u = seen.product(x)
        new = problem.nearest(u + shift * x, x)
        fell = value > lowest + rounding * float(problem.energy.max())
        if shift == 0 and (fell or (before is not None and torch.equal(new, before))):
            shift = monotone_shift(problem)
            new = problem.nearest(u + shift * x, x)
        lowest, before = min(lowest, value), x
        return new

    result = descend(
        seen,
        step,
        problem.start(start, generator),
        tol=tol,
        xtol=xtol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        callback=callback,
        progress=progress,
        patience=200,  # the gap crosses plateaus that the objective does not
    )
    info = {**result.info, "beta": shift, "components": int(problem.components.max()) + 1}
    if certify:
        info["certificate"] = certificate(problem, result.x)
    return dataclasses.replace(result, info=info)


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What `certificate` found out about a point; the worst member of a batch."""

    lambda_min: float
    """Smallest eigenvalue of S: below zero, nothing is proved."""
    second: float
    """The next one after as many as S z = 0 makes zero; > 0: no other maximum."""
    residual: float
    """Norm of S z: zero at a stationary point."""
    norm: float
    """Spectral norm of Y, which the others are compared with."""
    bound: float
    """No phases have an objective that is greater by more than this."""
    optimal: bool
    """Whether the point is a global maximum, to rounding."""
    sentence: str
    """The same in words."""


def certificate(problem: PhaseSynchronization, x: Tensor) -> Certificate:
    r"""Is z the best there is? If S is positive semidefinite, it is.

    .. math:: S = \operatorname{diag}\big(\operatorname{Re}(\bar z_i (Y z)_i)\big) - Y, \qquad
        w^* Y w \le z^* Y z - n \lambda_{\min}(S) \quad \text{for all phases } w

    S is the dual variable of the semidefinite relaxation: with :math:`S z = 0` and S positive
    semidefinite, z solves that too. (Blocks: the Hermitian part of :math:`(Y z)_i z_i^*`.) A
    negative eigenvalue does not prove that better phases exist.

    Parameters
    ----------
    problem
        A `PhaseSynchronization`.
    x
        Phases or blocks, of its shape.

    Returns
    -------
    Certificate
        ``optimal`` means :math:`\lambda_{\min} \ge -10^{-8} \|Y\|` and :math:`\|S z\| \le 10^{-8}
        \sqrt n \|Y\|`; in single precision 1e-5 instead of 1e-8.

    Examples
    --------
    >>> Y = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -1.0, 0.0]])
    >>> found = certificate(PhaseSynchronization(Y), torch.tensor([1.0, 1.0, 1.0]))
    >>> found.optimal, round(found.lambda_min, 4)
    (False, -1.0)
    """
    x = problem.start(x)
    Y, d = problem.ratios, problem.block
    tolerance = max(1e-8, 100 * torch.finfo(Y.dtype).eps)
    Y = Y.to(torch.promote_types(Y.dtype, torch.float64))
    members = Y.reshape(-1, *Y.shape[-2:]) if Y.ndim > 2 else [Y]
    points = problem.stacked(x).to(Y.dtype).reshape(-1, problem.n * d, d)
    kernel = d * (int(problem.components.max()) + 1)
    found = [_spectrum(M, Z, d, kernel) for M, Z in zip(members, points, strict=True)]
    lambda_min, second = min(f[0] for f in found), min(f[1] for f in found)
    residual, norm = max(f[2] for f in found), max(f[3] for f in found)
    size = problem.n * d
    stationary = all(f[2] <= tolerance * size**0.5 * f[3] for f in found)
    optimal = stationary and all(f[0] >= -tolerance * f[3] for f in found)
    bound = size * max(0.0, -lambda_min)
    if optimal:
        only = all(f[1] > tolerance * f[3] for f in found)
        sentence = "a global maximum" + (
            ", and the only one up to a common factor" if only else "; there may be others"
        )
    else:
        what = "a stationary point" if stationary else "not yet a stationary point"
        sentence = (
            f"{what} without proof of optimality: the smallest eigenvalue is {lambda_min:.3g}; no "
            f"phases are better by more than {bound:.3g}"
        )
    return Certificate(lambda_min, second, residual, norm, bound, optimal, sentence)


def monotone_shift(problem: PhaseSynchronization) -> float:
    r"""The least :math:`\beta \ge 0` with :math:`Y + \beta I` positive semidefinite.

    Examples
    --------
    >>> round(monotone_shift(PhaseSynchronization(1 - torch.eye(3))), 4)
    1.0
    """
    Y = problem.ratios
    members = Y.reshape(-1, *Y.shape[-2:]) if Y.ndim > 2 else [Y]
    return max(0.0, *(_largest(M, -1.0) for M in members))


def _spectrum(Y: Tensor, Z: Tensor, d: int, kernel: int) -> tuple[float, float, float, float]:
    """Smallest eigenvalue of S, the one after the kernel, the norm of S Z, and that of Y."""
    U = Y @ Z
    product = U.unflatten(0, (-1, d)) @ Z.unflatten(0, (-1, d)).mH
    D = (product + product.mH) / 2  # n blocks

    def S(W: Tensor) -> Tensor:
        return (D @ W.unflatten(0, (-1, d))).flatten(0, 1) - Y @ W

    norm = max(_largest(Y, 1.0), _largest(Y, -1.0))
    ceiling = float(torch.linalg.matrix_norm(D).max()) + norm  # above every eigenvalue of S
    k = min(kernel + 1, len(Z))
    values, _ = leading_eigs(
        lambda W: ceiling * W - S(W), len(Z), k, Y.dtype, device=Y.device, tol=1e-10
    )
    least = ceiling - values
    return float(least[0]), float(least[-1]), float(S(Z).norm()), norm


def _largest(Y: Tensor, sign: float) -> float:
    values, _ = leading_eigs(lambda W: sign * (Y @ W), Y.shape[-1], 1, Y.dtype, device=Y.device)
    return float(values[0])


class _Seen:
    """The problem with the last product kept: gap, value and step come from the same one."""

    def __init__(self, problem: PhaseSynchronization) -> None:
        self.problem = problem
        self.truth = problem.truth
        self._at: Tensor | None = None
        self._product = torch.empty(0)

    def product(self, x: Tensor) -> Tensor:
        if x is not self._at:
            if not x.any():  # asked for once, between two questions about the start
                return torch.zeros_like(x)
            self._at, self._product = x, self.problem.product(x)
        return self._product

    def misfit(self, x: Tensor) -> Tensor:
        return self.problem.gap(x, self.product(x))

    def value_of(self, x: Tensor, misfit: Tensor) -> Tensor:
        return self.problem.value_at(x, self.product(x))

    def residual_of(self, misfit: Tensor) -> Tensor:
        return self.problem.residual_of(misfit)

    def error(self, x: Tensor) -> Tensor:
        return self.problem.error(x)
