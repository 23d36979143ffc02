"""Scope *elementwise*: the rule treats every entry alike, so any flat piece of memory will do.

Large tensors are updated where they lie. Small ones (there are hundreds in a network, and a call
costs more than their arithmetic) are packed: their state lives in one flat tensor per slot, of
which ``state[p][slot]`` are views, and each step copies parameters and gradients in and
parameters out.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.optim.engine.base import Active, How, RuleOptimizer
from thalweg.optim.engine.kernel import Compiled, Rule, Update, compute_dtype, in_place
from thalweg.optim.engine.sharding import is_sharded, local, sharded_like, whole, wrapped_like

#: Entries up to which a tensor is packed with others.
SMALL = 2**14
#: Entries of a piece of an eager update: its intermediate results stay in the cache.
EAGER_PIECE = 2**15
#: Entries of the tensors that a rule is compiled with (the size matters only as "large").
_EXAMPLE = 2**20
#: A compiled loop counts in 32 bits on some devices.
_COMPILED_PIECE = 2**30

_updates: dict[Any, Update] = {}
_compiled: dict[Any, Compiled] = {}


class Constraint(Protocol):
    """A set that parameters are projected to, each one by itself, after its move."""

    def project(self, y: Tensor, weights: Tensor | None = None) -> Tensor: ...


class _Prepared(NamedTuple):
    """The update of a group's parameters at one step count, its numbers, its loops by format."""

    key: Any
    update: Update
    numbers: dict[str, float]
    loops: dict[tuple[torch.dtype, ...], Compiled]


