"""`MatrixCompletion`: fill in a low-rank matrix from some of its entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric.krylov import leading_svd
from thalweg.solve.recovery.factors import LowRank, from_svd, random_low_rank
from thalweg.solve.recovery.low_rank import LowRankProblem
from thalweg.solve.recovery.sampling import Sampling, SparseMatrix, check_samples


@dataclass(frozen=True, eq=False)
class MatrixCompletion(LowRankProblem):
    r"""Fill in a matrix of rank r from the entries in :math:`\Omega`.

    .. math:: \min_{U, V} \; \frac{1}{2p} \Big( \sum_{(i, j) \in \Omega} ((U V^T)_{ij} - M_{ij})^2
        + \lambda (\|U\|_F^2 + \|V\|_F^2) \Big), \qquad p = \frac{|\Omega|}{n_1 n_2}

    Time of one pass and memory are linear in the number of entries: the matrix is never formed.

    Parameters
    ----------
    rows, cols
        Positions of the entries, integer tensors of shape ``(m,)``; every pair once.
    values
        The entries, floating point, shape ``(m,)``; ``(..., m)`` for a batch of matrices observed
        at the same positions.
    shape
        ``(n1, n2)`` of the matrix.
    rank
        The rank r of the answer, 1 <= r <= min(n1, n2); or ``"auto"``, which looks for the largest
        gap :math:`s_k / s_{k+1}` in the spectrum of the data, 1 <= k <= min(20, min(n1, n2) // 4).
    ridge
        The weight :math:`\lambda \ge 0`, for noisy data. Default 0.
    truth
        The matrix itself where it is known: methods then trace their error.

    Raises
    ------
    ValueError
        For positions outside the matrix or given twice, non-finite or all-zero values, a rank
        above the shape, or a row or column with no entry (they are named; a `ridge` > 0 allows
        them). Fewer entries than degrees of freedom are a warning.

    Examples
    --------
    >>> truth = torch.outer(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, -1, 2]))
    >>> rows, cols = torch.tensor([[0, 0, 1, 1, 2], [0, 2, 0, 1, 0]])
    >>> problem = MatrixCompletion(rows, cols, truth[rows, cols], shape=(3, 3), rank=1)
    >>> from thalweg.solve.recovery import alternating_minimization
    >>> alternating_minimization(problem, max_steps=50).x.dense().round(decimals=3)
    tensor([[ 1., -1.,  2.],
            [ 2., -2.,  4.],
            [ 3., -3.,  6.]])

    References
    ----------
    Chi, Lu, Chen, "Nonconvex Optimization Meets Low-Rank Matrix Factorization: An Overview", IEEE
    Trans. Signal Processing 2019, arXiv:1809.09573.
    """

    safe_step_size: ClassVar[float] = 0.3

    rows: Tensor
    cols: Tensor
    values: Tensor
    shape: tuple[int, int]
    rank: int  # of the answer; "auto" has become a number once the problem is made
    ridge: float = 0.0
    truth: LowRank | None = None
    sampling: Sampling = field(init=False, repr=False)
    observed: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        unknown = str(self.rank) == "auto"
        if not unknown:
            self._check_rank()
        check.number("ridge", self.ridge, ge=0)
        check_samples(self.values, len(self.rows))
        if not self.values.any(dim=-1).all():
            raise ValueError("values must not all be zero: the zero matrix fits them")
        sampling = Sampling(self.rows, self.cols, self.shape)
        object.__setattr__(self, "sampling", sampling)
        object.__setattr__(self, "observed", sampling.sorted(self.values))
        if self.ridge == 0:
            for name, positions, size in zip(
                ("row", "column"), (sampling.rows, sampling.cols), self.shape, strict=True
            ):
                empty = (torch.bincount(positions, minlength=size) == 0).nonzero().flatten()
                if len(empty):
                    listed = ", ".join(str(int(i)) for i in empty[:5])
                    more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
                    raise ValueError(
                        f"every {name} must hold at least one entry, got none in {listed}{more}: "
                        "leave them out, or use ridge > 0"
                    )
        if unknown:
            object.__setattr__(self, "rank", self._largest_gap())
        self._warn_if_too_few(len(self.rows))

    @classmethod
    def random(
        cls,
        shape: tuple[int, int] = (200, 200),
        rank: int = 3,
        density: float = 0.3,
        condition: float = 5.0,
        *,
        dtype: torch.dtype = torch.float64,
        generator: torch.Generator | None = None,
    ) -> MatrixCompletion:
        """A random instance that knows its truth: each entry is seen with probability `density`.

        Parameters
        ----------
        shape, rank, condition
            Of the matrix; its singular values are evenly spaced from 1 to 1 / condition.
        density
            Share of the entries that are seen, in (0, 1].
        dtype, generator
            Of the numbers, and where they come from.

        Examples
        --------
        >>> generator = torch.Generator().manual_seed(0)
        >>> problem = MatrixCompletion.random((40, 30), 2, 0.5, generator=generator)
        >>> problem.residual(problem.truth).item() < 1e-15
        True
        """
        check.number("density", density, gt=0, le=1)
        truth = random_low_rank(shape, rank, condition, dtype=dtype, generator=generator)
        device = truth.U.device
        seen = torch.rand(shape, generator=generator, device=device, dtype=dtype) < density
        rows, cols = seen.nonzero().unbind(1)
        values = Sampling(rows, cols, shape).forward(truth)  # nonzero() is row-major already
        return cls(rows, cols, values, shape, rank, truth=truth)

    def projection(self, start: LowRank) -> Callable[[LowRank], LowRank]:
        r"""Shrinks the rows of X that are far longer than most rows of the start.

        .. math:: U_i \leftarrow \min\Big(1, \frac{B}{\sqrt{n_1} \|U_i (V^T V)^{1/2}\|}\Big) U_i

        and V likewise, both from the unprojected pair. B is three times the larger of the 90 %
        quantiles of :math:`\sqrt{n_1}` times the row norms and :math:`\sqrt{n_2}` times the column
        norms of the start: the paper's B needs the incoherence and the norm of the answer. (Twice,
        on some random instances, forbids the answer.)
        """
        n1, n2 = self.shape
        size = torch.tensor([n1, n2], dtype=start.U.dtype).sqrt()
        norms = _row_norms(start)
        B = 3 * torch.maximum(
            *(size[i] * torch.quantile(norms[i], 0.9, dim=-1, keepdim=True) for i in (0, 1))
        )

        def shrink(x: LowRank) -> LowRank:
            factors = [
                F * (B / (size[i] * norm)).clamp(max=1.0).unsqueeze(-1)
                for i, (F, norm) in enumerate(zip(x, _row_norms(x), strict=True))
            ]
            return LowRank(*factors)

        return shrink

    def density(self) -> float:
        """The share p of entries that are seen."""
        return len(self.rows) / (self.shape[0] * self.shape[1])

    def scale(self) -> float:
        return self.density()

    def misfit(self, x: LowRank) -> Tensor:
        return self.sampling.forward(x) - self.observed

    def pull_back(self, misfit: Tensor) -> SparseMatrix:
        return self.sampling.adjoint(misfit / self.density())

    def data_norm(self) -> Tensor:
        return self.observed.norm(dim=-1)

    def spectral(self, generator: torch.Generator | None = None) -> LowRank:
        return from_svd(*self._leading(self.rank, generator))

    def _leading(
        self, k: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The k leading singular triples of the data, with zeros where nothing is seen."""
        M = self.pull_back(self.observed)
        if self.observed.ndim > 1:
            U, S, Vh = torch.linalg.svd(M.dense(), full_matrices=False)
            return U[..., :k], S[..., :k], Vh[..., :k, :].mT
        return leading_svd(
            lambda V: M @ V,
            lambda U: M.mT @ U,
            self.shape,
            k,
            self.observed.dtype,
            device=self.observed.device,
            generator=generator,
        )

    def _largest_gap(self) -> int:
        most = min(20, min(self.shape) // 4)
        if self.observed.ndim > 1 or most < 1:
            raise ValueError(
                'rank must be a number for a batch, or a matrix with a side below 4; got "auto"'
            )
        S = self._leading(most + 1)[1]
        return int((S[:-1] / S[1:]).argmax()) + 1


def _row_norms(x: LowRank) -> tuple[Tensor, Tensor]:
    """The norms of the rows and of the columns of :math:`U V^T`."""
    R_U, R_V = torch.linalg.qr(x.U).R, torch.linalg.qr(x.V).R
    return (x.U @ R_V.mT).norm(dim=-1), (x.V @ R_U.mT).norm(dim=-1)
