"""Scope *elementwise*: the rule treats every entry alike, so any flat piece of memory will do.

Large tensors are updated where they lie. Small ones (there are hundreds in a network, and a call
costs more than their arithmetic) are packed: each step copies parameters and gradients in and
parameters out (`engine.batches`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Unpack, cast

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.optim.engine.base import Active, How, RuleOptimizer
from thalweg.optim.engine.batches import Batches, Pack, Separate, flattened
from thalweg.optim.engine.flat import COMPILED_PIECE, compiled, compiled_update, eager
from thalweg.optim.engine.kernel import Calls, Compiled
from thalweg.optim.engine.memory import flat_as, flat_parameter
from thalweg.optim.engine.pairs import PairSums
from thalweg.optim.engine.sharding import local, sharded_like, whole
from thalweg.optim.engine.sums import Sums
from thalweg.optim.engine.update import Rule, Summands, Update, compute_dtype, in_place

_updates: dict[Any, Update] = {}
_NOTHING: Mapping[str, float] = {}


class Constraint(Protocol):
    """A set that parameters are projected to, each one by itself, after its move."""

    def project(self, y: Tensor, weights: Tensor | None = None) -> Tensor: ...


class _Prepared(NamedTuple):
    """What a group's parameters at one step count have in common; ready updates by format."""

    key: Any
    update: Update
    numbers: dict[str, float]
    updates: dict[tuple[torch.dtype, ...], Callable[[list[Tensor]], None]]


