"""Both ends of a spectrum, with what may have been missed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric.krylov.block import norms, wide
from thalweg.numeric.krylov.bounds import Bounds, random_start_bounds
from thalweg.numeric.krylov.lanczos import sphere
from thalweg.numeric.krylov.lobpcg import lobpcg
from thalweg.numeric.krylov.ritz import ends, rayleigh_ritz, relative_noise
from thalweg.numeric.krylov.runs import EndsRun, advance, room
from thalweg.numeric.operator import Counted, LinearOperator
from thalweg.numeric.operator import dense as matrix_of

DENSE_BELOW = 500
MORE_STARTS = 10  # after an invariant subspace that leaves the interval wider than wanted


@dataclass(frozen=True)
class ExtremeEigenvalues:
    r"""Eigenpairs at both ends of a spectrum, and how far the ends may lie beyond them.

    Attributes
    ----------
    values
        ``(m,)`` float64, ascending: the k lowest, then the k highest (all, if there are no more).
        They are Rayleigh quotients of fresh products, so :math:`\lambda_{\min} \le` ``values[0]``
        and ``values[-1]`` :math:`\le \lambda_{\max}` up to `noise`, whatever the start was.
    vectors
        ``(n, m)``: unit vectors y, in the operator's dtype.
    residuals
        ``(m,)``: :math:`\|A y - t y\|` of fresh products: an eigenvalue lies within residual +
        noise of each value.
    lower_bound, upper_bound
        All eigenvalues lie between them, with probability at least :math:`1 - \delta` over the
        random start (infinite if the method knows none).
    eps
        What either end may miss by the Krylov bound, as a share of the width; 0 when `dense`.
    delta
        The probability of failure.
    noise
        The error of one product that enters the bounds.
    n_products
        Products with one vector that were spent.
    steps, starts, block
        Of the Lanczos processes.
    n
        Order of the operator.
    k
        Eigenvalues asked for at each end.
    method
        ``"dense"``, ``"lanczos"`` or ``"lobpcg"``.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    lower_bound: float
    upper_bound: float
    eps: float
    delta: float
    noise: float
    n_products: int
    steps: int
    starts: int
    block: int
    n: int
    k: int
    method: str

    @property
    def lowest(self) -> float:
        """The lowest value found."""
        return float(self.values[0])

    @property
    def highest(self) -> float:
        """The highest value found."""
        return float(self.values[-1])

    @property
    def dense(self) -> bool:
        """Whether all eigenvalues were computed, so that nothing can have been missed."""
        return self.method == "dense"

    def __str__(self) -> str:
        low, high = self.lowest, self.highest
        lines = [
            f"lambda_min in [{self.lower_bound:.6g}, {low + self.noise:.6g}], "
            f"lambda_max in [{high - self.noise:.6g}, {self.upper_bound:.6g}]",
            {
                "dense": "all eigenvalues of the dense matrix",
                "lanczos": f"with probability >= {1 - self.delta:g} over the random start",
                "lobpcg": "LOBPCG gives no bound of what it has missed",
            }[self.method]
            + f"; {self.n_products} products, n = {self.n}",
        ]
        shown = min(self.k, len(self.values))
        for name, part in (("lowest", slice(0, shown)), ("highest", slice(-shown, None))):
            pairs = zip(self.values[part].tolist(), self.residuals[part].tolist())
            lines.append(f"{name}: " + ", ".join(f"{t:.6g} +- {r:.1e}" for t, r in pairs))
        return "\n".join(lines)


