"""What sensing, completion and robust PCA have in common: a low-rank unknown, read linearly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.solve.recovery.factors import LowRank, relative_distance


class LowRankProblem(ABC):
    r"""Recover X of rank r from data: methods see its misfit and the pull-back of a misfit.

    .. math:: f(U, V) = \tfrac12 \|\mathcal{A}(U V^T) - y\|^2, \qquad
        Z = \mathcal{A}^*(\mathcal{A}(U V^T) - y), \qquad
        \nabla_U f = Z V, \quad \nabla_V f = Z^T U

    Subclasses scale :math:`\mathcal{A}` so that :math:`E\,\mathcal{A}^*\mathcal{A}` is the
    identity: one step size then does for all of them.
    """

    shape: tuple[int, int]
    rank: int
    truth: LowRank | None
    ridge: float = 0.0
    safe_step_size: ClassVar[float] = 0.5
    """The scaled step that needs no projection."""

    @abstractmethod
    def misfit(self, x: LowRank) -> Tensor:
        """:math:`\\mathcal{A}(X) - y`, shape ``(..., m)``, in the data's own domain."""

    @abstractmethod
    def pull_back(self, misfit: Tensor) -> Any:
        """Z, with ``Z @ V`` and ``Z.mT @ U``: dense or sparse."""

    @abstractmethod
    def data_norm(self) -> Tensor:
        """The norm of the data y, shape of the batch."""

    @abstractmethod
    def scale(self) -> float | Tensor:
        """The number c (one per member of a batch) with f = ||misfit||^2 / (2 c)."""

    @abstractmethod
    def spectral(self, generator: torch.Generator | None = None) -> LowRank:
        """The best rank-r approximation of the pulled-back data, as balanced factors."""

    def value(self, x: LowRank) -> Tensor:
        """f at x, shape of the batch."""
        return self.value_of(x, self.misfit(x))

    def value_of(self, x: LowRank, misfit: Tensor) -> Tensor:
        """f at x, where the misfit is already at hand."""
        twice = misfit.square().sum(-1)
        if self.ridge:
            twice = twice + self.ridge * sum(F.square().sum((-2, -1)) for F in x)
        return twice / (2 * self.scale())

    def decay(self) -> float:
        """The weight of the factors themselves in the gradient of f: ridge / c."""
        return self.ridge / float(self.scale()) if self.ridge else 0.0

    def projection(self, start: LowRank) -> Callable[[LowRank], LowRank] | None:
        """Brings a point back into a set that holds the answer, as the start tells it.

        None (here) where there is no such set.
        """
        return None

    def residual(self, x: LowRank) -> Tensor:
        """The norm of the misfit relative to that of the data, shape of the batch."""
        return self.residual_of(self.misfit(x))

    def residual_of(self, misfit: Tensor) -> Tensor:
        """The relative residual, from a misfit already at hand."""
        return misfit.norm(dim=-1) / self.data_norm()

    def error(self, x: LowRank) -> Tensor:
        """The relative error of the matrix in the Frobenius norm, where the truth is known."""
        if self.truth is None:
            raise ValueError("error needs a problem that knows its truth, got truth=None")
        return relative_distance(x, self.truth)

    def start(self, start: Any = "spectral", generator: torch.Generator | None = None) -> LowRank:
        """The point a method begins at.

        Parameters
        ----------
        start
            ``"spectral"``, ``"random"`` (Gaussian factors of the spectral start's norm), or a
            `LowRank` to continue from.
        generator
            Of the random start, and of the Lanczos process where the matrix is large.
        """
        if isinstance(start, tuple):
            U, V = start
            n1, n2 = self.shape
            for name, factor, n in (("U", U, n1), ("V", V, n2)):
                if factor.shape[-2:] != (n, self.rank):
                    raise ValueError(
                        f"start.{name} must have shape (..., {n}, {self.rank}), "
                        f"got {tuple(factor.shape)}"
                    )
            return LowRank(U, V)
        check.choice("start", start, ("spectral", "random"))
        spectral = self.spectral(generator)
        if start == "spectral":
            return spectral

        def like(factor: Tensor) -> Tensor:
            noise = torch.randn(
                factor.shape, dtype=factor.dtype, device=factor.device, generator=generator
            )
            size = torch.linalg.matrix_norm(factor) / torch.linalg.matrix_norm(noise)
            return noise * size[..., None, None]

        return LowRank(like(spectral.U), like(spectral.V))

    def _check_rank(self) -> None:
        n1, n2 = self.shape
        check.number("rank", self.rank, ge=1, le=min(n1, n2), integer=True)

    def _warn_if_too_few(self, count: int) -> None:
        freedom = self.rank * (sum(self.shape) - self.rank)
        if count < freedom:
            check.warn(
                f"{count} measurements are fewer than the {freedom} degrees of freedom of a "
                f"{self.shape[0]} x {self.shape[1]} matrix of rank {self.rank}: no method can "
                f"tell the answer from others; give at least {freedom}, or a smaller rank"
            )
