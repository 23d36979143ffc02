"""An elementwise update of flat memory: eagerly, piece by piece, or compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.engine.kernel import Compiled
from thalweg.optim.engine.update import Update

#: Entries of a piece of an eager update: its intermediate results stay in the cache.
EAGER_PIECE = 2**15
#: Shapes of vectors and matrices to compile a rule with (their sizes matter only as "large").
_EXAMPLES = {1: (2**20,), 2: (2**10, 2**10 + 2)}
#: A compiled loop counts in 32 bits on some devices.
COMPILED_PIECE = 2**30

_compiled: dict[Any, Compiled] = {}


def eager(
    update: Update,
    n_state: int,
    n_inputs: int,
    numbers: Mapping[str, float],
    n_whole: int,
    tensors: list[Tensor],
) -> None:
    """Run `update` piece by piece on (p, g, state, inputs, extra), the last `n_whole` apart."""
    inputs, extra = 2 + n_state, 2 + n_state + n_inputs
    size = tensors[0].numel()
    for start in range(0, size, EAGER_PIECE):
        t = tensors
        if size > EAGER_PIECE:
            t = _piece(tensors, n_whole, start, EAGER_PIECE)
        update(t[0], t[1], t[2:inputs], t[inputs:extra], t[extra:], numbers)


def _piece(tensors: list[Tensor], n_whole: int, start: int, size: int) -> list[Tensor]:
    cut = len(tensors) - n_whole
    return [*(t[start : start + size] for t in tensors[:cut]), *tensors[cut:]]


def compiled_update(loop: Compiled, scalars: Tensor, n_whole: int, tensors: list[Tensor]) -> None:
    """Run `loop` on (p, g, state, inputs, extra), the last `n_whole` apart."""
    size = tensors[0].numel()
    if size <= COMPILED_PIECE:
        loop(tensors, scalars)
        return
    for start in range(0, size, COMPILED_PIECE):
        loop(_piece(tensors, n_whole, start, COMPILED_PIECE), scalars)


def compiled(
    key: Any,
    update: Update,
    counts: tuple[int, int, int],
    numbers: Mapping[str, float],
    tensors: Sequence[Tensor],
) -> Compiled:
    """`update` for tensors of these formats, compiled at its first use; `key` identifies it.

    Raises
    ------
    RuntimeError
        If it asks for shapes: flat memory has none.
    """
    kind = tuple(t.dtype for t in tensors)
    p = tensors[0]
    full = (key, counts, tuple(numbers), kind, p.dim(), p.device, torch.get_num_threads())
    if full not in _compiled:
        shapes = [(1,) if t.numel() == 1 else _EXAMPLES[p.dim()] for t in tensors]
        examples = [
            torch.empty(shape, dtype=t.dtype, device=t.device)
            for shape, t in zip(shapes, tensors, strict=True)
        ]
        loop = Compiled(update, counts, tuple(numbers), examples)
        if not loop.for_all_sizes:
            raise RuntimeError(
                f"the elementwise rule {key[0].__qualname__} must not ask for shapes"
            )
        _compiled[full] = loop
    return _compiled[full]
