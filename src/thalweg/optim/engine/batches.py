"""Parameters that are updated together: same format, same step count, one count for all.

A batch remembers where its parameters and their state lie, so that a step looks up nothing but the
gradients; it is remade as soon as any of that has changed hands.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.engine.base import Active
from thalweg.optim.engine.kernel import Calls
from thalweg.optim.engine.memory import flat_as, flat_parameter, in_order_of, same_order
from thalweg.optim.engine.sharding import is_sharded, local, wrapped_like

#: Entries up to which a tensor is packed with others.
SMALL = 2**14


class Batch:
    """Some parameters of one group and the state they have."""

    def __init__(self, members: Sequence[Active], slots: Sequence[str]) -> None:
        self.params = [a.p for a in members]
        self.addresses = [p.data_ptr() for p in self.params]
        self.step: Tensor = members[0].state["step"].clone()
        for a in members:
            a.state["step"] = self.step
        self.arrange(members, slots)
        self.owners = [(slot, [a.state[slot] for a in members]) for slot in slots]

    def arrange(self, members: Sequence[Active], slots: Sequence[str]) -> None:
        """Bring the state into the memory order the update wants."""
        raise NotImplementedError

    def holds(self, members: Sequence[Active], slots: Sequence[str]) -> bool:
        """True if these parameters, with the state they have now, are this batch."""
        if len(members) != len(self.params) or len(slots) != len(self.owners):
            return False
        states = [a.state for a in members]
        step = self.step
        return (
            all(map(operator.is_, [a.p for a in members], self.params))
            and [p.data_ptr() for p in self.params] == self.addresses
            and all(map(operator.is_, [s["step"] for s in states], itertools.repeat(step)))
            and all(
                slot == wanted and all(map(operator.is_, [s[slot] for s in states], owned))
                for wanted, (slot, owned) in zip(slots, self.owners, strict=True)
            )
        )


class Separate(Batch):
    """Large tensors, each updated where it lies."""

    def arrange(self, members: Sequence[Active], slots: Sequence[str]) -> None:
        #: The calls of the compiled update, once it has run.
        self.calls: Calls | None = None
        self.flat: list[Tensor | None] = []
        self.plain: list[bool] = []
        self.state: list[list[Tensor]] = []
        for a in members:
            p = local(a.p)
            self.plain.append(p is a.p and p.is_contiguous())
            flat, copied = flat_parameter(p)
            self.flat.append(None if copied else flat)
            state = []
            for slot in slots:
                value = local(a.state[slot])
                if not same_order(value, p):  # a checkpoint may have changed the memory order
                    value = in_order_of(p, value)
                    a.state[slot] = wrapped_like(value, a.p)
                state.append(flat_as(p, value))
            self.state.append(state)


class Pack(Batch):
    """Small tensors whose state is stored back to back; ``state[p][slot]`` are views of it."""

    def arrange(self, members: Sequence[Active], slots: Sequence[str]) -> None:
        self.aliases = [p.detach().view(-1) for p in self.params]
        self.sizes = [p.numel() for p in self.params]
        self.state: list[Tensor] = []
        for slot in slots:
            pieces = [a.state[slot] for a in members]
            flat = flattened(pieces)
            self.state.append(flat)
            views = torch._C._nn.unflatten_dense_tensors(flat, pieces)
            for a, view in zip(members, views, strict=True):
                a.state[slot] = view

    def gather(self) -> Tensor:
        """The parameters, back to back."""
        return torch.cat(self.aliases)

    def scatter(self, flat: Tensor) -> None:
        """Write the parameters back."""
        torch.split_with_sizes_copy(flat, self.sizes, out=self.aliases)


def flattened(tensors: list[Tensor]) -> Tensor:
    """Tensors of one format, back to back in a new one."""
    if len(tensors) == 1:
        return tensors[0].detach().reshape(-1).clone()
    flat: Tensor = torch._C._nn.flatten_dense_tensors(tensors)
    return flat


def packable(p: Tensor) -> bool:
    """True for a tensor so small that a call costs more than copying it."""
    return 0 < p.numel() <= SMALL and p.is_contiguous() and not is_sharded(p)


class Batches:
    """The batches of one parameter group, kept from step to step."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._parts: list[tuple[Batch, list[int]]] = []

    def of(self, members: list[Active], slots: Sequence[str]) -> list[tuple[Any, list[Active]]]:
        """The batches of `members` (a `Pack` or `Separate` each) with their members."""
        if [id(a.p) for a in members] == self._ids:
            parts = self._shared_out(members)
            if all(batch.holds(part, slots) for batch, part in parts):
                return parts
        kinds: dict[Any, list[int]] = {}
        for i, a in enumerate(members):
            if local(a.p).numel() == 0:
                a.state["step"] = a.state["step"] + 1
                continue
            state_kind = tuple([a.state[slot].dtype for slot in slots])
            count = float(a.state["step"])
            key = (packable(a.p), a.p.dtype, a.g.dtype, a.p.device, state_kind, count)
            kinds.setdefault(key, []).append(i)
        self._ids = [id(a.p) for a in members]
        self._parts = []
        for key, where in kinds.items():
            part = [members[i] for i in where]
            self._parts.append((Pack(part, slots) if key[0] else Separate(part, slots), where))
        if sum(len(where) for _, where in self._parts) != len(members):
            self._ids = []  # empty tensors count their steps above, every time
        return self._shared_out(members)

    def _shared_out(self, members: list[Active]) -> list[tuple[Batch, list[Active]]]:
        if len(self._parts) == 1 and len(self._parts[0][1]) == len(members):
            return [(self._parts[0][0], members)]
        return [(batch, [members[i] for i in where]) for batch, where in self._parts]
