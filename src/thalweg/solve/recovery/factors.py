"""Factors: how the unknown of a recovery problem is held, never only as the product."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class LowRank(NamedTuple):
    r"""A low-rank matrix by its factors, :math:`X = U V^T`; leading dimensions are a batch.

    Parameters
    ----------
    U
        Left factor, shape ``(..., n1, r)``.
    V
        Right factor, shape ``(..., n2, r)``.

    Examples
    --------
    >>> x = LowRank(torch.ones(2, 1), torch.tensor([[1.0], [3.0]]))
    >>> x.dense()
    tensor([[1., 3.],
            [1., 3.]])
    """

    U: Tensor
    V: Tensor

    @property
    def rank(self) -> int:
        """Number of columns of the factors, r."""
        return self.U.shape[-1]

    def dense(self) -> Tensor:
        """The matrix itself, shape ``(..., n1, n2)``."""
        return self.U @ self.V.mT


def from_svd(U: Tensor, S: Tensor, V: Tensor) -> LowRank:
    r"""Balanced factors of a singular value decomposition.

    .. math:: U S V^T = (U S^{1/2}) (V S^{1/2})^T

    Examples
    --------
    >>> x = from_svd(torch.eye(2), torch.tensor([4.0, 1.0]), torch.eye(2))
    >>> x.U
    tensor([[2., 0.],
            [0., 1.]])
    """
    root = S.sqrt().unsqueeze(-2)
    return LowRank(U * root, V * root)


def random_low_rank(
    shape: tuple[int, int],
    rank: int,
    condition: float = 1.0,
    *,
    dtype: torch.dtype = torch.float64,
    generator: torch.Generator | None = None,
) -> LowRank:
    r"""A random matrix with singular values evenly spaced between 1 and 1 / condition.

    .. math:: X = Q_1 \, \mathrm{diag}(1, \dots, 1/\kappa) \, Q_2^T

    :math:`Q_1, Q_2` are the orthonormal factors of Gaussian matrices, so
    :math:`\sigma_1(X) = 1` and :math:`\sigma_r(X) = 1 / \kappa`.

    Parameters
    ----------
    shape, rank
        ``(n1, n2)`` and r <= min(n1, n2).
    condition
        The condition number kappa >= 1 of the matrix on its range.
    dtype, generator
        Of the numbers, and where they come from.

    Examples
    --------
    >>> x = random_low_rank((5, 4), 2, 10.0, generator=torch.Generator().manual_seed(0))
    >>> [round(s, 6) for s in torch.linalg.svdvals(x.dense()).tolist()]
    [1.0, 0.1, 0.0, 0.0]
    """
    n1, n2 = shape
    device = generator.device if generator is not None else None

    def orthonormal(n: int) -> Tensor:
        gaussian = torch.randn(n, rank, dtype=dtype, generator=generator, device=device)
        return torch.linalg.qr(gaussian).Q

    S = torch.linspace(1.0, 1.0 / condition, rank, dtype=dtype, device=device)
    return from_svd(orthonormal(n1), S, orthonormal(n2))


def relative_distance(x: LowRank, truth: LowRank) -> Tensor:
    r"""How far two low-rank matrices are apart, whatever their factors, in O((n1 + n2) r^2).

    .. math:: \|U V^T - U_* V_*^T\|_F / \|U_* V_*^T\|_F

    The factors of the difference are made triangular first, so that close matrices do not lose
    their digits in a difference of squares. Shape: the batch dimensions.

    Examples
    --------
    >>> x = LowRank(torch.eye(3, 1), torch.eye(3, 1))
    >>> relative_distance(LowRank(-2 * x.U, -x.V), x).item()
    1.0
    """
    left = torch.cat([x.U, truth.U], dim=-1)
    right = torch.cat([x.V, -truth.V], dim=-1)
    difference = torch.linalg.qr(left).R @ torch.linalg.qr(right).R.mT
    own = torch.linalg.qr(truth.U).R @ torch.linalg.qr(truth.V).R.mT
    return torch.linalg.matrix_norm(difference) / torch.linalg.matrix_norm(own)
