"""Scopes *tensorwise* (the rule sees one parameter) and *matrixwise* (a stack of matrices)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.engine.base import Active, RuleOptimizer
from thalweg.optim.engine.kernel import Update, in_place
from thalweg.optim.engine.sharding import local, sharded_like, whole

_updates: dict[Any, Update] = {}


class Tensorwise(RuleOptimizer):
    """An optimizer whose rule sees one whole parameter at a time, in its own shape.

    A sharded parameter is gathered, updated on every process alike, and its shard kept.
    """

    def update(self, active: Sequence[Active]) -> None:
        for a in active:
            a.state["step"].add_(1)
            self._update_stack([a])

    def view(self, tensor: Tensor) -> Tensor:
        """The tensor as the rule wants to see it. Default: as it is."""
        return tensor

    def _update_stack(self, stack: Sequence[Active]) -> None:
        """Apply the rule to equal shapes at once (one of them: without a leading dimension)."""
        a = stack[0]
        group, slots = a.group, self._all_slots(a.group)
        if a.p.numel() == 0:
            return

        def gathered(tensors: list[Tensor]) -> Tensor:
            full = [self.view(whole(t.detach())) for t in tensors]
            return full[0].clone() if len(full) == 1 else torch.stack(full)

        p = gathered([b.p for b in stack])
        g = gathered([b.g for b in stack])
        state = [gathered([b.state[slot] for b in stack]) for slot in slots]
        extra: list[Tensor] = []
        if self.rounding == "compensated":
            extra, state = [state[-1]], state[:-1]
        elif self.rounding == "stochastic":
            extra = [gathered([self._whole_random_bits(b.p) for b in stack])]
        numbers = self.numbers(group, int(a.state["step"]))
        update = self._rule_in_place(group)
        if self.uses_compiler():
            device = p.device
            tensors = {
                n: torch.tensor(v, dtype=torch.float64, device=device) for n, v in numbers.items()
            }
            update(p, g, state, [], extra, tensors)
        else:
            update(p, g, state, [], extra, numbers)
        results = [p, *state, *(extra if self.rounding == "compensated" else [])]
        targets = [[b.p for b in stack], *([b.state[slot] for b in stack] for slot in slots)]
        for result, owners in zip(results, targets, strict=True):
            pieces = [result] if len(stack) == 1 else list(result.unbind(0))
            for piece, owner in zip(pieces, owners, strict=True):
                local(owner).copy_(sharded_like(piece.reshape(owner.shape), owner))

    def _whole_random_bits(self, p: Tensor) -> Tensor:
        return self._random_bits(whole(p.detach()))

    def _rule_in_place(self, group: dict[str, Any]) -> Update:
        static = self.static(group)
        compiled = self.uses_compiler()
        key = (type(self).rule, group["maximize"], self.rounding, tuple(static.items()), compiled)
        if key not in _updates:
            update = in_place(type(self).rule, group["maximize"], self.rounding, static)
            _updates[key] = torch.compile(update, dynamic=True) if compiled else update
        return _updates[key]


class Matrixwise(Tensorwise):
    """An optimizer whose rule sees matrices: ``(m, n)``, or ``(b, m, n)`` for `b` of one shape.

    A parameter with more than two dimensions is seen as (first dimension, all others); vectors and
    scalars are refused: give them to an elementwise method.
    """

    def view(self, tensor: Tensor) -> Tensor:
        return tensor.reshape(tensor.shape[0], -1)

    def _check_parameter(self, group: dict[str, Any], p: Tensor) -> None:
        super()._check_parameter(group, p)
        if p.dim() < 2:
            raise ValueError(
                f"params of {type(self).__name__} must have at least 2 dimensions, got "
                f"{self._name(group, p)}; optimize vectors with an elementwise method such as AdamW"
            )

    def update(self, active: Sequence[Active]) -> None:
        stacks: dict[Any, list[Active]] = {}
        for a in active:
            a.state["step"].add_(1)
            key = (id(a.group), a.p.shape, a.p.dtype, a.p.device, float(a.state["step"]))
            stacks.setdefault(key, []).append(a)
        for stack in stacks.values():
            self._update_stack(stack)
