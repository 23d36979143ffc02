"""Scopes *tensorwise* (the rule sees one parameter) and *matrixwise* (a stack of matrices).

A contiguous parameter that lies whole in this process is updated where it is; everything else
(sharded, strided, stacked) is gathered into a copy, updated there, and written back.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.engine.base import Active, RuleOptimizer
from thalweg.optim.engine.kernel import Compiled, Update, compute_dtype, in_place
from thalweg.optim.engine.sharding import is_sharded, local, sharded_like, whole

#: Entries, about, of the tensors that a rule is compiled with (the size matters only as "large").
_EXAMPLE = 2**20

#: Numbers that a tensor and its gradient are asked for.
Formula = Callable[..., tuple[Tensor, ...]]

_updates: dict[Any, Update] = {}
_compiled: dict[Any, Compiled | Update] = {}


class Tensorwise(RuleOptimizer):
    """An optimizer whose rule sees one whole parameter at a time, in its own shape.

    A sharded parameter is gathered, updated on every process alike, and its shard kept.
    """

    def _forget(self) -> None:
        super()._forget()
        self._scalars: dict[Any, Tensor] = {}

    def decisions(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, Any]] | None:
        """What each tensor's rule gets of its own: choices (booleans, strings, None) and floats.

        For rules that branch on the values of their own tensors. A step may ask in several calls.
        Name the keywords in ``reduced``. Default: none.
        """
        return None

    def reports(self, a: Active, decided: Mapping[str, Any]) -> list[Tensor]:
        """Tensors of shape (1,) for what the rule returns beyond p and state. Default: none."""
        return []

    def update(self, active: Sequence[Active]) -> None:
        for batch in self._decided_together(active):
            decisions = self.decisions(batch)
            for a in batch:
                a.state["step"].add_(1)
                self._update_stack([a], decisions(a) if decisions is not None else {})
        self._scalars.clear()

    def _decided_together(self, active: Sequence[Active]) -> Sequence[Sequence[Active]]:
        """One wait for all tensors; on the CPU, one by one: they are still in the cache then."""
        return [[a] for a in active] if all(a.p.device.type == "cpu" for a in active) else [active]

    def measured(
        self, formula: Formula, active: Sequence[Active], count: int, names: Sequence[str]
    ) -> list[list[float]]:
        """The `count` numbers ``formula(p, g, **numbers)`` of every tensor, in one wait for all.

        `names` are the hyper-parameters it takes. ``maximize`` does not flip this gradient.
        """
        update = _measuring(formula)
        results = [
            torch.zeros(count, dtype=compute_dtype(a.p.dtype), device=a.p.device) for a in active
        ]
        for a, result in zip(active, results, strict=True):
            if a.p.numel() == 0:
                continue
            numbers = {name: float(a.group[name]) for name in names}
            tensors = [self.seen([a.p]), self.seen([a.g]), *result.unbind(0)]
            if self.uses_compiler():
                self._run_compiled(update, update, tensors, count, numbers)
            else:
                update(*_arranged(tensors, count), numbers)
        return [values.tolist() for values in _on_host(results)]

    def view(self, tensor: Tensor) -> Tensor:
        """The tensor as the rule wants to see it. Default: as it is."""
        return tensor

    def seen(self, tensors: Sequence[Tensor]) -> Tensor:
        """What the rule sees of equal shapes: one tensor, where it lies if that is possible."""
        if len(tensors) == 1:
            return self.view(whole(tensors[0].detach())).contiguous()
        return torch.stack([self.view(whole(t.detach())) for t in tensors])

    def _update_stack(self, stack: Sequence[Active], decided: Mapping[str, Any]) -> None:
        """Apply the rule to equal shapes at once (one of them: without a leading dimension)."""
        a = stack[0]
        group, slots = a.group, self._all_slots(a.group)
        if a.p.numel() == 0:
            return
        p = self.seen([b.p for b in stack])
        g = self.seen([b.g for b in stack])
        state = [self.seen([b.state[slot] for b in stack]) for slot in slots]
        extra: list[Tensor] = []
        if self.rounding == "compensated":
            extra, state = [state[-1]], state[:-1]
        elif self.rounding == "stochastic":
            extra = [self.seen([self._random_bits(whole(b.p.detach())) for b in stack])]
        numbers = self.numbers(group, int(a.state["step"]))
        numbers |= {n: v for n, v in decided.items() if isinstance(v, float)}
        choices = {n: v for n, v in decided.items() if not isinstance(v, float)}
        tensors = [p, g, *state, *extra, *self.reports(a, decided)]
        self._run_whole(group, tensors, len(state), numbers, choices)
        results = [p, *state, *(extra if self.rounding == "compensated" else [])]
        owners = [[b.p for b in stack], *([b.state[slot] for b in stack] for slot in slots)]
        for result, targets in zip(results, owners, strict=True):
            pieces = [result] if len(stack) == 1 else list(result.unbind(0))
            for piece, target in zip(pieces, targets, strict=True):
                if is_sharded(target) or piece.data_ptr() != target.data_ptr():
                    local(target).copy_(sharded_like(piece.reshape(target.shape), target))

    def _run_whole(
        self,
        group: dict[str, Any],
        tensors: list[Tensor],
        n_state: int,
        numbers: dict[str, float],
        decided: Mapping[str, Any],
    ) -> None:
        static = {**self.static(group), **decided}
        key = (type(self).rule, group["maximize"], self.rounding, tuple(static.items()))
        update = _updates.get(key)
        if update is None:
            update = in_place(type(self).rule, group["maximize"], self.rounding, static)
            _updates[key] = update
        if self.uses_compiler():
            self._run_compiled(key, update, tensors, n_state, numbers)
        else:
            update(*_arranged(tensors, n_state), numbers)

    def _run_compiled(
        self,
        key: Any,
        update: Update,
        tensors: list[Tensor],
        n_state: int,
        numbers: Mapping[str, float],
    ) -> None:
        """Run `update` compiled: for any sizes if they do not matter to it, else for these."""
        p = tensors[0]
        shapes = {t.shape for t in tensors} - {torch.Size(), torch.Size([1])}
        kind = tuple((t.dtype, tuple(n == 1 for n in t.shape)) for t in tensors)
        full = (key, n_state, tuple(numbers), kind, p.device, torch.get_num_threads())
        loop = _compiled.get(full)
        if loop is None:
            if len(shapes) <= 1:
                examples = [
                    torch.empty(_example_shape(t.shape) or [1], dtype=t.dtype, device=t.device)
                    for t in tensors
                ]
                scalar = tuple(t.dim() == 0 for t in tensors)
                counts = (n_state, 0, len(tensors) - 2 - n_state)
                loop = _try_to_compile(
                    _with_scalars(update, scalar, n_state), counts, tuple(numbers), examples
                )
            _compiled[full] = loop = loop or torch.compile(update, dynamic=True)
        if isinstance(loop, Compiled):
            at = (id(loop), tuple(numbers.values()))
            scalars = self._scalars.get(at)
            if scalars is None:
                scalars = self._scalars[at] = loop.scalars(list(numbers.values()))
            loop([t.view(1) if t.dim() == 0 else t for t in tensors], scalars)
            return
        on_device = {
            n: torch.tensor(v, dtype=torch.float64, device=p.device) for n, v in numbers.items()
        }
        loop(*_arranged(tensors, n_state), on_device)


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
        decisions = self.decisions(active)
        stacks: dict[Any, list[Active]] = {}
        decided: dict[Any, Mapping[str, Any]] = {}
        for a in active:
            a.state["step"].add_(1)
            choice = decisions(a) if decisions is not None else {}
            kind = (a.p.shape, a.p.dtype, a.g.dtype, a.p.device, float(a.state["step"]))
            key = (id(a.group), *kind, tuple(choice.items()))
            stacks.setdefault(key, []).append(a)
            decided[key] = choice
        for key, stack in stacks.items():
            self._update_stack(stack, decided[key])
        self._scalars.clear()


@functools.cache
def _measuring(formula: Formula) -> Update:
    """`formula` as an update that stores its numbers in the 0-d tensors of `state`."""

    def update(
        p: Tensor, g: Tensor, state: Sequence[Tensor], _: Any, __: Any, numbers: Mapping[str, Any]
    ) -> None:
        working = compute_dtype(p.dtype)
        for result, value in zip(
            state, formula(p.to(working), g.to(working), **numbers), strict=True
        ):
            result.copy_(value)

    return update


def _on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """All tensors on the CPU, with one wait for each device."""
    moved = [t if t.device.type == "cpu" else t.to("cpu", non_blocking=True) for t in tensors]
    for device in {t.device for t in tensors if t.device.type != "cpu"}:
        torch.accelerator.synchronize(device)
    return moved


def _arranged(
    tensors: Sequence[Tensor], n_state: int
) -> tuple[Tensor, Tensor, Sequence[Tensor], list[Tensor], Sequence[Tensor]]:
    """The arguments of an `Update`: p, g, state, inputs (none), extra."""
    return tensors[0], tensors[1], tensors[2 : 2 + n_state], [], tensors[2 + n_state :]


def _with_scalars(update: Update, scalar: Sequence[bool], n_state: int) -> Update:
    """`update` for 0-d tensors given as vectors of length 1.

    The compiler takes a 0-d float64 tensor for a Python number, and drops what is written to it.
    """
    if not any(scalar):
        return update

    def on_vectors(
        p: Tensor, g: Tensor, state: Sequence[Tensor], _: Any, extra: Sequence[Tensor], numbers: Any
    ) -> None:
        seen = [
            t.view(()) if is_scalar else t
            for t, is_scalar in zip([p, g, *state, *extra], scalar, strict=True)
        ]
        update(*_arranged(seen, n_state), numbers)

    return on_vectors


def _try_to_compile(
    update: Update, counts: tuple[int, int, int], names: Sequence[str], examples: Sequence[Tensor]
) -> Compiled | None:
    """One loop for all sizes, or None if the rule asks for its sizes or leaves the graph."""
    from torch._inductor.exc import InductorError

    try:
        try:
            compiled = Compiled(update, counts, names, examples)
        except InductorError:  # torch 2.13 trips over some loops it has fused (KeyError: 'buf8')
            with torch._inductor.config.patch(max_fusion_size=2):
                compiled = Compiled(update, counts, names, examples)
    except torch._dynamo.exc.Unsupported:
        return None
    return compiled if compiled.for_all_sizes else None


def _example_shape(shape: torch.Size) -> list[int]:
    """Distinct large lengths where `shape` has lengths other than 1."""
    free = sum(n != 1 for n in shape)
    length = math.ceil(_EXAMPLE ** (1 / max(free, 1)))
    return [1 if n == 1 else length + 2 * d for d, n in enumerate(shape)]
