"""Operators: the protocol, wrapping, counting, and what is refused."""

from __future__ import annotations

import pytest
import torch

from thalweg.numeric.operator import Counted, LinearOperator, as_operator, dense

A = torch.tensor([[2.0, 1.0], [1.0, -3.0]], dtype=torch.float64)


def test_a_matrix_multiplies_vectors_and_blocks() -> None:
    operator = as_operator(A)
    V = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert isinstance(operator, LinearOperator)
    assert operator.shape == (2, 2) and operator.dtype == torch.float64
    assert torch.equal(operator @ V, A @ V) and torch.equal(operator @ V[:, 0], A @ V[:, 0])


def test_an_operator_is_returned_as_it_is() -> None:
    operator = as_operator(A)
    assert as_operator(operator) is operator


def test_a_function_of_single_vectors_is_applied_to_each_column() -> None:
    def product(v: torch.Tensor) -> torch.Tensor:
        assert v.ndim == 1
        return A @ v

    operator = as_operator(product, 2, torch.float64, columnwise=True)
    assert torch.equal(operator @ torch.eye(2, dtype=torch.float64), A)


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_dense_gives_the_matrix_back(chunk: int) -> None:
    B = torch.randn(7, 7, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(dense(as_operator(B), chunk), B, atol=1e-14)


def test_counted_counts_vectors() -> None:
    counted = Counted(as_operator(A))
    _ = counted @ torch.ones(2, dtype=torch.float64)
    _ = counted @ torch.ones(2, 4, dtype=torch.float64)
    assert counted.n_products == 5
    assert counted.shape == (2, 2) and counted.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: as_operator(torch.ones(2, 3)), ValueError, "square"),
        (lambda: as_operator(torch.ones(2, 2, dtype=torch.long)), TypeError, "floating"),
        (lambda: as_operator(3), TypeError, "got int"),
        (lambda: as_operator(lambda v: v), TypeError, "needs n and dtype"),
        (lambda: as_operator(lambda v: v, 0, torch.float32), ValueError, "n must be"),
        (lambda: as_operator(lambda v: v, 2, torch.int32), TypeError, "dtype must be"),
        (lambda: as_operator(A) @ torch.ones(3), ValueError, "v must be of shape"),
        (lambda: as_operator(lambda v: v[:1], 2, torch.float32) @ torch.ones(2),
         ValueError, "must return the shape"),
    ],
)  # fmt: skip
def test_bad_input_is_named(make, error, text) -> None:
    with pytest.raises(error, match=text):
        make()
