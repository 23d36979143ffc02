r"""The risk around a point with kinks, to second order along a direction.

.. math:: R(z + t\eta) = R(z) + t\,\mathrm{first}(\eta) + t^2 q(\eta) + o(t^2)

The paper writes the second order once as :math:`\eta^T H \eta` and once with a factor 1/2; only
its sign matters. Here :math:`q(\eta) = \eta^T Q \eta` is the coefficient of :math:`t^2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thalweg.curvature.relu.losses import FORMULAS, Floats
from thalweg.curvature.relu.network import Direction, TwoLayerReLU

ROUNDING = 8 * float(np.finfo(np.float64).eps)

CHUNK = 4_000_000
"""Numbers held at once while Q is summed over the samples."""


@dataclass(frozen=True, eq=False)
class KinkedPoint:
    """A network together with its boundary set, which is exact by declaration.

    Attributes
    ----------
    network
        The network.
    boundary
        `boundary[i, k]` says that sample i lies on the kink of node k (i is in B_k).
    """

    network: TwoLayerReLU
    boundary: NDArray[np.bool_]

    @cached_property
    def o(self) -> Floats:
        """Hidden outputs o_i = h(W1 x_i + b1), exactly 0 on the boundary; shape (m, d_h)."""
        return self.J * self.network.preactivations

    @cached_property
    def J(self) -> Floats:
        """h'(w_k^T xb_i) off the boundary, 0 on it; shape (m, d_h)."""
        positive, negative = self.network.slopes
        slope = np.where(self.network.preactivations > 0, positive, negative)
        return np.where(self.boundary, 0.0, slope)

    @cached_property
    def Y(self) -> Floats:
        """Outputs, shape (m, d_y)."""
        return self.network.output(self.o)

    @cached_property
    def gl(self) -> Floats:
        r"""Gradients :math:`\nabla \ell_i` in the outputs, shape (m, d_y).

        What rounding cannot tell from zero is zero: else the relative tolerances of an
        interpolating network would compare noise with noise.
        """
        network, formulas = self.network, FORMULAS[self.network.loss]
        gl = formulas.gradient(self.Y, network.y)
        size = np.abs(self.o) @ np.abs(network.W2).T
        if network.b2 is not None:
            size = size + np.abs(network.b2)
        noise = ROUNDING * formulas.gradient_size(size, network.y)
        return np.where(np.abs(gl) <= noise, 0.0, gl)

    @cached_property
    def Hl(self) -> Floats:
        r"""Hessians :math:`\nabla^2 \ell_i` in the outputs, shape (m, d_y, d_y)."""
        return FORMULAS[self.network.loss].hessian(self.Y, self.network.y)

    @cached_property
    def c(self) -> Floats:
        r""":math:`c_{ik} = W_{2,k}^T \nabla \ell_i`, shape (m, d_h)."""
        return self.gl @ self.network.W2

    @cached_property
    def first_of_equals(self) -> NDArray[np.intp]:
        """For each sample, the first one with the same input: equal kinks move as one."""
        _, first, inverse = np.unique(
            self.network.Xb, axis=0, return_index=True, return_inverse=True
        )
        return np.asarray(first[np.reshape(inverse, -1)])

    def kinks(self, k: int) -> NDArray[np.intp]:
        """B_k as sample numbers; of equal inputs only the first."""
        own = self.first_of_equals == np.arange(len(self.boundary))
        return np.flatnonzero(self.boundary[:, k] & own)

    def slopes_on_kinks(self, k: int) -> Floats:
        """c_i of each kink of node k; equal inputs add theirs (legal: the same xb_i)."""
        total = np.zeros(len(self.boundary))
        np.add.at(total, self.first_of_equals, self.c[:, k])
        return total[self.kinks(k)]

    def first_order(self) -> Direction:
        r"""Derivatives where the risk is smooth: sums of gl_i, gl_i o_i^T, and a_k.

        .. math:: a_k = \sum_{i \notin B_k} h'(w_k^T \bar x_i)\, (W_{2,k}^T \nabla\ell_i)\,\bar x_i
        """
        delta2 = self.gl.sum(axis=0)
        if self.network.b2 is None:
            delta2 = np.zeros_like(delta2)
        return Direction((self.J * self.c).T @ self.network.Xb, self.gl.T @ self.o, delta2)


@dataclass(frozen=True, eq=False)
class Coordinates:
    """eta as one vector (delta2, u_k..., v_k...) over some of the nodes.

    Attributes
    ----------
    network
        Whose perturbations these are.
    nodes
        The nodes that move.
    """

    network: TwoLayerReLU
    nodes: tuple[int, ...]

    @cached_property
    def widths(self) -> tuple[int, int, int]:
        """Sizes of delta2 (0 without second bias), of one u_k and of one v_k."""
        d_y = len(self.network.W2)
        return (0 if self.network.b2 is None else d_y, d_y, self.network.Xb.shape[1])

    @property
    def p(self) -> int:
        """The number of coordinates."""
        bias, u, v = self.widths
        return bias + len(self.nodes) * (u + v)

    def u(self, j: int) -> slice:
        """Where u of the j-th of `nodes` stands."""
        bias, u, _ = self.widths
        return slice(bias + j * u, bias + (j + 1) * u)

    def v(self, j: int) -> slice:
        """Where v of the j-th of `nodes` stands."""
        bias, u, v = self.widths
        start = bias + len(self.nodes) * u + j * v
        return slice(start, start + v)

    def direction(self, eta: Floats) -> Direction:
        """The vector as a direction; nodes that do not move have zeros."""
        bias, _, _ = self.widths
        network = self.network
        v, u = np.zeros_like(network.W), np.zeros_like(network.W2)
        for j, k in enumerate(self.nodes):
            v[k], u[:, k] = eta[self.v(j)], eta[self.u(j)]
        delta2 = eta[:bias] if bias else np.zeros(len(network.W2))
        return Direction(v, u, delta2)

    def vector(self, direction: Direction) -> Floats:
        """The direction as a vector."""
        bias, _, _ = self.widths
        nodes = list(self.nodes)
        u, v = direction.u[:, nodes].T.ravel(), direction.v[nodes].ravel()
        return np.concatenate([direction.delta2[:bias], u, v])


