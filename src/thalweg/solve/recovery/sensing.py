"""`MatrixSensing`: recover a low-rank matrix from generic linear measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.solve.recovery.factors import LowRank, from_svd, random_low_rank
from thalweg.solve.recovery.low_rank import LowRankProblem


@dataclass(frozen=True, eq=False)
class MatrixSensing(LowRankProblem):
    r"""Recover a matrix of rank r from :math:`y_k = \langle A_k, X \rangle`.

    .. math:: \min_{U, V} \; \frac{1}{2c} \|\mathcal{A}(U V^T) - y\|^2, \qquad
        \mathcal{A}(X)_k = \langle A_k, X \rangle, \qquad c = \frac{\sum_k \|A_k\|_F^2}{n_1 n_2}

    The scale c makes :math:`\mathcal{A}^* \mathcal{A} / c` the identity on average, whatever the
    variance of the measurements.

    Parameters
    ----------
    A
        The measurement matrices, shape ``(m, n1, n2)``; ``(..., m, n1, n2)`` for a batch.
    y
        The measurements, shape ``(m,)`` or ``(..., m)``.
    rank
        The rank r of the answer, 1 <= r <= min(n1, n2).
    truth
        The matrix itself where it is known: methods then trace their error.

    Raises
    ------
    ValueError
        For shapes that do not match, non-finite or all-zero values, or a rank above the shape.
        Fewer measurements than degrees of freedom are a warning.

    Examples
    --------
    >>> from thalweg.solve.recovery import scaled_gradient
    >>> problem = MatrixSensing.random((12, 10), 2, 200, generator=torch.Generator().manual_seed(0))
    >>> result = scaled_gradient(problem, tol=1e-6)
    >>> result.reason.name, problem.error(result.x).item() < 1e-5
    ('TOLERANCE', True)

    References
    ----------
    Chi, Lu, Chen 2019, arXiv:1809.09573; Tu et al., "Low-rank solutions of linear matrix equations
    via Procrustes flow", arXiv:1507.03566.
    """

    A: Tensor
    y: Tensor
    rank: int
    truth: LowRank | None = None
    shape: tuple[int, int] = field(init=False)
    _scale: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check.floating("A", self.A)
        check.floating("y", self.y)
        if self.A.ndim < 3 or self.A.dtype != self.y.dtype:
            raise ValueError(
                f"A must have shape (..., m, n1, n2) and the dtype of y, {self.y.dtype}; "
                f"got {self.A.dtype} of shape {tuple(self.A.shape)}"
            )
        if self.y.shape != self.A.shape[:-2]:
            raise ValueError(
                f"y must have one number per matrix of A, shape {tuple(self.A.shape[:-2])}, "
                f"got {tuple(self.y.shape)}"
            )
        for name, tensor in (("A", self.A), ("y", self.y)):
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} must be finite, got an infinite or NaN entry")
        if not self.y.any(dim=-1).all():
            raise ValueError("y must not be all zero: the zero matrix fits it")
        object.__setattr__(self, "shape", (self.A.shape[-2], self.A.shape[-1]))
        self._check_rank()
        self._warn_if_too_few(self.A.shape[-3])
        scale = self.A.square().sum((-3, -2, -1)) / math.prod(self.shape)
        object.__setattr__(self, "_scale", scale)

    @classmethod
    def random(
        cls,
        shape: tuple[int, int] = (30, 30),
        rank: int = 2,
        measurements: int = 360,
        condition: float = 5.0,
        *,
        dtype: torch.dtype = torch.float64,
        generator: torch.Generator | None = None,
    ) -> MatrixSensing:
        """A random instance that knows its truth: Gaussian matrices of variance 1 / m.

        Parameters
        ----------
        shape, rank, condition
            Of the matrix; its singular values are evenly spaced from 1 to 1 / condition.
        measurements
            How many, m.
        dtype, generator
            Of the numbers, and where they come from.

        Examples
        --------
        >>> problem = MatrixSensing.random(generator=torch.Generator().manual_seed(0))
        >>> problem.residual(problem.truth).item() < 1e-14
        True
        """
        truth = random_low_rank(shape, rank, condition, dtype=dtype, generator=generator)
        A = torch.randn(
            measurements, *shape, dtype=dtype, generator=generator, device=truth.U.device
        ) / math.sqrt(measurements)
        return cls(A, _measure(A, truth), rank, truth)

    def scale(self) -> Tensor:
        return self._scale

    def misfit(self, x: LowRank) -> Tensor:
        return _measure(self.A, x) - self.y

    def pull_back(self, misfit: Tensor) -> Tensor:
        return torch.einsum("...k,...kij->...ij", misfit / self._scale[..., None], self.A)

    def data_norm(self) -> Tensor:
        return self.y.norm(dim=-1)

    def spectral(self, generator: torch.Generator | None = None) -> LowRank:
        U, S, Vh = torch.linalg.svd(self.pull_back(self.y), full_matrices=False)
        r = self.rank
        return from_svd(U[..., :r], S[..., :r], Vh[..., :r, :].mT)


def _measure(A: Tensor, x: LowRank) -> Tensor:
    return torch.einsum("...kij,...ij->...k", A, x.dense())
