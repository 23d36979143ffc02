"""Linear operators: a square matrix known only by its products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from thalweg.core import check


@runtime_checkable
class LinearOperator(Protocol):
    r"""What every algorithm of `thalweg.numeric` asks of a matrix: a shape and the product.

    .. math:: v \mapsto A v, \qquad A \in \mathbb{C}^{n \times n}

    Anything with these members will do; nothing has to inherit from it. The algorithms that need
    a symmetric (Hermitian) operator say so.

    Examples
    --------
    >>> class Twice:
    ...     shape, dtype, device = (3, 3), torch.float64, torch.device("cpu")
    ...
    ...     def __matmul__(self, v):
    ...         return 2 * v
    >>> isinstance(Twice(), LinearOperator)
    True
    """

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, n)``."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the vectors, real or complex."""

    @property
    def device(self) -> torch.device:
        """Where the vectors are."""

    def __matmul__(self, v: Tensor) -> Tensor:
        """The product with one vector ``(n,)`` or with the columns of ``(n, k)``; same shape."""


class FunctionOperator:
    r"""The operator :math:`v \mapsto f(v)`; see `as_operator`.

    Examples
    --------
    >>> FunctionOperator(lambda v: 2 * v, 3, torch.float64) @ torch.ones(3, dtype=torch.float64)
    tensor([2., 2., 2.], dtype=torch.float64)
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        n: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        columnwise: bool = False,
    ) -> None:
        self.function = function
        self.columnwise = columnwise
        self.shape = (int(check.number("n", n, ge=1, integer=True)),) * 2
        if not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(f"dtype must be real or complex floating point, got {dtype}")
        self.dtype = dtype
        self.device = torch.device(device)

    def __matmul__(self, v: Tensor) -> Tensor:
        _check_factor(self, v)
        if self.columnwise and v.ndim == 2:
            product = torch.stack([self.function(column) for column in v.T], dim=1)
        else:
            product = self.function(v)
        if product.shape != v.shape:
            raise ValueError(
                f"the function of the operator must return the shape of its argument, "
                f"{tuple(v.shape)}, got {tuple(product.shape)}"
            )
        return product


class Counted:
    """An operator that counts its products: a block of k vectors counts k.

    Parameters
    ----------
    operator
        Any `LinearOperator`.

    Attributes
    ----------
    n_products
        Matrix-vector products so far.

    Examples
    --------
    >>> A = Counted(as_operator(torch.eye(3)))
    >>> _ = A @ torch.ones(3), A @ torch.ones(3, 5)
    >>> A.n_products
    6
    """

    def __init__(self, operator: LinearOperator) -> None:
        self.operator = operator
        self.n_products = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n), as of the operator."""
        return self.operator.shape

    @property
    def dtype(self) -> torch.dtype:
        """As of the operator."""
        return self.operator.dtype

    @property
    def device(self) -> torch.device:
        """As of the operator."""
        return self.operator.device

    def __matmul__(self, v: Tensor) -> Tensor:
        product = self.operator @ v
        self.n_products += 1 if v.ndim == 1 else v.shape[1]
        return product


def as_operator(
    a: LinearOperator | Tensor | Callable[[Tensor], Tensor],
    n: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    *,
    columnwise: bool = False,
) -> LinearOperator:
    r"""Return `a` as a `LinearOperator` :math:`v \mapsto A v`.

    Parameters
    ----------
    a
        A square matrix, a function of vectors, or an operator (returned as it is).
    n
        The order of the operator; needed for a function.
    dtype
        Of the vectors; needed for a function.
    device
        Of the vectors, for a function. Default the CPU.
    columnwise
        The function takes one vector ``(n,)`` at a time, not blocks ``(n, k)``. Default False.

    Returns
    -------
    LinearOperator
        Use it as ``operator @ v``.

    Raises
    ------
    TypeError
        If `a` is none of these, a function without `n` or `dtype`, or a matrix of integers.
    ValueError
        If the matrix is not square.

    Examples
    --------
    >>> A = as_operator(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    >>> (A @ torch.tensor([1.0, 2.0])).tolist()
    [2.0, 1.0]
    >>> laplacian = as_operator(lambda v: 2 * v - v.roll(1, 0) - v.roll(-1, 0), 8, torch.float64)
    >>> float((laplacian @ torch.ones(8, dtype=torch.float64)).norm())
    0.0
    """
    if isinstance(a, Tensor):
        if a.ndim != 2 or a.shape[0] != a.shape[1]:
            raise ValueError(f"the matrix must be square, got shape {tuple(a.shape)}")
        if not (a.is_floating_point() or a.is_complex()):
            raise TypeError(f"the matrix must be real or complex floating point, got {a.dtype}")
        return FunctionOperator(lambda v: a @ v, a.shape[0], a.dtype, a.device)
    if isinstance(a, LinearOperator):
        return a
    if not callable(a):
        raise TypeError(f"a must be a matrix, a function or an operator, got {type(a).__name__}")
    if n is None or dtype is None:
        raise TypeError("a function needs n and dtype: as_operator(function, n, dtype)")
    return FunctionOperator(a, n, dtype, device, columnwise)


def dense(operator: LinearOperator, chunk: int = 128) -> Tensor:
    r"""Return the matrix of an operator, :math:`A I`, from n products.

    Parameters
    ----------
    operator
        Any `LinearOperator`.
    chunk
        Columns per product, >= 1. Default 128.

    Returns
    -------
    Tensor
        ``(n, n)``, on the operator's device.

    Examples
    --------
    >>> dense(as_operator(lambda v: v.flip(0), 2, torch.float64)).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    n = operator.shape[0]
    chunk = int(check.number("chunk", chunk, ge=1, integer=True))
    identity = torch.eye(n, dtype=operator.dtype, device=operator.device)
    return torch.cat([operator @ part for part in identity.split(chunk, dim=1)], dim=1)


def _check_factor(operator: LinearOperator, v: Tensor) -> None:
    n = operator.shape[0]
    if v.ndim not in (1, 2) or v.shape[0] != n:
        raise ValueError(f"v must be of shape ({n},) or ({n}, k), got {tuple(v.shape)}")