def extreme_eigenvalues(
    operator: LinearOperator,
    k: int = 1,
    *,
    steps: int | None = None,
    tol: float | None = None,
    delta: float = 1e-3,
    dense: bool | Literal["auto"] = "auto",
    starts: int = 1,
    block: int = 1,
    method: Literal["lanczos", "lobpcg"] = "lanczos",
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    memory: int = 2**31,
    noise: float | None = None,
    generator: torch.Generator | None = None,
) -> ExtremeEigenvalues:
    r"""The k lowest and k highest eigenvalues of a symmetric operator, with bounds.

    .. math:: t_1 - a_1 \le \lambda_{\min} \le t_1, \qquad t_m \le \lambda_{\max} \le t_m + a_m

    Lanczos from a random start; the allowances a are those of
    `thalweg.numeric.krylov.random_start_bounds`.

    Parameters
    ----------
    operator
        Symmetric (Hermitian), of order n.
    k
        Eigenvalues at each end, >= 1. Default 1. The bounds are about the very ends; the inner
        values carry their residual.
    steps
        Lanczos steps per start at most (LOBPCG: iterations). Default max(64, 4 k).
    tol
        Stop early once every residual is at most ``tol`` times the largest absolute value, > 0.
        Then half of `delta` is set aside for further starts, made when a run ends in an invariant
        subspace and the interval is still wider than ``tol`` times the width. Default None: all
        steps, which gives the narrowest bounds.
    delta
        Probability with which the bounds may fail, in (0, 1). Default 1e-3.
    dense
        Compute all n eigenvalues from n products; ``"auto"`` (default): if n < 500 or the steps
        would need n products.
    starts
        Independent starts, >= 1. Default 1 (one run of r k steps is sharper than r runs of k).
    block
        Vectors per start, >= 1. Default 1; eigenvalues of multiplicity up to `block` are found.
    method
        ``"lanczos"`` (default), or ``"lobpcg"`` for few pairs with a `preconditioner`: that gives
        no bound.
    preconditioner
        ``(n, b) -> (n, b)``, for LOBPCG: about the inverse of the operator, positive definite.
    memory
        Bytes of basis vectors, > 0. Default 2 GiB. If the steps need more, thick restarts are
        made; the bounds are then those of the steps before the first.
    noise
        Error of a product with a unit vector, >= 0. Default 1e-6 (float32) or 1e-14 (float64)
        times the largest absolute value.
    generator
        Source of the starts. Default: a new one of seed 0. The global generators are not used.

    Returns
    -------
    ExtremeEigenvalues
        Values, vectors, residuals, bounds, cost.

    Raises
    ------
    ValueError
        For an argument out of range, products that are not finite, an operator that is not
        symmetric, or `memory` for fewer vectors than one restart needs.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> A = as_operator(torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64)))
    >>> found = extreme_eigenvalues(A, dense=False)
    >>> round(found.lowest, 12), round(found.highest, 12)
    (-1.0, 1.0)

    References
    ----------
    Kuczynski & Wozniakowski, SIAM J. Matrix Anal. Appl. 13(4), 1992; Wu & Simon, 2000.
    """
    n = operator.shape[0]
    k = min(int(check.number("k", k, ge=1, integer=True)), n)
    block = min(int(check.number("block", block, ge=1, integer=True)), n)
    starts = int(check.number("starts", starts, ge=1, integer=True))
    if steps is None:
        steps = max(64, 4 * k)
    steps = min(int(check.number("steps", steps, ge=1, integer=True)), math.ceil(n / block))
    check.number("delta", delta, gt=0, lt=1)
    check.number("memory", memory, gt=0)
    check.choice("method", method, ("lanczos", "lobpcg"))
    check.choice("dense", dense, (True, False, "auto"))
    if tol is not None:
        check.number("tol", tol, gt=0)
    if noise is not None:
        check.number("noise", noise, ge=0)
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    counted = Counted(operator)
    if dense is True or (
        dense == "auto" and (n < DENSE_BELOW or (method == "lanczos" and steps * block >= n))
    ):
        return _dense(counted, k, delta, noise)
    if method == "lobpcg":
        return _lobpcg(counted, k, steps, tol, delta, noise, preconditioner, generator)

    fits = room(operator, memory, starts, block, k)

    def fresh_run() -> EndsRun:
        start = sphere(n, block, generator, operator.dtype, operator.device)
        return EndsRun(start, k, fits, capacity=min(steps * block, fits))

    def bounds(allowed: float) -> tuple[Bounds, float]:
        error = 0.0 if noise is None else noise
        if noise is None:
            size = max(float(run.process.ritz().values.abs().max()) for run in runs)
            error = max(
                relative_noise(operator.dtype) * size, *(run.process.rounding for run in runs)
            )
        seen = [run.ends() for run in runs]
        return random_start_bounds(n, seen, allowed, block, error), error

    runs = [fresh_run() for _ in range(starts)]
    advance(counted, runs, steps, tol)
    allowed = delta if tol is None else delta / 2
    found, error = bounds(allowed)
    # A space that is invariant up to rounding need not hold the extreme eigenvectors: start again.
    while tol is not None and len(runs) < starts + MORE_STARTS and _unsettled(found, runs, tol):
        runs.append(fresh_run())
        advance(counted, runs[-1:], steps, tol)
        allowed /= 2  # delta/2 + delta/4 + ... : every claim that might be made has its share
        found, error = bounds(allowed)

    Y = torch.cat([run.extreme_vectors() for run in runs], dim=1)
    starts, made = len(runs), max(run.process.steps for run in runs)
    runs.clear()  # the bases are large, and what follows needs room for some copies of Y
    values, vectors, residuals = rayleigh_ritz(counted, Y, k)
    return ExtremeEigenvalues(
        values, vectors, residuals,
        lower_bound=min(found.lower, float(values[0]) - error),
        upper_bound=max(found.upper, float(values[-1]) + error),
        eps=found.eps, delta=delta, noise=error, n_products=counted.n_products,
        steps=made, starts=starts, block=block,
        n=n, k=k, method="lanczos",
    )  # fmt: skip


