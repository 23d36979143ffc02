"""`PhaseSynchronization`: phases, signs or rotations from noisy ratios of pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric.krylov import leading_eigs
from thalweg.solve.recovery.graph import components, warn_of_components


@dataclass(frozen=True, eq=False)
class PhaseSynchronization:
    r"""Recover phases from noisy ratios of pairs, :math:`Y_{ij} \approx x_i \bar x_j`.

    .. math:: \max_{|z_1| = \dots = |z_n| = 1} z^* Y z

    A complex Y looks for phases, a real one for signs. With ``block=d`` the unknowns are orthogonal
    (complex: unitary) matrices or rotations :math:`X_i`, and the blocks of Y are
    :math:`Y_{ij} \approx X_i X_j^*`. All are known up to one common factor on the right.

    Parameters
    ----------
    Y
        Hermitian, dense or sparse, of shape ``(n d, n d)``; zero where nothing was measured. Dense
        ones may be a batch of one graph. The diagonal is not used.
    block
        Size d >= 1 of the blocks. Default 1.
    rotation
        Blocks of determinant 1 (real ones, d >= 2). Default False.
    truth
        The phases ``(n,)`` or blocks ``(n, d, d)`` themselves where they are known.

    Raises
    ------
    ValueError
        For a Y that is not square, finite or Hermitian (relative error above 1e-8; 1e-5 in single
        precision). A diagonal that is not zero, and a graph in several components, are warnings:
        phases are then known within each component only.

    Examples
    --------
    >>> from thalweg.solve.recovery import generalized_power_method
    >>> generator = torch.Generator().manual_seed(0)
    >>> problem = PhaseSynchronization.random(100, sigma=1.0, generator=generator)
    >>> result = generalized_power_method(problem)
    >>> result.converged, result.info["certificate"].optimal
    (True, True)

    References
    ----------
    Boumal, "Nonconvex phase synchronization", SIAM J. Optimization 2016, arXiv:1601.06114. Zhong &
    Boumal, "Near-optimal bounds for phase synchronization", 2018, arXiv:1703.06605.
    """

    Y: Tensor
    block: int = 1
    rotation: bool = False
    truth: Tensor | None = None
    ratios: Tensor = field(init=False, repr=False)
    """Y with its diagonal (of blocks) set to zero."""
    components: Tensor = field(init=False, repr=False)
    """For each unknown the number of its component of the graph, shape ``(n,)``."""
    energy: Tensor = field(init=False, repr=False)
    r""":math:`\|Y\|_F^2 + d \cdot \#\text{pairs}`, what `value` is measured from."""

    def __post_init__(self) -> None:
        Y, d = self.Y, self.block
        if not isinstance(Y, Tensor) or not (Y.is_floating_point() or Y.is_complex()):
            raise TypeError(f"Y must be a floating-point or complex tensor, got {_kind(Y)}")
        check.number("block", d, ge=1, integer=True)
        if self.rotation and (Y.is_complex() or d == 1):
            raise ValueError("rotation must be False for complex Y and for block = 1, got True")
        if Y.layout is not torch.strided:
            Y = Y.to_sparse_coo().coalesce()
        if Y.ndim < 2 or Y.shape[-1] != Y.shape[-2] or Y.shape[-1] % d or 0 in Y.shape:
            raise ValueError(
                f"Y must be square, of a multiple of block = {d} rows, got shape {tuple(Y.shape)}"
            )
        sparse = Y.is_sparse
        entries = Y.values() if sparse else Y
        if not torch.isfinite(entries).all():
            raise ValueError("Y must be finite, got an infinite or NaN entry")
        size = entries.abs().square().sum().sqrt()
        skew = (Y - Y.mH).coalesce().values() if sparse else Y - Y.mH
        asymmetry = float(skew.abs().square().sum().sqrt() / size) if size > 0 else 0.0
        if asymmetry > max(1e-8, 100 * torch.finfo(Y.dtype).eps):
            raise ValueError(
                f"Y must be Hermitian, Y_ij = conj(Y_ji), got a relative difference of "
                f"{asymmetry:.1e}"
            )
        ratios, diagonal = _without_diagonal(Y, d)
        if diagonal:
            check.warn("the diagonal of Y is not zero; it says nothing of ratios and is not used")
        n = Y.shape[-1] // d
        rows, cols = _pairs(ratios, d)
        object.__setattr__(self, "ratios", ratios)
        object.__setattr__(self, "components", components(rows, cols, n))
        kept = ratios.values() if sparse else ratios
        total = kept.abs().square().sum() if sparse else kept.abs().square().sum((-2, -1))
        object.__setattr__(self, "energy", total + d * len(rows))
        warn_of_components(self.components, "Y", "phases")
        if self.truth is not None and tuple(self.truth.shape[-len(self.shape) :]) != self.shape:
            raise ValueError(
                f"truth must have shape {('...', *self.shape)}, got {tuple(self.truth.shape)}"
            )

    @property
    def n(self) -> int:
        """Number of unknowns."""
        return self.Y.shape[-1] // self.block

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the unknown: ``(n,)``, or ``(n, d, d)`` for blocks."""
        return (self.n,) if self.block == 1 else (self.n, self.block, self.block)

    @classmethod
    def random(
        cls,
        n: int = 200,
        *,
        sigma: float = 0.0,
        density: float = 1.0,
        block: int = 1,
        rotation: bool = False,
        dtype: torch.dtype = torch.complex128,
        generator: torch.Generator | None = None,
    ) -> PhaseSynchronization:
        r"""Uniform phases, each pair measured with probability `density`, Gaussian noise.

        .. math:: Y_{ij} = x_i \bar x_j + \sigma W_{ij}, \qquad W_{ij} \sim CN(0, 1)

        Parameters
        ----------
        n
            Unknowns, >= 1. Default 200.
        sigma
            Noise of an entry, >= 0 (complex: :math:`E |W|^2 = 1`). Default 0.
        density
            Of the graph, in (0, 1]. Default 1.
        block, rotation
            As in the problem.
        dtype, generator
            Of the numbers, and where they come from.

        Examples
        --------
        >>> generator = torch.Generator().manual_seed(0)
        >>> problem = PhaseSynchronization.random(20, sigma=0.1, generator=generator)
        >>> problem.ratios.shape, problem.error(problem.truth).item() < 1e-15
        (torch.Size([20, 20]), True)
        """
        check.number("n", n, ge=1, integer=True)
        check.number("sigma", sigma, ge=0)
        check.number("density", density, gt=0, le=1)
        device = generator.device if generator is not None else torch.device("cpu")
        how: dict[str, Any] = {"generator": generator, "device": device}
        gaussian = torch.randn(n, block, block, dtype=dtype, **how)
        blocks = nearest(gaussian, rotation)
        Z = blocks.reshape(n * block, block)
        noise = torch.randn(n * block, n * block, dtype=dtype, **how).triu(1)
        seen = (torch.rand(n, n, dtype=torch.float64, **how) < density).triu(1)
        seen = (seen | seen.mT).to(dtype.to_real()).repeat_interleave(block, 0)
        Y = (Z @ Z.mH + sigma * (noise + noise.mH)) * seen.repeat_interleave(block, 1)
        return cls(Y, block, rotation, truth=blocks.reshape(n) if block == 1 else blocks)

    def stacked(self, x: Tensor) -> Tensor:
        """The unknowns as one matrix, their blocks one above the other, ``(..., n d, d)``."""
        return x.unsqueeze(-1) if self.block == 1 else x.flatten(-3, -2)

    def unstacked(self, Z: Tensor) -> Tensor:
        """The inverse of `stacked`."""
        return Z.squeeze(-1) if self.block == 1 else Z.unflatten(-2, (self.n, self.block))

    def product(self, x: Tensor) -> Tensor:
        """Y x, of the shape of x, in O(nonzeros of Y)."""
        return self.unstacked(self.ratios @ self.stacked(x))

    def nearest(self, u: Tensor, keep: Tensor) -> Tensor:
        """The phases (blocks) nearest to u; `keep` where u is zero."""
        if self.block == 1:
            zero = u == 0
            return torch.where(zero, keep, torch.sgn(torch.where(zero, torch.ones_like(u), u)))
        zero = (u == 0).all(-1, keepdim=True).all(-2, keepdim=True)
        eye = torch.eye(self.block, dtype=u.dtype, device=u.device)
        return torch.where(zero, keep, nearest(torch.where(zero, eye, u), self.rotation))

    def aligned(self, x: Tensor, to: Tensor) -> Tensor:
        """x times the common factor, in each component, that brings it next to `to`."""
        Z, T = self.stacked(x), self.stacked(to)
        aligned = torch.empty_like(Z)
        for c in range(int(self.components.max()) + 1):
            rows = (self.components == c).repeat_interleave(self.block)
            Q = nearest(Z[..., rows, :].mH @ T[..., rows, :], self.rotation)
            aligned[..., rows, :] = Z[..., rows, :] @ Q
        return self.unstacked(aligned)

    def gap(self, x: Tensor, u: Tensor) -> Tensor:
        """What one more step would change, from u = Y x."""
        return self.nearest(u, x) - x

    def misfit(self, x: Tensor) -> Tensor:
        r"""The fixed-point gap :math:`P(Y x) - x`: zero at a global maximum, and not at a minimum.

        Up to a common factor it would be zero at minima too, where :math:`P(Y x) = -x`.
        """
        return self.gap(x, self.product(x))

    def value(self, x: Tensor) -> Tensor:
        r"""Half of :math:`\sum |Y_{ij} - x_i \bar x_j|^2` over measured pairs, shape of the batch.

        That is a constant less :math:`x^* Y x`.
        """
        return self.value_at(x, self.product(x))

    def value_of(self, x: Tensor, misfit: Tensor) -> Tensor:
        """`value`; the misfit does not help."""
        return self.value(x)

    def value_at(self, x: Tensor, u: Tensor) -> Tensor:
        """`value`, where u = Y x is at hand."""
        return (self.energy - 2 * self.objective(x, u)).clamp(min=0) / 2

    def objective(self, x: Tensor, u: Tensor) -> Tensor:
        r""":math:`x^* Y x`, where u = Y x is at hand."""
        return (self.stacked(x).conj() * self.stacked(u)).sum((-2, -1)).real

    def residual(self, x: Tensor) -> Tensor:
        r"""The fixed-point gap :math:`\|P(Y x) - x\| / \sqrt{n d}`, shape of the batch."""
        return self.residual_of(self.misfit(x))

    def residual_of(self, misfit: Tensor) -> Tensor:
        """The gap's size, from a misfit already at hand."""
        return self.stacked(misfit).norm(dim=(-2, -1)) / math.sqrt(self.n * self.block)

    def error(self, x: Tensor) -> Tensor:
        r"""The relative error up to a common factor in each component, where the truth is known.

        .. math:: \min_Q \|x Q - x_*\| / \sqrt{n d}
        """
        if self.truth is None:
            raise ValueError("error needs a problem that knows its truth, got truth=None")
        truth = self.truth.expand_as(x)
        return self.residual_of(self.aligned(x, truth) - truth)

    def start(self, start: Any = "spectral", generator: torch.Generator | None = None) -> Tensor:
        """The point a method begins at.

        Parameters
        ----------
        start
            ``"spectral"`` (phases of the leading eigenvectors, in each component of the graph),
            ``"random"``, or a tensor to continue from (its phases are taken).
        generator
            Of the random start, and of the Lanczos process where there are many unknowns.
        """
        Y, d = self.ratios, self.block
        batch = tuple(Y.shape[:-2])
        if isinstance(start, Tensor):
            if tuple(start.shape[-len(self.shape) :]) != self.shape:
                raise ValueError(
                    f"start must have shape {('...', *self.shape)}, got {tuple(start.shape)}"
                )
            start = start.to(dtype=Y.dtype, device=Y.device).expand(*batch, *self.shape)
            one = torch.ones(1) if d == 1 else torch.eye(d)
            return self.nearest(start, one.to(start))
        check.choice("start", start, ("spectral", "random"))
        if start == "random":
            u = torch.randn(
                *batch, self.n, d, d, dtype=Y.dtype, device=Y.device, generator=generator
            )
            return self.unstacked(nearest(u, self.rotation).flatten(-3, -2))
        members = Y.reshape(-1, *Y.shape[-2:]) if batch else [Y]
        found = [self._spectral(member, generator) for member in members]
        return torch.stack(found).reshape(*batch, *self.shape) if batch else found[0]

    def _spectral(self, Y: Tensor, generator: torch.Generator | None) -> Tensor:
        d = self.block
        one = torch.ones(1) if d == 1 else torch.eye(d)
        V = torch.zeros(Y.shape[-1], d, dtype=Y.dtype, device=Y.device)
        for c in range(int(self.components.max()) + 1):
            rows = (self.components == c).repeat_interleave(d).nonzero().squeeze(1)
            if len(rows) == d:
                continue  # nothing was measured: stays at one

            def product(W: Tensor, rows: Tensor = rows) -> Tensor:
                whole = torch.zeros(Y.shape[-1], W.shape[1], dtype=Y.dtype, device=Y.device)
                return (Y @ whole.index_copy(0, rows, W))[rows]

            _, vectors = leading_eigs(
                product, len(rows), d, Y.dtype, device=Y.device, generator=generator
            )
            if self.rotation:
                # Eigenvectors come with any sign: half of them would mirror every block.
                blocks = vectors.unflatten(0, (-1, d))
                if torch.linalg.det(blocks).sum() < 0:
                    vectors = torch.cat([vectors[:, :-1], -vectors[:, -1:]], dim=1)
            V[rows] = vectors
        return self.nearest(self.unstacked(V), one.to(V).expand(self.shape))


