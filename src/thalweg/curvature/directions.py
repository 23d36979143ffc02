"""Directions to look along: normalized to the parameters, eigenvectors, planes of trajectories."""

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
