"""The kinks of maximum pooling: where another entry of a window becomes the largest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_POOLS = {
    1: (functional.max_pool1d, functional.max_pool1d_with_indices, torch.max_pool1d,
        torch.max_pool1d_with_indices),
    2: (functional.max_pool2d, functional.max_pool2d_with_indices, torch.max_pool2d),
    3: (functional.max_pool3d, functional.max_pool3d_with_indices, torch.max_pool3d),
}  # fmt: skip
_ADAPTIVE = {
    1: (functional.adaptive_max_pool1d, functional.adaptive_max_pool1d_with_indices,
        torch.adaptive_max_pool1d),
    2: (functional.adaptive_max_pool2d, functional.adaptive_max_pool2d_with_indices),
    3: (functional.adaptive_max_pool3d, functional.adaptive_max_pool3d_with_indices),
}  # fmt: skip
_POOL = {function: dims for dims, functions in _POOLS.items() for function in functions}
_ADAPTIVE_POOL = {function: dims for dims, functions in _ADAPTIVE.items() for function in functions}


def pooling_margins(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    r"""By how much the largest entry of each window leads the others.

    .. math:: z_{wj} = \max_i x_{wi} - x_{wj} \ge 0, \qquad j \ne \arg\max_i x_{wi}

    A pooled value has a corner where one of them is 0.

    Parameters
    ----------
    func, args, kwargs
        A call of a function of torch.

    Returns
    -------
    Tensor or None
        ``(margins,)`` with its graph, padding left out; None if the call is no maximum pooling.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 3.0, 2.5, 0.0]])
    >>> pooling_margins(functional.max_pool1d, (x, 2), {}).tolist()
    [2.0, 2.5]
    """
    if func in _POOL:
        dims, windows = _POOL[func], _fixed(args, kwargs, _POOL[func])
    elif func in _ADAPTIVE_POOL:
        dims, windows = _ADAPTIVE_POOL[func], _adaptive(args, kwargs, _ADAPTIVE_POOL[func])
    else:
        return None
    x = args[0] if args else kwargs["input"]
    lead = x.ndim - dims
    for at in reversed(range(dims)):  # from the last on, so that the others keep their places
        x = _gathered(x, lead + at, windows[at])
    # (..., out, width, out, width) -> (..., out, out, width * width)
    order = [*range(lead), *range(lead, x.ndim, 2), *range(lead + 1, x.ndim, 2)]
    x = x.permute(order).flatten(-dims)
    largest, first = x.max(-1, keepdim=True)
    others = torch.ones_like(x, dtype=torch.bool).scatter_(-1, first, False)
    return (largest - x)[others & torch.isfinite(x.detach())]


def _gathered(x: Tensor, at: int, rows: Tensor) -> Tensor:
    """Dimension `at` as windows ``(out, width)``; minus infinity where a row is -1."""
    pad = x.new_full((*x.shape[:at], 1, *x.shape[at + 1 :]), -math.inf)
    padded = torch.cat([x, pad], dim=at)
    index = torch.where(rows < 0, x.shape[at], rows).to(x.device)
    return padded.index_select(at, index.flatten()).unflatten(at, index.shape)


def _fixed(args: tuple[Any, ...], kwargs: dict[str, Any], dims: int) -> list[Tensor]:
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = dict(zip(names, args, strict=False)) | kwargs
    size = _each(given["kernel_size"], dims)
    stride = given.get("stride")
    steps = size if stride is None or stride == [] else _each(stride, dims)
    padding = _each(given.get("padding", 0), dims)
    dilation = _each(given.get("dilation", 1), dims)
    lengths = given["input"].shape[-dims:]
    return [
        _windows(*which, bool(given.get("ceil_mode")))
        for which in zip(lengths, size, steps, padding, dilation, strict=True)
    ]


def _windows(
    length: int, size: int, stride: int, padding: int, dilation: int, ceil: bool
) -> Tensor:
    """Rows of the input in each window ``(out, size)``, -1 for padding.

    A last window that begins in the padding, which torch leaves out, has no row at all.
    """
    reach = length + 2 * padding - dilation * (size - 1) - 1
    out = (math.ceil(reach / stride) if ceil else reach // stride) + 1
    first = torch.arange(out)[:, None] * stride - padding
    rows = first + torch.arange(size) * dilation
    return torch.where((rows < 0) | (rows >= length), -1, rows)


def _adaptive(args: tuple[Any, ...], kwargs: dict[str, Any], dims: int) -> list[Tensor]:
    given = dict(zip(("input", "output_size"), args, strict=False)) | kwargs
    lengths = given["input"].shape[-dims:]
    outs = _each(given["output_size"], dims)
    windows = []
    for length, wanted in zip(lengths, outs, strict=True):
        out = length if wanted is None else wanted
        i = torch.arange(out)
        begin, end = i * length // out, -((-(i + 1) * length) // out)
        rows = begin[:, None] + torch.arange(int((end - begin).max()))
        windows.append(torch.where(rows < end[:, None], rows, -1))
    return windows


def _each(value: Any, dims: int) -> list[Any]:
    """One number for all dimensions, or one for each."""
    if isinstance(value, int) or value is None:
        return [value] * dims
    return [*value] * (dims if len(value) == 1 else 1)