class Elementwise(RuleOptimizer):
    """An optimizer whose rule acts on every entry of a tensor alike."""

    def __init__(
        self,
        params: ParamsT,
        defaults: dict[str, Any],
        *,
        constraint: Constraint | None = None,
        **how: Unpack[How],
    ) -> None:
        if constraint is not None and not callable(getattr(constraint, "project", None)):
            raise TypeError(
                "constraint must be a set with a method project(y, weights), such as "
                f"thalweg.numeric.Box(-1, 1), got {type(constraint).__name__}"
            )
        self.constraint = constraint
        super().__init__(params, defaults, **how)

    #: ``summands(p, *state)`` of the new values; what they sum up to is found by `summed`.
    summands: ClassVar[Summands | None] = None
    n_summands: ClassVar[int] = 0

    def _forget(self) -> None:
        super()._forget()
        self._batches: dict[int, Batches] = {}
        self._sums = Sums(self.n_summands)
        self._pairs = PairSums()

    def summed(self, group: dict[str, Any]) -> list[float]:
        """The sums of `summands` over the entries of a group that moved; adds up all shards."""
        return self._sums.over(id(group))

    def common(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, float]] | None:
        """Numbers that depend on all parameters at once (scope *global*); default: none."""
        return None

    def metric(self, a: Active, k: int) -> Tensor | None:
        """The weights of the projection (the diagonal of H); default None: Euclidean."""
        return None

    def update(self, active: Sequence[Active]) -> None:
        self._noise: dict[Tensor, Tensor] = {}
        if self.draws_noise:  # in parameter order, so that packing cannot change the numbers
            self._noise = {a.p: sharded_like(self.gaussian(a.p), a.p) for a in active}
        self._scalars: dict[Any, Tensor] = {}
        common = self.common(active)
        self._sums = Sums(self.n_summands)
        self._prepared: dict[Any, _Prepared] = {}
        for group in self.param_groups:
            members = [a for a in active if a.group is group]
            slots = self._all_slots(group)
            batches = self._batches.setdefault(id(group), Batches())
            for batch, part in batches.of(members, slots):
                batch.step.add_(1)
                if isinstance(batch, Pack):
                    self._update_pack(batch, part, common)
                else:
                    self._update_separate(batch, part, common)
        self._noise, self._scalars, self._prepared = {}, {}, {}
        if self.constraint is not None:
            for a in active:
                if a.p.numel():
                    self._project(a)
                if self.rounding == "compensated":  # the rest of a move that was projected away
                    a.state["compensation"].zero_()

    def _update_separate(self, batch: Separate, members: list[Active], common: Any) -> None:
        """Large tensors, each where it lies."""
        # First what Python has to do for all: it is faster before the data sweep the cache.
        if self._recurs(batch):
            gradients = [
                a.g if plain and a.g.is_contiguous() else flat_as(local(a.p), local(a.g))
                for a, plain in zip(members, batch.plain, strict=True)
            ]
            totals = [self._sums.of(id(a.group), a.p) for a in members]
            prepared = self._prepare(members[0].group, int(batch.step), ())
            # Most tensors get one and the same dictionary: its numbers are sent to the device once.
            own = [common(a) if common is not None else _NOTHING for a in members]
            numbers = {at: {**prepared.numbers, **n} for at, n in {id(n): n for n in own}.items()}
            calls = self._calls(batch, prepared, numbers[id(own[0])], gradients, totals)
            if not calls.loop.goes_by_address:
                gradients = [g.view(-1) for g in gradients]
            scalars = {at: self._scalars_of(calls.loop, n) for at, n in numbers.items()}
            calls(gradients, totals, [scalars[id(n)] for n in own])
            return
        for update, t in [self._ready(batch, i, a, common) for i, a in enumerate(members)]:
            update(t)

    def _recurs(self, batch: Separate) -> bool:
        """Whether the next step's calls differ from this one's in gradients, sums and numbers only.

        Then the loop walks through the memory of p, g and state, whatever shape they have.
        """
        return (
            self.uses_compiler()
            and not (self._random or self.rounding != "nearest")
            and all(p is not None and p.numel() <= COMPILED_PIECE for p in batch.flat)
        )

    def _calls(
        self,
        batch: Separate,
        prepared: _Prepared,
        numbers: Mapping[str, float],
        gradients: Sequence[Tensor],
        totals: Sequence[Sequence[Tensor]],
    ) -> Calls:
        """The calls that update a batch, kept in it as long as the rule does not change."""
        flat = cast("list[Tensor]", batch.flat)
        example = [flat[0], gradients[0], *batch.state[0], *totals[0]]
        counts = (len(batch.state[0]), 0, self.n_summands)
        loop = compiled(prepared.key, prepared.update, counts, numbers, example)
        if batch.calls is None or batch.calls.loop is not loop:
            tensors = [
                (p, g, *state, *sums)
                for p, g, state, sums in zip(flat, gradients, batch.state, totals, strict=True)
            ]
            batch.calls = Calls(loop, tensors, self.n_summands)
        return batch.calls

    def _ready(
        self, batch: Separate, i: int, a: Active, common: Any
    ) -> tuple[Callable[[list[Tensor]], None], list[Tensor]]:
        """The update of one tensor and what it is called with."""
        flat, p = batch.flat[i], local(a.p)
        g = flat_as(p, local(a.g))
        totals = self._sums.of(id(a.group), a.p)
        if flat is not None and not (self.draws_noise or self.rounding != "nearest"):
            tensors = [flat, g, *batch.state[i], *totals]
            return self._update_of(a, tensors, 0, len(totals), common), tensors

        def update(_: list[Tensor]) -> None:  # random bits are drawn only when they are used
            where = flat if flat is not None else flat_parameter(p)[0]
            state, extra = self._state_and_extra(batch.state[i])
            if self.rounding == "stochastic":
                extra = [flat_as(p, self._random_bits(a.p))]
            noise = [flat_as(p, self._noise[a.p])] if self.draws_noise else []
            extra = [*extra, *totals]
            tensors = [where, g, *state, *noise, *extra]
            self._update_of(a, tensors, len(noise), len(extra), common)(tensors)
            if flat is None:
                p.copy_(where.view(p.shape))

        return update, []

    def _update_pack(self, pack: Pack, members: list[Active], common: Any) -> None:
        """Small tensors, all at once."""
        flat_p = pack.gather()
        flat_g = flattened([a.g for a in members])
        state, extra = self._state_and_extra(pack.state)
        if self.rounding == "stochastic":
            extra = [flattened([self._random_bits(a.p) for a in members])]
        noise = [flattened([self._noise[a.p] for a in members])] if self.draws_noise else []
        spread = _spread(members, pack.sizes, common) if common is not None else {}
        inputs = [*noise, *spread.values()]
        extra = [*extra, *self._sums.of(id(members[0].group), members[0].p)]
        tensors = [flat_p, flat_g, *state, *inputs, *extra]
        self._update_of(members[0], tensors, len(inputs), len(extra), common, tuple(spread))(
            tensors
        )
        pack.scatter(flat_p)

    def _state_and_extra(self, state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The compensation is the last slot of the state; the rule does not see it."""
        return (state[:-1], state[-1:]) if self.rounding == "compensated" else (state, [])

    def summed_pairs(
        self, summands: Summands, count: int, pairs: Sequence[tuple[Tensor, Tensor]]
    ) -> list[float]:
        """The `count` sums of ``summands(s, g)`` over all pairs; s is the optimizer's own."""
        return self._pairs.of(summands, count, pairs, self.uses_compiler())

    # ---- running the rule on flat memory ----

    def _update_of(
        self,
        a: Active,
        tensors: list[Tensor],
        n_inputs: int,
        n_extra: int,
        common: Any,
        spread: tuple[str, ...] = (),
    ) -> Callable[[list[Tensor]], None]:
        """The update of flat tensors such as (p, g, state, inputs, extra)."""
        prepared = self._prepare(a.group, int(a.state["step"]), spread)
        kind = tuple([t.dtype for t in tensors]) if self.uses_compiler() else ()
        if common is None:
            update = prepared.updates.get(kind)
            if update is None:
                update = self._make_update(prepared, prepared.numbers, tensors, n_inputs, n_extra)
                prepared.updates[kind] = update
            return update
        own = {n: v for n, v in common(a).items() if n not in spread}
        return self._make_update(prepared, {**prepared.numbers, **own}, tensors, n_inputs, n_extra)

    def _make_update(
        self,
        prepared: _Prepared,
        numbers: Mapping[str, float],
        tensors: list[Tensor],
        n_inputs: int,
        n_extra: int,
    ) -> Callable[[list[Tensor]], None]:
        n_state = len(tensors) - 2 - n_inputs - n_extra
        if not self.uses_compiler():
            whole = self.n_summands
            return functools.partial(eager, prepared.update, n_state, n_inputs, numbers, whole)
        counts = (n_state, n_inputs, n_extra)
        loop = compiled(prepared.key, prepared.update, counts, numbers, tensors)
        scalars = self._scalars_of(loop, numbers)
        return functools.partial(compiled_update, loop, scalars, self.n_summands)

    def _scalars_of(self, loop: Compiled, numbers: Mapping[str, float]) -> Tensor:
        at = (id(loop), *numbers.values())
        if at not in self._scalars:
            self._scalars[at] = loop.scalars(list(numbers.values()))
        return self._scalars[at]

    def _prepare(self, group: dict[str, Any], k: int, spread: tuple[str, ...]) -> _Prepared:
        """What all parameters of a group at their k-th step have in common; made once a step."""
        at = (id(group), k, spread)
        prepared = self._prepared.get(at)
        if prepared is None:
            static = self.static(group)
            rule = _fed(type(self).rule, spread) if spread else type(self).rule
            static_key = tuple(static.items())
            key = (rule, group["maximize"], self.rounding, static_key, self.n_summands)
            update = _updates.get(key)
            if update is None:
                summands = type(self).summands if self.n_summands else None
                update = _updates[key] = in_place(
                    rule, group["maximize"], self.rounding, static, summands
                )
            prepared = self._prepared[at] = _Prepared(key, update, self.numbers(group, k), {})
        return prepared

    def _project(self, a: Active) -> None:
        assert self.constraint is not None
        weights = self.metric(a, int(a.state["step"]))
        projected = self.constraint.project(
            whole(a.p.detach()), None if weights is None else _positive(whole(weights))
        )
        local(a.p).copy_(sharded_like(projected, a.p))

    def _check_parameter(self, group: dict[str, Any], p: Tensor) -> None:
        super()._check_parameter(group, p)
        if self.constraint is None or p.numel() == 0:
            return
        start = whole(p.detach())
        inside = self.constraint.project(start)
        if not torch.allclose(inside, start):
            check.warn(
                f"{self._name(group, p)} starts outside {self.constraint!r}; it was projected"
            )
            with torch.no_grad():
                local(p).copy_(sharded_like(inside, p))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "constraint": self.constraint}


