"""`RobustPCA`: split a matrix into a low-rank part and a few gross entries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric.krylov import leading_svd
from thalweg.solve.recovery.factors import LowRank, from_svd, random_low_rank
from thalweg.solve.recovery.low_rank import LowRankProblem


class LowRankPlusSparse(NamedTuple):
    r"""A matrix as the sum of a low-rank and a sparse one, :math:`U V^T + S`.

    Parameters
    ----------
    U, V
        Factors of the low-rank part, shapes ``(..., n1, r)`` and ``(..., n2, r)``.
    S
        The sparse part, shape ``(..., n1, n2)``, with its zeros.

    Examples
    --------
    >>> x = LowRankPlusSparse(torch.ones(2, 1), torch.ones(2, 1), torch.eye(2))
    >>> x.dense()
    tensor([[2., 1.],
            [1., 2.]])
    """

    U: Tensor
    V: Tensor
    S: Tensor

    @property
    def low_rank(self) -> LowRank:
        """The low-rank part by its factors."""
        return LowRank(self.U, self.V)

    def dense(self) -> Tensor:
        """The whole matrix, shape ``(..., n1, n2)``."""
        return self.U @ self.V.mT + self.S


def keep_largest(W: Tensor, fraction: float) -> Tensor:
    r"""Keep the entries that are among the largest both of their row and of their column.

    .. math:: T_a(W)_{ij} = W_{ij} \text{ if } |W_{ij}| \ge |W_{i\cdot}|_{(\lceil a n_2 \rceil)}
        \text{ and } |W_{ij}| \ge |W_{\cdot j}|_{(\lceil a n_1 \rceil)}, \text{ else } 0

    :math:`|w|_{(k)}` is the k-th largest magnitude; ties are kept. It selects by rank, so the size
    of gross entries does not matter.

    Parameters
    ----------
    W
        Shape ``(..., n1, n2)``.
    fraction
        a in [0, 1]; nothing is kept for 0.

    Examples
    --------
    >>> keep_largest(torch.tensor([[5.0, 1.0], [4.0, -7.0]]), 0.5)
    tensor([[ 5.,  0.],
            [ 0., -7.]])
    """
    return torch.where(_among_largest(W, fraction), W, 0.0)


def _among_largest(W: Tensor, fraction: float) -> Tensor:
    if fraction == 0:
        return torch.zeros_like(W, dtype=torch.bool)
    size = W.detach().abs()
    return (size >= _kth_largest(size, fraction, -1)) & (size >= _kth_largest(size, fraction, -2))


def _kth_largest(size: Tensor, fraction: float, dim: int) -> Tensor:
    n = size.shape[dim]
    k = max(1, math.ceil(fraction * n - 1e-9))  # 0.07 * 100 is above 7
    if size.device.type == "cpu" and size.dtype in (torch.float32, torch.float64):
        import numpy as np  # selects two to four times as fast as torch

        ordered = torch.from_numpy(np.partition(size.numpy(), n - k, axis=dim))
        return ordered.narrow(dim, n - k, 1)
    return size.kthvalue(n + 1 - k, dim=dim, keepdim=True).values


@dataclass(frozen=True, eq=False)
class RobustPCA(LowRankProblem):
    r"""Split Y into a matrix of rank r and gross errors in a small share of each row and column.

    .. math:: \min_{U, V} \tfrac12 \|U V^T + S - Y\|_F^2, \qquad S = T_{2\alpha}(Y - U V^T)

    The sparse part follows from the low-rank one: it is what `keep_largest` keeps. The errors may
    be of any size. Where the data are exact, a relative residual of zero certifies the answer; it
    stays large where more than the share `alpha` is gross.

    Parameters
    ----------
    Y
        The data, floating point, shape ``(..., n1, n2)``; leading dimensions are a batch.
    rank
        The rank r of the low-rank part, 1 <= r <= min(n1, n2).
    alpha
        The largest share of gross entries in any row or column, 0 <= alpha < 0.5 / `factor`.
        Default 0.1.
    factor
        :math:`\ge 1`: the share that is set aside, in units of alpha. Default 2.
    truth
        The low-rank part where it is known: methods then trace their error.

    Raises
    ------
    ValueError
        For data that are not finite, or all zero, a rank above the shape, or ``alpha`` too large.

    Examples
    --------
    >>> from thalweg.solve.recovery import scaled_gradient
    >>> generator = torch.Generator().manual_seed(0)
    >>> problem = RobustPCA.random((60, 60), 2, 0.05, generator=generator)
    >>> result = scaled_gradient(problem, tol=1e-6)
    >>> result.reason.name, problem.error(result.x).item() < 1e-5
    ('TOLERANCE', True)

    References
    ----------
    Yi, Park, Chen, Caramanis, "Fast algorithms for robust PCA via gradient descent", NeurIPS 2016,
    arXiv:1605.07784; Tong, Ma, Chi, JMLR 2021, arXiv:2005.08898.
    """

    Y: Tensor
    rank: int
    alpha: float = 0.1
    factor: float = 2.0
    truth: LowRank | None = None

    def __post_init__(self) -> None:
        check.floating("Y", self.Y)
        if self.Y.ndim < 2:
            raise ValueError(f"Y must have shape (..., n1, n2), got {tuple(self.Y.shape)}")
        if not torch.isfinite(self.Y).all():
            raise ValueError("Y must be finite, got an infinite or NaN entry")
        if not self.Y.flatten(-2).any(dim=-1).all():
            raise ValueError("Y must not be all zero: the zero matrix fits it")
        object.__setattr__(self, "shape", (self.Y.shape[-2], self.Y.shape[-1]))
        self._check_rank()
        check.number("factor", self.factor, ge=1)
        check.number("alpha", self.alpha, ge=0)
        if self.alpha >= 0.5 / self.factor:
            raise ValueError(
                f"alpha must be < 0.5 / factor = {0.5 / self.factor:g}, got {self.alpha:g}"
            )

    @classmethod
    def random(
        cls,
        shape: tuple[int, int] = (200, 200),
        rank: int = 3,
        alpha: float = 0.1,
        condition: float = 5.0,
        *,
        magnitude: float = 10.0,
        dtype: torch.dtype = torch.float64,
        generator: torch.Generator | None = None,
    ) -> RobustPCA:
        """A random instance that knows its truth; its `alpha` is the true share of gross entries.

        Parameters
        ----------
        shape, rank, condition
            Of the low-rank part; its singular values are evenly spaced from 1 to 1 / condition.
        alpha
            Nominal share: each entry is gross with probability 0.8 alpha. The problem's `alpha` is
            the largest share that was drawn in a row or column.
        magnitude
            Gross errors are uniform within plus and minus this many mean magnitudes of the
            low-rank part.
        dtype, generator
            Of the numbers, and where they come from.

        Examples
        --------
        >>> problem = RobustPCA.random(generator=torch.Generator().manual_seed(0))
        >>> problem.residual(problem.truth).item() < 1e-15
        True
        """
        check.number("alpha", alpha, ge=0, lt=0.5)
        truth = random_low_rank(shape, rank, condition, dtype=dtype, generator=generator)
        X = truth.dense()

        def uniform() -> Tensor:
            return torch.rand(shape, dtype=dtype, generator=generator, device=X.device)

        gross = uniform() < 0.8 * alpha
        size = magnitude * X.abs().mean()
        Y = X + torch.where(gross, size * (2 * uniform() - 1), 0.0)
        share = max(float(gross.to(dtype).mean(dim).max()) for dim in (0, 1))
        return cls(Y, rank, share, truth=truth)

    def sparse_part(self, x: Any) -> Tensor:
        r""":math:`S = T_{2 \alpha}(Y - U V^T)`, shape ``(..., n1, n2)``.

        It always keeps its share of entries, of rounding size where there is no gross error:
        compare with a threshold to find the support.
        """
        return keep_largest(self.Y - x.U @ x.V.mT, self.factor * self.alpha)

    def split(self, x: LowRank) -> LowRankPlusSparse:
        """Both parts, of a point that a method for low-rank problems has found."""
        return LowRankPlusSparse(x.U, x.V, self.sparse_part(x))

    def start(self, start: Any = "spectral", generator: torch.Generator | None = None) -> LowRank:
        if isinstance(start, LowRankPlusSparse):
            start = start.low_rank
        return super().start(start, generator)

    def scale(self) -> float:
        return 1.0

    def misfit(self, x: Any) -> Tensor:
        D = x.U @ x.V.mT - self.Y
        return D.masked_fill(_among_largest(D, self.factor * self.alpha), 0.0).flatten(-2)

    def pull_back(self, misfit: Tensor) -> Tensor:
        return misfit.unflatten(-1, self.shape)

    def data_norm(self) -> Tensor:
        return torch.linalg.matrix_norm(self.Y)

    def spectral(self, generator: torch.Generator | None = None) -> LowRank:
        return truncated_svd(self.Y - keep_largest(self.Y, self.alpha), self.rank, generator)


def truncated_svd(M: Tensor, rank: int, generator: torch.Generator | None = None) -> LowRank:
    """The best approximation of a dense matrix (or a batch) of that rank, as balanced factors.

    Examples
    --------
    >>> truncated_svd(torch.diag(torch.tensor([4.0, 1.0])), 1).dense()
    tensor([[4., 0.],
            [0., 0.]])
    """
    if M.ndim > 2:
        U, S, Vh = torch.linalg.svd(M, full_matrices=False)
        return from_svd(U[..., :rank], S[..., :rank], Vh[..., :rank, :].mT)
    return from_svd(
        *leading_svd(
            lambda V: M @ V,
            lambda U: M.mT @ U,
            (M.shape[-2], M.shape[-1]),
            rank,
            M.dtype,
            device=M.device,
            generator=generator,
        )
    )
