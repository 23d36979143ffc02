"""Scopes *tensorwise* (the rule sees one parameter) and *matrixwise* (a stack of matrices).

A contiguous parameter that lies whole in this process is updated where it is; everything else
(sharded, strided, stacked) is gathered into a copy, updated there, and written back.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg.optim.engine.base import Active, RuleOptimizer
from thalweg.optim.engine.kernel import Calls, Compiled
from thalweg.optim.engine.sharding import is_sharded, local, sharded_like, whole
from thalweg.optim.engine.update import Update, in_place

#: Entries, about, of the tensors that a rule is compiled with (the size matters only as "large").
_EXAMPLE = 2**20

_updates: dict[Any, Update] = {}
_compiled: dict[Any, Compiled | Update] = {}


class _Hypers(NamedTuple):
    """A group's hyper-parameters at one step: the numbers, and what chooses between formulas."""

    numbers: dict[str, float]
    static: tuple[Any, ...]


class _Place:
    """Where one parameter and its state lie, and the compiled calls that update them there."""

    def __init__(self, a: Active, owned: Sequence[Tensor]) -> None:
        self.address = a.p.data_ptr()
        self.owned = owned[1:]
        #: True if the memory of p and state is what the rule sees.
        self.plain = a.p.numel() > 0 and all(not is_sharded(t) and t.is_contiguous() for t in owned)
        self.calls: dict[Any, Calls] = {}

    def holds(self, a: Active, slots: Sequence[str]) -> bool:
        """True if nothing has changed hands."""
        state = a.state
        return (
            len(slots) == len(self.owned)
            and a.p.data_ptr() == self.address
            and all(state[slot] is t for slot, t in zip(slots, self.owned, strict=True))
        )


class Tensorwise(RuleOptimizer):
    """An optimizer whose rule sees one whole parameter at a time, in its own shape.

    A sharded parameter is gathered, updated on every process alike, and its shard kept.
    """

    def _forget(self) -> None:
        super()._forget()
        self._scalars: dict[Any, Tensor] = {}
        self._hypers: dict[Any, _Hypers] = {}
        self._places: dict[Tensor, _Place] = {}

    def decisions(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, Any]] | None:
        """What each tensor's rule gets of its own: choices (booleans, strings, None) and floats.

        Name the keywords in ``reduced``. Default: none.
        """
        return None

    def reports(self, a: Active, decided: Mapping[str, Any]) -> list[Tensor]:
        """Tensors of shape (1,) for what the rule returns beyond p and state. Default: none."""
        return []

    def update(self, active: Sequence[Active]) -> None:
        decisions = self.decisions(active)
        updates = []
        for a in active:  # first what Python has to do: it is faster before data sweep the cache
            a.state["step"].add_(1)
            updates.append(self._update_of_one(a, decisions(a) if decisions is not None else {}))
        for update in updates:
            update()
        self._scalars.clear()
        self._hypers.clear()

    def _update_of_one(self, a: Active, decided: Mapping[str, Any]) -> Callable[[], None]:
        """The update of one parameter."""
        slots = self._all_slots(a.group)
        place = self._places.get(a.p)
        if place is None or not place.holds(a, slots):
            place = self._places[a.p] = _Place(a, [a.p, *(a.state[slot] for slot in slots)])
        recurs = self.uses_compiler() and self.rounding == "nearest" and place.plain
        if not recurs or is_sharded(a.g) or not a.g.is_contiguous():
            return functools.partial(self._update_stack, [a], decided)
        hypers = self._hypers_of(a.group, float(a.state["step"]))
        numbers, choices = _separated(decided)
        numbers = {**hypers.numbers, **numbers}
        reports = self.reports(a, decided)
        key = (hypers.static, tuple(choices.items()), a.g.dtype, torch.get_num_threads())
        calls = place.calls.get(key)
        if calls is None:
            seen = [self.seen([t]) for t in (a.p, a.g, *(a.state[slot] for slot in slots))]
            loop = self._loop(a.group, [*seen, *reports], len(slots), numbers, choices)
            if not (isinstance(loop, Compiled) and loop.goes_by_address):
                return functools.partial(self._update_stack, [a], decided)
            tensors = [t.view(1) if t.dim() == 0 else t for t in (*seen, *reports)]
            calls = place.calls[key] = Calls(loop, [tensors], len(reports))
        scalars = self._scalars_of(calls.loop, numbers)
        return functools.partial(calls, [a.g], [reports], [scalars])

    def _hypers_of(self, group: dict[str, Any], k: float) -> _Hypers:
        """A group's hyper-parameters at the k-th step, looked up once."""
        at = (id(group), k)
        found = self._hypers.get(at)
        if found is None:
            static = (group["maximize"], *self.static(group).items())
            found = self._hypers[at] = _Hypers(self.numbers(group, int(k)), static)
        return found

    def _scalars_of(self, loop: Compiled, numbers: Mapping[str, float]) -> Tensor:
        at = (id(loop), tuple(numbers.values()))
        scalars = self._scalars.get(at)
        if scalars is None:
            scalars = self._scalars[at] = loop.scalars(list(numbers.values()))
        return scalars

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
        own, choices = _separated(decided)
        numbers = {**self.numbers(group, int(a.state["step"])), **own}
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
        if not self.uses_compiler():
            _, update = self._update_for(group, decided)
            update(*_arranged(tensors, n_state), numbers)
            return
        loop = self._loop(group, tensors, n_state, numbers, decided)
        if isinstance(loop, Compiled):
            scalars = self._scalars_of(loop, numbers)
            loop([t.view(1) if t.dim() == 0 else t for t in tensors], scalars)
            return
        on_device = {
            n: torch.tensor(v, dtype=torch.float64, device=tensors[0].device)
            for n, v in numbers.items()
        }
        loop(*_arranged(tensors, n_state), on_device)

    def _update_for(self, group: dict[str, Any], decided: Mapping[str, Any]) -> tuple[Any, Update]:
        """The rule with its choices made, and what identifies it."""
        static = {**self.static(group), **decided}
        key = (type(self).rule, group["maximize"], self.rounding, tuple(static.items()))
        update = _updates.get(key)
        if update is None:
            update = in_place(type(self).rule, group["maximize"], self.rounding, static)
            _updates[key] = update
        return key, update

    def _loop(
        self,
        group: dict[str, Any],
        tensors: list[Tensor],
        n_state: int,
        numbers: Mapping[str, float],
        decided: Mapping[str, Any],
    ) -> Compiled | Update:
        """The rule compiled: for any sizes if they do not matter to it, else for these."""
        key, update = self._update_for(group, decided)
        shapes = {t.shape for t in tensors} - {torch.Size(), torch.Size([1])}
        kind = tuple((t.dtype, tuple(n == 1 for n in t.shape)) for t in tensors)
        full = (key, n_state, tuple(numbers), kind, tensors[0].device, torch.get_num_threads())
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
        return loop


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


