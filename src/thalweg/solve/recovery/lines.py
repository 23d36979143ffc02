"""The operators of phase retrieval: inner products with given lines, and coded diffraction."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from thalweg.core import check


class Operator(Protocol):
    """What phase retrieval asks of its measurements, rows :math:`a_i^*` of a matrix A."""

    @property
    def signal_shape(self) -> tuple[int, ...]: ...
    @property
    def data_shape(self) -> tuple[int, ...]: ...
    @property
    def batch_shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def row_norms2(self) -> Tensor: ...
    def forward(self, z: Tensor) -> Tensor: ...
    def adjoint(self, w: Tensor) -> Tensor: ...
    def pseudo_inverse(self) -> Callable[[Tensor], Tensor]: ...
    def members(self, batch: tuple[int, ...]) -> list[Operator]: ...


class Lines:
    r"""Inner products with the rows of a matrix.

    .. math:: \mathcal{A}(z) = A z, \qquad \mathcal{A}^*(w) = A^* w

    Parameters
    ----------
    A
        Real or complex, shape ``(m, n)``; ``(..., m, n)`` for a batch. Its dtype is the unknown's.

    Raises
    ------
    ValueError
        For an entry that is not finite, a row of zeros (it measures nothing) or a column of zeros
        (that unknown is never measured).

    Examples
    --------
    >>> Lines(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])).forward(torch.tensor([3.0, 5.0]))
    tensor([ 3.,  8., 10.])
    """

    def __init__(self, A: Tensor) -> None:
        _check_values("A", A)
        if A.ndim < 2 or 0 in A.shape:
            raise ValueError(f"A must have shape (..., m, n), got {tuple(A.shape)}")
        self.A = A
        for name, dim in (("row", -1), ("column", -2)):
            empty = (A == 0).all(dim=dim)
            if empty.any():
                k = int(empty.nonzero()[0, -1])
                raise ValueError(f"A must have no {name} of zeros, got {name} {k}")

    @property
    def signal_shape(self) -> tuple[int, ...]:
        """``(n,)``."""
        return (self.A.shape[-1],)

    @property
    def data_shape(self) -> tuple[int, ...]:
        """``(m,)``."""
        return (self.A.shape[-2],)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions of A."""
        return tuple(self.A.shape[:-2])

    @property
    def dtype(self) -> torch.dtype:
        """Of the unknown."""
        return self.A.dtype

    @property
    def row_norms2(self) -> Tensor:
        """:math:`\\|a_i\\|^2`, shape ``(..., m)``."""
        return squared_modulus(self.A).sum(-1)

    def forward(self, z: Tensor) -> Tensor:
        """A z, shape ``(..., m)``, for z of shape ``(..., n)``."""
        if self.A.ndim == 2:
            return z @ self.A.mT
        return (self.A @ z.unsqueeze(-1)).squeeze(-1)

    def adjoint(self, w: Tensor) -> Tensor:
        """:math:`A^* w`, shape ``(..., n)``, for w of shape ``(..., m)``."""
        if self.A.ndim == 2:
            return w @ self.A.conj()
        return (self.A.mH @ w.unsqueeze(-1)).squeeze(-1)

    def pseudo_inverse(self) -> Callable[[Tensor], Tensor]:
        """The least-squares solution z of A z = w as a function of w, by one QR that is kept."""
        m, n = self.A.shape[-2:]
        if m < n:
            raise ValueError(f"A must have at least as many rows as columns, got {m} x {n}")
        Q, R = torch.linalg.qr(self.A)
        diagonal = R.diagonal(dim1=-2, dim2=-1).abs()
        least = n * torch.finfo(R.dtype).eps * diagonal.amax(-1, keepdim=True)
        if (diagonal <= least).any():
            raise ValueError("A must have independent columns, got some that depend on the others")

        def solve(w: Tensor) -> Tensor:
            right = (Q.mH @ w.unsqueeze(-1)).contiguous()
            return torch.linalg.solve_triangular(R, right, upper=True).squeeze(-1)

        return solve

    def members(self, batch: tuple[int, ...]) -> list[Operator]:
        """The operators of a batch of this shape, one each."""
        A = self.A.expand(*batch, *self.A.shape[-2:]).reshape(-1, *self.A.shape[-2:])
        return [Lines(member) for member in A]


