"""`KroneckerSparse`: a sparse vector behind a Kronecker product of dictionaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.core import check

UNEVEN = 10.0
"""Columns of one dictionary whose norms differ by more than this factor earn a warning."""


class Posterior(NamedTuple):
    r"""A sparse vector as Bayesian learning finds it: :math:`x \mid y \sim N(\mu, \Sigma)`.

    Parameters
    ----------
    mean
        :math:`\mu`, the estimate of x, shape ``(N,)``.
    variance
        The diagonal of :math:`\Sigma`, shape ``(N,)``.
    factors
        The prior variances are :math:`g_1 \otimes \dots \otimes g_I`; of each pruned entry 0.
    noise
        The variance of the noise.
    """

    mean: Tensor
    variance: Tensor
    factors: tuple[Tensor, ...]
    noise: Tensor


@dataclass(frozen=True, eq=False)
class KroneckerSparse:
    r"""Recover a sparse x from :math:`y = (H_1 \otimes \dots \otimes H_I)\, x + n`.

    The support of x is the Kronecker product of small supports, one for each dictionary. The last
    index of x is the fastest: ``x.reshape(N_1, ..., N_I)``.

    Parameters
    ----------
    dictionaries
        :math:`H_i`, each of shape :math:`(M_i, N_i)`, real or complex.
    y
        The measurements, shape :math:`(M_1 \cdots M_I,)`. One vector: what is pruned, and so the
        size of the work, would differ among the members of a batch.
    noise
        The variance of the noise, >= 0, E |n_k|^2; None (default): methods learn it.
    truth
        x where it is known: methods then trace their error.

    Raises
    ------
    ValueError
        For shapes that do not match, non-finite values, y all zero, or a dictionary with a column
        of zeros. Column norms that differ tenfold are a warning: what is pruned depends on them.

    Examples
    --------
    >>> from thalweg.solve.recovery import kronecker_sbl
    >>> problem = KroneckerSparse.random(generator=torch.Generator().manual_seed(0))
    >>> result = kronecker_sbl(problem)
    >>> result.reason.name, problem.error(result.x).item() < 0.03
    ('TOLERANCE', True)

    References
    ----------
    He & Joseph, "Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With
    Application to IRS-MIMO Channel Estimation", IEEE Trans. Signal Processing 2024,
    arXiv:2307.14719.
    """

    dictionaries: Sequence[Tensor]
    y: Tensor
    noise: float | None = None
    truth: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dictionaries", tuple(self.dictionaries))
        if not isinstance(self.y, Tensor) or not (
            self.y.is_floating_point() or self.y.is_complex()
        ):
            raise TypeError("y must be a real or complex floating-point tensor")
        if not self.dictionaries:
            raise ValueError("dictionaries must hold at least one matrix, got none")
        for i, H in enumerate(self.dictionaries):
            self._check_dictionary(f"dictionaries[{i}]", H)
        m, n = math.prod(self.measured), math.prod(self.unknowns)
        if self.y.shape != (m,):
            raise ValueError(
                f"y must have one number per row of the Kronecker product, shape ({m},), "
                f"got {tuple(self.y.shape)}"
            )
        if not torch.isfinite(self.y).all():
            raise ValueError("y must be finite, got an infinite or NaN entry")
        if not self.y.any():
            raise ValueError("y must not be all zero: x = 0 fits it")
        if self.noise is not None:
            check.number("noise", self.noise, ge=0)
        if self.truth is not None and self.truth.shape != (n,):
            raise ValueError(f"truth must have shape ({n},), got {tuple(self.truth.shape)}")

    def _check_dictionary(self, name: str, H: Tensor) -> None:
        if not isinstance(H, Tensor) or H.ndim != 2 or H.dtype != self.y.dtype or not H.numel():
            got = f"{H.dtype} of shape {tuple(H.shape)}" if isinstance(H, Tensor) else repr(H)
            raise ValueError(
                f"{name} must be a matrix of the dtype of y, {self.y.dtype}, got {got}"
            )
        if not torch.isfinite(H).all():
            raise ValueError(f"{name} must be finite, got an infinite or NaN entry")
        norms = torch.linalg.vector_norm(H, dim=0)
        if not (norms > 0).all():
            k = int((norms == 0).nonzero()[0])
            raise ValueError(f"{name} must have no column of zeros, got column {k}")
        if norms.max() > UNEVEN * norms.min():
            ratio = float(norms.max() / norms.min())
            check.warn(
                f"column norms of {name} differ by a factor of {ratio:.0f}: what "
                "is pruned depends on them; divide the columns by their norms"
            )

    @property
    def measured(self) -> tuple[int, ...]:
        """:math:`(M_1, ..., M_I)`."""
        return tuple(int(H.shape[0]) for H in self.dictionaries)

    @property
    def unknowns(self) -> tuple[int, ...]:
        """:math:`(N_1, ..., N_I)`."""
        return tuple(int(H.shape[1]) for H in self.dictionaries)

    @classmethod
    def random(
        cls,
        measured: Sequence[int] = (8, 8, 8),
        unknowns: Sequence[int] = (10, 10, 10),
        support: Sequence[int] = (2, 2, 2),
        snr: float = 25.0,
        *,
        known_noise: bool = True,
        dtype: torch.dtype = torch.complex128,
        generator: torch.Generator | None = None,
    ) -> KroneckerSparse:
        r"""A random instance that knows its truth: Gaussian dictionaries and Gaussian entries.

        Parameters
        ----------
        measured, unknowns
            :math:`M_i` and :math:`N_i`. Columns of the dictionaries have norm 1 on average.
        support
            How many indices of each dictionary are in use.
        snr
            The mean of :math:`|H x|^2` over the variance of the noise, in dB.
        known_noise
            Whether the problem tells the variance of the noise. Default True.
        dtype, generator
            Of the numbers, and where they come from.

        Examples
        --------
        >>> problem = KroneckerSparse.random(generator=torch.Generator().manual_seed(0))
        >>> len(problem.y), int(problem.truth.count_nonzero())
        (512, 8)
        """
        device = generator.device if generator is not None else None

        def normal(*sizes: int) -> Tensor:
            return torch.randn(*sizes, dtype=dtype, generator=generator, device=device)

        H = [normal(m, n) / math.sqrt(m) for m, n in zip(measured, unknowns, strict=True)]
        x = normal(*unknowns)
        for axis, (n, k) in enumerate(zip(unknowns, support, strict=True)):
            check.number(f"support[{axis}]", k, ge=1, le=n, integer=True)
            unused = torch.randperm(n, generator=generator, device=device)[k:]
            x.index_fill_(axis, unused, 0)
        clean = multiply(H, x).flatten()
        noise = float(clean.abs().square().mean()) / 10 ** (snr / 10)
        y = clean + math.sqrt(noise) * normal(len(clean))
        return cls(H, y, noise if known_noise else None, x.flatten())

    def forward(self, x: Tensor) -> Tensor:
        r""":math:`(H_1 \otimes \dots \otimes H_I)\, x`, by one product with each dictionary."""
        return multiply(self.dictionaries, x.reshape(self.unknowns)).flatten()

    def dense(self) -> Tensor:
        """The Kronecker product itself, shape (M, N): large."""
        H = self.dictionaries[0]
        for factor in self.dictionaries[1:]:
            H = torch.kron(H, factor)
        return H

    def misfit(self, x: Tensor | Posterior) -> Tensor:
        """H x - y, shape ``(M,)``."""
        return self.forward(x if isinstance(x, Tensor) else x.mean) - self.y

    def residual(self, x: Tensor | Posterior) -> Tensor:
        """The norm of the misfit relative to that of y."""
        return self.residual_of(self.misfit(x))

    def residual_of(self, misfit: Tensor) -> Tensor:
        """The relative residual, from a misfit already at hand."""
        return torch.linalg.vector_norm(misfit) / torch.linalg.vector_norm(self.y)

    def error(self, x: Tensor | Posterior) -> Tensor:
        """The relative error of x, where the truth is known; its square is the NMSE."""
        if self.truth is None:
            raise ValueError("error needs a problem that knows its truth, got truth=None")
        mean = x if isinstance(x, Tensor) else x.mean
        norm = torch.linalg.vector_norm
        return norm(mean - self.truth) / norm(self.truth)


def multiply(matrices: Sequence[Tensor], x: Tensor) -> Tensor:
    r""":math:`(A_1 \otimes \dots \otimes A_I)\, x` for a tensor x with one axis per matrix.

    Examples
    --------
    >>> multiply([torch.ones(1, 2), 2 * torch.eye(2)], torch.eye(2))
    tensor([[2., 2.]])
    """
    for A in matrices:
        # The first axis is multiplied and goes last: after all of them the order is the old one.
        x = (A @ x.reshape(x.shape[0], -1)).reshape(A.shape[0], *x.shape[1:]).movedim(0, -1)
    return x


def outer(vectors: Sequence[Tensor]) -> Tensor:
    r""":math:`v_1 \otimes \dots \otimes v_I` as a tensor with one axis per vector.

    Examples
    --------
    >>> outer([torch.tensor([1.0, 2.0]), torch.tensor([1.0, 10.0])])
    tensor([[ 1., 10.],
            [ 2., 20.]])
    """
    product = vectors[0]
    for v in vectors[1:]:
        product = product.unsqueeze(-1) * v
    return product