class Pack:
    """Small parameters of one format whose state is stored back to back."""

    def __init__(self, members: Sequence[Active], slots: Sequence[str]) -> None:
        self.params = [a.p for a in members]
        self.aliases = [p.detach().view(-1) for p in self.params]
        self.sizes = [p.numel() for p in self.params]
        self.addresses = [p.data_ptr() for p in self.params]
        self.step = members[0].state["step"].clone()
        self.flat: dict[str, Tensor] = {}
        self.views: dict[str, list[Tensor]] = {}
        for slot in slots:
            pieces = [a.state[slot] for a in members]
            self.flat[slot] = _flatten(pieces)
            self.views[slot] = list(torch._C._nn.unflatten_dense_tensors(self.flat[slot], pieces))
        for i, member in enumerate(members):
            member.state["step"] = self.step
            for slot in slots:
                member.state[slot] = self.views[slot][i]

    def holds(self, members: Sequence[Active], slots: Sequence[str]) -> bool:
        """True if these parameters, with the state they have now, are this pack."""
        if len(members) != len(self.params) or tuple(self.views) != tuple(slots):
            return False
        states = [a.state for a in members]
        return (
            all(map(operator.is_, [a.p for a in members], self.params))
            and [p.data_ptr() for p in self.params] == self.addresses
            and all(state["step"] is self.step for state in states)
            and all(
                all(map(operator.is_, [state[slot] for state in states], views))
                for slot, views in self.views.items()
            )
        )

    def gather(self) -> Tensor:
        """The parameters, back to back."""
        return torch.cat(self.aliases)

    def scatter(self, flat: Tensor) -> None:
        """Write the parameters back."""
        torch.split_with_sizes_copy(flat, self.sizes, out=self.aliases)


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

    def _forget(self) -> None:
        super()._forget()
        self._known_packs: dict[int, list[Pack]] = {}

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
        common = self.common(active)
        self._scalars: dict[Any, Tensor] = {}
        self._prepared: dict[Any, _Prepared] = {}
        for group in self.param_groups:
            members = [a for a in active if a.group is group]
            slots = self._all_slots(group)
            known = self._known_packs.get(id(group), [])
            if len(known) == 1 and known[0].holds(members, slots):
                packs, large = [(known[0], members)], []
            else:
                large = [a for a in members if not _packable(a)]
                packs = self._packs(group, [a for a in members if _packable(a)], slots)
            for a in large:
                self._update_one(a, slots, common)
            for pack, packed in packs:
                self._update_pack(pack, packed, slots, common)
        self._noise, self._scalars, self._prepared = {}, {}, {}
        if self.constraint is not None:
            for a in active:
                self._project(a)

    # ---- one large tensor ----

    def _update_one(self, a: Active, slots: Sequence[str], common: Any) -> None:
        a.state["step"].add_(1)
        p = local(a.p)
        if p.numel() == 0:
            return
        flat_p, returns = _flat_parameter(p)
        state = []
        for slot in slots:
            value = local(a.state[slot])
            if not _same_order(value, p):  # a checkpoint may have changed the memory order
                value = _in_order_of(p, value)
                a.state[slot] = wrapped_like(value, a.p)
            state.append(_flat_as(p, value))
        extra: list[Tensor] = []
        if self.rounding == "compensated":
            extra, state = [state[-1]], state[:-1]
        elif self.rounding == "stochastic":
            extra = [_flat_as(p, self._random_bits(a.p))]
        noise = [_flat_as(p, self._noise[a.p])] if self.draws_noise else []
        tensors = [flat_p, _flat_as(p, local(a.g)), *state, *noise]
        self._run(a, len(state), tensors, extra, common)
        if returns:
            p.copy_(flat_p.view(p.shape))

    # ---- many small ones ----

    def _packs(
        self, group: dict[str, Any], small: list[Active], slots: Sequence[str]
    ) -> list[tuple[Pack, list[Active]]]:
        """The packs of a group; rebuilt when gradients, step counts or state have changed hands."""
        if not small:
            return []
        known = self._known_packs.get(id(group), [])
        if len(known) == 1 and known[0].holds(small, slots):
            return [(known[0], small)]
        kinds: dict[Any, list[Active]] = {}
        for a in small:
            state_kind = tuple(a.state[slot].dtype for slot in slots)
            key = (a.p.dtype, a.g.dtype, a.p.device, state_kind, float(a.state["step"]))
            kinds.setdefault(key, []).append(a)
        packs = []
        for members in kinds.values():
            pack = next((pack for pack in known if pack.holds(members, slots)), None)
            packs.append((pack or Pack(members, slots), members))
        self._known_packs[id(group)] = [pack for pack, _ in packs]
        return packs

    def _update_pack(
        self, pack: Pack, members: list[Active], slots: Sequence[str], common: Any
    ) -> None:
        pack.step.add_(1)
        flat_p = pack.gather()
        flat_g = _flatten([a.g for a in members])
        state = [pack.flat[slot] for slot in slots]
        extra: list[Tensor] = []
        if self.rounding == "compensated":
            extra, state = [state[-1]], state[:-1]
        elif self.rounding == "stochastic":
            extra = [_flatten([self._random_bits(a.p) for a in members])]
        noise = [_flatten([self._noise[a.p] for a in members])] if self.draws_noise else []
        spread = _spread(members, pack.sizes, common) if common is not None else {}
        tensors = [flat_p, flat_g, *state, *noise, *spread.values()]
        self._run(members[0], len(state), tensors, extra, common, tuple(spread))
        pack.scatter(flat_p)

    # ---- running the rule on flat memory ----

    def _run(
        self,
        a: Active,
        n_state: int,
        tensors: list[Tensor],
        extra: list[Tensor],
        common: Any,
        spread: tuple[str, ...] = (),
    ) -> None:
        prepared = self._prepare(a.group, int(a.state["step"]), spread)
        update, numbers = prepared.update, prepared.numbers
        if common is not None:
            own = {n: v for n, v in common(a).items() if n not in spread}
            numbers = {**numbers, **own}
        everything = [*tensors, *extra]
        n_inputs = len(tensors) - 2 - n_state
        size = tensors[0].numel()
        if self.uses_compiler():
            kind = tuple([t.dtype for t in everything])
            loop = prepared.loops.get(kind)
            if loop is None:
                counts = (n_state, n_inputs, len(extra))
                loop = prepared.loops[kind] = _compile(
                    prepared.key, update, counts, numbers, everything
                )
            at = (id(loop), *numbers.values())
            scalars = self._scalars.get(at)
            if scalars is None:
                scalars = self._scalars[at] = loop.scalars(list(numbers.values()))
            if size <= _COMPILED_PIECE:
                loop(everything, scalars)
            else:
                for start in range(0, size, _COMPILED_PIECE):
                    loop([t[start : start + _COMPILED_PIECE] for t in everything], scalars)
            return
        for start in range(0, size, EAGER_PIECE):
            piece = everything
            if size > EAGER_PIECE:
                piece = [t[start : start + EAGER_PIECE] for t in everything]
            update(
                piece[0],
                piece[1],
                piece[2 : 2 + n_state],
                piece[2 + n_state : 2 + n_state + n_inputs],
                piece[2 + n_state + n_inputs :],
                numbers,
            )

    def _prepare(self, group: dict[str, Any], k: int, spread: tuple[str, ...]) -> _Prepared:
        """What all parameters of a group at their k-th step have in common; made once a step."""
        at = (id(group), k, spread)
        prepared = self._prepared.get(at)
        if prepared is None:
            static = self.static(group)
            rule = _fed(type(self).rule, spread) if spread else type(self).rule
            key = (rule, group["maximize"], self.rounding, tuple(static.items()))
            update = _updates.get(key)
            if update is None:
                update = _updates[key] = in_place(rule, group["maximize"], self.rounding, static)
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
        if self.constraint is None:
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


