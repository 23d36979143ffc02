"""Slices of the loss landscape: lines and planes of it, along directions of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.curvature.directions import (
    Plane,
    eigen_directions,
    orthogonalized,
    random_direction,
    trajectory_plane,
)
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import prepared

__all__ = [
    "Line",
    "Plane",
    "Slice",
    "eigen_directions",
    "line",
    "orthogonalized",
    "random_direction",
    "slice",
    "trajectory_plane",
]

Extent = float | tuple[float, float]


@dataclass(frozen=True)
class Slice:
    r"""The loss on a line or a plane: :math:`f(x + a D_1)` or :math:`f(x + a D_1 + b D_2)`.

    Attributes
    ----------
    axes
        The grid of a, and that of b: one or two float64 vectors.
    values
        The loss, float64: (len(a),) or (len(a), len(b)).
    centre
        f(x).
    slopes
        :math:`D_i^T g` at x, shape (1,) or (2,).
    curvature
        :math:`D_i^T H D_j` at x, shape (1, 1) or (2, 2).
    mode
        ``"eval"``: batch normalization with its running statistics; ``"train"``: with those of the
        batch, anew at every point.
    path
        Points (T, 2) or (T, 1) to draw, in the coordinates of the axes; or None.
    """

    axes: tuple[Tensor, ...]
    values: Tensor
    centre: float
    slopes: Tensor
    curvature: Tensor
    mode: str
    path: Tensor | None = None

    @property
    def quadratic(self) -> Tensor:
        r"""The second-order model at x on the grid, :math:`f + s^T z + z^T C z / 2`."""
        z = torch.stack(torch.meshgrid(*self.axes, indexing="ij"), dim=-1)
        return self.centre + z @ self.slopes + 0.5 * ((z @ self.curvature) * z).sum(-1)


@dataclass(frozen=True)
class Line:
    """The loss on the segment between two solutions, :math:`f((1 - a) x_0 + a x_1)`.

    Attributes
    ----------
    positions
        The grid of a, float64.
    values
        The loss, float64.
    ends
        The loss at both ends, f(x0) and f(x1).
    """

    positions: Tensor
    values: Tensor
    ends: tuple[float, float]

    @property
    def barrier(self) -> float:
        r"""The highest rise above the chord between the ends, on the grid within [0, 1]; >= 0.

        .. math:: \max_a f((1 - a) x_0 + a x_1) - (1 - a) f(x_0) - a f(x_1)
        """
        inside = (self.positions >= 0) & (self.positions <= 1)
        a = self.positions[inside]
        chord = (1 - a) * self.ends[0] + a * self.ends[1]
        return max(0.0, float((self.values[inside] - chord).max()))


def slice(
    training: Training | Objective,
    directions: Tensor | Sequence[Tensor],
    *,
    centre: Tensor | None = None,
    extent: Extent | list[Extent] = 1.0,
    points: int = 51,
    path: Tensor | None = None,
) -> Slice:
    r"""The loss along one direction, or on the plane of two.

    .. math:: f(x + a D_1), \qquad f(x + a D_1 + b D_2)

    Parameters
    ----------
    training
        A `Training` or an `Objective`. The model is not moved: it is evaluated at copies.
    directions
        One flat vector (d,), or one or two of them.
    centre
        x, a flat vector. Default: the parameters the model holds.
    extent
        Range of the coordinates: r for [-r, r], or a pair (low, high); one for both axes, or a
        list of one for each. Default 1.
    points
        Per axis, >= 2; odd, to have the centre on the grid of a symmetric range. Default 51.
    path
        Coordinates (T, number of directions) to keep with the slice, for pictures.

    Returns
    -------
    Slice

    Raises
    ------
    ValueError
        If an argument is out of range or shape, or the loss is not deterministic or finite.

    Examples
    --------
    >>> f = Training.from_function(lambda x: x[0] ** 2 - x[1] ** 2, torch.zeros(2))
    >>> e = torch.eye(2)
    >>> found = slice(f, [e[0], e[1]], points=3)
    >>> found.values.tolist()
    [[0.0, 1.0, 0.0], [-1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]
    >>> found.curvature.tolist()
    [[2.0, 0.0], [0.0, -2.0]]

    References
    ----------
    Li, Xu, Taylor, Studer & Goldstein, Visualizing the loss landscape of neural nets, NeurIPS 2018
    (arXiv 1712.09913).
    """
    objective = prepared(training, None, {})
    given = [directions] if isinstance(directions, Tensor) else list(directions)
    if len(given) not in (1, 2):
        raise ValueError(f"directions must be one or two vectors, got {len(given)}")
    D = torch.stack([_vector(objective, f"directions[{i}]", v) for i, v in enumerate(given)])
    x = objective.start if centre is None else _vector(objective, "centre", centre)
    ranges = extent if isinstance(extent, list) else [extent] * len(D)
    if len(ranges) != len(D):
        raise ValueError(f"extent must have one range per direction, got {extent!r}")
    axes = tuple(_grid(r, points) for r in ranges)
    if path is not None and path.shape[1:] != (len(D),):
        raise ValueError(f"path must be of shape (T, {len(D)}), got {tuple(path.shape)}")
    centre_value, gradient = objective.value_and_gradient(x)
    HD = objective.hvp(D.T.contiguous(), x)
    curvature = D.double() @ HD.double()
    shape = [len(axis) for axis in axes]
    coordinates = torch.cartesian_prod(*axes).reshape(-1, len(D))
    values = [objective.value(x + z.to(D) @ D) for z in coordinates]
    return Slice(
        axes,
        torch.tensor(values, dtype=torch.float64).reshape(shape),
        centre_value,
        (D.double() @ gradient.double()).cpu(),
        ((curvature + curvature.T) / 2).cpu(),
        objective.mode,
        None if path is None else path.detach().cpu().double(),
    )


def line(
    training: Training | Objective,
    first: Tensor,
    second: Tensor,
    *,
    extent: tuple[float, float] = (0.0, 1.0),
    points: int = 51,
) -> Line:
    r"""The loss on the line through two solutions, :math:`f((1 - a) x_0 + a x_1)`.

    Parameters
    ----------
    training
        A `Training` or an `Objective`.
    first, second
        Flat vectors (d,), such as `Objective.start` gives.
    extent
        Range of a. Default (0, 1): from one to the other.
    points
        >= 2. Default 51.

    Returns
    -------
    Line

    Raises
    ------
    ValueError
        If an argument is out of range or shape, or the loss is not deterministic or finite.

    Examples
    --------
    >>> f = Training.from_function(lambda x: ((x**2 - 1) ** 2).sum(), torch.zeros(1))
    >>> line(f, torch.tensor([-1.0]), torch.tensor([1.0])).barrier
    1.0

    References
    ----------
    Goodfellow, Vinyals & Saxe, Qualitatively characterizing neural network optimization problems,
    ICLR 2015 (arXiv 1412.6544).
    """
    objective = prepared(training, None, {})
    x0, x1 = _vector(objective, "first", first), _vector(objective, "second", second)
    positions = _grid(extent, points)
    values = [objective.value((1 - a) * x0 + a * x1) for a in positions.tolist()]
    ends = (objective.value(x0), objective.value(x1))
    return Line(positions, torch.tensor(values, dtype=torch.float64), ends)


def _grid(extent: Extent, points: int) -> Tensor:
    check.number("points", points, ge=2, integer=True)
    low, high = extent if isinstance(extent, tuple) else (-extent, extent)
    check.number("extent", low)
    check.number("extent", high)
    if not low < high:
        raise ValueError(f"extent must be > 0, or a pair (low, high) with low < high, got {extent}")
    return torch.linspace(low, high, int(points), dtype=torch.float64)


def _vector(objective: Objective, name: str, v: Tensor) -> Tensor:
    check.floating(name, v)
    if v.shape != (objective.d,):
        raise ValueError(f"{name} must be of shape ({objective.d},), got {tuple(v.shape)}")
    if not bool(v.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return v.detach().to(objective.device, objective.dtype)