def nearest(u: Tensor, rotation: bool = False) -> Tensor:
    r"""The orthogonal (unitary) matrix, or rotation, nearest to each block: its polar factor.

    .. math:: P(u) = W V^*, \qquad u = W \Sigma V^*

    For rotations the last column of W changes sign where the determinant would be -1.

    Examples
    --------
    >>> nearest(torch.tensor([[[2.0, 0.0], [0.0, -3.0]]]))
    tensor([[[ 1.,  0.],
             [ 0., -1.]]])
    """
    if u.shape[-1] == 1:
        return torch.where(u == 0, torch.ones_like(u), torch.sgn(u))
    W, _, Vh = torch.linalg.svd(u)
    if rotation:
        sign = torch.linalg.det(W @ Vh).sign()
        W = torch.cat([W[..., :-1], W[..., -1:] * sign[..., None, None]], dim=-1)
    return W @ Vh


def _without_diagonal(Y: Tensor, d: int) -> tuple[Tensor, bool]:
    """Y with its diagonal blocks set to zero, and whether they were not."""
    if not Y.is_sparse:
        same = torch.arange(Y.shape[-1], device=Y.device) // d
        diagonal = same[:, None] == same
        return Y.masked_fill(diagonal, 0), bool(Y[..., diagonal].any())
    off = Y.indices()[0] // d != Y.indices()[1] // d
    kept = off & (Y.values() != 0)
    some = bool(Y.values()[~off].any())
    return torch.sparse_coo_tensor(
        Y.indices()[:, kept], Y.values()[kept], Y.shape, is_coalesced=True, check_invariants=False
    ), some


def _pairs(Y: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """The measured pairs (i, j), both orders."""
    n = Y.shape[-1] // d
    if Y.is_sparse:
        at = torch.unique((Y.indices()[0] // d) * n + Y.indices()[1] // d)
        return at // n, at % n
    seen = (Y != 0).flatten(0, -3).any(0) if Y.ndim > 2 else Y != 0
    seen = seen.reshape(n, d, n, d).any(3).any(1)
    rows, cols = seen.nonzero(as_tuple=True)
    return rows, cols


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
