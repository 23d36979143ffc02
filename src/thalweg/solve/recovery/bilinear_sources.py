"""How the sources of blind demixing are measured: by matrices, or by operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from thalweg.solve.recovery.lines import Operator


class Sources(Protocol):
    """Products with the matrices A_i of all sources."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def energy(self) -> Tensor: ...
    def forward(self, v: Tensor) -> Tensor: ...
    def transpose(self, w: Tensor) -> Tensor: ...


class DenseSources:
    """Matrices, shape ``(..., s, m, N)``.

    Examples
    --------
    >>> DenseSources(torch.tensor([[[1.0, 2.0]]])).forward(torch.tensor([[3.0, 4.0]]))
    tensor([[11.]])
    """

    def __init__(self, A: Tensor) -> None:
        self.A = A

    @property
    def shape(self) -> tuple[int, ...]:
        """``(..., s, m, N)``."""
        return tuple(self.A.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrices."""
        return self.A.dtype

    @property
    def energy(self) -> Tensor:
        """Mean of the squared moduli of a source's entries, ``(..., s)``."""
        return self.A.abs().square().mean((-2, -1))

    def forward(self, v: Tensor) -> Tensor:
        """A v for each source, ``(..., s, m)``."""
        return (self.A.to(v.dtype) @ v.unsqueeze(-1)).squeeze(-1)

    def transpose(self, w: Tensor) -> Tensor:
        """A^T w, without conjugation, for each source, ``(..., s, N)``."""
        return (self.A.to(w.dtype).mT @ w.unsqueeze(-1)).squeeze(-1)


class OperatorSources:
    """Operators of phase retrieval (`Lines`, `CodedDiffraction`), one a source.

    Examples
    --------
    >>> from thalweg.solve.recovery import CodedDiffraction
    >>> masks = CodedDiffraction(torch.tensor([[1.0, -1.0], [1.0, 1.0]]))
    >>> OperatorSources([masks]).forward(torch.tensor([[3.0 + 0j, 1.0 + 0j]])).real
    tensor([[2., 4., 4., 2.]])
    """

    def __init__(self, operators: Sequence[Operator]) -> None:
        self.operators = list(operators)
        sizes = {(math.prod(o.data_shape), math.prod(o.signal_shape)) for o in self.operators}
        if len(sizes) != 1 or any(o.batch_shape for o in self.operators):
            raise ValueError(
                f"A must hold operators of one size, none of them a batch, got {sorted(sizes)}"
            )
        self.m, self.N = sizes.pop()

    @property
    def shape(self) -> tuple[int, ...]:
        """``(s, m, N)``."""
        return (len(self.operators), self.m, self.N)

    @property
    def dtype(self) -> torch.dtype:
        """Of the unknowns."""
        return self.operators[0].dtype

    @property
    def energy(self) -> Tensor:
        """Mean of the squared moduli of a source's entries, ``(s,)``."""
        return torch.stack([o.row_norms2.mean() / self.N for o in self.operators])

    def forward(self, v: Tensor) -> Tensor:
        """A v for each source, ``(..., s, m)``."""
        parts = [
            o.forward(v[..., i, :].unflatten(-1, o.signal_shape))
            for i, o in enumerate(self.operators)
        ]
        return torch.stack(parts, dim=-2)

    def transpose(self, w: Tensor) -> Tensor:
        """A^T w, without conjugation, for each source, ``(..., s, N)``."""
        parts = [
            o.adjoint(w[..., i, :].conj().resolve_conj()).flatten(-len(o.signal_shape))
            for i, o in enumerate(self.operators)
        ]
        return torch.stack(parts, dim=-2).conj().resolve_conj()
