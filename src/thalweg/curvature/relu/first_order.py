r"""Steps 1 and 2: is there a first-order descent direction?

The directional derivative falls apart: a linear part in (delta2, Delta2), and for each hidden node
:math:`a_k^T v_k + \sum_{i \in B_k} s(\bar x_i^T v_k)\, c_i\, \bar x_i^T v_k`, with s = s+ or s- by
the sign. The paper minimizes a box-constrained QP (is 0 a Clarke subgradient?) and then tests the
:math:`2 M_k` extreme rays :math:`\pm\hat v_i`. Because the boundary points are linearly
independent, one least-squares problem replaces both, exactly:

.. math:: a_k + \sum_{i \in B_k} t_i \bar x_i = r, \quad r \perp \mathrm{span}
    \qquad\Longrightarrow\qquad
    \text{no descent} \iff r = 0 \text{ and } s_- c_i \le t_i \le s_+ c_i \text{ for all } i.

:math:`v = -r` has derivative :math:`-\|r\|^2`; the ray :math:`+\hat v_i` has slope
:math:`s_+ c_i - t_i`, the ray :math:`-\hat v_i` slope :math:`t_i - s_- c_i`. The QP's solution is
:math:`s_i^* = t_i / c_i`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg.curvature.relu.expansion import KinkedPoint
from thalweg.curvature.relu.losses import Floats
from thalweg.curvature.relu.network import Direction


@dataclass(frozen=True)
class Kink:
    r"""A data point on the kink of a hidden node, with what step 2 finds there.

    Attributes
    ----------
    node, sample
        k and i; of samples with equal inputs the first.
    c
        :math:`W_{2,k}^T \nabla\ell_i`, summed over equal inputs (in balanced parameters).
    t
        The multiplier of :math:`\bar x_i`.
    flat
        The sides whose ray has slope 0: some of +1 and -1.
    """

    node: int
    sample: int
    c: float
    t: float
    flat: tuple[int, ...]

    @property
    def s_star(self) -> float:
        """The QP's s_i^* = t_i / c_i; NaN where c_i = 0 (any slope will do).

        Examples
        --------
        >>> Kink(node=0, sample=1, c=-4.0, t=-2.0, flat=()).s_star
        0.5
        """
        return self.t / self.c if self.c else float("nan")


@dataclass(frozen=True, eq=False)
class FirstOrder:
    """What steps 1 and 2 found.

    Attributes
    ----------
    direction
        A descent direction of norm 1, or None.
    slope
        The derivative along it; 0 without one.
    kinks
        Those of the nodes tested, all of them if there is no descent direction.
    reason
        Where the direction comes from, in words.
    """

    direction: Direction | None
    slope: float
    kinks: tuple[Kink, ...]
    reason: str


def first_order_test(point: KinkedPoint, tol: float = 1e-6) -> FirstOrder:
    r"""Steps 1 and 2 of SOSP-Check; the first violated condition decides.

    Parameters
    ----------
    point
        The point; the boundary points of each node linearly independent, no w_k zero. Balanced
        (`thalweg.curvature.relu.snap.balance`), else the tolerances depend on the scaling.
    tol
        Relative tolerance. Step 1 is measured against :math:`\sum_i \|\nabla\ell_i\|(1 + \|o_i\|)`,
        r and the slopes of normalized rays against
        :math:`A_k = \sum_i \|W_{2,k}\|\,\|\nabla\ell_i\|\,\|\bar x_i\|`, which bounds what
        they are sums of and hence their rounding errors. Default 1e-6.

    Returns
    -------
    FirstOrder

    Examples
    --------
    >>> from thalweg.curvature.relu.network import TwoLayerReLU
    >>> net = TwoLayerReLU([[1.0]], [0.0], [[1.0]], [0.0], [[-1], [0], [1]], [-1, 1, 1], "mse")
    >>> found = first_order_test(KinkedPoint(net, np.array([[False], [True], [False]])))
    >>> round(found.slope, 12), found.direction.v.tolist()  # the ray +b of the point x = 0
    (-1.0, [[0.0, 1.0]])

    References
    ----------
    Yun, Sra & Jadbabaie 2019, Algorithm 1, lines 1-14, and Lemmas 1 and 2.
    """
    network = point.network
    smooth = point.first_order()
    outer = Direction(np.zeros_like(smooth.v), smooth.u, smooth.delta2)
    sizes = np.linalg.norm(point.gl, axis=1) * (1 + np.linalg.norm(point.o, axis=1))
    if outer.norm > tol * sizes.sum():
        reason = "the gradient in (W2, b2) is not zero"
        return FirstOrder(outer.scaled(-1 / outer.norm), -outer.norm, (), reason)
    kinks: list[Kink] = []
    for k in range(len(network.W)):
        ray, slope, own, reason = node_test(point, k, smooth.v[k], tol)
        kinks += own
        if ray is not None:
            v = np.zeros_like(smooth.v)
            v[k] = ray
            direction = Direction(v, np.zeros_like(smooth.u), np.zeros_like(smooth.delta2))
            return FirstOrder(direction, slope, tuple(kinks), reason)
    return FirstOrder(None, 0.0, tuple(kinks), "no first-order descent direction")


def node_test(
    point: KinkedPoint, k: int, a: Floats, tol: float
) -> tuple[Floats | None, float, list[Kink], str]:
    """Step 2 for node k: the steepest normalized ray if it descends, its slope, the kinks."""
    gl, x = np.linalg.norm(point.gl, axis=1), np.linalg.norm(point.network.Xb, axis=1)
    A = float(np.linalg.norm(point.network.W2[:, k]) * (gl @ x))
    B, c = point.kinks(k), point.slopes_on_kinks(k)
    X_B = point.network.Xb[B]
    rays = np.linalg.pinv(X_B) if len(B) else np.zeros((X_B.shape[1], 0))  # columns are vhat_i
    t = -(rays.T @ a)
    r = a + X_B.T @ t
    if np.linalg.norm(r) > tol * A:
        size = float(np.linalg.norm(r))
        return -r / size, -size, [], f"node {k}: the gradient off its kinks is not zero"
    positive, negative = point.network.slopes
    sizes = np.linalg.norm(rays, axis=0)
    slopes = np.stack([positive * c - t, t - negative * c]) / sizes  # along +vhat_i, -vhat_i
    flat = np.abs(slopes) <= tol * A
    kinks = [
        Kink(k, int(i), float(c[j]), float(t[j]), tuple(np.array([1, -1])[flat[:, j]].tolist()))
        for j, i in enumerate(B)
    ]
    if len(B) and slopes.min() < -tol * A:
        side, j = np.unravel_index(np.argmin(slopes), slopes.shape)
        sign = 1 - 2 * int(side)
        reason = f"node {k}: leaving the kink at sample {B[j]} to its {'+-'[side]} side"
        return sign * rays[:, j] / sizes[j], float(slopes[side, j]), kinks, reason
    return None, 0.0, kinks, ""
