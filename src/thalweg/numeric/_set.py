"""`Set`: what every constraint set can do, and the checks of its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric.projection import wide


class Set(ABC):
    r"""A closed convex set :math:`X` of tensors.

    Examples
    --------
    >>> from thalweg.numeric.sets import L1Ball
    >>> ball = L1Ball(radius=1.0)
    >>> ball.project(torch.tensor([2.0, -1.5]))
    tensor([ 0.7500, -0.2500])
    >>> ball.minimize_linear(torch.tensor([1.0, -3.0]))
    tensor([0., 1.])
    >>> ball.contains(torch.tensor([2.0, -1.5]))
    False
    """

    def project(self, y: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""The nearest point of the set.

        .. math:: P_X^h(y) = \arg\min_{x \in X} \sum_i h_i (x_i - y_i)^2.

        Parameters
        ----------
        y
            Point to project, finite.
        weights
            :math:`h`, shape of `y`, all > 0. Default: all equal (the Euclidean projection).

        Returns
        -------
        Tensor
            :math:`P_X^h(y)`, a new tensor of the shape, dtype and device of `y`.

        Raises
        ------
        ValueError
            If `y` or `weights` is empty, not finite or of the wrong shape, or a weight is <= 0.

        Examples
        --------
        >>> from thalweg.numeric.sets import Simplex
        >>> Simplex().project(torch.tensor([1.0, 1.0]), weights=torch.tensor([1.0, 3.0]))
        tensor([0.2500, 0.7500])
        """
        with torch.no_grad():
            start = computable("y", y)
            if weights is not None:
                weights = scaled_weights(weights, start)
            return self._project(start, weights).to(y.dtype)

    def minimize_linear(self, g: Tensor) -> Tensor:
        r"""The linear minimization oracle: where a linear function is least on the set.

        .. math:: \text{a point of } \arg\min_{x \in X} \langle g, x \rangle.

        Parameters
        ----------
        g
            Direction, finite.

        Returns
        -------
        Tensor
            A minimizer, a new tensor of the shape, dtype and device of `g`.

        Raises
        ------
        ValueError
            If `g` is empty, not finite or of the wrong shape, or the minimum is -inf.

        Examples
        --------
        >>> from thalweg.numeric.sets import L2Ball
        >>> L2Ball(radius=5.0).minimize_linear(torch.tensor([3.0, -4.0]))
        tensor([-3.,  4.])
        """
        with torch.no_grad():
            return self._minimize_linear(computable("g", g)).to(g.dtype)

    def contains(self, x: Tensor, tol: float = 1e-6) -> bool:
        """Whether `x` satisfies the constraints, to a relative tolerance.

        Parameters
        ----------
        x
            Point; one with an infinity or a NaN is in no set.
        tol
            Accepted violation, relative to the radius or total of a bounded set, to
            max(1, size of `x`) for the others.

        Returns
        -------
        bool

        Raises
        ------
        ValueError
            If `x` is empty or of the wrong shape, or `tol` < 0.

        Examples
        --------
        >>> from thalweg.numeric.sets import Box
        >>> x = torch.tensor([0.0, 1.001])
        >>> Box(0.0, 1.0).contains(x), Box(0.0, 1.0).contains(x, tol=1e-2)
        (False, True)
        """
        check.number("tol", tol, ge=0)
        with torch.no_grad():
            x = computable("x", x, finite=False)
            return bool(x.isfinite().all()) and bool(self._violation(x) <= tol)

    @abstractmethod
    def _project(self, y: Tensor, weights: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _minimize_linear(self, g: Tensor) -> Tensor: ...

    @abstractmethod
    def _violation(self, x: Tensor) -> Tensor: ...


def computable(name: str, tensor: Tensor, *, finite: bool = True) -> Tensor:
    """`tensor` in at least float32, after the checks every point and direction passes."""
    check.floating(name, tensor)
    if tensor.numel() == 0:
        raise ValueError(f"{name} must have at least one element, got shape {tuple(tensor.shape)}")
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    if finite:
        low, high = tensor.aminmax()  # one pass without a temporary; NaN shows in both
        if not bool(low.isfinite() & high.isfinite()):
            bad = int((~tensor.isfinite()).sum())
            raise ValueError(
                f"{name} must be finite, got NaN or infinity in {bad} of {tensor.numel()} elements"
            )
    return tensor


def scaled_weights(weights: Tensor, y: Tensor) -> Tensor:
    """The weights over the largest of them: the same projection, with no overflow on the way."""
    check.floating("weights", weights)
    if weights.shape != y.shape:
        raise ValueError(
            f"weights must have the shape of y, {tuple(y.shape)}, got {tuple(weights.shape)}"
        )
    weights = weights.to(y.device, wide(y))
    smallest, largest = torch.stack(weights.aminmax()).tolist()
    if not 0 < smallest <= largest < float("inf"):
        raise ValueError(
            f"weights must be > 0 and finite, got values from {smallest:g} to {largest:g}"
        )
    if smallest / largest < torch.finfo(weights.dtype).tiny ** 0.5:
        raise ValueError(
            "weights must span a ratio that can be squared without overflow, "
            f"got values from {smallest:g} to {largest:g}"
        )
    return weights / largest


def constant(name: str, value: float | Tensor, *, finite: bool = True) -> Tensor:
    """A number or tensor that defines a set, as a tensor; never NaN."""
    if not isinstance(value, Tensor):
        check.number(name, value, finite=finite)
        return torch.tensor(float(value), dtype=torch.float64)
    check.floating(name, value)
    if bool(value.isnan().any()):
        raise ValueError(f"{name} must not be NaN, got NaN in {int(value.isnan().sum())} elements")
    if finite and not bool(value.isfinite().all()):
        raise ValueError(f"{name} must be finite, got an infinity")
    return value.detach()


def matching(name: str, value: float | Tensor, like: Tensor) -> Tensor:
    """`value` on the device and in the dtype of `like`; a tensor must have its shape."""
    if not isinstance(value, Tensor):
        return torch.tensor(float(value), dtype=like.dtype, device=like.device)
    if value.dim() and value.shape != like.shape:
        raise ValueError(
            f"{name} must have the shape of the points of the set, "
            f"got {tuple(value.shape)} for a point of shape {tuple(like.shape)}"
        )
    return value.to(like.device, like.dtype)


def require_matrix(name: str, tensor: Tensor) -> None:
    """Refuse what is not 2-D."""
    if tensor.dim() != 2:
        raise ValueError(f"{name} must be 2-D for NuclearBall, got shape {tuple(tensor.shape)}")


def require_finite_minimum(g: Tensor, unbounded: Tensor, accepted: str) -> None:
    """Refuse `g` if its part `unbounded`, along which the set has no end, is not rounding alone."""
    part, whole = torch.linalg.vector_norm(unbounded), torch.linalg.vector_norm(g)
    if bool(part > torch.finfo(g.dtype).eps ** 0.5 * whole):
        raise ValueError(
            f"g must be {accepted}, or the minimum is -inf: "
            f"got a g with {float(part / whole):.2g} of its norm outside"
        )


def corner(like: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Zeros of the shape of `like` but for the flat position `index`, which has its value."""
    where = index.reshape(1)
    flat = torch.zeros_like(values).scatter(0, where, values.gather(0, where))
    return flat.reshape(like.shape)
