r"""Known symmetries of the loss: their tangents, and the Hessian on the complement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from thalweg.curvature.objective import Objective
from thalweg.numeric.operator import LinearOperator

Tangents = Tensor | Sequence[Tensor | Mapping[str, Tensor]]


def tangent_matrix(objective: Objective, symmetries: Tangents) -> Tensor:
    """The tangents as columns ``(d, s)``, as they were supplied.

    Parameters
    ----------
    objective
        Whose parameters they belong to.
    symmetries
        Columns ``(d, s)``, or a sequence of flat vectors ``(d,)`` or mappings from parameter
        names to tensors (parameters not named do not move).

    Raises
    ------
    ValueError
        For a wrong shape, an unknown name, or a tangent that is zero or not finite.

    Examples
    --------
    >>> from thalweg import Training
    >>> objective = Objective(Training.from_function(lambda x: (x**2).sum(), torch.ones(2)))
    >>> tangent_matrix(objective, [torch.tensor([-1.0, 1.0])]).tolist()
    [[-1.0], [1.0]]
    """
    if isinstance(symmetries, Tensor):
        if symmetries.ndim != 2 or symmetries.shape[0] != objective.d:
            raise ValueError(
                f"symmetries must be of shape ({objective.d}, s), got {tuple(symmetries.shape)}"
            )
        S = symmetries.to(objective.device, objective.dtype)
    else:
        if not len(symmetries):
            raise ValueError("symmetries must hold at least one tangent, got none")
        S = torch.stack([_flat(objective, tangent) for tangent in symmetries], dim=1)
    norms = torch.linalg.vector_norm(S, dim=0)
    if not bool(torch.isfinite(norms).all()) or not bool((norms > 0).all()):
        raise ValueError(f"symmetries must be finite and not zero, got norms {norms.tolist()}")
    if S.shape[1] >= objective.d:
        raise ValueError(f"symmetries must leave a direction: {S.shape[1]} of {objective.d}")
    return S


def orthonormal_basis(S: Tensor) -> Tensor:
    """Orthonormal basis of the span of the columns; dependent ones are dropped.

    Examples
    --------
    >>> orthonormal_basis(torch.tensor([[3.0, 6.0], [0.0, 0.0]])).shape
    torch.Size([2, 1])
    """
    U, sigma, _ = torch.linalg.svd(S / torch.linalg.vector_norm(S, dim=0), full_matrices=False)
    kept = sigma > 100 * torch.finfo(S.dtype).eps * sigma[0] * max(S.shape)
    return U[:, kept]


class Projected:
    r"""The operator :math:`P H P` with :math:`P = I - S S^\top`.

    Parameters
    ----------
    operator
        H, of order n.
    S
        Orthonormal columns ``(n, s)``.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> S = torch.tensor([[1.0], [0.0]])
    >>> (Projected(as_operator(torch.ones(2, 2)), S) @ torch.ones(2)).tolist()
    [0.0, 1.0]
    """

    def __init__(self, operator: LinearOperator, S: Tensor) -> None:
        self.operator, self.S = operator, S
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device

    def project(self, v: Tensor) -> Tensor:
        """P v."""
        return v - self.S @ (self.S.T @ v)

    def __matmul__(self, v: Tensor) -> Tensor:
        return self.project(self.operator @ self.project(v))


def check_symmetries(
    S: Tensor, basis: Tensor, HS: Tensor, gradient: Tensor, *, gradient_bound: float,
    product_noise: float,
) -> None:  # fmt: skip
    r"""Raise unless the tangents are those of symmetries, as far as one point can tell.

    Along an orbit of a symmetry :math:`s = A x` the loss is constant, so :math:`s^\top g = 0` and
    :math:`H s = -A^\top g`; with :math:`\|A\| \le 1`

    .. math:: \|S^\top g\| \le \nu_g + 10^{-6} \max_b \|g_b\|, \qquad
              \|H s_j\| \le 10\, \|g\| + \nu_H \|s_j\|.

    Parameters
    ----------
    S, basis
        Tangents as supplied, and an orthonormal basis of their span, ``(d, s)``.
    HS
        The products with `S`.
    gradient
        ``(d,)``.
    gradient_bound, product_noise
        Right side of the first test; :math:`\nu_H`.

    Raises
    ------
    ValueError
        Naming the tangent that is no symmetry here.

    Examples
    --------
    >>> e = torch.eye(2)[:, :1]
    >>> check_symmetries(e, e, 2 * e, torch.zeros(2), gradient_bound=0, product_noise=0)
    Traceback (most recent call last):
    ...
    ValueError: symmetries must leave the loss unchanged, got tangent 0 with |H s| = 2 > 0: ...
    """
    along = float((basis.T @ gradient).norm())
    if along > gradient_bound:
        raise ValueError(
            "symmetries must leave the loss unchanged, got a gradient component "
            f"{along:.3g} > {gradient_bound:.3g} along the tangents: not a symmetry here"
        )
    sizes = torch.linalg.vector_norm(S, dim=0)
    limits = 10 * float(gradient.norm()) + product_noise * sizes
    for j, (curved, limit) in enumerate(zip(torch.linalg.vector_norm(HS, dim=0), limits)):
        if float(curved) > float(limit):
            raise ValueError(
                f"symmetries must leave the loss unchanged, got tangent {j} with |H s| = "
                f"{float(curved):.3g} > {float(limit):.3g}: not a symmetry here"
            )


def _flat(objective: Objective, tangent: Tensor | Mapping[str, Tensor]) -> Tensor:
    if isinstance(tangent, Tensor):
        if tangent.numel() != objective.d:
            raise ValueError(
                f"a tangent must have {objective.d} entries, got shape {tuple(tangent.shape)}"
            )
        return tangent.detach().reshape(-1).to(objective.device, objective.dtype)
    flat = torch.zeros(objective.d, dtype=objective.dtype, device=objective.device)
    views = objective.unflatten(flat)
    for name, part in tangent.items():
        if name not in views:
            raise ValueError(f"a tangent must name parameters of the model, got {name!r}")
        views[name].copy_(part)
    return flat
