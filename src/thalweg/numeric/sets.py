r"""Constraint sets: projection in a weighted metric, linear minimization oracle, membership.

A projected optimizer asks a set for ``project(y, weights)``, a conditional-gradient method for
``minimize_linear(g)``. Tensors of any shape are accepted (:class:`NuclearBall` wants matrices) and
the answer has the shape, dtype and device of the question; it is a new tensor, outside autograd.
float16 and bfloat16 are computed in float32.

References
----------
Projections: Duchi, Shalev-Shwartz, Singer, Chandra, ICML 2008 (simplex, l1 ball); the weighted
metric of adaptive methods: Alacaoglu, Malitsky, Cevher, "Convergence of adaptive algorithms for
constrained weakly convex optimization", NeurIPS 2021. Oracles: Jaggi, "Revisiting Frank-Wolfe:
projection-free sparse convex optimization", ICML 2013.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric import projection
from thalweg.numeric._set import (
    Set,
    constant,
    corner,
    matching,
    require_matrix,
)
from thalweg.numeric.linear_sets import Affine, Halfspace

__all__ = ["Affine", "Box", "Halfspace", "L1Ball", "L2Ball", "NuclearBall", "Set", "Simplex"]


@dataclass(frozen=True, eq=False)
class Box(Set):
    r"""Bounds on every coordinate.

    .. math:: X = \{x : l \le x \le u\}, \qquad P_X^h(y)_i = \min(\max(y_i, l_i), u_i)
              \text{ for every } h.

    The oracle takes :math:`l_i` where :math:`g_i > 0` and :math:`u_i` where :math:`g_i < 0`.

    Parameters
    ----------
    low, high
        Numbers, or tensors of the shape of the points; low <= high; -inf and inf leave a side open.

    Raises
    ------
    ValueError
        If low > high somewhere, a bound is NaN, or the shapes differ.

    Examples
    --------
    >>> Box(-1.0, 1.0).project(torch.tensor([-3.0, 0.5, 2.0]))
    tensor([-1.0000,  0.5000,  1.0000])

    References
    ----------
    Alacaoglu, Malitsky, Cevher, NeurIPS 2021; oracle: Jaggi, ICML 2013.
    """

    low: float | Tensor
    high: float | Tensor

    def __post_init__(self) -> None:
        low, high = (
            constant("low", self.low, finite=False),
            constant("high", self.high, finite=False),
        )
        if low.dim() and high.dim() and low.shape != high.shape:
            raise ValueError(
                f"low and high must have one shape, got {tuple(low.shape)} and {tuple(high.shape)}"
            )
        if not bool((low.to(high.device) <= high).all()):
            raise ValueError(f"low must be <= high, got low={self.low!r}, high={self.high!r}")
        if bool((low == math.inf).any()) or bool((high == -math.inf).any()):
            raise ValueError(
                f"low must be < inf and high > -inf, got low={self.low!r}, high={self.high!r}"
            )

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return matching("low", self.low, like), matching("high", self.high, like)

    def _project(self, y: Tensor, weights: Tensor | None) -> Tensor:
        low, high = self._bounds(y)
        return y.clamp(low, high)

    def _minimize_linear(self, g: Tensor) -> Tensor:
        low, high = self._bounds(g)
        any_point = torch.zeros_like(g).clamp(low, high)
        x = torch.where(g > 0, low, torch.where(g < 0, high, any_point))
        if not bool(x.isfinite().all()):
            raise ValueError(
                "g must be 0 where the Box is open on the side that -g points to, "
                "got a g whose minimum is -inf"
            )
        return x

    def _violation(self, x: Tensor) -> Tensor:
        low, high = self._bounds(x)
        excess = torch.maximum(low - x, x - high)
        return (excess / x.abs().clamp(min=1)).amax()


@dataclass(frozen=True, eq=False)
class L2Ball(Set):
    r"""The Euclidean ball.

    .. math:: X = \{x : \|x - c\|_2 \le r\}, \qquad
              P_X^h(y)_i = c_i + \frac{h_i (y_i - c_i)}{h_i + \nu}, \quad
              \nu \ge 0 : \ \|P_X^h(y) - c\|_2 = r.

    `y` itself if inside. The root :math:`\nu` comes from Newton's method, to 1e-12. The oracle is
    :math:`c - r g / \|g\|_2`.

    Parameters
    ----------
    radius
        :math:`r > 0`.
    center
        :math:`c`, a tensor of the shape of the points. Default: 0.

    Raises
    ------
    ValueError
        If radius <= 0, or `center` is not finite.

    Examples
    --------
    >>> L2Ball(radius=1.0).project(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])

    References
    ----------
    Alacaoglu, Malitsky, Cevher, NeurIPS 2021; oracle: Jaggi, ICML 2013.
    """

    radius: float
    center: Tensor | None = None

    def __post_init__(self) -> None:
        check.number("radius", self.radius, gt=0)
        if self.center is not None:
            constant("center", self.center)

    def _offset(self, y: Tensor) -> Tensor:
        return y if self.center is None else y - matching("center", self.center, y)

    def _project(self, y: Tensor, weights: Tensor | None) -> Tensor:
        offset = self._offset(y)
        x = projection.onto_l2_ball(offset, weights, float(self.radius))
        if self.center is None:
            return x
        center = matching("center", self.center, y)
        # where inside, y itself: y - c + c could differ from y in the last bit
        return torch.where((x == offset).all(), y, center + x)

    def _minimize_linear(self, g: Tensor) -> Tensor:
        largest = g.abs().amax()
        unit = g / torch.where(largest > 0, largest, 1)  # so that no square under- or overflows
        norm = torch.linalg.vector_norm(unit, dtype=projection.wide(g)).clamp(min=1)
        x = unit * (-float(self.radius) / norm).to(g.dtype)
        return x if self.center is None else matching("center", self.center, g) + x

    def _violation(self, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(self._offset(x), dtype=projection.wide(x))
        return norm / float(self.radius) - 1


@dataclass(frozen=True)
class L1Ball(Set):
    r"""The ball of the sum of absolute values; its corners are sparse.

    .. math:: X = \{x : \|x\|_1 \le r\}, \qquad
              P_X^h(y)_i = \mathrm{sign}(y_i) \max(|y_i| - \nu / h_i, 0), \quad
              \nu \ge 0 : \ \|P_X^h(y)\|_1 = r.

    `y` itself if inside. The oracle is :math:`-r\, \mathrm{sign}(g_j) e_j` with
    :math:`j = \arg\max_i |g_i|`.

    Parameters
    ----------
    radius
        :math:`r > 0`.

    Raises
    ------
    ValueError
        If radius <= 0.

    Examples
    --------
    >>> L1Ball(radius=1.0).project(torch.tensor([2.0, -1.5, 0.1]))
    tensor([ 0.7500, -0.2500,  0.0000])

    References
    ----------
    Duchi et al., ICML 2008; weighted: Alacaoglu, Malitsky, Cevher, NeurIPS 2021; oracle: Jaggi,
    ICML 2013.
    """

    radius: float

    def __post_init__(self) -> None:
        check.number("radius", self.radius, gt=0)

    def _project(self, y: Tensor, weights: Tensor | None) -> Tensor:
        return projection.onto_l1_ball(y, weights, float(self.radius))

    def _minimize_linear(self, g: Tensor) -> Tensor:
        sign = g.flatten().sign()
        return corner(g, g.abs().flatten().argmax(), -float(self.radius) * sign)

    def _violation(self, x: Tensor) -> Tensor:
        return x.abs().sum(dtype=projection.wide(x)) / float(self.radius) - 1


@dataclass(frozen=True)
class Simplex(Set):
    r"""Non-negative entries with a given sum: probabilities.

    .. math:: X = \{x \ge 0 : \textstyle\sum_i x_i = s\}, \qquad
              P_X^h(y)_i = \max(y_i - \nu / h_i, 0), \quad \nu : \ \textstyle\sum_i P_X^h(y)_i = s.

    :math:`\nu` comes from one sort of the breakpoints :math:`y_i h_i`. The oracle is
    :math:`s e_j` with :math:`j = \arg\min_i g_i`.

    Parameters
    ----------
    total
        :math:`s > 0`. Default 1.

    Raises
    ------
    ValueError
        If total <= 0.

    Examples
    --------
    >>> Simplex().project(torch.tensor([1.0, 0.5, -1.0]))
    tensor([0.7500, 0.2500, 0.0000])

    References
    ----------
    Duchi et al., ICML 2008; weighted: Alacaoglu, Malitsky, Cevher, NeurIPS 2021; oracle: Jaggi,
    ICML 2013.
    """

    total: float = 1.0

    def __post_init__(self) -> None:
        check.number("total", self.total, gt=0)

    def _project(self, y: Tensor, weights: Tensor | None) -> Tensor:
        return projection.onto_simplex(y, weights, float(self.total))

    def _minimize_linear(self, g: Tensor) -> Tensor:
        flat = g.flatten()
        return corner(g, flat.argmin(), torch.full_like(flat, float(self.total)))

    def _violation(self, x: Tensor) -> Tensor:
        total = x.sum(dtype=projection.wide(x)) / float(self.total)
        return torch.maximum((total - 1).abs(), -x.amin() / float(self.total))


@dataclass(frozen=True)
class NuclearBall(Set):
    r"""Matrices whose singular values sum to at most r; its extreme points have rank one.

    .. math:: X = \{x : \|x\|_* \le r\}, \qquad
              P_X(y) = U \, \mathrm{diag}(P_{\ell_1}(\sigma)) \, V^\top, \quad
              y = U \, \mathrm{diag}(\sigma) \, V^\top,

    with :math:`P_{\ell_1}` the projection of :class:`L1Ball`. `y` itself if inside. The oracle is
    :math:`-r u_1 v_1^\top`, the leading singular pair of `g`. Points are 2-D; each call is a full
    SVD. With unequal weights there is no such formula, and `weights` is refused.

    Parameters
    ----------
    radius
        :math:`r > 0`.

    Raises
    ------
    ValueError
        If radius <= 0.

    Examples
    --------
    >>> NuclearBall(radius=1.0).project(torch.diag(torch.tensor([2.0, 1.5])))
    tensor([[0.7500, 0.0000],
            [0.0000, 0.2500]])

    References
    ----------
    Projection and oracle: Jaggi, ICML 2013; the l1 step: Duchi et al., ICML 2008.
    """

    radius: float

    def __post_init__(self) -> None:
        check.number("radius", self.radius, gt=0)

    def _project(self, y: Tensor, weights: Tensor | None) -> Tensor:
        if weights is not None:
            raise ValueError(
                "weights must be None for NuclearBall, got a tensor: a weighted metric is not "
                "unitarily invariant, so the projection is no function of the singular values"
            )
        require_matrix("y", y)
        U, sigma, Vh = torch.linalg.svd(y, full_matrices=False)
        shrunk = projection.onto_l1_ball(sigma, None, float(self.radius))
        return torch.where((shrunk == sigma).all(), y, (U * shrunk) @ Vh)

    def _minimize_linear(self, g: Tensor) -> Tensor:
        require_matrix("g", g)
        U, _, Vh = torch.linalg.svd(g, full_matrices=False)
        return -float(self.radius) * torch.outer(U[:, 0], Vh[0])

    def _violation(self, x: Tensor) -> Tensor:
        require_matrix("x", x)
        return torch.linalg.svdvals(x).sum(dtype=projection.wide(x)) / float(self.radius) - 1
