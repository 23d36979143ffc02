"""LOBPCG: few eigenpairs at one end, with a preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric.krylov.block import inner, norms, orthonormalize
from thalweg.numeric.krylov.lanczos import sphere
from thalweg.numeric.krylov.ritz import rayleigh_ritz
from thalweg.numeric.operator import LinearOperator


class Eigenpairs(NamedTuple):
    """Approximate eigenpairs at one end, the extreme one first.

    Attributes
    ----------
    values
        ``(k,)`` float64.
    vectors
        ``(n, k)``.
    residuals
        ``(k,)``: norms of A y - t y.
    steps
        Iterations.
    converged
        Whether every residual met the tolerance.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    steps: int
    converged: bool


def lobpcg(
    operator: LinearOperator,
    k: int = 1,
    *,
    largest: bool = False,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    start: Tensor | None = None,
    steps: int = 200,
    tol: float = 1e-6,
    generator: torch.Generator | None = None,
) -> Eigenpairs:
    r"""Locally optimal block preconditioned conjugate gradients, Knyazev's method.

    .. math:: X \leftarrow \text{Ritz vectors of } A \text{ on } \operatorname{span}\{X, M R, P\},
              \qquad R = A X - X \Theta

    with P the last change of X. Each iteration takes one product per unconverged pair. The basis
    is orthonormalized every time, which keeps the method stable.

    Parameters
    ----------
    operator
        Symmetric (Hermitian), of order n.
    k
        Pairs, in [1, n/3]. Default 1.
    largest
        The largest values instead of the smallest. Default False.
    preconditioner
        :math:`M`: ``(n, b) -> (n, b)``, positive definite, about the inverse of A (of A shifted
        to be positive). Default: the identity.
    start
        ``(n, k)``. Default: random.
    steps
        Iterations at most, >= 1. Default 200.
    tol
        Stop once every residual norm is at most ``tol`` times the largest absolute Ritz value
        seen, > 0. Default 1e-6.
    generator
        For the random start. Default: seed 0.

    Returns
    -------
    Eigenpairs
        Smallest first, or largest first. Nothing bounds what may have been missed.

    Raises
    ------
    ValueError
        For an argument out of range or a preconditioner that changes the shape.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> d = torch.arange(1.0, 1001.0, dtype=torch.float64)
    >>> A = as_operator(lambda v: d[:, None] * v if v.ndim == 2 else d * v, 1000, torch.float64)
    >>> found = lobpcg(A, 2, preconditioner=lambda R: R / d[:, None])
    >>> [round(t, 6) for t in found.values.tolist()]
    [1.0, 2.0]

    References
    ----------
    Knyazev, "Toward the optimal preconditioned eigensolver: locally optimal block preconditioned
    conjugate gradient method", SIAM J. Sci. Comput. 23(2), 2001.
    """
    n = operator.shape[0]
    k = int(check.number("k", k, ge=1, le=max(1, n // 3), integer=True))
    steps = int(check.number("steps", steps, ge=1, integer=True))
    check.number("tol", tol, gt=0)
    if start is None:
        start = sphere(n, k, generator, operator.dtype, operator.device)
    elif start.shape != (n, k):
        raise ValueError(f"start must be of shape ({n}, {k}), got {tuple(start.shape)}")
    small = 10 * torch.finfo(operator.dtype).eps
    sign = -1.0 if largest else 1.0

    X, _, _ = orthonormalize(start, small * float(norms(start).max()))
    AX = sign * (operator @ X)
    P = AP = X[:, :0]
    theta, Z = _ritz(X, AX)
    X, AX = X @ Z, AX @ Z
    scale, taken = 0.0, 0
    for taken in range(steps + 1):
        R = AX - X * theta
        residuals = norms(R)
        scale = max(scale, float(theta.abs().max()))
        open_pairs = residuals > tol * scale
        if taken == steps or not bool(open_pairs.any()):
            break
        W = R[:, open_pairs]
        if preconditioner is not None:
            W = preconditioner(W)
            if W.shape != (n, int(open_pairs.sum())):
                raise ValueError(
                    f"preconditioner must return the shape of its argument, "
                    f"{(n, int(open_pairs.sum()))}, got {tuple(W.shape)}"
                )
        W = W / norms(W).clamp_min(1e-300).to(W)
        W, _, _ = orthonormalize(W - X @ inner(X, W).to(X), small)
        W, _, _ = orthonormalize(W - X @ inner(X, W).to(X), small)
        AW = sign * (operator @ W) if W.shape[1] else W
        P, AP = _against(P, AP, torch.cat([X, W], 1), torch.cat([AX, AW], 1), small)
        S, AS = torch.cat([X, W, P], 1), torch.cat([AX, AW, AP], 1)
        theta, Z = _ritz(S, AS)
        theta, Z = theta[: X.shape[1]], Z[:, : X.shape[1]]
        rest = Z.clone()
        rest[: X.shape[1]] = 0
        X, P, AX, AP = S @ Z, S @ rest, AS @ Z, AS @ rest
    values, vectors, fresh = rayleigh_ritz(operator, X)
    if largest:
        values, vectors, fresh = values.flip(0), vectors.flip(1), fresh.flip(0)
    # the recurrences above drift by rounding, so convergence is judged by fresh products
    return Eigenpairs(values, vectors, fresh, taken, bool((fresh <= 2 * tol * scale).all()))


def _ritz(S: Tensor, AS: Tensor) -> tuple[Tensor, Tensor]:
    G = inner(S, AS)
    theta, Z = torch.linalg.eigh((G + G.mH) / 2)
    return theta.to(S.dtype.to_real()), Z.to(S)


def _against(P: Tensor, AP: Tensor, S: Tensor, AS: Tensor, small: float) -> tuple[Tensor, Tensor]:
    """P made orthonormal to S, and A P by the same combinations of columns, without products."""
    if P.shape[1] == 0:
        return P, AP
    norm = norms(P).clamp_min(1e-300).to(P)
    P, AP = P / norm, AP / norm
    for _ in range(2):
        h = inner(S, P).to(P)
        P, AP = P - S @ h, AP - AS @ h
        weights, U = torch.linalg.eigh(inner(P, P))
        kept = weights > max(small, 1e-2 * small**0.5)
        mix = (U[:, kept] / weights[kept].sqrt()).to(P)
        P, AP = P @ mix, AP @ mix
    return P, AP