class CodedDiffraction:
    r"""Fourier transforms of a signal or photograph seen through known masks.

    .. math:: \mathcal{A}(z)_{l} = F(\bar d_l \odot z), \qquad
        \mathcal{A}^*(w) = \sum_l d_l \odot F^* w_l

    F is the unnormalized discrete Fourier transform, of one or two dimensions. The matrix is never
    formed: a product costs O(m log n).

    Parameters
    ----------
    masks
        Real or complex, ``(L, n)`` for signals, ``(L, height, width)`` for photographs. The
        unknown is complex.

    Raises
    ------
    ValueError
        For an entry that is not finite, a mask of zeros, or a position that every mask hides.

    Examples
    --------
    >>> seen = CodedDiffraction(torch.ones(1, 4)).forward(torch.ones(4) + 0j)
    >>> seen.real
    tensor([4., 0., 0., 0.])

    References
    ----------
    Candes, Li, Soltanolkotabi, "Phase retrieval from coded diffraction patterns", arXiv:1310.3240.
    """

    def __init__(self, masks: Tensor) -> None:
        _check_values("masks", masks)
        if masks.ndim not in (2, 3) or 0 in masks.shape:
            raise ValueError(
                f"masks must have shape (L, n) or (L, height, width), got {tuple(masks.shape)}"
            )
        empty = (masks == 0).flatten(1).all(1)
        if empty.any():
            raise ValueError(f"masks must not be all zero, got mask {int(empty.nonzero()[0])}")
        hidden = (masks == 0).all(0).nonzero()
        if len(hidden):
            raise ValueError(
                f"masks must let every position through, none does {hidden[0].tolist()}"
            )
        self.masks = masks.to(masks.dtype.to_complex())
        self._conj = self.masks.conj().resolve_conj()
        self._dims = tuple(range(1 - masks.ndim, 0))

    @classmethod
    def random(
        cls,
        shape: tuple[int, ...],
        patterns: int = 6,
        *,
        dtype: torch.dtype = torch.complex128,
        generator: torch.Generator | None = None,
    ) -> CodedDiffraction:
        r"""Octanary masks: 1, -1, i or -i, times :math:`\sqrt{1/2}` (80 %) or :math:`\sqrt 3`.

        Parameters
        ----------
        shape
            Of the signal, ``(n,)`` or ``(height, width)``.
        patterns
            The number L of masks, >= 1. Default 6.
        dtype, generator
            Of the masks, and where they come from.

        Examples
        --------
        >>> generator = torch.Generator().manual_seed(0)
        >>> operator = CodedDiffraction.random((8, 8), 3, generator=generator)
        >>> operator.masks.abs().unique().numpy().round(3).tolist()
        [0.707, 1.732]
        """
        check.number("patterns", patterns, ge=1, integer=True)
        device = generator.device if generator is not None else torch.device("cpu")
        size = (patterns, *shape)
        quarter = torch.randint(4, size, generator=generator, device=device)
        uniform = torch.rand(size, generator=generator, device=device, dtype=torch.float64)
        unit = torch.tensor([1, 1j, -1, -1j], dtype=torch.complex128, device=device)[quarter]
        modulus = torch.where(uniform < 0.8, math.sqrt(0.5), math.sqrt(3.0))
        return cls((unit * modulus).to(dtype))

    @property
    def signal_shape(self) -> tuple[int, ...]:
        """``(n,)`` or ``(height, width)``."""
        return tuple(self.masks.shape[1:])

    @property
    def data_shape(self) -> tuple[int, ...]:
        """``(L, n)`` or ``(L, height, width)``."""
        return tuple(self.masks.shape)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """``()``: the masks are those of every member of a batch."""
        return ()

    @property
    def dtype(self) -> torch.dtype:
        """Of the unknown, complex."""
        return self.masks.dtype

    @property
    def row_norms2(self) -> Tensor:
        """:math:`\\|a_i\\|^2`, shape ``(m,)``: the same for all of one pattern."""
        energy = squared_modulus(self.masks).flatten(1).sum(1)
        return energy.repeat_interleave(math.prod(self.signal_shape))

    def forward(self, z: Tensor) -> Tensor:
        """The patterns, flat: shape ``(..., m)``, for z of the signal's shape."""
        lead = z.ndim - len(self.signal_shape)
        masked = self._conj * z.unsqueeze(lead)
        return torch.fft.fftn(masked, dim=self._dims).flatten(lead)

    def adjoint(self, w: Tensor) -> Tensor:
        """The adjoint, of the signal's shape, for w of shape ``(..., m)``."""
        patterns = w.unflatten(-1, self.data_shape)
        back = torch.fft.ifftn(patterns, dim=self._dims, norm="forward")
        return (self.masks * back).sum(-len(self.data_shape))

    def pseudo_inverse(self) -> Callable[[Tensor], Tensor]:
        """The least-squares solution as a function of w: :math:`A^* A` is diagonal."""
        n = math.prod(self.signal_shape)
        gram = n * squared_modulus(self.masks).sum(0)
        return lambda w: self.adjoint(w) / gram

    def members(self, batch: tuple[int, ...]) -> list[Operator]:
        """The operators of a batch of this shape, one each."""
        return [self] * math.prod(batch)


def squared_modulus(z: Tensor) -> Tensor:
    """|z|^2, without the square root that `abs` takes."""
    return torch.view_as_real(z.resolve_conj()).square().sum(-1) if z.is_complex() else z.square()


def _check_values(name: str, values: Tensor) -> None:
    if not isinstance(values, Tensor) or not (values.is_floating_point() or values.is_complex()):
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{name} must be a floating-point or complex tensor, got {got}")
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got an infinite or NaN entry")
