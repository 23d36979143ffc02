"""The Lanczos process: an orthonormal basis of a Krylov space and the operator on it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric.krylov.block import inner, norms, orthonormalize, wide
from thalweg.numeric.operator import LinearOperator


class RitzPairs(NamedTuple):
    r"""Eigenpairs of :math:`T = Q^* A Q`.

    Attributes
    ----------
    values
        ``(m,)`` float64, ascending: the Ritz values :math:`t_i`.
    coordinates
        ``(m, m)``: columns :math:`z_i`; the Ritz vector is :math:`y_i = Q z_i`.
    residuals
        ``(m,)``: :math:`\|A y_i - t_i y_i\|`, computed without a product as :math:`\|C z_i\|`
        (one start: :math:`\beta_m |z_{m,i}|`).
    """

    values: Tensor
    coordinates: Tensor
    residuals: Tensor


class Lanczos:
    r"""Lanczos process with full reorthogonalization, for one start or a block of b starts.

    .. math:: A Q = Q T + V C, \qquad Q^* Q = I,\quad V^* V = I,\quad Q^* V = 0

    with :math:`T = Q^* A Q`. Started with one vector, T is tridiagonal, :math:`V = q_{m+1}` and
    :math:`C = \beta_m e_m^T`:

    .. math:: w = A q_j - \beta_{j-1} q_{j-1}, \quad \alpha_j = q_j^* w, \quad
              w \leftarrow w - \alpha_j q_j, \quad \beta_j = \|w\|, \quad q_{j+1} = w / \beta_j

    where w is orthogonalized against all q before its norm is taken, and once more if less than
    :math:`1/\sqrt 2` of w is left. A step multiplies `V` by A and takes it into Q; the caller makes
    the product, so that several processes can share one block product:

    >>> A = torch.diag(torch.arange(6, dtype=torch.float64))
    >>> process = Lanczos(torch.ones(6, dtype=torch.float64))
    >>> while process.active:
    ...     process.step(A @ process.V)
    >>> [round(t, 8) + 0.0 for t in process.ritz().values.tolist()]
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]

    Parameters
    ----------
    start
        ``(n,)`` or ``(n, b)``, not zero; orthonormalized here. Its dtype is that of the vectors.
    capacity
        Vectors to make room for at once; the basis grows beyond if needed. Default 0.

    Attributes
    ----------
    V
        ``(n, b)``: what the next product is taken of; no columns once the space is invariant.
    C
        ``(b, m)``: the coupling.
    dropped
        A bound of the part of :math:`A Q - Q T - V C` that was left out because it was at most
        1e-6 (float32) or 1e-12 (float64) times b times the largest entry of T: what makes a space
        count as invariant. In floating point that is *not* exact: see `thalweg.numeric.krylov`.
    rounding
        What the products are wrong by, as far as their asymmetry
        :math:`|q_i^* A q_j - \overline{q_j^* A q_i}|` has shown so far: the largest; eps once it
        was too large for rounding relative to A.
    steps
        Products with V so far (block steps), since the start.

    References
    ----------
    Parlett, "The Symmetric Eigenvalue Problem", SIAM 1998, ch. 6.9 ("twice is enough") and 13;
    Golub & Underwood, "The block Lanczos method for computing eigenvalues", 1977.
    """

    def __init__(self, start: Tensor, capacity: int = 0) -> None:
        if start.ndim not in (1, 2) or not (start.is_floating_point() or start.is_complex()):
            raise ValueError(
                f"start must be real or complex, of shape (n,) or (n, b), got {start.dtype} of "
                f"shape {tuple(start.shape)}"
            )
        start = start.reshape(len(start), -1)
        if start.shape[1] > start.shape[0]:
            raise ValueError(
                f"start must have at most n = {start.shape[0]} columns, got {start.shape[1]}"
            )
        size = float(norms(start).max())
        if not (math.isfinite(size) and size > 0):
            raise ValueError(f"start must be finite and not zero, got norm {size}")
        self.n = start.shape[0]
        self.dtype, self.device = start.dtype, start.device
        self.tolerance = 1e-6 if torch.finfo(start.dtype).eps > 1e-10 else 1e-12
        self.V, _, _ = orthonormalize(start, self.tolerance * size)
        self.m = 0
        self.steps = 0
        self.scale = 0.0  # the largest entry of T so far
        self.dropped = 0.0
        self.rounding = 0.0
        self.C = torch.zeros(self.V.shape[1], 0, dtype=wide(start.dtype))
        self._coupled = 0  # C is zero left of this column
        self._T = self.C[:0]
        self._rows = start.new_empty(0, self.n)
        self._reserve(min(capacity, self.n))

    @property
    def active(self) -> bool:
        """Whether there is a direction left to multiply with."""
        return self.V.shape[1] > 0

    @property
    def invariant(self) -> bool:
        """Whether the space is invariant up to rounding although it is not the whole space."""
        return not self.active and self.m < self.n

    @property
    def T(self) -> Tensor:
        """``(m, m)`` in float64 or complex128, on the CPU."""
        return self._T[: self.m, : self.m]

    @property
    def Q(self) -> Tensor:
        """``(n, m)``: the basis."""
        return self._rows[: self.m].T

    @property
    def coupling(self) -> float:
        r"""A bound of :math:`\|A Q - Q T\|_2` (one start: :math:`\beta_m`)."""
        norm = float(torch.linalg.matrix_norm(self.C, 2)) if self.C.numel() else 0.0
        return norm + self.dropped

    def step(self, W: Tensor) -> None:
        """Take V into the basis, given the product ``W = A @ V``.

        Raises
        ------
        ValueError
            If the product is not finite, or the operator is not symmetric (Hermitian).
        """
        V, C = self.V, self.C
        m, b = self.m, V.shape[1]
        W = W.reshape(self.n, b)
        if not bool(torch.isfinite(norms(W)).all()):
            raise ValueError("the operator returned a product that is not finite")
        self._reserve(m + b)
        if b == 1:  # thirty times as fast as torch's way to copy a transpose
            self._rows[m] = V[:, 0]
        else:
            self._rows[m : m + b] = V.T
        A = inner(V, W).cpu()
        A = (A + A.mH) / 2
        self._T[m : m + b, m : m + b] = A
        self._T[m : m + b, :m] = C
        self._T[:m, m : m + b] = C.mH
        self.scale = max(self.scale, float(A.abs().max()))
        near = self._rows[self._coupled : m + b].T
        W = W - near @ torch.cat([C[:, self._coupled :].mH, A]).to(W)
        Q = self._rows[: m + b].T
        first = inner(Q, W)
        W = W - Q @ first.to(W)
        # once more where that has taken most of W away: what is left is then rounding along Q too
        if bool((torch.linalg.vector_norm(first, dim=0) > norms(W)).any()):
            W = W - Q @ inner(Q, W).to(W)
        if m + b >= self.n:  # the basis is complete: what is left of W is rounding
            W = torch.zeros_like(W)
        self.V, R, dropped = orthonormalize(W, b * self.tolerance * self.scale)
        if R.shape[0] > 1 and float(norms(R.mH).min()) < 1e-2 * float(norms(R.mH).max()):
            # dividing by a small singular value has blown up what rounding left along Q
            self.V, S, _ = orthonormalize(self.V - Q @ inner(Q, self.V).to(W))
            R = S @ R
        if R.numel():
            self.scale = max(self.scale, float(R.abs().max()))
        self._check_symmetric(first)
        self.dropped = math.hypot(self.dropped, dropped)
        self.C = torch.cat([C.new_zeros(R.shape[0], m), R], dim=1)
        self._coupled = m
        self.m += b
        self.steps += 1

    def ritz(self) -> RitzPairs:
        """The eigenpairs of T, with the residual norms of the Ritz pairs."""
        values, Z = torch.linalg.eigh(self.T)
        return RitzPairs(values, Z, torch.linalg.vector_norm(self.C @ Z, dim=0) + self.dropped)

    def vectors(self, coordinates: Tensor) -> Tensor:
        """``(n, k)``: the vectors Q z for the columns z of `coordinates`."""
        return self._rows[: self.m].T @ coordinates.to(self._rows)

    def replace(self, coordinates: Tensor, values: Tensor) -> None:
        r"""Keep only the Ritz vectors Q Z: :math:`Q \leftarrow QZ,\ T \leftarrow
        \operatorname{diag}(t),\ C \leftarrow C Z` (the thick restart)."""
        kept = coordinates.shape[1]
        self._rows[:kept] = coordinates.T.to(self._rows) @ self._rows[: self.m]
        self._T[:kept, :kept] = torch.diag(values.to(self._T))
        self.C = self.C @ coordinates
        self.m, self._coupled = kept, 0

    def _check_symmetric(self, correction: Tensor) -> None:
        # exactly orthogonal but for rounding, if A is symmetric: A q_j meets only its neighbours
        defect = float(correction.abs().max())
        # A product rounds as the sums that it is made of do, which may cancel: the softmax of a
        # network that is sure has p (v - p^T v) with p = 1 up to eps, so that the row of the true
        # class is lost while those of the others are exact, whatever small size the Hessian has.
        # With terms of order one (a unit vector, probabilities, activations) that is an error of
        # eps, below which asymmetry is no sign of a wrong operator. What asymmetry does not show
        # is then as wrong, so all of eps counts as error.
        eps = torch.finfo(self.dtype).eps
        relative = defect <= math.sqrt(eps) * self.scale
        self.rounding = max(self.rounding, defect if relative else eps)
        if not relative and not defect <= eps:
            raise ValueError(
                "the operator must be symmetric (Hermitian) and the same at every product: "
                f"q_i^* A q_j and q_j^* A q_i differ by {defect:.3g}, entries are up to "
                f"{self.scale:.3g}"
            )

    def _reserve(self, size: int) -> None:
        have = self._rows.shape[0]
        if size > have:
            more = min(max(size, have + max(8, have // 2)), self.n)
            rows = self._rows.new_empty(more, self.n)
            rows[: self.m] = self._rows[: self.m]
            T = self._T.new_zeros(more, more)
            T[: self.m, : self.m] = self.T
            self._rows, self._T = rows, T


def lanczos(operator: LinearOperator, start: Tensor, steps: int) -> Lanczos:
    r"""Run `steps` steps of the Lanczos process, or fewer if the space becomes invariant.

    .. math:: A Q = Q T + V C

    Parameters
    ----------
    operator
        Symmetric (Hermitian).
    start
        ``(n,)`` or a block ``(n, b)``.
    steps
        Steps, >= 1; each takes as many products as the start has columns.

    Returns
    -------
    Lanczos
        The process; call `step` on to continue it.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> A = as_operator(torch.tensor([[1.0, 0.0], [0.0, -1.0]], dtype=torch.float64))
    >>> process = lanczos(A, torch.tensor([1.0, 2.0], dtype=torch.float64), 2)
    >>> [round(t, 12) for t in process.ritz().values.tolist()]
    [-1.0, 1.0]
    """
    steps = int(check.number("steps", steps, ge=1, integer=True))
    process = Lanczos(start)
    while process.active and process.steps < steps:
        process.step(multiply(operator, process.V))
    return process


def multiply(operator: LinearOperator, V: Tensor) -> Tensor:
    """``A @ V`` for ``(n, b)``; one column goes as a vector, cheaper for most operators."""
    return (operator @ V[:, 0])[:, None] if V.shape[1] == 1 else operator @ V


def sphere(
    n: int,
    b: int,
    generator: torch.Generator | None,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> Tensor:
    """``(n, b)``: vectors drawn uniformly from the unit sphere, independently.

    They are drawn in double precision where the generator is (None: the CPU, seed 0), so that
    every device and every process gets the same.

    Examples
    --------
    >>> round(float(sphere(5, 1, None, torch.float64).norm()), 12)
    1.0
    """
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    # column by column: the first draws do not depend on how many follow
    x = torch.empty(n, b, dtype=wide(dtype), device=generator.device)
    for j in range(b):
        x[:, j] = torch.randn(n, generator=generator, dtype=x.dtype, device=x.device)
    return (x / torch.linalg.vector_norm(x, dim=0)).to(device=device, dtype=dtype)
