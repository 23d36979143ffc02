"""Slices of the loss landscape: along normalized directions, eigenvectors, paths and lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import prepared
from thalweg.numeric.krylov.extreme import extreme_eigenvalues
from thalweg.numeric.operator import as_operator

Norm = Literal["filter", "layer", "element"]
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


@dataclass(frozen=True)
class Plane:
    """The plane through a point that a trajectory stays nearest to; see `trajectory_plane`.

    Attributes
    ----------
    centre
        The point, (d,).
    directions
        Two orthonormal vectors (d,).
    path
        The trajectory's coordinates, (T, 2).
    explained
        The share of the squared distances from the centre along each direction, (2,).
    """

    centre: Tensor
    directions: tuple[Tensor, Tensor]
    path: Tensor
    explained: Tensor


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


def random_direction(
    training: Training | Objective,
    norm: Norm = "filter",
    *,
    biases: Literal["ignore", "scale"] = "ignore",
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""A Gaussian direction, normalized to the sizes of the parameters.

    .. math:: D_j \leftarrow D_j\, \frac{\|x_j\|}{\|D_j\| + 10^{-10}}

    for each filter j of each weight (``norm="filter"``), or for each weight (``"layer"``); or

    .. math:: D_i = |x_i|\, N(0, 1)

    entry by entry (``"element"``). Filter j is index 0 of a weight in torch's layout, index 1 of a
    transposed convolution. What slices along these directions are invariant to, in a ReLU network:
    ``"filter"`` and ``"layer"``: whole layers rescaled, not single neurons (the next layer is
    normalized by its own output rows); ``"element"``: also every neuron rescaled, at any depth.

    Parameters
    ----------
    training
        A `Training` or an `Objective`; at the parameters the model holds.
    norm
        ``"filter"`` (default), ``"layer"`` or ``"element"``.
    biases
        What becomes of biases and normalization parameters (one dimension or none):
        ``"ignore"`` (default, the paper's) sets D to 0, ``"scale"`` normalizes it as a whole.
        ``"element"`` treats all alike.
    generator
        Source of D. Default: a new one of seed 0; draws do not depend on the parameters.

    Returns
    -------
    Tensor
        A flat vector (d,).

    Examples
    --------
    >>> model = nn.Linear(3, 2)
    >>> batch = (torch.ones(1, 3), torch.ones(1, 2))
    >>> D = random_direction(Training(model, nn.functional.mse_loss, [batch]))
    >>> rows = D[:6].reshape(2, 3).norm(dim=1)
    >>> bool(torch.allclose(rows, model.weight.norm(dim=1))), D[6:].tolist()
    (True, [0.0, 0.0])

    References
    ----------
    Li et al. 2018 (arXiv 1712.09913).
    """
    check.choice("norm", norm, ("filter", "layer", "element"))
    check.choice("biases", biases, ("ignore", "scale"))
    objective = training if isinstance(training, Objective) else Objective(training)
    generator = generator or torch.Generator().manual_seed(0)
    transposed = _transposed(objective.training.model)
    parts = []
    for name, x in objective.unflatten(objective.start).items():
        D = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        if norm == "element":
            D = x.abs() * D
        elif x.ndim <= 1 and biases == "ignore":
            D = torch.zeros_like(x)
        elif x.ndim <= 1 or norm == "layer":
            D = D * (x.norm() / (D.norm() + 1e-10))
        else:
            filters = 1 if name in transposed else 0
            others = [dim for dim in range(x.ndim) if dim != filters]
            sizes = [torch.linalg.vector_norm(t, dim=others, keepdim=True) for t in (x, D)]
            D = D * (sizes[0] / (sizes[1] + 1e-10))
        parts.append(D)
    return objective.flatten(parts)


