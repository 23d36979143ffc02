"""The operator that reads some entries of a matrix, and its adjoint, in time linear in them."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.solve.recovery.factors import LowRank

NUMBERS_IN_CACHE = 2**17
"""Numbers of gathered rows that are held at a time: 1 MB, what a core keeps near."""

FILLS_VECTORS = {torch.float32: 8, torch.float64: 24}
"""The rank from which torch's sampled product is faster on a CPU than gathering both rows."""


class Sampling:
    r"""The entries of a matrix at given positions.

    .. math:: \mathcal{A}(X) = (X_{i_k j_k})_{k = 1 \dots m}, \qquad
        \mathcal{A}^*(w) = \sum_k w_k e_{i_k} e_{j_k}^T

    The adjoint is a sparse matrix, never a dense one: memory is O(m + n1 + n2). Entries are kept in
    row-major order, whatever the order of the arguments.

    Parameters
    ----------
    rows, cols
        Positions, integer tensors of shape ``(m,)``, each pair at most once.
    shape
        ``(n1, n2)``.

    Raises
    ------
    ValueError
        For positions outside the matrix or given twice; the message names the first.

    Examples
    --------
    >>> read = Sampling(torch.tensor([1, 0]), torch.tensor([0, 1]), (2, 2))
    >>> read.forward(LowRank(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [5.0]])))
    tensor([5., 6.])
    """

    def __init__(self, rows: Tensor, cols: Tensor, shape: tuple[int, int]) -> None:
        n1, n2 = shape
        for name, positions, size in (("rows", rows, n1), ("cols", cols, n2)):
            if positions.dtype not in (torch.int32, torch.int64) or positions.ndim != 1:
                raise TypeError(
                    f"{name} must be a one-dimensional integer tensor, "
                    f"got {positions.dtype} of shape {tuple(positions.shape)}"
                )
            outside = (positions < 0) | (positions >= size)
            if outside.any():
                k = int(outside.nonzero()[0])
                raise ValueError(f"{name} must be in [0, {size}), got {positions[k]} at {k}")
        if len(rows) != len(cols):
            raise ValueError(f"rows and cols must have one length, got {len(rows)} and {len(cols)}")
        self.shape = (n1, n2)
        linear = rows.long() * n2 + cols.long()
        linear, self.order = linear.sort()
        twice = (linear[1:] == linear[:-1]).nonzero()
        if len(twice):
            i, j = divmod(int(linear[twice[0, 0]]), n2)
            raise ValueError(f"rows and cols must name every entry once, got ({i}, {j}) twice")
        self.rows, self.cols = linear // n2, linear % n2
        # The transposed pattern: the same entries by columns.
        self.transposed = (self.cols * n1 + self.rows).argsort()
        self._transposed_rows = self.rows[self.transposed]
        self._pointers = _pointers(self.rows, n1)
        self._transposed_pointers = _pointers(self.cols, n2)

    def transpose(self) -> Sampling:
        """The operator that reads the transposed matrix; entry k of it is `transposed[k]` here."""
        return Sampling(self.cols[self.transposed], self._transposed_rows, self.shape[::-1])

    def sorted(self, values: Tensor) -> Tensor:
        """`values` (..., m), given in the order of the arguments, in the operator's own order."""
        return values[..., self.order]

    def forward(self, x: LowRank) -> Tensor:
        """The entries of x, shape ``(..., m)``, in the operator's own (row-major) order."""
        least = FILLS_VECTORS.get(x.U.dtype, math.inf) if x.U.device.type == "cpu" else 1
        if x.U.ndim == 2 and x.rank >= least:
            pattern = _csr(self._pointers, self.cols, x.U.new_ones(len(self.cols)), self.shape)
            return torch.sparse.sampled_addmm(pattern, x.U, x.V.mT, beta=0.0).values()
        together = max(1, NUMBERS_IN_CACHE // x.U[..., 0, :].numel())
        # Rows are read one by one: a factor that lies by columns is turned once.
        x = LowRank(x.U.contiguous(), x.V.contiguous())
        pieces = zip(self.rows.split(together), self.cols.split(together), strict=True)
        return torch.cat([_entries(x, rows, cols) for rows, cols in pieces], dim=-1)

    def adjoint(self, w: Tensor) -> SparseMatrix:
        """The sparse matrix with `w` (..., m), in the operator's own order, at the positions."""
        return SparseMatrix(self, w)


class SparseMatrix:
    """A matrix with entries at the positions of a `Sampling`; see `Sampling.adjoint`."""

    def __init__(self, sampling: Sampling, values: Tensor) -> None:
        self.sampling, self.values = sampling, values
        self.shape = (*values.shape[:-1], *sampling.shape)

    def __matmul__(self, V: Tensor) -> Tensor:
        """``(..., n1, n2) @ (..., n2, k)``."""
        s = self.sampling
        if self.values.ndim > 1:
            return _gathered(s.rows, s.cols, self.values, s.shape[0], V)
        return _csr(s._pointers, s.cols, self.values, s.shape) @ V

    @property
    def mT(self) -> _Transposed:
        """The transposed matrix, for products from the left."""
        return _Transposed(self)

    def dense(self) -> Tensor:
        """The matrix with its zeros."""
        out = self.values.new_zeros(self.shape)
        out[..., self.sampling.rows, self.sampling.cols] = self.values
        return out


class _Transposed:
    def __init__(self, matrix: SparseMatrix) -> None:
        self.matrix = matrix

    def __matmul__(self, U: Tensor) -> Tensor:
        s, values = self.matrix.sampling, self.matrix.values
        if values.ndim > 1:
            return _gathered(s.cols, s.rows, values, s.shape[1], U)
        values = values.index_select(0, s.transposed)
        return _csr(s._transposed_pointers, s._transposed_rows, values, s.shape[::-1]) @ U


def _entries(x: LowRank, rows: Tensor, cols: Tensor) -> Tensor:
    # A product with ones is faster than a sum over so few.
    return (x.U.index_select(-2, rows) * x.V.index_select(-2, cols)) @ x.U.new_ones(x.rank)


def _gathered(rows: Tensor, cols: Tensor, values: Tensor, size: int, V: Tensor) -> Tensor:
    """The product for a whole batch at once, where torch has no batched sparse one."""
    terms = values.unsqueeze(-1) * V[..., cols, :]
    return terms.new_zeros(*terms.shape[:-2], size, terms.shape[-1]).index_add(-2, rows, terms)


def _pointers(positions: Tensor, size: int) -> Tensor:
    counts = torch.bincount(positions, minlength=size)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _csr(pointers: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        # torch calls its CSR layout a beta feature, once per process.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(
            pointers, indices, values, size=shape, check_invariants=False
        )


def check_samples(values: Tensor, count: int) -> Tensor:
    """`values` as measurements of `count` entries: floating point, finite, of the right length."""
    check.floating("values", values)
    if values.shape[-1:] != (count,):
        raise ValueError(
            f"values must have one number per entry, shape (..., {count}), "
            f"got {tuple(values.shape)}"
        )
    if not torch.isfinite(values).all():
        k = int((~torch.isfinite(values)).any(dim=tuple(range(values.ndim - 1))).nonzero()[0])
        raise ValueError(f"values must be finite, got {values[..., k].tolist()} at {k}")
    return values