def _compile(
    key: Any,
    update: Update,
    counts: tuple[int, int, int],
    numbers: Mapping[str, float],
    tensors: Sequence[Tensor],
) -> Compiled:
    kind = tuple(t.dtype for t in tensors)
    full = (key, counts, tuple(numbers), kind, tensors[0].device, torch.get_num_threads())
    if full not in _compiled:
        examples = [torch.empty(_EXAMPLE, dtype=dtype, device=tensors[0].device) for dtype in kind]
        loop = Compiled(update, counts, tuple(numbers), examples)
        if not loop.for_all_sizes:
            raise RuntimeError(
                f"the elementwise rule {key[0].__qualname__} must not ask for shapes"
            )
        _compiled[full] = loop
    return _compiled[full]


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


def _packable(a: Active) -> bool:
    p = a.p
    return 0 < p.numel() <= SMALL and p.is_contiguous() and not is_sharded(p)


def _flatten(tensors: list[Tensor]) -> Tensor:
    if len(tensors) == 1:
        return tensors[0].detach().reshape(-1).clone()
    flat: Tensor = torch._C._nn.flatten_dense_tensors(tensors)
    return flat


def _strides(t: Tensor) -> tuple[int, ...]:
    """Strides that matter: those of dimensions longer than one."""
    return tuple(s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1)


def _same_order(t: Tensor, p: Tensor) -> bool:
    """True if `_flat_as(p, t)` is a view of `t`: its memory is walked in the order of `p`'s."""
    if p.is_contiguous():
        return t.is_contiguous()
    return _strides(t) == _strides(p) if _dense(p) else t.is_contiguous()


def _in_order_of(p: Tensor, t: Tensor) -> Tensor:
    """A copy of `t` for which `_same_order` holds."""
    if p.is_contiguous() or not _dense(p):
        return t.clone(memory_format=torch.contiguous_format)
    return torch.empty_like(p, dtype=t.dtype).copy_(t)


def _flat_parameter(p: Tensor) -> tuple[Tensor, bool]:
    """The memory of `p` as a vector, and whether that had to be a copy."""
    if p.is_contiguous():
        return p.detach().view(-1), False
    if _dense(p):
        return p.detach().as_strided((p.numel(),), (1,), p.storage_offset()), False
    return p.detach().clone(memory_format=torch.contiguous_format).view(-1), True


def _flat_as(p: Tensor, t: Tensor) -> Tensor:
    """`t` as a vector without holes, in the order in which `_flat_parameter` walks through `p`.

    The compiled loop reads consecutive memory whatever the strides say: a stride must not survive.
    """
    if not _same_order(t, p):
        t = _in_order_of(p, t)
    if t.is_contiguous():
        return t.view(-1)
    return t.as_strided((t.numel(),), (1,), t.storage_offset())


def _dense(p: Tensor) -> bool:
    """True if the entries of `p` fill a piece of memory without holes."""
    expected = 1
    for stride, length in sorted(zip(p.stride(), p.shape, strict=True)):
        if length != 1:
            if stride != expected:
                return False
            expected *= length
    return True