def orthogonalized(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    r"""`first`, and the part of `second` that is orthogonal to it, of the length `second` had.

    Filter-normalized directions are *not* orthogonal in the paper.

    Parameters
    ----------
    first, second
        Vectors of one shape, not parallel.

    Examples
    --------
    >>> e = torch.eye(2)
    >>> orthogonalized(e[0], e[0] + e[1])[1].tolist()
    [0.0, 1.41421...]
    """
    part = second - first * ((first @ second) / (first @ first))
    size = float(part.norm())
    if not size > 1e-6 * float(second.norm()):
        raise ValueError("first and second must not be parallel")
    return first, part * (second.norm() / size)


def eigen_directions(
    training: Training | Objective, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    r"""Unit eigenvectors of the Hessian for its largest and its smallest eigenvalue.

    Parameters
    ----------
    training
        A `Training` or an `Objective`; at the parameters the model holds.
    generator
        Source of the Lanczos start. Default: a new one of seed 0.

    Returns
    -------
    top, bottom
        Flat vectors (d,), Ritz vectors; their curvature in the slice is exact for them.

    Examples
    --------
    >>> f = Training.from_function(lambda x: x[0] ** 2 - x[1] ** 2, torch.zeros(2))
    >>> top, bottom = eigen_directions(f)
    >>> top.abs().tolist(), bottom.abs().tolist()
    ([1.0, 0.0], [0.0, 1.0])
    """
    objective = prepared(training, None, {})
    if objective.d < 2:
        raise ValueError("a plane of eigenvectors needs at least two parameters, got one")
    H = as_operator(objective.hvp, objective.d, objective.dtype, objective.device)
    ends = extreme_eigenvalues(H, generator=generator)
    return ends.vectors[:, -1], ends.vectors[:, 0]


def trajectory_plane(trajectory: Sequence[Tensor], centre: Tensor | None = None) -> Plane:
    r"""The plane through a point (the last, by default) that a trajectory stays nearest to.

    .. math:: M = \begin{pmatrix} x_1 - c \\ \vdots \\ x_T - c \end{pmatrix} = U \Sigma V^T, \qquad
        D_1, D_2 = v_1, v_2

    the principal components of the differences. They are not centred at their mean: the plane is
    to go through c. Signs: the first point that is off the centre has coordinates >= 0.

    Parameters
    ----------
    trajectory
        At least two flat vectors (d,), finite.
    centre
        c. Default: the last.

    Returns
    -------
    Plane
        Slice it with ``slice(training, plane.directions, centre=plane.centre, path=plane.path,
        extent=...)``.

    Raises
    ------
    ValueError
        If there are fewer than two vectors, of different shapes or not finite, or they do not span
        a plane with the centre.

    Examples
    --------
    >>> steps = [torch.tensor([4.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]), torch.zeros(3)]
    >>> plane = trajectory_plane(steps)
    >>> plane.path.tolist()
    [[4.0, 0.0], [0.0, 1.0], [0.0, 0.0]]

    References
    ----------
    Li et al. 2018 (arXiv 1712.09913), section 7.
    """
    if len(trajectory) < 2:
        raise ValueError(f"trajectory must hold at least two points, got {len(trajectory)}")
    c = trajectory[-1] if centre is None else centre
    if any(x.shape != c.shape or c.ndim != 1 for x in trajectory):
        shapes = sorted({tuple(x.shape) for x in [*trajectory, c]})
        raise ValueError(f"trajectory must hold vectors of one shape (d,), got {shapes}")
    M = torch.stack([x.detach().double() - c.detach().double() for x in trajectory])
    if not bool(M.isfinite().all()):
        raise ValueError("trajectory must be finite, got NaN or infinity")
    squares, U = torch.linalg.eigh(M @ M.T)  # T x T: a trajectory is short, a point is long
    squares, U = squares.flip(0)[:2].clamp_min(0), U.flip(1)[:, :2]
    if len(c) < 2 or not float(squares[1]) > 1e-14 * float(squares[0]):
        raise ValueError("trajectory must span a plane with the centre, got points on a line")
    V, _ = torch.linalg.qr(M.T @ (U / squares.sqrt()))
    path = M @ V
    off = path[path.norm(dim=1) > 0]
    for i in range(2):
        leading = off[off[:, i].abs() > 1e-9 * off[:, i].abs().max(), i][0]
        path[:, i], V[:, i] = path[:, i] * leading.sign(), V[:, i] * leading.sign()
    explained = path.square().sum(0) / M.square().sum()
    directions = (V[:, 0].to(c), V[:, 1].to(c))
    return Plane(c.detach().clone(), directions, path.cpu(), explained.cpu())


def _transposed(model: nn.Module) -> set[str]:
    """The names of the weights of transposed convolutions."""
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    weights = {id(m.weight) for m in model.modules() if isinstance(m, kinds)}
    return {name for name, p in model.named_parameters() if id(p) in weights}


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