def _unsettled(found: Bounds, runs: list[EndsRun], tol: float) -> bool:
    low, high = min(run.ends().low for run in runs), max(run.ends().high for run in runs)
    beyond = max(low - found.lower, found.upper - high)
    return all(run.process.invariant for run in runs) and beyond > tol * max(abs(low), abs(high))


def _dense(operator: Counted, k: int, delta: float, noise: float | None) -> ExtremeEigenvalues:
    A = matrix_of(operator)
    scale = float(A.abs().max())
    if not math.isfinite(scale):
        raise ValueError("the operator returned a product that is not finite")
    defect = float((A - A.mH).abs().max())
    eps = torch.finfo(A.dtype).eps
    relative = defect <= math.sqrt(eps) * scale
    if not relative and defect > eps:  # as in `Lanczos`
        raise ValueError(
            f"the operator must be symmetric (Hermitian), but entries A_ij and A_ji differ by "
            f"{defect:.3g}; entries are up to {scale:.3g}"
        )
    n = len(A)
    A = A.to(wide(A.dtype))
    skew = float(torch.linalg.matrix_norm((A - A.mH) / 2, 2)) if relative else eps
    A = (A + A.mH) / 2
    values, vectors = torch.linalg.eigh(A)
    largest = float(values.abs().max())
    error = max(relative_noise(operator.dtype) * largest, skew) if noise is None else noise
    chosen = ends(n, k)
    t, Y = values[chosen], vectors[:, chosen]
    return ExtremeEigenvalues(
        t.cpu(), Y.to(operator.dtype), norms(A @ Y - Y * t).cpu(),
        lower_bound=float(values[0]) - error, upper_bound=float(values[-1]) + error,
        eps=0.0, delta=0.0, noise=error, n_products=operator.n_products,
        steps=0, starts=0, block=0, n=n, k=k, method="dense",
    )  # fmt: skip


def _lobpcg(
    operator: Counted, k: int, steps: int, tol: float | None, delta: float, noise: float | None,
    preconditioner: Callable[[Tensor], Tensor] | None, generator: torch.Generator,
) -> ExtremeEigenvalues:  # fmt: skip
    n = operator.shape[0]
    tol = 1e-3 if tol is None else tol
    low = lobpcg(operator, k, preconditioner=preconditioner, steps=steps, tol=tol,
                 generator=generator)  # fmt: skip
    high = lobpcg(operator, k, largest=True, steps=steps, tol=tol, generator=generator)
    Y = torch.cat([low.vectors, high.vectors], dim=1)
    values, vectors, residuals = rayleigh_ritz(operator, Y, k)
    error = relative_noise(operator.dtype) * float(values.abs().max()) if noise is None else noise
    return ExtremeEigenvalues(
        values, vectors, residuals, lower_bound=-math.inf, upper_bound=math.inf, eps=math.inf,
        delta=delta, noise=error, n_products=operator.n_products,
        steps=max(low.steps, high.steps), starts=1, block=k, n=n, k=k, method="lobpcg",
    )  # fmt: skip
