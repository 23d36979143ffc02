"""`BlindDemixing`: two unknown factors of each source, from the sum over the sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.solve.recovery.bilinear_sources import DenseSources, OperatorSources, Sources
from thalweg.solve.recovery.lines import Operator


class Bilinear(NamedTuple):
    r"""Sources by their two factors, :math:`h_i x_i^*`; leading dimensions are a batch.

    Parameters
    ----------
    h
        Left factors (of kernels or channels), shape ``(..., s, K)``.
    x
        Right factors (of signals), shape ``(..., s, N)``.

    Examples
    --------
    >>> Bilinear(torch.ones(1, 2), torch.tensor([[1.0, 3.0]])).dense()
    tensor([[[1., 3.],
             [1., 3.]]])
    """

    h: Tensor
    x: Tensor

    def dense(self) -> Tensor:
        r"""The matrices :math:`h_i x_i^*`, shape ``(..., s, K, N)``."""
        return self.h.unsqueeze(-1) * self.x.conj().unsqueeze(-2)


@dataclass(frozen=True, eq=False)
class BlindDemixing:
    r"""Recover s pairs of factors from the sum of what each pair was measured as.

    .. math:: y_j = \sum_{i=1}^s b_j^* h_i \, x_i^* a_{ij}, \qquad
        \min_{h, x} \sum_{j=1}^m \Big| \sum_i b_j^* h_i \, x_i^* a_{ij} - y_j \Big|^2

    With the rows :math:`b_j^*` of a Fourier matrix these are sums of convolutions, of unknown short
    kernels :math:`h_i` with signals of known subspaces. Each source is known up to
    :math:`(\alpha h_i, x_i / \bar\alpha)`.

    Parameters
    ----------
    y
        Measurements, real or complex, shape ``(..., m)``.
    A
        Rows :math:`a_{ij}^T`, shape ``(..., s, m, N)``, or a list of s operators (`Lines`,
        `CodedDiffraction`; x is flat). Of any scale; spectral starts and the steps expect them
        spread evenly, as :math:`E a a^* \propto I`.
    K
        Length of the :math:`h_i`. Needed with ``B="dft"``.
    B
        ``"dft"`` (default): the first K columns of the unitary Fourier matrix, products by FFT; or
        rows :math:`b_j^*`, shape ``(m, K)``, with orthogonal columns of one length.
    truth
        The factors themselves where they are known.

    Raises
    ------
    ValueError
        For shapes that do not match, values that are not finite or all zero, or a B whose
        columns are not orthogonal and of one length. Fewer measurements than unknowns are a
        warning.

    Examples
    --------
    >>> from thalweg.solve.recovery import blind_wirtinger_flow
    >>> generator = torch.Generator().manual_seed(0)
    >>> problem = BlindDemixing.random(2, 200, 10, 10, generator=generator)
    >>> result = blind_wirtinger_flow(problem, tol=1e-8)
    >>> result.reason.name, problem.error(result.x).item() < 1e-6
    ('TOLERANCE', True)

    References
    ----------
    Dong & Shi, "Nonconvex demixing from bilinear measurements", IEEE Trans. Signal Processing 2018,
    arXiv:1809.06796. Li, Ling, Strohmer, Wei, "Rapid, robust, and reliable blind deconvolution via
    nonconvex optimization", arXiv:1606.04933.
    """

    y: Tensor
    A: Tensor | Operator | Sequence[Operator]
    K: int | None = None
    B: str | Tensor = "dft"
    truth: Bilinear | None = None
    sources: Sources = field(init=False, repr=False)
    """Products with A."""
    width: int = field(init=False)
    """The length of the :math:`h_i`."""
    dtype: torch.dtype = field(init=False)
    """Of the factors."""
    gain: Tensor = field(init=False, repr=False)
    r"""What :math:`\|h_i\| \|x_i\| = 1` gives on average in the data, squared; ``(..., s)``."""

    def __post_init__(self) -> None:
        y, B = self.y, self.B
        check_values("y", y)
        sources = self._sources()
        if y.ndim < 1 or sources.shape[-2] != y.shape[-1] or 0 in sources.shape:
            raise ValueError(
                f"A must have m = {y.shape[-1] if y.ndim else 0} rows for each source, to go with "
                f"y, got shape {sources.shape}"
            )
        m = y.shape[-1]
        if not y.abs().amax(-1).all():
            raise ValueError("y must not be all zero: factors of zero fit it")
        square = 1.0
        if isinstance(B, Tensor):
            check_values("B", B)
            if B.ndim != 2 or B.shape[0] != m or self.K not in (None, B.shape[1]):
                raise ValueError(
                    f"B must have shape ({m}, {'K' if self.K is None else self.K}), "
                    f"got {tuple(B.shape)}"
                )
            K, gram = B.shape[1], B.mH @ B
            square = float(gram.diagonal().real.mean())
            off = gram - square * torch.eye(K, dtype=B.dtype, device=B.device)
            if square == 0 or off.abs().max() > 1e-4 * square:
                raise ValueError(
                    "B must have orthogonal columns of one length, B^H B = c I, got a relative "
                    f"difference of {float(off.abs().max()) / max(square, 1e-300):.1e}: give "
                    "torch.linalg.qr(B).Q"
                )
        else:
            check.choice("B", B, ("dft",))
            if self.K is None:
                raise ValueError('K must be given with B="dft"')
            K = int(check.number("K", self.K, ge=1, le=m, integer=True))
        dtype = torch.promote_types(y.dtype, sources.dtype)
        dtype = torch.promote_types(dtype, B.dtype) if isinstance(B, Tensor) else dtype.to_complex()
        object.__setattr__(self, "width", K)
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "sources", sources)
        gain = sources.energy * square
        if not gain.all():
            raise ValueError(f"A must not be zero for a source, is for {gain.argmin().item()}")
        object.__setattr__(self, "gain", gain)
        s, N = sources.shape[-3], sources.shape[-1]
        if m < s * (K + N - 1):
            check.warn(
                f"{m} measurements are fewer than the {s * (K + N - 1)} unknowns: give at least "
                "those"
            )
        if self.truth is not None:
            self._checked("truth", self.truth)

    def _sources(self) -> Sources:
        if not isinstance(self.A, Tensor):
            return OperatorSources(self.A if isinstance(self.A, Sequence) else [self.A])
        check_values("A", self.A)
        if self.A.ndim < 3:
            raise ValueError(f"A must have shape (..., s, m, N), got {tuple(self.A.shape)}")
        return DenseSources(self.A)

    @classmethod
    def random(
        cls,
        s: int = 2,
        m: int = 200,
        K: int = 10,
        N: int = 10,
        *,
        strengths: Tensor | None = None,
        dtype: torch.dtype = torch.complex128,
        generator: torch.Generator | None = None,
    ) -> BlindDemixing:
        r"""Gaussian factors of unit norm, Gaussian :math:`a_{ij}` with :math:`E a a^* = I`.

        Parameters
        ----------
        s, m, K, N
            Sources, measurements, and lengths of the factors, >= 1.
        strengths
            Norms of the h, shape ``(s,)``. Default 1.
        dtype
            Of the factors, complex.
        generator
            Where the numbers come from.

        Examples
        --------
        >>> problem = BlindDemixing.random(2, 50, 4, 3, generator=torch.Generator().manual_seed(0))
        >>> problem.residual(problem.truth).item() < 1e-14
        True
        """
        truth, A = _random_factors(s, m, K, N, dtype, generator)
        if strengths is not None:
            truth = Bilinear(truth.h * strengths.to(truth.h)[:, None], truth.x)
        return cls(_measured(truth, A, "dft"), A, K, truth=truth)

    @property
    def n_sources(self) -> int:
        """Number of sources, s."""
        return self.sources.shape[-3]

    def left(self, h: Tensor) -> Tensor:
        """B h for every source, shape ``(..., s, m)``."""
        return _left(h, self.B, self.y.shape[-1])

    def left_adjoint(self, w: Tensor) -> Tensor:
        """B^H w along the last dimension: ``(..., m)`` to ``(..., K)``."""
        if isinstance(self.B, Tensor):
            return w.to(self.dtype) @ self.B.to(self.dtype).conj()
        return torch.fft.ifft(w, norm="ortho")[..., : self.width]

    def right(self, x: Tensor) -> Tensor:
        r""":math:`x_i^* a_{ij}` for every source, shape ``(..., s, m)``."""
        return self.sources.forward(x.conj().resolve_conj())

    def forward(self, z: Bilinear) -> Tensor:
        """What the factors are measured as, shape ``(..., m)``."""
        return (self.left(z.h) * self.right(z.x)).sum(-2)

    def gradient(self, z: Bilinear, misfit: Tensor) -> Bilinear:
        r"""The gradient in the sense of Wirtinger, :math:`\partial f / \partial \bar h` and so on.

        .. math:: \nabla_{h_i} = \sum_j r_j \overline{x_i^* a_{ij}}\, b_j, \qquad
            \nabla_{x_i} = \sum_j \bar r_j\, (b_j^* h_i)\, a_{ij}
        """
        r = misfit.unsqueeze(-2)
        h = self.left_adjoint(r * self.right(z.x).conj())
        x = self.sources.transpose(r.conj() * self.left(z.h))
        return Bilinear(h, x)

    def misfit(self, x: Bilinear) -> Tensor:
        """What x is measured as, minus y, shape ``(..., m)``."""
        return self.forward(x) - self.y

    def value(self, x: Bilinear) -> Tensor:
        """f at x, shape of the batch."""
        return self.value_of(x, self.misfit(x))

    def value_of(self, x: Bilinear, misfit: Tensor) -> Tensor:
        """f, where the misfit is already at hand."""
        return misfit.abs().square().sum(-1)

    def residual(self, x: Bilinear) -> Tensor:
        """The norm of the misfit relative to that of y, shape of the batch."""
        return self.residual_of(self.misfit(x))

    def residual_of(self, misfit: Tensor) -> Tensor:
        """The relative residual, from a misfit already at hand."""
        return misfit.norm(dim=-1) / self.y.norm(dim=-1)

    def error(self, x: Bilinear) -> Tensor:
        r"""The relative error of all :math:`h_i x_i^*`, where the truth is known.

        .. math:: \Big(\sum_i \|h_i x_i^* - h_i^* x_i^{**}\|_F^2 \Big)^{1/2} \Big/
            \Big(\sum_i \|h_i^* x_i^{**}\|_F^2 \Big)^{1/2}

        (a star in a superscript of its own marks the truth). It does not depend on how a factor is
        shared between h and x.
        """
        if self.truth is None:
            raise ValueError("error needs a problem that knows its truth, got truth=None")
        truth = self.truth
        left = torch.stack(torch.broadcast_tensors(x.h, truth.h), dim=-1)
        right = torch.stack(torch.broadcast_tensors(x.x, -truth.x), dim=-1)
        # Triangular factors keep the digits that a difference of squares would lose.
        difference = torch.linalg.qr(left).R @ torch.linalg.qr(right).R.mH
        own = (truth.h.norm(dim=-1) * truth.x.norm(dim=-1)).norm(dim=-1)
        return torch.linalg.matrix_norm(difference).norm(dim=-1) / own

    def start(self, start: Any = "spectral", generator: torch.Generator | None = None) -> Bilinear:
        r"""The point a method begins at.

        Parameters
        ----------
        start
            ``"spectral"``: the leading singular triple of :math:`\sum_j y_j b_j a_{ij}^*`;
            ``"random"``: uniform directions, of the norm the data suggest; or `Bilinear` factors.
        generator
            Of the random start.
        """
        if isinstance(start, tuple):
            return self._checked("start", start)
        check.choice("start", start, ("spectral", "random"))
        s, N = self.n_sources, self.sources.shape[-1]
        batch = torch.broadcast_shapes(self.y.shape[:-1], self.sources.shape[:-3])
        if start == "random":
            energy = self.y.abs().square().sum(-1, keepdim=True) / (s * self.gain)
            size = energy.sqrt().sqrt().unsqueeze(-1)

            def direction(length: int) -> Tensor:
                shape = (*batch, s, length)
                v = torch.randn(shape, dtype=self.dtype, device=self.y.device, generator=generator)
                return size * v / v.norm(dim=-1, keepdim=True)

            return Bilinear(direction(self.width), direction(N))
        M = self.surrogate() / self.gain[..., None, None]
        U, S, Vh = torch.linalg.svd(M, full_matrices=False)
        root = S[..., :1].sqrt()
        return Bilinear(root * U[..., 0], root * Vh.mH[..., 0])

    def surrogate(self) -> Tensor:
        r""":math:`\sum_j y_j b_j a_{ij}^*` for every source, shape ``(..., s, K, N)``."""
        rows = []
        for k in range(self.width):
            e = torch.zeros(self.width, dtype=self.dtype, device=self.y.device)
            e[k] = 1
            weighted = (self.left(e) * self.y.conj()).unsqueeze(-2)  # one row of B^H diag(y), conj.
            rows.append(
                self.sources.transpose(
                    weighted.expand(*weighted.shape[:-2], self.n_sources, -1)
                ).conj()
            )
        return torch.stack(rows, dim=-2)

    def _checked(self, name: str, z: Any) -> Bilinear:
        s, N = self.n_sources, self.sources.shape[-1]
        z = Bilinear(*z)
        if tuple(z.h.shape[-2:]) != (s, self.width) or tuple(z.x.shape[-2:]) != (s, N):
            raise ValueError(
                f"{name} must have factors of shape (..., {s}, {self.width}) and (..., {s}, {N}), "
                f"got {tuple(z.h.shape)} and {tuple(z.x.shape)}"
            )
        where = {"dtype": self.dtype, "device": self.y.device}
        return Bilinear(z.h.to(**where), z.x.to(**where))


def _random_factors(
    s: int, m: int, K: int, N: int, dtype: torch.dtype, generator: torch.Generator | None
) -> tuple[Bilinear, Tensor]:
    for name, value in (("s", s), ("m", m), ("K", K), ("N", N)):
        check.number(name, value, ge=1, integer=True)
    device = generator.device if generator is not None else torch.device("cpu")

    def gaussian(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype, generator=generator, device=device)

    h, x, A = gaussian(s, K), gaussian(s, N), gaussian(s, m, N)
    return Bilinear(h / h.norm(dim=-1, keepdim=True), x / x.norm(dim=-1, keepdim=True)), A


def _left(h: Tensor, B: str | Tensor, m: int) -> Tensor:
    return h @ B.to(h).mT if isinstance(B, Tensor) else torch.fft.fft(h, n=m) / m**0.5


def _measured(z: Bilinear, A: Tensor, B: str | Tensor) -> Tensor:
    right = (A @ z.x.conj().unsqueeze(-1)).squeeze(-1)
    return (_left(z.h, B, A.shape[-2]) * right).sum(-2)


def check_values(name: str, values: Any) -> None:
    """Raise for what is not a floating-point tensor, or not finite."""
    if not isinstance(values, Tensor) or not (values.is_floating_point() or values.is_complex()):
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{name} must be a floating-point or complex tensor, got {got}")
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got an infinite or NaN entry")