def _positive(h: Tensor) -> Tensor:
    """The weights of a projection for eps = 0: a coordinate never seen (h = 0) moves freely.

    The floor is as low as a projection can divide by beside the largest weight.
    """
    if h.numel() == 0:
        return h
    return h.clamp_min(max(torch.finfo(h.dtype).tiny, 1e-150 * float(h.amax())))


def _spread(
    members: Sequence[Active], sizes: Sequence[int], common: Callable[[Active], Mapping[str, float]]
) -> dict[str, Tensor]:
    """Numbers in which packed tensors differ, as one vector each: an entry's is its tensor's."""
    each = [common(a) for a in members]
    p = members[0].p
    vectors = {}
    for name in each[0]:
        values = [numbers[name] for numbers in each]
        if len(set(values)) > 1:
            flat = torch.empty(sum(sizes), dtype=compute_dtype(p.dtype), device=p.device)
            for piece, value in zip(flat.split_with_sizes(list(sizes)), values, strict=True):
                piece.fill_(value)
            vectors[name] = flat
    return vectors


@functools.cache
def _fed(rule: Rule, names: tuple[str, ...]) -> Rule:
    """`rule` with the keywords `names` given as its last positional tensors."""

    @functools.wraps(rule)
    def fed(p: Tensor, g: Tensor, *rest: Tensor, **numbers: Any) -> tuple[Tensor, ...]:
        n = len(rest) - len(names)
        return rule(p, g, *rest[:n], **dict(zip(names, rest[n:], strict=True)), **numbers)

    return fed
