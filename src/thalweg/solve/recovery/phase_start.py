"""Spectral initializers of phase retrieval: the leading eigenvector of a weighted covariance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric.krylov import leading_eigs

if TYPE_CHECKING:
    from thalweg.solve.recovery.lines import Operator
    from thalweg.solve.recovery.phase_retrieval import PhaseRetrieval

Initializer = Literal["plain", "trimmed", "orthogonality", "weighted", "mm", "optimal"]
INITIALIZERS: tuple[Initializer, ...] = (
    "plain",
    "trimmed",
    "orthogonality",
    "weighted",
    "mm",
    "optimal",
)


def spectral_start(
    problem: PhaseRetrieval,
    kind: Initializer = "optimal",
    *,
    clip: float = -10.0,
    tol: float = 1e-4,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The leading eigenvector of the covariance of the lines, weighted by what each one saw.

    .. math:: D = \frac1m \sum_i T(\bar y_i)\, a_i a_i^*, \qquad z_0 = \lambda v, \qquad
        \bar y_i = \frac{y_i}{\operatorname{mean} y}, \quad
        \lambda^2 = \frac{n \operatorname{mean} y}{\operatorname{mean} \|a_i\|^2}

    Parameters
    ----------
    problem
        A `PhaseRetrieval`.
    kind
        The weight T:

        - ``"plain"``: :math:`\bar y`;
        - ``"trimmed"``: :math:`\bar y`, 0 above 9;
        - ``"orthogonality"``: :math:`1 / \|a_i\|^2` for the sixth with the largest
          :math:`y_i / \|a_i\|^2`, else 0;
        - ``"weighted"``: :math:`\bar y^{1/4}` for the largest 3/13, else 0;
        - ``"mm"``: :math:`(\bar y - 1) / (\bar y + \sqrt{\max(\delta, 1)} - 1)`,
          :math:`\delta = m / n` (complex), :math:`2 m / n` (real);
        - ``"optimal"`` (default): :math:`1 - 1 / \bar y`, best for every m / n.
    clip
        Weights are at least this, <= 0. Default -10.
    tol
        Of the eigenvector's residual, relative to the eigenvalue, > 0. Default 1e-4: the vector is
        then right to about its square, far better than it is near the signal.
    generator
        Of the Lanczos process, for more than 512 unknowns.

    Returns
    -------
    Tensor
        :math:`z_0`, of the signal's shape. Its phase is such that its largest entry is positive.

    Examples
    --------
    >>> from thalweg.solve.recovery import PhaseRetrieval
    >>> problem = PhaseRetrieval.random(50, 400, generator=torch.Generator().manual_seed(0))
    >>> plain, best = spectral_start(problem, "plain"), spectral_start(problem)
    >>> bool(problem.error(best) < problem.error(plain))
    True

    References
    ----------
    Plain: Candes, Li, Soltanolkotabi, arXiv:1407.1065. Trimmed: Chen, Candes, arXiv:1505.05114.
    Orthogonality: Wang, Giannakis, Eldar, arXiv:1605.08285. Weighted: Wang, Giannakis, Saad, Chen,
    arXiv:1705.10407. mm: Mondelli, Montanari, arXiv:1708.05932. Optimal: Luo, Alghamdi, Lu,
    arXiv:1811.04420.
    """
    check.choice("kind", kind, INITIALIZERS)
    check.number("clip", clip, le=0)
    check.number("tol", tol, gt=0)
    operator, y = problem.operator, problem.intensity
    norms2 = operator.row_norms2.expand_as(y)
    weights = preprocess(
        y, kind, math.prod(operator.signal_shape), norms2, operator.dtype.is_complex, clip
    )
    batch = tuple(y.shape[:-1])
    vectors = [
        _leading(member, T, tol, generator)
        for member, T in zip(operator.members(batch), weights.reshape(-1, y.shape[-1]), strict=True)
    ]
    v = torch.stack(vectors).reshape(*batch, -1)
    largest = v.gather(-1, v.abs().argmax(-1, keepdim=True))
    v = v * torch.sgn(largest).conj()
    return (problem.size() * v).unflatten(-1, operator.signal_shape)


def preprocess(
    y: Tensor, kind: Initializer, n: int, norms2: Tensor, complex_: bool, clip: float = -10.0
) -> Tensor:
    """The weights T of intensities `y` of mean 1, shape ``(..., m)``; see `spectral_start`."""
    m = y.shape[-1]
    if kind == "plain":
        return y
    if kind == "trimmed":
        return torch.where(y <= 9, y, 0.0)
    if kind == "orthogonality":
        return _largest(y / norms2, max(1, m // 6)) / norms2
    if kind == "weighted":
        return _largest(y, m - round(m / 1.3) + 1) * y**0.25
    if kind == "mm":
        delta = m / n if complex_ else 2 * m / n
        return ((y - 1) / (y + math.sqrt(max(delta, 1.0)) - 1)).clamp(min=clip)
    # Unbounded where nothing was seen. It may be clipped but never shifted: the mean of a a^* is
    # not close to the identity unless m >> n.
    return (1 - 1 / y).clamp(min=clip)


def _largest(y: Tensor, k: int) -> Tensor:
    """1 at the k largest entries, else 0."""
    return torch.zeros_like(y).scatter(-1, y.topk(k, dim=-1).indices, 1.0)


def _leading(
    operator: Operator, T: Tensor, tol: float, generator: torch.Generator | None
) -> Tensor:
    """The unit eigenvector of the algebraically largest eigenvalue of D, shape ``(n,)``."""
    n = math.prod(operator.signal_shape)

    def covariance(V: Tensor) -> Tensor:
        signals = V.mT.unflatten(-1, operator.signal_shape)
        seen = T * operator.forward(signals)
        return operator.adjoint(seen).reshape(V.shape[1], n).mT / (len(T) * n)

    _, vectors = leading_eigs(
        covariance, n, 1, operator.dtype, device=T.device, tol=tol, generator=generator
    )
    return vectors[:, 0]
