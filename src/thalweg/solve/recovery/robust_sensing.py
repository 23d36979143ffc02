"""`RobustSensing`: recover a low-rank matrix from measurements of which some are grossly wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.solve.recovery.factors import LowRank, random_low_rank

Factors = Tensor | LowRank
r"""A tensor U stands for the positive semidefinite :math:`U U^T`, a `LowRank` for U V^T."""

NORMAL_QUARTILE = 0.6745
"""The median of |z| for a standard normal z."""


@dataclass(frozen=True, eq=False)
class RobustSensing:
    r"""Recover X from :math:`y_k = \langle A_k, X \rangle + s_k`, where some s_k are huge.

    .. math:: \min_U \; f(U) = \frac1m \sum_{k=1}^m \left| \langle A_k, U U^T \rangle - y_k \right|

    X is positive semidefinite (U a tensor, for `subgradient`), or any matrix :math:`U V^T`
    (`LowRank`, for `scaled_subgradient`). The residual is a ratio of medians, which outliers do
    not reach: :math:`\operatorname{median} |\mathcal A(X) - y| / \operatorname{median} |y|`.

    Parameters
    ----------
    A
        The measurement matrices, shape ``(m, n1, n2)``; ``(..., m, n1, n2)`` for a batch.
    y
        The measurements, shape ``(m,)`` or ``(..., m)``.
    rank
        The rank of the answer, 1 <= rank <= min(n1, n2); None (default): unknown.
    noise
        Standard deviation >= 0 of dense noise beside the outliers. Default 0.
    truth
        The matrix where it is known, as U or as `LowRank`: methods then trace their error.

    Raises
    ------
    ValueError
        For shapes that do not match, non-finite values, a rank above the shape, or y of which half
        or more is zero. Fewer measurements than degrees of freedom of a known rank are a warning.

    Examples
    --------
    >>> from thalweg.solve.recovery import subgradient
    >>> generator = torch.Generator().manual_seed(0)
    >>> problem = RobustSensing.random(10, 1, 200, known_rank=True, generator=generator)
    >>> result = subgradient(problem, decay=0.98, tol=1e-8)
    >>> result.reason.name, problem.error(result.x).item() < 1e-7
    ('TOLERANCE', True)

    References
    ----------
    Ma & Fattahi, "Global Convergence of Sub-gradient Method for Robust Matrix Recovery", JMLR 2023,
    arXiv:2202.08788; Tong, Ma & Chi, IEEE Trans. Signal Processing 2021, arXiv:2010.13364.
    """

    A: Tensor
    y: Tensor
    rank: int | None = None
    noise: float = 0.0
    truth: Factors | None = None
    shape: tuple[int, int] = field(init=False)
    unit: Tensor = field(init=False, repr=False)
    """The root mean square of the entries of A, shape of the batch."""
    size: Tensor = field(init=False, repr=False)
    r"""A robust estimate of :math:`\|X\|_F`, shape of the batch."""

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
        shape = (int(self.A.shape[-2]), int(self.A.shape[-1]))
        object.__setattr__(self, "shape", shape)
        check.number("noise", self.noise, ge=0)
        if self.rank is not None:
            check.number("rank", self.rank, ge=1, le=min(shape), integer=True)
            freedom = self.rank * (sum(shape) - self.rank)
            if self.A.shape[-3] < freedom:
                check.warn(
                    f"{self.A.shape[-3]} measurements are fewer than the {freedom} degrees of "
                    f"freedom of a {shape[0]} x {shape[1]} matrix of rank {self.rank}: give at "
                    f"least {freedom}, or a smaller rank"
                )
        middle = median(self.y)
        if not (middle > 0).all():
            raise ValueError(
                "y must be other than zero in more than half of its entries: "
                "without outliers the zero matrix would fit them"
            )
        unit = self.A.square().mean((-3, -2, -1)).sqrt()
        if not (unit > 0).all():
            raise ValueError("A must not be all zero")
        object.__setattr__(self, "unit", unit)
        object.__setattr__(self, "size", middle / (NORMAL_QUARTILE * unit))

    @classmethod
    def random(
        cls,
        shape: int | tuple[int, int] = 20,
        rank: int = 2,
        measurements: int = 600,
        outliers: float = 0.1,
        condition: float = 2.0,
        *,
        outlier_size: float = 10.0,
        noise: float = 0.0,
        known_rank: bool = False,
        dtype: torch.dtype = torch.float64,
        generator: torch.Generator | None = None,
    ) -> RobustSensing:
        """A random instance that knows its truth: Gaussian matrices, and Gaussian outliers.

        Parameters
        ----------
        shape
            d for a positive semidefinite d x d matrix, or ``(n1, n2)`` for a general one.
        rank, condition
            Of the matrix; its singular values are evenly spaced from 1 to 1 / condition.
        measurements
            How many, m.
        outliers
            The share of the measurements that gets an outlier, in [0, 1).
        outlier_size
            Standard deviation of the outliers, >= 0. Default 10.
        noise
            Standard deviation of dense Gaussian noise on all. Default 0.
        known_rank
            Whether the problem tells its rank. Default False.
        dtype, generator
            Of the numbers, and where they come from.

        Examples
        --------
        >>> problem = RobustSensing.random(generator=torch.Generator().manual_seed(0))
        >>> problem.residual(problem.truth).item() < 1e-14
        True
        """
        check.number("outliers", outliers, ge=0, lt=1)
        check.number("outlier_size", outlier_size, ge=0)
        truth: Factors
        if isinstance(shape, int):
            truth = random_low_rank(
                (shape, shape), rank, condition, dtype=dtype, generator=generator
            ).U
        else:
            truth = random_low_rank(shape, rank, condition, dtype=dtype, generator=generator)
        X = dense(truth)

        def normal(*sizes: int) -> Tensor:
            return torch.randn(*sizes, dtype=dtype, generator=generator, device=X.device)

        m = measurements
        A = normal(m, *X.shape)
        hit = torch.randperm(m, generator=generator, device=X.device)[: round(outliers * m)]
        y = measure(A, X)
        y[hit] += outlier_size * normal(len(hit))
        if noise:
            y = y + noise * normal(m)
        return cls(A, y, rank if known_rank else None, noise, truth)

    def misfit(self, x: Factors) -> Tensor:
        r""":math:`\mathcal A(X) - y`, shape ``(..., m)``."""
        return measure(self.A, dense(x)) - self.y

    def pull_back(self, w: Tensor) -> Tensor:
        r""":math:`\frac1m \sum_k w_k A_k`, the A of unit mean square; shape ``(..., n1, n2)``."""
        flat = (w.unsqueeze(-2) @ self.A.flatten(-2)).squeeze(-2) / self.A.shape[-3]
        return flat.unflatten(-1, self.shape) / self.unit[..., None, None]

    def value(self, x: Factors) -> Tensor:
        """f at x, shape of the batch."""
        return self.value_of(x, self.misfit(x))

    def value_of(self, x: Factors, misfit: Tensor) -> Tensor:
        """f, where the misfit is already at hand."""
        return misfit.abs().mean(-1)

    def residual(self, x: Factors) -> Tensor:
        """The median of the misfit relative to that of the data, shape of the batch."""
        return self.residual_of(self.misfit(x))

    def residual_of(self, misfit: Tensor) -> Tensor:
        """The relative residual, from a misfit already at hand."""
        return median(misfit) / median(self.y)

    def error(self, x: Factors) -> Tensor:
        """The relative error of the matrix in the Frobenius norm, where the truth is known."""
        if self.truth is None:
            raise ValueError("error needs a problem that knows its truth, got truth=None")
        X = dense(self.truth)
        return torch.linalg.matrix_norm(dense(x) - X) / torch.linalg.matrix_norm(X)

    def smallest_residual(self) -> Tensor:
        """A residual above this is no answer: 1e-2, or twice what the noise explains."""
        explained = NORMAL_QUARTILE * self.noise / median(self.y)
        return torch.clamp(2 * explained, min=1e-2)


def dense(x: Factors) -> Tensor:
    r"""The matrix that factors stand for: :math:`U U^T` or :math:`U V^T`.

    Examples
    --------
    >>> dense(torch.tensor([[1.0], [2.0]]))
    tensor([[1., 2.],
            [2., 4.]])
    """
    return x.dense() if isinstance(x, LowRank) else x @ x.mT


def measure(A: Tensor, X: Tensor) -> Tensor:
    r""":math:`\langle A_k, X \rangle` for every k, one product with a long thin matrix."""
    return (A.flatten(-2) @ X.flatten(-2).unsqueeze(-1)).squeeze(-1)


def median(misfit: Tensor) -> Tensor:
    """The (lower) median of the absolute values, shape of the batch."""
    return misfit.abs().median(-1).values
