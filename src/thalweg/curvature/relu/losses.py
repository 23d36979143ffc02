"""The losses of a two-layer ReLU network: value, gradient and Hessian in the outputs."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg.core import check

Floats = NDArray[np.float64]
Loss = Literal["mse", "bce", "ce"]
LOSSES: tuple[Loss, ...] = ("mse", "bce", "ce")


class Formulas(Protocol):
    """What the expansion of the risk needs of a loss, convex and C^2 in the outputs Y (m, d_y)."""

    def value(self, Y: Floats, y: NDArray[Any]) -> Floats: ...
    def gradient(self, Y: Floats, y: NDArray[Any]) -> Floats: ...
    def hessian(self, Y: Floats, y: NDArray[Any]) -> Floats: ...
    def gradient_size(self, size: Floats, y: NDArray[Any]) -> Floats:
        """What the gradient is the small difference of, for outputs summed from terms of `size`."""
        ...


class HalfSquaredError:
    r""":math:`\ell(Y, y) = \frac12 \|Y - y\|^2`."""

    def value(self, Y: Floats, y: NDArray[Any]) -> Floats:
        return 0.5 * np.sum((Y - y) ** 2, axis=1)

    def gradient(self, Y: Floats, y: NDArray[Any]) -> Floats:
        return Y - y

    def hessian(self, Y: Floats, y: NDArray[Any]) -> Floats:
        return np.broadcast_to(np.eye(Y.shape[1]), (*Y.shape, Y.shape[1]))

    def gradient_size(self, size: Floats, y: NDArray[Any]) -> Floats:
        return size + np.abs(y)


class BinaryCrossEntropy:
    r""":math:`\ell(Y, y) = \log(1 + e^Y) - y Y`, one logit."""

    def value(self, Y: Floats, y: NDArray[Any]) -> Floats:
        return np.sum(np.logaddexp(0.0, Y) - y * Y, axis=1)

    def gradient(self, Y: Floats, y: NDArray[Any]) -> Floats:
        return (1 - y) * _sigmoid(Y) - y * _sigmoid(-Y)  # exact to the last digit for y in {0, 1}

    def hessian(self, Y: Floats, y: NDArray[Any]) -> Floats:
        return (_sigmoid(Y) * _sigmoid(-Y))[:, :, None]

    def gradient_size(self, size: Floats, y: NDArray[Any]) -> Floats:
        return y * (1 - y) * (1 + size)


class CrossEntropy:
    r""":math:`\ell(Y, y) = \log \sum_j e^{Y_j} - Y_y`, y the index of the class."""

    def value(self, Y: Floats, y: NDArray[Any]) -> Floats:
        return np.logaddexp.reduce(Y, axis=1) - Y[np.arange(len(Y)), y]

    def gradient(self, Y: Floats, y: NDArray[Any]) -> Floats:
        p = _softmax(Y)
        p[np.arange(len(Y)), y] = 0.0
        p[np.arange(len(Y)), y] = -p.sum(axis=1)  # p_y - 1 without cancellation
        return p

    def hessian(self, Y: Floats, y: NDArray[Any]) -> Floats:
        p = _softmax(Y)
        return p[:, :, None] * np.eye(Y.shape[1]) - p[:, :, None] * p[:, None, :]

    def gradient_size(self, size: Floats, y: NDArray[Any]) -> Floats:
        return np.zeros_like(size)


FORMULAS: dict[str, Formulas] = {
    "mse": HalfSquaredError(),
    "bce": BinaryCrossEntropy(),
    "ce": CrossEntropy(),
}


def targets(y: Any, loss: Loss, shape: tuple[int, int]) -> NDArray[Any]:
    """The targets in the form `loss` takes them, for outputs of `shape` (m, d_y).

    Raises
    ------
    ValueError
        If they do not fit the outputs, or are outside their range.

    Examples
    --------
    >>> targets([0, 1], "bce", (2, 1)).tolist()
    [[0.0], [1.0]]
    >>> targets([0, 3], "ce", (2, 3))
    Traceback (most recent call last):
    ...
    ValueError: y must hold class indices in [0, 2], got 3
    """
    check.choice("loss", loss, LOSSES)
    m, d_y = shape
    array = np.asarray(y)
    if loss == "ce":
        if array.shape != (m,) or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(
                f"y must hold {m} class indices (integers) for loss 'ce', "
                f"got {array.dtype} of shape {array.shape}"
            )
        if d_y < 2:
            raise ValueError(f"W2 must have >= 2 rows for loss 'ce', got {d_y}")
        wrong = array[(array < 0) | (array >= d_y)]
        if wrong.size:
            raise ValueError(f"y must hold class indices in [0, {d_y - 1}], got {wrong[0]}")
        return array
    if loss == "bce" and d_y != 1:
        raise ValueError(f"W2 must have 1 row for loss 'bce', got {d_y}")
    real = np.asarray(array, dtype=np.float64)
    if real.shape == (m,) and d_y == 1:
        real = real[:, None]
    if real.shape != (m, d_y):
        raise ValueError(f"y must have shape ({m}, {d_y}), got {array.shape}")
    if not np.isfinite(real).all():
        raise ValueError("y must be finite, got NaN or infinity")
    if loss == "bce" and ((real < 0) | (real > 1)).any():
        raise ValueError("y must lie in [0, 1] for loss 'bce', got values outside")
    return real


def _sigmoid(Y: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -Y))


def _softmax(Y: Floats) -> Floats:
    return np.exp(Y - np.logaddexp.reduce(Y, axis=1, keepdims=True))
