r"""Convex functions K for `LionK`: each is a constraint or a penalty on :math:`\lambda x`.

Every one has four methods, on a tensor m (or :math:`y = \lambda x`) of a parameter's shape:

- ``value(m)``: :math:`K(m)`;
- ``grad(m)``: a subgradient; at a kink 0 in the coordinates that are undecided;
- ``conj(y)``: the conjugate :math:`K^*(y) = \sup_m \langle m, y\rangle - K(m)`, infinite outside;
- ``in_dom(y)``: is :math:`K^*(y)` finite? (up to rounding).

``elementwise`` says that coordinates do not see one another, so that `LionK` runs at Lion's speed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from thalweg.core import check


class ConvexFunction(Protocol):
    """What `LionK` asks of K."""

    @property
    def elementwise(self) -> bool:
        """Whether coordinates do not see one another."""

    def value(self, m: Tensor, /) -> Tensor:
        r""":math:`K(m)`."""

    def grad(self, m: Tensor, /) -> Tensor:
        """A subgradient at m; at a kink 0 in the coordinates that are undecided."""

    def conj(self, y: Tensor, /) -> Tensor:
        r"""The conjugate :math:`K^*(y) = \sup_m \langle m, y\rangle - K(m)`, or infinity."""

    def in_dom(self, y: Tensor, /) -> bool:
        r"""Whether :math:`K^*(y)` is finite, up to rounding."""


@dataclass(frozen=True)
class Kappa:
    r"""A convex function of your own, from its four methods (pure functions of one tensor).

    Examples
    --------
    >>> weighted = Kappa(
    ...     value=lambda m: 2 * m.abs().sum(),
    ...     grad=lambda m: 2 * m.sign(),
    ...     conj=lambda y: torch.where(y.abs().amax() <= 2, 0.0, torch.inf),
    ...     in_dom=lambda y: bool(y.abs().amax() <= 2),
    ...     elementwise=True,
    ... )
    >>> weighted.grad(torch.tensor([-3.0, 0.0]))
    tensor([-2.,  0.])
    """

    value: Callable[[Tensor], Tensor]
    grad: Callable[[Tensor], Tensor]
    conj: Callable[[Tensor], Tensor]
    in_dom: Callable[[Tensor], bool]
    elementwise: bool = False


def _at_most(value: Tensor, bound: float) -> bool:
    """``value <= bound``, up to the rounding of a computed norm."""
    return bool(value <= bound * (1 + 64 * torch.finfo(value.dtype).eps))


def _norm(t: Tensor, p: float = 2.0) -> Tensor:
    return torch.linalg.vector_norm(t, p)


def _largest(t: Tensor) -> Tensor:
    return _norm(t, math.inf) if t.numel() else t.new_zeros(())


def _within(inside: bool, value: Tensor) -> Tensor:
    """`value` in the domain, infinity outside."""
    return value if inside else torch.full_like(value, math.inf)


class _InTheBox:
    """Functions whose conjugate is finite exactly where every :math:`|y_i| \\le 1`."""

    elementwise: ClassVar[bool] = True

    def in_dom(self, y: Tensor) -> bool:
        return _at_most(_largest(y), 1.0)


@dataclass(frozen=True)
class L1(_InTheBox):
    r"""Lion: :math:`\sum_i |m_i|`; keeps every :math:`|\lambda x_i| \le 1`."""

    def value(self, m: Tensor) -> Tensor:
        return m.abs().sum()

    def grad(self, m: Tensor) -> Tensor:
        return m.sign()

    def conj(self, y: Tensor) -> Tensor:
        return _within(self.in_dom(y), y.new_zeros(()))


@dataclass(frozen=True)
class HalfSquare:
    r"""SGD with momentum: :math:`\frac12\|m\|^2`; the penalty :math:`\frac\lambda2\|x\|^2`."""

    elementwise: ClassVar[bool] = True

    def value(self, m: Tensor) -> Tensor:
        return m.square().sum() / 2

    def grad(self, m: Tensor) -> Tensor:
        return m

    def conj(self, y: Tensor) -> Tensor:
        return y.square().sum() / 2

    def in_dom(self, y: Tensor) -> bool:
        return True


@dataclass(frozen=True)
class LpNorm:
    r""":math:`\|m\|_p`, 1 < p < infinity: the ball :math:`\|\lambda x\|_q \le 1`, 1/p + 1/q = 1."""

    p: float
    elementwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check.number("p", self.p, gt=1)

    def value(self, m: Tensor) -> Tensor:
        return _norm(m, self.p)

    def grad(self, m: Tensor) -> Tensor:
        norm = _norm(m, self.p)
        ratio = torch.where(norm == 0, 0.0, m.abs() / norm)
        return m.sign() * ratio ** (self.p - 1)

    def conj(self, y: Tensor) -> Tensor:
        return _within(self.in_dom(y), y.new_zeros(()))

    def in_dom(self, y: Tensor) -> bool:
        return _at_most(_norm(y, self.p / (self.p - 1)), 1.0)


@dataclass(frozen=True)
class GroupNorm:
    r"""Norms of rows, :math:`\sum_G \|m_G\|_2`: each row of :math:`\lambda x` in the unit ball.

    A row is what one index of the first dimension holds; vectors and scalars get `L1`.
    """

    elementwise: ClassVar[bool] = False

    def _rows(self, m: Tensor) -> Tensor:
        """The norm of every row, in a shape that multiplies m."""
        return torch.linalg.vector_norm(m, dim=tuple(range(1, m.dim())), keepdim=True)

    def value(self, m: Tensor) -> Tensor:
        return L1().value(m) if m.dim() < 2 else self._rows(m).sum()

    def grad(self, m: Tensor) -> Tensor:
        if m.dim() < 2:
            return m.sign()
        norms = self._rows(m)
        return torch.where(norms == 0, 0.0, m / norms)

    def conj(self, y: Tensor) -> Tensor:
        return _within(self.in_dom(y), y.new_zeros(()))

    def in_dom(self, y: Tensor) -> bool:
        return _at_most(_largest(y if y.dim() < 2 else self._rows(y)), 1.0)


@dataclass(frozen=True)
class Huber(_InTheBox):
    r""":math:`m^2/(2e)` inside :math:`|m| \le e`, :math:`|m| - e/2` outside: the box, and a penalty
    :math:`\frac e2\|y\|^2`."""

    e: float

    def __post_init__(self) -> None:
        check.number("e", self.e, gt=0)

    def value(self, m: Tensor) -> Tensor:
        size = m.abs()
        return torch.where(size <= self.e, m.square() / (2 * self.e), size - self.e / 2).sum()

    def grad(self, m: Tensor) -> Tensor:
        return m.clamp(-self.e, self.e) / self.e

    def conj(self, y: Tensor) -> Tensor:
        return _within(self.in_dom(y), self.e / 2 * y.square().sum())


@dataclass(frozen=True)
class Threshold(_InTheBox):
    r""":math:`\sum_i \max(|m_i| - e, 0)`: the box, and the sparsity penalty :math:`e\|y\|_1`."""

    e: float

    def __post_init__(self) -> None:
        check.number("e", self.e, ge=0)

    def value(self, m: Tensor) -> Tensor:
        return (m.abs() - self.e).clamp_min(0).sum()

    def grad(self, m: Tensor) -> Tensor:
        return torch.where(m.abs() > self.e, m.sign(), 0.0)

    def conj(self, y: Tensor) -> Tensor:
        return _within(self.in_dom(y), self.e * y.abs().sum())


@dataclass(frozen=True)
class SmoothL1(_InTheBox):
    r""":math:`\sum_i \sqrt{m_i^2 + e^2}`: the box, smoothly; :math:`K^* = -e\sum\sqrt{1 - y^2}`."""

    e: float

    def __post_init__(self) -> None:
        check.number("e", self.e, gt=0)

    def value(self, m: Tensor) -> Tensor:
        return (m.square() + self.e**2).sqrt().sum()

    def grad(self, m: Tensor) -> Tensor:
        return m / (m.square() + self.e**2).sqrt()

    def conj(self, y: Tensor) -> Tensor:
        return _within(self.in_dom(y), -self.e * (1 - y.square()).clamp_min(0).sqrt().sum())


@dataclass(frozen=True)
class TopK:
    r"""The k largest :math:`|m_i|` of a tensor, summed: the box, and :math:`\|\lambda x\|_1 \le k`.

    Of equal ones the first counts. In a tensor with fewer than k entries, all count.
    """

    k: int
    elementwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check.number("k", self.k, ge=1, integer=True)

    def _order(self, m: Tensor) -> Tensor:
        return m.flatten().abs().sort(descending=True, stable=True).indices[: self.k]

    def value(self, m: Tensor) -> Tensor:
        return m.flatten()[self._order(m)].abs().sum()

    def grad(self, m: Tensor) -> Tensor:
        chosen = torch.zeros_like(m).flatten()
        chosen[self._order(m)] = 1.0
        return m.sign() * chosen.view(m.shape)

    def conj(self, y: Tensor) -> Tensor:
        return _within(self.in_dom(y), y.new_zeros(()))

    def in_dom(self, y: Tensor) -> bool:
        return _at_most(_largest(y), 1.0) and _at_most(_norm(y, 1), float(self.k))


@dataclass(frozen=True)
class LogCosh(_InTheBox):
    r""":math:`\sum_i \log\cosh m_i`: the box, and the entropy
    :math:`\frac12\sum (1+y)\log(1+y) + (1-y)\log(1-y)`."""

    def value(self, m: Tensor) -> Tensor:
        size = m.abs()
        return (size + torch.log1p(torch.exp(-2 * size)) - math.log(2)).sum()

    def grad(self, m: Tensor) -> Tensor:
        return m.tanh()

    def conj(self, y: Tensor) -> Tensor:
        inside = y.clamp(-1, 1)
        entropy = torch.xlogy(1 + inside, 1 + inside) + torch.xlogy(1 - inside, 1 - inside)
        return _within(self.in_dom(y), entropy.sum() / 2)


@dataclass(frozen=True)
class Nuclear:
    r"""The sum of singular values: :math:`\lambda x` has spectral norm at most 1, as under Muon.

    A tensor is seen as (first dimension, all others); vectors and scalars get `L1`. The subgradient
    is :math:`U V^\top` without the singular values that are 0 up to rounding.
    """

    elementwise: ClassVar[bool] = False

    def value(self, m: Tensor) -> Tensor:
        return L1().value(m) if m.dim() < 2 else torch.linalg.svdvals(m.flatten(1)).sum()

    def grad(self, m: Tensor) -> Tensor:
        if m.dim() < 2:
            return m.sign()
        u, s, vt = torch.linalg.svd(m.flatten(1), full_matrices=False)
        zero = s <= max(u.shape[0], vt.shape[1]) * torch.finfo(s.dtype).eps * s[:1]
        return (torch.where(zero, 0.0, u) @ vt).view(m.shape)

    def conj(self, y: Tensor) -> Tensor:
        return _within(self.in_dom(y), y.new_zeros(()))

    def in_dom(self, y: Tensor) -> bool:
        return _at_most(_largest(y if y.dim() < 2 else torch.linalg.svdvals(y.flatten(1))), 1.0)
