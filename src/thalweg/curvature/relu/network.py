"""A two-layer ReLU network with its data: the setting of Yun, Sra & Jadbabaie."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.core import check
from thalweg.curvature.relu.losses import FORMULAS, Floats, Loss, targets


@dataclass(frozen=True, eq=False)
class Direction:
    r"""A perturbation :math:`\eta = (\delta_2; u_k; v_k)` of the parameters.

    Attributes
    ----------
    v
        Row k is :math:`v_k = [\Delta_1\ \delta_1]_k`: shape (d_h, d_x + 1), or (d_h, d_x) for a
        network without first bias.
    u
        Column k is :math:`u_k`, column k of :math:`\Delta_2`: shape (d_y, d_h).
    delta2
        :math:`\delta_2`, shape (d_y,); zero for a network without second bias.

    Examples
    --------
    >>> eta = Direction(np.array([[3.0, 0.0]]), np.array([[4.0]]), np.zeros(1))
    >>> eta.norm, eta.scaled(0.5).norm
    (5.0, 2.5)
    """

    v: Floats
    u: Floats
    delta2: Floats

    @property
    def norm(self) -> float:
        """The Euclidean norm of all entries together."""
        parts = (self.v, self.u, self.delta2)
        return math.sqrt(sum(float(np.sum(part**2)) for part in parts))

    def scaled(self, factor: float) -> Direction:
        """The direction times a number."""
        return Direction(factor * self.v, factor * self.u, factor * self.delta2)


@dataclass(frozen=True, eq=False)
class TwoLayerReLU:
    r"""A two-layer network with a piecewise linear activation, its data and its loss; in float64.

    .. math::
        Y(x) = W_2\, h(W_1 x + b_1) + b_2, \qquad h(t) = \max(s_+ t, 0) + \min(s_- t, 0), \qquad
        R = \sum_i \ell(Y(x_i), y_i)

    Parameters
    ----------
    W1, b1
        Shapes (d_h, d_x) and (d_h,); `b1` None for a network without it.
    W2, b2
        Shapes (d_y, d_h) and (d_y,); `b2` None for a network without it.
    X
        Inputs, shape (m, d_x). All arguments may be arrays or tensors.
    y
        Targets: (m, d_y) for "mse", (m,) or (m, 1) in [0, 1] for "bce", (m,) class indices for
        "ce". For d_y = 1 also (m,).
    loss
        "mse" (half the squared error), "bce" (of one logit) or "ce" (softmax); summed over
        samples and outputs. No verdict depends on the factor.
    slopes
        :math:`(s_+, s_-)` with s+ > 0, s- >= 0, s+ != s-. Default (1, 0): ReLU.

    Raises
    ------
    ValueError
        For shapes that do not fit, values that are not finite, slopes outside their range.

    Examples
    --------
    >>> net = TwoLayerReLU([[1.0]], [0.0], [[1.0]], [0.0], [[-1.0], [2.0]], [0.0, 1.0], "mse")
    >>> net.risk()
    0.5

    References
    ----------
    Yun, Sra & Jadbabaie, Efficiently testing local optimality and escaping saddles for ReLU
    networks, ICLR 2019 (arXiv 1809.10858).
    """

    W1: Any
    b1: Any
    W2: Any
    b2: Any
    X: Any
    y: Any
    loss: Loss
    slopes: tuple[float, float] = (1.0, 0.0)

    def __post_init__(self) -> None:
        W1 = _array("W1", self.W1, (None, None))
        W2 = _array("W2", self.W2, (None, W1.shape[0]))
        X = _array("X", self.X, (None, W1.shape[1]))
        arrays = {
            "W1": W1,
            "b1": None if self.b1 is None else _array("b1", self.b1, (W1.shape[0],)),
            "W2": W2,
            "b2": None if self.b2 is None else _array("b2", self.b2, (W2.shape[0],)),
            "X": X,
            "y": targets(_plain(self.y), self.loss, (X.shape[0], W2.shape[0])),
        }
        positive, negative = self.slopes
        check.number("s+ (slopes[0])", positive, gt=0)
        check.number("s- (slopes[1])", negative, ge=0)
        if positive == negative:
            raise ValueError(f"slopes must differ (else the network is linear), got {self.slopes}")
        for name, array in arrays.items():
            object.__setattr__(self, name, array)

    @classmethod
    def from_module(
        cls, model: nn.Module, X: Any, y: Any, loss: Loss, *, strict: bool = True
    ) -> TwoLayerReLU:
        """Read off an ``nn.Sequential(Linear, ReLU or LeakyReLU, Linear)``, with or without biases.

        Parameters
        ----------
        model
            The network.
        X, y, loss
            As for the class.
        strict
            Refuse parameters that are frozen (a direction would move them). Default True.

        Raises
        ------
        ValueError
            If the model is not such a network; the sentence says what was found.

        Examples
        --------
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.1), nn.Linear(4, 2, bias=False))
        >>> net = TwoLayerReLU.from_module(model, torch.ones(5, 3), torch.zeros(5, 2), "mse")
        >>> net.slopes, net.b2 is None
        ((1.0, 0.1), True)
        """
        layers = list(model) if isinstance(model, nn.Sequential) else [model]
        names = ", ".join(type(layer).__name__ for layer in layers)
        accepted = "model must be nn.Sequential(Linear, ReLU or LeakyReLU, Linear)"
        if len(layers) != 3:
            raise ValueError(f"{accepted}, got {names}")
        first, activation, second = layers
        if not (
            type(first) is nn.Linear
            and type(activation) in (nn.ReLU, nn.LeakyReLU)
            and type(second) is nn.Linear
        ):
            raise ValueError(f"{accepted}, got {names}")
        if first.weight is second.weight:
            raise ValueError(f"{accepted}, got two layers that share their weights")
        if strict and not all(p.requires_grad for p in model.parameters()):
            raise ValueError(f"{accepted} with all parameters trainable, got frozen ones")
        leak = float(activation.negative_slope) if isinstance(activation, nn.LeakyReLU) else 0.0
        return cls(
            first.weight, first.bias, second.weight, second.bias, X, y, loss, slopes=(1.0, leak)
        )

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """m, d_x, d_h, d_y."""
        return (*self.X.shape, *self.W2.shape[::-1])

    @cached_property
    def W(self) -> Floats:
        """Row k is w_k = [W1 b1]_k."""
        if self.b1 is None:
            return np.asarray(self.W1)
        return np.concatenate([self.W1, self.b1[:, None]], axis=1)

    @cached_property
    def Xb(self) -> Floats:
        """Row i is [x_i; 1] (x_i for a network without first bias)."""
        if self.b1 is None:
            return np.asarray(self.X)
        return np.concatenate([self.X, np.ones((len(self.X), 1))], axis=1)

    @cached_property
    def preactivations(self) -> Floats:
        """w_k^T [x_i; 1], shape (m, d_h)."""
        return np.asarray(self.Xb @ self.W.T)

    def outputs(self) -> Floats:
        """Y(x_i), shape (m, d_y)."""
        positive, negative = self.slopes
        t = self.preactivations
        return self.output(np.where(t > 0, positive * t, negative * t))

    def output(self, o: Floats) -> Floats:
        """W2 o_i + b2 of hidden outputs `o`, shape (m, d_h)."""
        Y = o @ self.W2.T
        return np.asarray(Y if self.b2 is None else Y + self.b2)

    def losses(self) -> Floats:
        """The loss of each sample, shape (m,)."""
        return FORMULAS[self.loss].value(self.outputs(), self.y)

    def risk(self) -> float:
        """R, the sum of the losses."""
        return math.fsum(self.losses())

    def with_rows(self, W: Floats, W2: Floats, b2: Floats | None = None) -> TwoLayerReLU:
        """The network with other parameters: rows w_k, columns of W2, and b2 (None: as it is)."""
        bias = None if self.b1 is None else W[:, -1]
        W1 = W if self.b1 is None else W[:, :-1]
        return replace(self, W1=W1, b1=bias, W2=W2, b2=self.b2 if b2 is None else b2)

    def moved(self, eta: Direction, t: float = 1.0) -> TwoLayerReLU:
        """The network at z + t eta."""
        b2 = None if self.b2 is None else self.b2 + t * eta.delta2
        return self.with_rows(self.W + t * eta.v, self.W2 + t * eta.u, b2)

    def difference(self, other: TwoLayerReLU) -> Direction:
        """The direction from `other` to this network."""
        delta2 = np.zeros(len(self.W2)) if self.b2 is None else self.b2 - other.b2
        return Direction(self.W - other.W, self.W2 - other.W2, delta2)

    def tensors(self, eta: Direction | None = None) -> tuple[Tensor, ...]:
        """Parameters (or a direction) in the order of ``nn.Sequential.parameters()``.

        W1, b1, W2, b2 in float64, without the biases the network does not have.

        Examples
        --------
        >>> net = TwoLayerReLU([[1.0]], None, [[1.0]], [0.0], [[2.0]], [1.0], "mse")
        >>> [tuple(t.shape) for t in net.tensors()]
        [(1, 1), (1, 1), (1,)]
        """
        W, W2, b2 = (self.W, self.W2, self.b2) if eta is None else (eta.v, eta.u, eta.delta2)
        first = [W] if self.b1 is None else [W[:, :-1], W[:, -1]]
        second = [W2] if self.b2 is None else [W2, b2]
        return tuple(torch.from_numpy(np.array(part)) for part in (*first, *second))

    @torch.no_grad()
    def write_to(self, model: nn.Module) -> None:
        """Copy the parameters into a model `from_module` accepts, in its own precision."""
        for parameter, value in zip(model.parameters(), self.tensors(), strict=True):
            parameter.copy_(value)


def _plain(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy()  # numpy: no bfloat16


def _array(name: str, value: Any, shape: tuple[int | None, ...]) -> Floats:
    array: NDArray[np.float64] = np.array(_plain(value), dtype=np.float64)
    fits = array.ndim == len(shape) and all(
        wanted in (None, got) for wanted, got in zip(shape, array.shape)
    )
    if not fits or array.size == 0:
        wanted_shape = ", ".join("*" if size is None else str(size) for size in shape)
        raise ValueError(
            f"{name} must have shape ({wanted_shape}), none of it 0, got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return array
