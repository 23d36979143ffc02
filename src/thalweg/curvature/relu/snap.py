r"""Step 0: put a point found in floating point exactly on its kinks; step 0b: balance it.

Neither is in the paper, whose Algorithm 1 starts at a point that lies exactly on its kinks (its
experiments count :math:`|w_k^T \bar x_i| < 10^{-5}` as a kink).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.curvature.relu.expansion import Coordinates, KinkedPoint, quadratic_form
from thalweg.curvature.relu.losses import Floats
from thalweg.curvature.relu.network import Direction, TwoLayerReLU
from thalweg.curvature.relu.quadratic import null_basis

RISE = 1e-6
"""The risk may rise by this times 1 + |R|."""
INDEPENDENT = 1e-8
"""Least singular value of normalized boundary points that count as independent."""
MOST_ROUNDS = 5
MOST_NEWTON_STEPS = 50
LARGEST_POLISHED = 3000
"""Parameters up to which the dense Newton step is taken."""
FARTHEST = 0.1
"""Polishing moves a (balanced) point by less than this times its norm."""


@dataclass(frozen=True, eq=False)
class Snapped:
    """A point exactly on its kinks.

    Attributes
    ----------
    point
        Network and boundary set.
    displacement
        Euclidean distance from the given parameters.
    reason
        Why no verdict is possible (degenerate), or "".
    """

    point: KinkedPoint
    displacement: float
    reason: str = ""


def balance(network: TwoLayerReLU) -> tuple[TwoLayerReLU, Floats]:
    r"""Replace (w_k, W2_k) by (c_k w_k, W2_k / c_k) with equal norms: the same function.

    .. math:: c_k = \sqrt{\|W_{2,k}\| / \|w_k\|} \quad (1 / \|w_k\| \text{ if } W_{2,k} = 0)

    It makes tolerances independent of the scaling of each node. A direction (v_k, u_k) of the
    balanced network is (v_k / c_k, c_k u_k) in the given one.

    Returns
    -------
    network, c
        c of shape (d_h,).

    Examples
    --------
    >>> net = TwoLayerReLU([[8.0]], None, [[2.0]], None, [[1.0]], [0.0], "mse")
    >>> balanced, c = balance(net)
    >>> balanced.W1.item(), balanced.W2.item(), c.item()
    (4.0, 4.0, 0.5)
    """
    w, W2 = np.linalg.norm(network.W, axis=1), np.linalg.norm(network.W2, axis=0)
    safe = np.where(w > 0, w, 1.0)
    c = np.where(W2 > 0, np.sqrt(W2 / safe), 1 / safe)
    return network.with_rows(c[:, None] * network.W, network.W2 / c), c


def unbalance(eta: Direction, c: Floats) -> Direction:
    """A direction of the balanced network as one of the network given to `balance`."""
    return Direction(eta.v / c[:, None], eta.u * c, eta.delta2)


def near_kinks(network: TwoLayerReLU, tau: float) -> NDArray[np.bool_]:
    r"""Which samples count as lying on a kink.

    .. math:: |w_k^T \bar x_i| \le \tau\, \|w_k\|\, \|\bar x_i\|

    An all-zero input (of a network without first bias) is on no kink: it never leaves 0.

    Examples
    --------
    >>> net = TwoLayerReLU([[1.0]], [1e-9], [[1.0]], None, [[0.0], [1.0]], [0, 0], "mse")
    >>> near_kinks(net, 1e-6).tolist()
    [[True], [False]]
    """
    x = np.linalg.norm(network.Xb, axis=1)
    sizes = x[:, None] * np.linalg.norm(network.W, axis=1)
    return (np.abs(network.preactivations) <= tau * sizes) & (x > 0)[:, None]


def snap(network: TwoLayerReLU, tau: float = 1e-6, *, polish: bool = True) -> Snapped:
    r"""Project each w_k onto the complement of its boundary points, then polish the rest.

    Polishing is Newton's method for the stationarity of the smooth restriction of R to
    :math:`\{w_k^T \bar x_i = 0, i \in B_k\}`, inside the cell of the other samples' signs. It is
    kept only where it brings the gradient down, does not raise R and stays near.

    Parameters
    ----------
    network
        The network, as it was found.
    tau
        Relative distance that counts as on the kink, >= 0. Default 1e-6.
    polish
        Run Newton's method. Default True.

    Returns
    -------
    Snapped
        Its `reason` says why the point is degenerate: a zero row of weights, dependent boundary
        points, or a risk that rises by more than 1e-6 (1 + |R|).

    Examples
    --------
    >>> X, y = [[-1.0], [0.0], [1.0]], [1.0, -1.0, 1.0]
    >>> net = TwoLayerReLU([[1.0]], [1e-9], [[1.0]], [0.0], X, y, "mse")
    >>> snapped = snap(net)
    >>> snapped.point.network.b1.tolist(), snapped.displacement
    ([0.0], 1e-09)
    """
    start, risk = network, network.risk()
    boundary = np.zeros((len(network.X), len(network.W)), dtype=bool)
    for _ in range(MOST_ROUNDS):
        near = near_kinks(network, tau)
        near |= near[KinkedPoint(network, near).first_of_equals]  # equal inputs, equal kinks
        grown, boundary = bool((near & ~boundary).any()), boundary | near
        point = KinkedPoint(network, boundary)
        reason = _dependent(point)
        if not reason and grown:
            network = _projected(point)
            point = KinkedPoint(network, boundary)
            if (np.linalg.norm(network.W, axis=1) <= INDEPENDENT * _norms(start)).any():
                reason = "boundary points span the whole space of some node's weights"
        rise = network.risk() - risk
        if not reason and rise > RISE * (1 + abs(risk)):
            reason = f"putting the point on its kinks raises the risk by {rise:.2g}"
        if reason or (not grown and boundary.any()) or (not grown and not polish):
            break
        if polish:
            network = polished(point, risk + RISE * (1 + abs(risk)))
            point = KinkedPoint(network, boundary)
        if not (near_kinks(network, tau) & ~boundary).any():
            break
    return Snapped(point, point.network.difference(start).norm, reason)


def polished(point: KinkedPoint, highest: float) -> TwoLayerReLU:
    """Newton's method for a stationary point on the kinks, in balanced parameters.

    Null directions (the scaling of each node, dead nodes) are left out of the step by a cut at
    1e-11 of the largest eigenvalue. The given network is returned where the result has a larger
    gradient, a risk above `highest`, or is far away.
    """
    start, _ = balance(point.network)
    d_h = len(start.W)
    coordinates = Coordinates(start, tuple(range(d_h)))
    if coordinates.p > LARGEST_POLISHED:
        return point.network
    free = kept_kinks(point, coordinates)
    at = KinkedPoint(start, point.boundary)
    gradient = free.T @ coordinates.vector(at.first_order())
    for _ in range(MOST_NEWTON_STEPS):
        H = 2 * free.T @ quadratic_form(at, at.J, coordinates) @ free
        values, vectors = np.linalg.eigh(H)
        keep = np.abs(values) > 1e-11 * np.abs(values).max(initial=0.0)
        kept = vectors[:, keep]
        step = coordinates.direction(-free @ (kept @ ((kept.T @ gradient) / values[keep])))
        found = _backtrack(at, step, float(np.linalg.norm(gradient)), coordinates, free)
        if found is None:
            break
        at, gradient = found
    moved = at.network.difference(start).norm
    size = start.difference(start.with_rows(0 * start.W, 0 * start.W2, _zero(start.b2))).norm
    if at.network is start or moved > FARTHEST * size or at.network.risk() > highest:
        return point.network
    _, c = balance(point.network)
    return at.network.with_rows(at.network.W / c[:, None], at.network.W2 * c)


def _backtrack(
    at: KinkedPoint, step: Direction, size: float, coordinates: Coordinates, free: Floats
) -> tuple[KinkedPoint, Floats] | None:
    """The first of t = 1, 1/2... that lowers the gradient's norm and stays in the cell."""
    off = ~at.boundary
    signs = np.sign(at.network.preactivations)[off]
    for power in range(12):
        network = at.network.moved(step, 0.5**power)
        if (np.sign(network.preactivations)[off] != signs).any():
            continue
        trial = KinkedPoint(network, at.boundary)
        gradient = free.T @ coordinates.vector(trial.first_order())
        if np.linalg.norm(gradient) < 0.9 * size:
            return trial, gradient
    return None


