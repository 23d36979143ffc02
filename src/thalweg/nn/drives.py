r"""How the input drives a recurrent cell: momentum and second moments, as in optimizers.

A drive takes the projected input :math:`e_t = W x_t + b_W`, the recurrent term
:math:`u_t = U h_{t-1} + b_U` and its own state, and returns the pre-activation and the new state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from thalweg.core import check


class Drive(Protocol):
    """The pre-activation of a cell, and the names of the state it keeps."""

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the state it keeps, in the order it takes and returns it."""

    def __call__(self, e: Tensor, u: Tensor, *state: Tensor) -> tuple[Tensor, ...]: ...


def momentum(e: Tensor, v: Tensor, *, mu: float, step: float) -> Tensor:
    r""":math:`v_t = \mu v_{t-1} + s\, e_t`."""
    return torch.add(step * e, v, alpha=mu)


def second_moment(e: Tensor, q: Tensor, *, beta: float) -> Tensor:
    r""":math:`q_t = \beta q_{t-1} + (1 - \beta)\, e_t^2`."""
    return beta * q + (1 - beta) * e * e


def normalized(v: Tensor, q: Tensor) -> Tensor:
    r""":math:`v_t / \sqrt{q_t + 10^{-16}}`; where 1e-16 is no normal number, the smallest one."""
    return v / torch.sqrt(q + max(1e-16, torch.finfo(q.dtype).tiny))


def next_count(k: Tensor, *, restart: int) -> Tensor:
    """The count of the next step: 1, 2, ..., `restart`, 1, ...; without end if `restart` is 0."""
    return k % restart + 1 if restart else k + 1


def nesterov_momentum(k: Tensor, dtype: torch.dtype) -> Tensor:
    r""":math:`\mu_k = (k - 1)/(k + 2)`."""
    return (k - 1).to(dtype) / (k + 2).to(dtype)


@dataclass(frozen=True)
class Momentum:
    """Heavy-ball momentum in the input: the pre-activation is u + v."""

    mu: float
    step: float
    state: ClassVar[tuple[str, ...]] = ("v",)

    def __post_init__(self) -> None:
        check.number("mu", self.mu, ge=0, lt=1)
        check.number("step", self.step, gt=0)

    def __call__(self, e: Tensor, u: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        (v,) = state
        v = momentum(e, v, mu=self.mu, step=self.step)
        return u + v, v


@dataclass(frozen=True)
class AdamDrive:
    """Momentum over the root of the second moment; without momentum it is RMSProp's."""

    mu: float
    step: float
    beta: float
    state: ClassVar[tuple[str, ...]] = ("v", "q")

    def __post_init__(self) -> None:
        check.number("mu", self.mu, ge=0, lt=1)
        check.number("step", self.step, gt=0)
        check.number("beta", self.beta, ge=0, lt=1)

    def __call__(self, e: Tensor, u: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        v, q = state
        v = momentum(e, v, mu=self.mu, step=self.step)
        q = second_moment(e, q, beta=self.beta)
        return u + normalized(v, q), v, q


@dataclass(frozen=True)
class Nesterov:
    """Nesterov's growing momentum in the input, restarted every `restart` steps (0: never)."""

    step: float
    restart: int = 0
    state: ClassVar[tuple[str, ...]] = ("v", "k")

    def __post_init__(self) -> None:
        check.number("step", self.step, gt=0)
        check.number("restart", self.restart, ge=0, integer=True)

    def __call__(self, e: Tensor, u: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        v, k = state
        k = next_count(k, restart=self.restart)
        v = nesterov_momentum(k, e.dtype) * v + self.step * e
        return u + v, v, k


@dataclass(frozen=True)
class OfficialNesterov(Nesterov):
    r"""The authors' LSTM code: momentum on :math:`p_t = u_t - s e_t`, the recurrent term included.

    Its state v holds :math:`p_{t-1}`.
    """

    def __call__(self, e: Tensor, u: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        previous, k = state
        k = next_count(k, restart=self.restart)
        p = u - self.step * e
        return p + nesterov_momentum(k, e.dtype) * (p - previous), p, k
