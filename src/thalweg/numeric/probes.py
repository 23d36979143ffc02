"""Random vectors, and products with them: checked, in blocks, summed in double."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric.operator import LinearOperator


def rademacher(operator: LinearOperator, k: int, generator: torch.Generator) -> Tensor:
    """``(n, k)`` entries +1 or -1 with equal odds; the first columns do not depend on `k`.

    They are drawn where the generator is (usually the CPU), so that all devices and processes get
    the same.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> A, seed = as_operator(torch.eye(4)), torch.Generator().manual_seed
    >>> bool((rademacher(A, 2, seed(0)) == rademacher(A, 3, seed(0))[:, :2]).all())
    True
    """
    V = torch.empty(k, operator.shape[0], dtype=operator.dtype, device=operator.device)
    for v in V:
        v.copy_(torch.randint(2, v.shape, generator=generator, device=generator.device))
    return V.mul_(2).sub_(1).T


def column_dots(X: Tensor, Y: Tensor) -> Tensor:
    """The inner products of the columns of X with those of Y, in float64 on the CPU.

    Examples
    --------
    >>> column_dots(torch.ones(3, 2), torch.ones(3, 2)).tolist()
    [3.0, 3.0]
    """
    return torch.stack([(x * y).sum(dtype=torch.float64) for x, y in zip(X.T, Y.T)]).cpu()


def block(operator: LinearOperator, memory: int, most: int = 10) -> int:
    """How many vectors to multiply at once: `most`, or what fits (each with product and work)."""
    check.number("memory", memory, gt=0)
    return int(max(1, min(most, memory // (4 * operator.shape[0] * operator.dtype.itemsize))))


def computable(operator: LinearOperator) -> None:
    """Refuse operators that are complex or of half precision: their sums would mean nothing."""
    if operator.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"operator must be of float32 or float64, got {operator.dtype}")


def finite(product: Tensor) -> Tensor:
    """Return a product of the operator, if all of it is finite."""
    if not bool(product.isfinite().all()):
        bad = int((~product.isfinite()).sum())
        raise ValueError(
            "the products of operator must be finite, got NaN or infinity in "
            f"{bad} of {product.numel()} elements"
        )
    return product


def multiply(operator: LinearOperator, V: Tensor, size: int) -> Tensor:
    """``A @ V``, `size` columns at a time, refused if not finite.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> multiply(as_operator(2 * torch.eye(2)), torch.ones(2, 3), size=2).tolist()
    [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    """
    return torch.cat([finite(operator @ part) for part in V.split(size, dim=1)], dim=1)