def quadratic_form(point: KinkedPoint, J: Floats, coordinates: Coordinates) -> Floats:
    r"""Q with :math:`q(\eta) = \eta^T Q \eta`, on the directions whose activation slopes are `J`.

    .. math::
        q(\eta) = \sum_i \nabla\ell_i^T \Delta_2 J_i (\Delta_1 x_i + \delta_1)
                  + \tfrac12 \sum_i dY_i^T\, \nabla^2\ell_i\, dY_i, \qquad
        dY_i = \Delta_2 o_i + \delta_2 + W_2 J_i (\Delta_1 x_i + \delta_1)

    Parameters
    ----------
    point
        The point.
    J
        Slopes, shape (m, d_h): h' off the boundary; on it s+ or s- according to the side, any
        value for a kink the direction does not leave.
    coordinates
        The coordinates of eta, p of them.

    Returns
    -------
    ndarray
        Shape (p, p), symmetric.

    Examples
    --------
    >>> net = TwoLayerReLU([[2.0]], None, [[3.0]], None, [[1.0]], [7.0], "mse")
    >>> point = KinkedPoint(net, np.array([[False]]))  # R = (u v - 7)^2 / 2 at u = 3, v = 2
    >>> quadratic_form(point, point.J, Coordinates(net, (0,))).tolist()
    [[2.0, 2.5], [2.5, 4.5]]
    """
    network, nodes = point.network, list(coordinates.nodes)
    m, _, _, d_y = network.sizes
    bias, _, d_in = coordinates.widths
    p, count = coordinates.p, len(nodes)
    Q = np.zeros((p, p))
    step = max(1, CHUNK // max(1, d_y * p))
    for start in range(0, m, step):
        rows = slice(start, start + step)
        Xb, Jn, o = network.Xb[rows], J[rows][:, nodes], point.o[rows][:, nodes]
        dY = np.zeros((len(Xb), d_y, p))  # row a of dY[i] is the linear map eta -> (dY_i)_a
        if bias:
            dY[:, :, :bias] = np.eye(d_y)
        of_u = np.einsum("ij,ab->iajb", o, np.eye(d_y))
        dY[:, :, bias : bias + count * d_y] = of_u.reshape(len(Xb), d_y, count * d_y)
        of_v = np.einsum("aj,ij,id->iajd", network.W2[:, nodes], Jn, Xb)
        dY[:, :, bias + count * d_y :] = of_v.reshape(len(Xb), d_y, count * d_in)
        if network.loss == "mse":
            weighted = dY
        else:
            weighted = np.einsum("iab,ibp->iap", point.Hl[rows], dY)
        Q += 0.5 * (dY.reshape(-1, p).T @ weighted.reshape(-1, p))
    for j, k in enumerate(nodes):
        cross = point.gl.T @ (J[:, k, None] * network.Xb)  # u_k^T cross v_k
        Q[coordinates.u(j), coordinates.v(j)] += cross / 2
        Q[coordinates.v(j), coordinates.u(j)] += cross.T / 2
    return (Q + Q.T) / 2


def quadratic_product(
    point: KinkedPoint, J: Floats, coordinates: Coordinates, eta: Floats
) -> Floats:
    r"""The product :math:`Q \eta` with the matrix of `quadratic_form`, which is never made.

    .. math::
        2 Q \eta = \Bigl( \sum_i G_i, \quad
            \sum_i \nabla\ell_i A_i^T + G_i o_i^T, \quad
            \sum_i J_i (\Delta_2^T \nabla\ell_i + W_2^T G_i)\, \bar x_i^T \Bigr), \qquad
        A_i = J_i (\Delta_1 x_i + \delta_1), \quad G_i = \nabla^2\ell_i\, dY_i

    Parameters
    ----------
    point, J, coordinates
        As for `quadratic_form`.
    eta
        Shape (p,).

    Returns
    -------
    ndarray
        Shape (p,).

    Examples
    --------
    >>> net = TwoLayerReLU([[2.0]], None, [[3.0]], None, [[1.0]], [7.0], "mse")
    >>> point = KinkedPoint(net, np.array([[False]]))
    >>> quadratic_product(point, point.J, Coordinates(net, (0,)), np.array([1.0, 0.0])).tolist()
    [2.0, 2.5]
    """
    network, move = point.network, coordinates.direction(eta)
    A = J * (network.Xb @ move.v.T)
    dY = point.o @ move.u.T + A @ network.W2.T + move.delta2
    G = dY if network.loss == "mse" else np.einsum("iab,ib->ia", point.Hl, dY)
    v = (J * (point.gl @ move.u + G @ network.W2)).T @ network.Xb
    return coordinates.vector(Direction(v, point.gl.T @ A + G.T @ point.o, G.sum(axis=0))) / 2
