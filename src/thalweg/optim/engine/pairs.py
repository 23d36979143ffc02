"""Sums over pairs of tensors: of the optimizer's own, which come back, and of new ones."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.engine.batches import flattened, packable
from thalweg.optim.engine.flat import COMPILED_PIECE, compiled, eager
from thalweg.optim.engine.kernel import Calls
from thalweg.optim.engine.sharding import is_sharded, local
from thalweg.optim.engine.sums import Sums
from thalweg.optim.engine.update import Summands, Update, summing


class PairSums:
    """Sums of functions of two tensors over all their entries; calls are kept from step to step."""

    def __init__(self) -> None:
        self._kept: dict[Any, tuple[list[Tensor], Calls]] = {}

    def of(
        self,
        summands: Summands,
        count: int,
        pairs: Sequence[tuple[Tensor, Tensor]],
        compile: bool,
    ) -> list[float]:
        """The `count` sums of ``summands(s, g)`` over the entries of all pairs, in one pass.

        Of a pair, s is the optimizer's own (it is there next time too) and g, which has its shape
        and layout, is not. Shards are added up.
        """
        sums = Sums(count)
        if compile and (calls := self._as_last_time(summands, pairs)) is not None:
            totals = [sums.of("", pairs[0][0])] * len(pairs)
            calls([g for _, g in pairs], totals, [calls.loop.scalars([])] * len(pairs))
            return sums.over("")
        kinds: dict[Any, list[tuple[Tensor, Tensor]]] = {}
        for s, g in pairs:
            if local(s).numel():
                small = packable(s) and packable(g)
                kind = (small, torch.get_num_threads(), _in_rows(s), s.dtype, g.dtype, s.device)
                kinds.setdefault(kind, []).append((s, g))
        for kind, members in kinds.items():
            if kind[0]:
                flat = [flattened(list(tensors)) for tensors in zip(*members, strict=True)]
                members = [(flat[0], flat[1])]
            totals = [sums.of("", s) for s, _ in members]
            own, given = [s for s, _ in members], [g for _, g in members]
            if compile and all(s.numel() <= COMPILED_PIECE for s in own):
                self._run_compiled(summands, kind, own, given, totals)
                continue
            for s, g, t in zip(own, given, totals, strict=True):
                eager(_summing(summands), 0, 0, {}, count, [_vector(s), _vector(g), *t])
        return sums.over("")

    def _as_last_time(
        self, summands: Summands, pairs: Sequence[tuple[Tensor, Tensor]]
    ) -> Calls | None:
        """The calls for all pairs, if they are of one kind and nothing has changed hands."""
        if len(self._kept) != 1:
            return None
        [((known, (_, threads, _, _, dtype, device)), (own, calls))] = self._kept.items()
        same = (
            known is summands
            and threads == torch.get_num_threads()
            and calls.loop.goes_by_address
            and len(own) == len(pairs)
            and all(
                s is kept and g.dtype is dtype and g.device == device and _plain(g)
                for (s, g), kept in zip(pairs, own, strict=True)
            )
        )
        return calls if same else None

    def _run_compiled(
        self,
        summands: Summands,
        kind: Any,
        own: list[Tensor],
        given: list[Tensor],
        totals: Sequence[list[Tensor]],
    ) -> None:
        """Add up pairs of one kind, each in its accumulators."""
        kept, calls = self._kept.get((summands, kind), ([], None))
        if calls is None or len(kept) != len(own) or not all(map(operator.is_, kept, own)):
            tensors = [[_rows(s), _rows(g), *t] for s, g, t in zip(own, given, totals, strict=True)]
            update, count = _summing(summands), len(totals[0])
            loop = compiled((summands,), update, (0, 0, count), {}, tensors[0])
            calls = Calls(loop, tensors, count)
            packed = kind[0]
            if not packed and all(map(_plain, own)):
                self._kept[summands, kind] = (own, calls)
        if not (calls.loop.goes_by_address and all(map(_plain, given))):
            given = [_rows(g) for g in given]
        calls(given, totals, [calls.loop.scalars([])] * len(given))


def _plain(t: Tensor) -> bool:
    return not is_sharded(t) and t.is_contiguous()


def _in_rows(t: Tensor) -> bool:
    """Whether to sum a tensor up row by row, in registers: as one vector it takes twice as long."""
    t = local(t)
    return t.dim() > 1 and 1 < t.shape[0] < t.numel() <= COMPILED_PIECE


def _rows(t: Tensor) -> Tensor:
    return local(t).reshape(t.shape[0], -1) if _in_rows(t) else _vector(t)


def _vector(t: Tensor) -> Tensor:
    return local(t).reshape(-1)


@functools.cache
def _summing(summands: Summands) -> Update:
    return summing(summands)
