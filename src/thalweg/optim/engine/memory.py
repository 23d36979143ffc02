"""A tensor's memory as a vector without holes, walked in the order in which the parameter lies.

The compiled loop reads consecutive memory whatever the strides say: a stride must not survive.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _strides(t: Tensor) -> tuple[int, ...]:
    """Strides that matter: those of dimensions longer than one."""
    return tuple(s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1)


def same_order(t: Tensor, p: Tensor) -> bool:
    """True if `flat_as(p, t)` is a view of `t`: its memory is walked in the order of `p`'s."""
    if p.is_contiguous():
        return t.is_contiguous()
    return _strides(t) == _strides(p) if _dense(p) else t.is_contiguous()


def in_order_of(p: Tensor, t: Tensor) -> Tensor:
    """A copy of `t` for which `same_order` holds."""
    if p.is_contiguous() or not _dense(p):
        return t.clone(memory_format=torch.contiguous_format)
    return torch.empty_like(p, dtype=t.dtype).copy_(t)


def flat_parameter(p: Tensor) -> tuple[Tensor, bool]:
    """The memory of `p` as a vector, and whether that had to be a copy."""
    if p.is_contiguous():
        return p.detach().view(-1), False
    if _dense(p):
        return p.detach().as_strided((p.numel(),), (1,), p.storage_offset()), False
    return p.detach().clone(memory_format=torch.contiguous_format).view(-1), True


def flat_as(p: Tensor, t: Tensor) -> Tensor:
    """`t` as a vector without holes, in the order in which `flat_parameter` walks through `p`.

    The compiled loop reads consecutive memory whatever the strides say: a stride must not survive.
    """
    if not same_order(t, p):
        t = in_order_of(p, t)
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
