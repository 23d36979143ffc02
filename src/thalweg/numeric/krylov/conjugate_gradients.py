"""Conjugate gradients for symmetric systems, with the curvature they meet on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.core.result import Reason
from thalweg.numeric.operator import LinearOperator


@dataclass(frozen=True)
class LinearSolution:
    r"""What `conjugate_gradients` returns.

    Attributes
    ----------
    x
        ``(n,)``.
    residual
        :math:`\|b - (A + \sigma I) x\|`, by the recurrence.
    steps
        Iterations; each took one product.
    reason
        ``TOLERANCE`` or ``EXACT``: solved; ``MAX_STEPS``; ``STALLED``: a direction of
        non-positive curvature was met, and x is the iterate before it.
    direction
        That direction p, with :math:`p^T (A + \sigma I) p \le 0`; else None.
    curvature
        Its Rayleigh quotient :math:`p^T (A + \sigma I) p / p^T p`; else None.
    """

    x: Tensor
    residual: float
    steps: int
    reason: Reason
    direction: Tensor | None = None
    curvature: float | None = None

    @property
    def converged(self) -> bool:
        """Whether the residual met the tolerance."""
        return self.reason.converged


def conjugate_gradients(
    operator: LinearOperator,
    b: Tensor,
    *,
    start: Tensor | None = None,
    shift: float = 0.0,
    tol: float = 1e-6,
    max_steps: int | None = None,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
) -> LinearSolution:
    r"""Solve :math:`(A + \sigma I) x = b` for symmetric A, positive definite along the way.

    .. math:: x \leftarrow x + \alpha p,\quad r \leftarrow r - \alpha (A + \sigma I) p,\quad
              \alpha = \frac{r^* z}{p^* (A + \sigma I) p},\quad z = M r,\quad
              p \leftarrow z + \frac{r_+^* z_+}{r^* z}\, p

    Parameters
    ----------
    operator
        Symmetric (Hermitian), of order n.
    b
        ``(n,)``.
    start
        ``(n,)``. Default 0.
    shift
        :math:`\sigma`. Default 0.
    tol
        Stop once the residual is at most ``tol`` times the norm of b, > 0. Default 1e-6.
    max_steps
        Default n.
    preconditioner
        :math:`M`: ``(n,) -> (n,)``, positive definite. Default: the identity.

    Returns
    -------
    LinearSolution
        The point, why it stopped, and the direction of non-positive curvature if one was met.

    Raises
    ------
    ValueError
        For an argument out of range, or a product that is not finite.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> A = as_operator(torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64))
    >>> found = conjugate_gradients(A, torch.tensor([3.0, 4.0], dtype=torch.float64))
    >>> [round(x, 9) for x in found.x.tolist()], found.steps
    ([1.0, 1.0], 2)

    References
    ----------
    Hestenes & Stiefel, 1952; Nocedal & Wright, "Numerical Optimization", algorithm 7.1.
    """
    n = operator.shape[0]
    if b.shape != (n,):
        raise ValueError(f"b must be of shape ({n},), got {tuple(b.shape)}")
    check.number("tol", tol, gt=0)
    check.number("shift", shift)
    limit = (
        n if max_steps is None else int(check.number("max_steps", max_steps, ge=0, integer=True))
    )
    wanted = tol * float(torch.linalg.vector_norm(b))
    x = torch.zeros_like(b) if start is None else start.clone()
    r = b.clone() if start is None else b - (operator @ x + shift * x)
    z = r if preconditioner is None else preconditioner(r)
    p = z
    rz = _inner(r, z)
    steps = 0
    while True:
        residual = float(torch.linalg.vector_norm(r))
        if not math.isfinite(residual):
            raise ValueError("b or a product of the operator is not finite")
        if residual <= wanted:
            reason = Reason.EXACT if residual == 0 else Reason.TOLERANCE
            return LinearSolution(x, residual, steps, reason)
        if steps == limit:
            return LinearSolution(x, residual, steps, Reason.MAX_STEPS)
        Ap = operator @ p + shift * p
        steps += 1
        curvature = _inner(p, Ap)
        if curvature <= 0:
            quotient = curvature / _inner(p, p)
            return LinearSolution(x, residual, steps, Reason.STALLED, p, quotient)
        alpha = rz / curvature
        x = x + alpha * p
        r = r - alpha * Ap
        z = r if preconditioner is None else preconditioner(r)
        rz, before = _inner(r, z), rz
        p = z + (rz / before) * p


def _inner(u: Tensor, v: Tensor) -> float:
    return float(torch.vdot(u, v).real) if u.is_complex() else float(torch.dot(u, v))