def kept_kinks(point: KinkedPoint, coordinates: Coordinates) -> Floats:
    """Orthonormal basis of the directions that leave no kink: xb_i^T v_k = 0 for i in B_k."""
    rows = []
    for j, k in enumerate(coordinates.nodes):
        for i in point.kinks(k):
            row = np.zeros(coordinates.p)
            row[coordinates.v(j)] = point.network.Xb[i]
            rows.append(row)
    return null_basis(np.reshape(rows, (-1, coordinates.p)))


def _dependent(point: KinkedPoint) -> str:
    """Why step 2 could not be exact at this point, or ""."""
    network = point.network
    for k, size in enumerate(_norms(network)):
        if size == 0:
            return f"node {k}: its weights and bias are zero, so every sample is on its kink"
        X_B = network.Xb[point.kinks(k)]
        if not len(X_B):
            continue
        X_B = X_B / np.linalg.norm(X_B, axis=1, keepdims=True)
        few = len(X_B) <= X_B.shape[1]
        if not few or np.linalg.svd(X_B, compute_uv=False)[-1] <= INDEPENDENT:
            return f"node {k}: the {len(X_B)} samples on its kink are linearly dependent"
    return ""


def _projected(point: KinkedPoint) -> TwoLayerReLU:
    W = point.network.W.copy()
    for k in range(len(W)):
        X_B = point.network.Xb[point.kinks(k)]
        if len(X_B):
            W[k] -= np.linalg.pinv(X_B) @ (X_B @ W[k])
    return point.network.with_rows(W, point.network.W2)


def _norms(network: TwoLayerReLU) -> Floats:
    return np.asarray(np.linalg.norm(network.W, axis=1))


def _zero(b2: Floats | None) -> Floats | None:
    return None if b2 is None else 0 * b2
