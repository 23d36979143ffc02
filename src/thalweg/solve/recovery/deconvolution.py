"""`BlindDeconvolution`: a kernel and a signal from their convolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.solve.recovery.bilinear import BlindDemixing, check_values
from thalweg.solve.recovery.bilinear_sources import DenseSources, Sources


@dataclass(frozen=True, eq=False)
class BlindDeconvolution(BlindDemixing):
    r"""Recover a kernel and a signal from their convolution: `BlindDemixing` of one source.

    .. math:: y_j = b_j^* h \, x^* a_j

    Parameters
    ----------
    y, K, B, truth
        As in `BlindDemixing`; the factors have shapes ``(1, K)`` and ``(1, N)``.
    A
        Rows :math:`a_j^T`, shape ``(..., m, N)``, or an operator (`Lines`, `CodedDiffraction`).

    Examples
    --------
    >>> from thalweg.solve.recovery import blind_wirtinger_flow
    >>> generator = torch.Generator().manual_seed(0)
    >>> problem = BlindDeconvolution.random(1, 100, 10, 10, generator=generator)
    >>> problem.error(blind_wirtinger_flow(problem, tol=1e-8).x).item() < 1e-6
    True

    References
    ----------
    Li, Ling, Strohmer, Wei, "Rapid, robust, and reliable blind deconvolution via nonconvex
    optimization", Applied and Computational Harmonic Analysis 2019, arXiv:1606.04933.
    """

    def _sources(self) -> Sources:
        if not isinstance(self.A, Tensor):
            return super()._sources()
        check_values("A", self.A)
        if self.A.ndim < 2:
            raise ValueError(f"A must have shape (..., m, N), got {tuple(self.A.shape)}")
        return DenseSources(self.A.unsqueeze(-3))

    @classmethod
    def random(
        cls,
        s: int = 1,
        m: int = 100,
        K: int = 10,
        N: int = 10,
        *,
        strengths: Tensor | None = None,
        dtype: torch.dtype = torch.complex128,
        generator: torch.Generator | None = None,
    ) -> BlindDeconvolution:
        """As `BlindDemixing.random`, with s = 1."""
        check.number("s", s, ge=1, le=1, integer=True)
        drawn = BlindDemixing.random(
            1, m, K, N, strengths=strengths, dtype=dtype, generator=generator
        )
        assert isinstance(drawn.A, Tensor)
        return cls(drawn.y, drawn.A[0], K, truth=drawn.truth)
