"""Recurrent cells and layers of any unit and drive, shaped like torch.nn.LSTMCell and LSTM."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from thalweg.core import check
from thalweg.nn.recurrence import State, recur

if TYPE_CHECKING:
    from thalweg.nn.drives import Drive
    from thalweg.nn.units import Unit


class Weights(NamedTuple):
    """The weights of one cell; None for those it does not have."""

    weight_ih: Any
    weight_hh: Any
    bias_ih: Any
    bias_hh: Any
    bias_modrelu: Any

    def project(self, x: Tensor) -> Tensor:
        r"""The projected input :math:`W x + b_W`."""
        return F.linear(x, self.weight_ih, self.bias_ih)


class CellOptions(TypedDict, total=False):
    """Keyword arguments of every cell, with torch's meaning and defaults."""

    bias: bool
    device: torch.device | str | None
    dtype: torch.dtype | None


class LayerOptions(CellOptions, total=False):
    """Keyword arguments of every layer, with torch's meaning and defaults."""

    batch_first: bool
    dropout: float
    bidirectional: bool


class Recurrent(nn.Module):
    """The weights of one or more cells, named as torch names them, and one step of a cell."""

    def __init__(
        self, unit: Unit, drive: Drive, input_size: int, hidden_size: int, bias: bool = True
    ) -> None:
        super().__init__()
        check.number("input_size", input_size, ge=1, integer=True)
        check.number("hidden_size", hidden_size, ge=1, integer=True)
        if not isinstance(bias, bool):
            raise TypeError(f"bias must be True or False, got {bias!r}")
        self.unit, self.drive = unit, drive
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias

    @property
    def state_names(self) -> tuple[str, ...]:
        """The members of the state, h first: ``("h", "c", "v")``."""
        return (*self.unit.state, *self.drive.state)

    def _make_weights(self, suffix: str, input_size: int, how: dict[str, Any]) -> None:
        rows = self.unit.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, input_size),
            "weight_hh": (rows, self.hidden_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.unit.learns_bias:
            shapes |= {"bias_modrelu": (self.hidden_size,)}
        for name, shape in shapes.items():
            self.register_parameter(name + suffix, nn.Parameter(torch.empty(shape, **how)))

    def reset_parameters(self) -> None:
        """As the authors' code: W orthogonal, U the eye, biases 0, the forget gate's 1 in both.

        The eye of U's 4H x H is the identity for the input gate and zero for the others. The bias
        of modReLU is uniform in [-0.01, 0.01].
        """
        for name, weight in self.named_parameters():
            if name.startswith("weight_ih"):
                # short formats have no QR factorization
                wide = torch.empty_like(
                    weight, dtype=torch.promote_types(weight.dtype, torch.float32)
                )
                with torch.no_grad():
                    weight.copy_(nn.init.orthogonal_(wide))
            elif name.startswith("weight_hh"):
                nn.init.eye_(weight)
            elif name.startswith("bias_modrelu"):
                nn.init.uniform_(weight, -0.01, 0.01)
            else:
                nn.init.zeros_(weight)
                if self.unit.gates == 4:
                    with torch.no_grad():
                        weight[self.hidden_size : 2 * self.hidden_size] = 1.0

    def _weights(self, suffix: str) -> Weights:
        return Weights(*(getattr(self, name + suffix, None) for name in Weights._fields))

    def _advance(self, e: Tensor, state: State, weights: Weights) -> State:
        """One step of a cell from the projected input."""
        u = F.linear(state[0], weights.weight_hh, weights.bias_hh)
        kept = len(self.unit.state)
        a, *driven = self.drive(e, u, *state[kept:])
        return (*self.unit(a, state[:kept], weights.bias_modrelu), *driven)

    def _sizes(self) -> dict[str, int]:
        rows = self.unit.gates * self.hidden_size
        size = {"h": self.hidden_size, "c": self.hidden_size, "v": rows, "q": rows, "k": 1}
        return {name: size[name] for name in self.state_names}

    def _zero_state(self, like: Tensor, *leading: int) -> State:
        return tuple(
            like.new_zeros(*leading, size, dtype=torch.int64 if name == "k" else like.dtype)
            for name, size in self._sizes().items()
        )

    def _check_input(self, x: Tensor) -> None:
        check.floating("input", x)
        if x.shape[-1] != self.input_size:
            raise ValueError(
                f"input must have last size input_size={self.input_size}, got {tuple(x.shape)}"
            )

    def _check_state(self, hx: Any, *leading: int) -> None:
        names = self.state_names
        if not isinstance(hx, tuple | list) or len(hx) != len(names):
            got = f"{len(hx)} members" if isinstance(hx, tuple | list) else type(hx).__name__
            raise ValueError(f"hx must be a tuple ({', '.join(names)}), got {got}")
        for (name, size), member in zip(self._sizes().items(), hx, strict=True):
            if tuple(member.shape) != (*leading, size):
                raise ValueError(
                    f"hx: {name} must have shape {(*leading, size)}, got {tuple(member.shape)}"
                )

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, {self.drive}, bias={self.bias}"


class RecurrentCell(Recurrent):
    """One step at a time, like `torch.nn.LSTMCell`."""

    def __init__(
        self,
        unit: Unit,
        drive: Drive,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(unit, drive, input_size, hidden_size, bias)
        self._make_weights("", input_size, {"device": device, "dtype": dtype})
        self.reset_parameters()

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        """The state after `input`, of shape (batch, input_size) or (input_size,); zeros before."""
        self._check_input(input)
        if input.dim() not in (1, 2):
            raise ValueError(f"input must have 1 or 2 dimensions, got {tuple(input.shape)}")
        leading = input.shape[:-1]
        if hx is None:
            hx = self._zero_state(input, *leading)
        self._check_state(hx, *leading)
        weights = self._weights("")
        return self._advance(weights.project(input), tuple(hx), weights)


class RecurrentLayer(Recurrent):
    """Whole sequences, like `torch.nn.LSTM`: layers, directions, packed sequences."""

    def __init__(
        self,
        unit: Unit,
        drive: Drive,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(unit, drive, input_size, hidden_size, bias)
        check.number("num_layers", num_layers, ge=1, integer=True)
        check.number("dropout", dropout, ge=0, le=1)
        for name, flag in (("batch_first", batch_first), ("bidirectional", bidirectional)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be True or False, got {flag!r}")
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                f"dropout acts between layers: with num_layers=1, dropout={dropout} does nothing",
                stacklevel=3,
            )
        self.num_layers, self.batch_first = num_layers, batch_first
        self.dropout, self.bidirectional = dropout, bidirectional
        how = {"device": device, "dtype": dtype}
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                width = hidden_size * (2 if bidirectional else 1) if layer else input_size
                self._make_weights(suffix, width, how)
        self.reset_parameters()

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: 2 if self.bidirectional else 1]

    def forward(
        self, input: Tensor | PackedSequence, hx: State | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """Output h of the last layer at every time step, and the state after the last one.

        Parameters
        ----------
        input
            Shape (time, batch, input_size), (batch, time, input_size) if `batch_first`,
            (time, input_size) without a batch, or a packed sequence.
        hx
            Initial state, each member of shape (num_layers * directions, batch, size): h and c of
            size hidden_size, v and q of the rows of weight_ih, k (int64) of size 1. Default zeros.
        """
        if isinstance(input, PackedSequence):
            self._check_input(input.data)
            sizes = input.batch_sizes.tolist()
            hx = self._initial(input.data, hx, sizes[0])
            output, hx = self._run(input.data, sizes, _permute(hx, input.sorted_indices))
            return input._replace(data=output), _permute(hx, input.unsorted_indices)
        self._check_input(input)
        if input.dim() not in (2, 3):
            raise ValueError(f"input must have 2 or 3 dimensions, got {tuple(input.shape)}")
        batched = input.dim() == 3
        x = input.transpose(0, 1) if batched and self.batch_first else input
        time, batch = x.shape[0], x.shape[1] if batched else 1
        if time == 0:
            raise ValueError(f"input must have at least one time step, got {tuple(input.shape)}")
        if hx is not None and not batched:
            self._check_state(hx, self.num_layers * (2 if self.bidirectional else 1))
            hx = tuple(member.unsqueeze(1) for member in hx)
        hx = self._initial(input, hx, batch)
        output, hx = self._run(x.reshape(time * batch, -1), [batch] * time, hx)
        if not batched:
            return output, tuple(member.squeeze(1) for member in hx)
        output = output.view(time, batch, -1)
        return output.transpose(0, 1) if self.batch_first else output, hx

    def _initial(self, like: Tensor, hx: State | None, batch: int) -> State:
        cells = self.num_layers * (2 if self.bidirectional else 1)
        if hx is None:
            return self._zero_state(like, cells, batch)
        self._check_state(hx, cells, batch)
        return tuple(hx)

    def _run(self, x: Tensor, batch_sizes: list[int], hx: State) -> tuple[Tensor, State]:
        """All layers and directions over inputs packed by time."""
        finals: list[State] = []
        for layer in range(self.num_layers):
            if layer:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for suffix in self._suffixes(layer):
                weights = self._weights(suffix)
                start = tuple(member[len(finals)] for member in hx)
                h, final = recur(
                    partial(self._advance, weights=weights),
                    weights.project(x),  # all time steps at once
                    start,
                    batch_sizes,
                    reverse=suffix.endswith("reverse"),
                )
                outputs.append(h)
                finals.append(final)
            x = torch.cat(outputs, dim=-1) if self.bidirectional else outputs[0]
        return x, tuple(torch.stack(members) for members in zip(*finals, strict=True))

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, num_layers={self.num_layers}, "
            f"batch_first={self.batch_first}, dropout={self.dropout}, "
            f"bidirectional={self.bidirectional}"
        )


def _permute(hx: State, order: Tensor | None) -> State:
    return hx if order is None else tuple(member.index_select(1, order) for member in hx)
