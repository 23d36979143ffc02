"""Sets cut out by linear constraints: `Halfspace` and `Affine`."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric import projection
from thalweg.numeric._set import Set, constant, matching, require_finite_minimum


@dataclass(frozen=True, eq=False)
class Halfspace(Set):
    r"""One linear inequality.

    .. math:: X = \{x : a^\top x \le b\}, \qquad
              P_X^h(y) = y - \frac{a}{h} \, \frac{\max(a^\top y - b, 0)}{\sum_i a_i^2 / h_i}.

    The oracle exists for :math:`g = -\mu a`, :math:`\mu \ge 0`, only: elsewhere the minimum is
    -inf. It returns the point :math:`a b / \|a\|^2` of the boundary nearest to 0; `g` counts as a
    multiple of `a` up to the square root of the rounding unit of its dtype.

    Parameters
    ----------
    a
        Normal vector, not zero, a tensor of the shape of the points (or flat).
    b
        Offset.

    Raises
    ------
    ValueError
        If `a` is zero or not finite, or `b` is not finite.

    Examples
    --------
    >>> Halfspace(torch.tensor([1.0, 1.0]), b=1.0).project(torch.tensor([2.0, 1.0]))
    tensor([1., 0.])

    References
    ----------
    Alacaoglu, Malitsky, Cevher, NeurIPS 2021.
    """

    a: Tensor
    b: float

    def __post_init__(self) -> None:
        constant("a", self.a)
        if not bool((self.a != 0).any()):
            raise ValueError("a must have a nonzero entry, got all zeros")
        check.number("b", self.b)

    def _normal(self, like: Tensor) -> tuple[Tensor, float]:
        """The inequality over its largest coefficient, so that no square under- or overflows."""
        a = self.a.reshape(like.shape) if self.a.shape == (like.numel(),) else self.a
        a = matching("a", a, like).to(projection.wide(like))
        largest = a.abs().amax()
        return a / largest, float(self.b) / float(largest)

    def _project(self, y: Tensor, weights: Tensor | None) -> Tensor:
        a, b = self._normal(y)
        return projection.onto_halfspace(y, weights, a, b)

    def _minimize_linear(self, g: Tensor) -> Tensor:
        a, b = self._normal(g)
        multiplier = ((a * g).sum() / a.square().sum()).clamp(max=0)
        require_finite_minimum(g, g - multiplier * a, "a negative multiple of `a`")
        return a * (b / a.square().sum())

    def _violation(self, x: Tensor) -> Tensor:
        a, b = self._normal(x)
        distance = ((a * x).sum() - b) / torch.linalg.vector_norm(a)
        size = torch.linalg.vector_norm(x, dtype=a.dtype).clamp(min=1)
        return distance / size


@dataclass(frozen=True, eq=False)
class Affine(Set):
    r"""Linear equations; with one row, a hyperplane.

    .. math:: X = \{x : A x = b\}, \qquad
              P_X^h(y) = y - H^{-1} A^\top (A H^{-1} A^\top)^{-1} (A y - b), \quad
              H = \mathrm{diag}(h).

    Points are flattened to d entries. The oracle exists for `g` in the row space of `A` only:
    elsewhere the minimum is -inf. It returns the solution of least norm; `g` counts as in the row
    space up to the square root of the rounding unit of its dtype. `A` is factored when the set is
    made: do not change it afterwards.

    Parameters
    ----------
    A
        Coefficients, shape (m, d), of rank m.
    b
        Right-hand side, shape (m,), or a number if m = 1.

    Raises
    ------
    ValueError
        If `A` is not 2-D, not finite or not of full row rank, or `b` does not fit it.

    Examples
    --------
    >>> zero_sum = Affine(torch.ones(1, 3), b=0.0)
    >>> zero_sum.project(torch.tensor([1.0, 2.0, 6.0]))
    tensor([-2., -1.,  3.])

    References
    ----------
    Boyd, Vandenberghe, "Convex optimization", Cambridge 2004, section 8.1; weighted: Alacaoglu,
    Malitsky, Cevher, NeurIPS 2021.
    """

    A: Tensor
    b: float | Tensor
    _factor: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        A = constant("A", self.A)
        if A.dim() != 2 or A.numel() == 0:
            raise ValueError(f"A must be 2-D (m, d) and not empty, got shape {tuple(A.shape)}")
        b = constant("b", self.b)
        if b.shape != (A.shape[0],) and not (b.dim() == 0 and A.shape[0] == 1):
            raise ValueError(
                f"b must have shape ({A.shape[0]},), one entry per row of A, got {tuple(b.shape)}"
            )
        with torch.no_grad():
            factor = projection.gram_factor(A.to(projection.wide(A)))
        object.__setattr__(self, "_factor", factor)

    def _equations(self, name: str, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if like.numel() != self.A.shape[1]:
            raise ValueError(
                f"{name} must have {self.A.shape[1]} elements, one per column of A, "
                f"got shape {tuple(like.shape)}"
            )
        dtype, device = projection.wide(like), like.device
        b = constant("b", self.b).reshape(-1)  # a number becomes float64, not torch's default
        return self.A.to(device, dtype), b.to(device, dtype), self._factor.to(device, dtype)

    def _project(self, y: Tensor, weights: Tensor | None) -> Tensor:
        return projection.onto_affine(y, weights, *self._equations("y", y))

    def _minimize_linear(self, g: Tensor) -> Tensor:
        A, b, factor = self._equations("g", g)
        outside_row_space = projection.onto_affine(
            g.to(A.dtype), None, A, torch.zeros_like(b), factor
        )
        require_finite_minimum(g, outside_row_space, "in the row space of A")
        return projection.onto_affine(torch.zeros_like(g, dtype=A.dtype), None, A, b, factor)

    def _violation(self, x: Tensor) -> Tensor:
        A, b, _ = self._equations("x", x)
        x = x.flatten().to(A.dtype)
        distance = (A @ x - b).abs() / torch.linalg.vector_norm(A, dim=1)
        return distance.amax() / torch.linalg.vector_norm(x).clamp(min=1)
