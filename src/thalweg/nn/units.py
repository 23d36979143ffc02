"""What a recurrent cell does with its pre-activation: the plain unit and the LSTM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from thalweg.core import check


class Unit(Protocol):
    """From the pre-activation `a` to the new h (and c), with the names of the state it keeps."""

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the state it keeps, h first."""

    @property
    def gates(self) -> int:
        """How many times hidden_size its pre-activation is."""

    @property
    def learns_bias(self) -> bool:
        """Whether it has a bias of its own, of size hidden_size."""

    def __call__(
        self, a: Tensor, state: tuple[Tensor, ...], bias: Tensor
    ) -> tuple[Tensor, ...]: ...


def lstm(a: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    r"""Gates i, f, g, o from `a`: :math:`c_t = f c_{t-1} + i g`, :math:`h_t = o \tanh c_t`."""
    i, f, g, o = a.chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def modrelu(a: Tensor, bias: Tensor) -> Tensor:
    r""":math:`\operatorname{sign}(a) \max(|a| + b, 0)`."""
    return torch.sign(a) * torch.relu(torch.abs(a) + bias)


@dataclass(frozen=True)
class LSTMUnit:
    """Four gates and a memory c."""

    state: ClassVar[tuple[str, ...]] = ("h", "c")
    gates: ClassVar[int] = 4
    learns_bias: ClassVar[bool] = False

    def __call__(self, a: Tensor, state: tuple[Tensor, ...], bias: Tensor) -> tuple[Tensor, ...]:
        return lstm(a, state[1])


@dataclass(frozen=True)
class RNNUnit:
    """One nonlinearity; with ``"modrelu"`` a bias is learned."""

    nonlinearity: str = "tanh"
    state: ClassVar[tuple[str, ...]] = ("h",)
    gates: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check.choice("nonlinearity", self.nonlinearity, ("tanh", "relu", "modrelu", "identity"))

    @property
    def learns_bias(self) -> bool:
        """Only modReLU does."""
        return self.nonlinearity == "modrelu"

    def __call__(self, a: Tensor, state: tuple[Tensor, ...], bias: Tensor) -> tuple[Tensor, ...]:
        if self.nonlinearity == "tanh":
            return (torch.tanh(a),)
        if self.nonlinearity == "relu":
            return (torch.relu(a),)
        if self.nonlinearity == "modrelu":
            return (modrelu(a, bias),)
        return (a,)