def _arranged(
    tensors: Sequence[Tensor], n_state: int
) -> tuple[Tensor, Tensor, Sequence[Tensor], list[Tensor], Sequence[Tensor]]:
    """The arguments of an `Update`: p, g, state, inputs (none), extra."""
    return tensors[0], tensors[1], tensors[2 : 2 + n_state], [], tensors[2 + n_state :]


def _separated(decided: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """The floats among what was decided, and the choices."""
    numbers = {n: v for n, v in decided.items() if isinstance(v, float)}
    return numbers, {n: v for n, v in decided.items() if n not in numbers}


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
            compiled = Compiled(update, counts, names, [_rows_apart(t) for t in examples])
        except Exception:  # a rule may want rows without gaps: Tensor.view does
            try:
                compiled = Compiled(update, counts, names, examples)
            except (
                InductorError
            ):  # torch 2.13 trips over some loops it has fused (KeyError: 'buf8')
                with torch._inductor.config.patch(max_fusion_size=2):
                    compiled = Compiled(update, counts, names, examples)
    except torch._dynamo.exc.Unsupported:
        return None
    return compiled if compiled.for_all_sizes else None


def _rows_apart(t: Tensor) -> Tensor:
    """A matrix with a gap between its rows.

    The compiler makes one loop of the rows of a matrix without gaps, and then cannot write the sum
    of a row into the loop that makes its entries.
    """
    if t.dim() != 2 or 1 in t.shape:
        return t
    return t.new_empty(t.shape[0], t.shape[1] + 6)[:, : t.shape[1]]


def _example_shape(shape: torch.Size) -> list[int]:
    """Distinct large lengths where `shape` has lengths other than 1."""
    free = sum(n != 1 for n in shape)
    length = math.ceil(_EXAMPLE ** (1 / max(free, 1)))
    return [1 if n == 1 else length + 2 * d for d, n in enumerate(shape)]
