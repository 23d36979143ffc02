"""Steps of second-order methods for non-convex functions, as pure functions of H and g."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.numeric.krylov.lanczos import lanczos
from thalweg.numeric.operator import LinearOperator

DENSE_UP_TO = 500
"""Unknowns up to which the cubic model is minimized exactly, from all eigenvectors."""
KRYLOV = 20
"""Lanczos steps of the saddle-free and, beyond `DENSE_UP_TO`, of the cubic step."""


class TrustRegionStep(NamedTuple):
    """A step inside the ball.

    Attributes
    ----------
    s
        ``(d,)``.
    predicted
        By how much the quadratic model falls, >= 0.
    on_boundary
        Whether the ball stopped it.
    negative_curvature
        Whether a direction of non-positive curvature was met.
    """

    s: Tensor
    predicted: float
    on_boundary: bool
    negative_curvature: bool


def trust_region_cg(H: LinearOperator, g: Tensor, radius: float) -> TrustRegionStep:
    r"""Minimize the quadratic model in a ball, by conjugate gradients (Steihaug).

    .. math:: \min_{\|s\| \le \Delta} g^\top s + \tfrac12 s^\top H s

    CG from s = 0 until :math:`\|r\| \le \min(1/2, \sqrt{\|g\|}) \|g\|`, or out to the boundary at
    the first direction of curvature at most :math:`10^{-12} \|p\|^2` or step beyond the ball.

    Parameters
    ----------
    H
        The Hessian.
    g
        The gradient, ``(d,)``.
    radius
        :math:`\Delta > 0`.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> H = as_operator(torch.diag(torch.tensor([1.0, -1.0])))
    >>> step = trust_region_cg(H, torch.tensor([0.0, 1.0]), 2.0)
    >>> step.s.tolist(), step.predicted, step.negative_curvature
    ([0.0, -2.0], 4.0, True)

    References
    ----------
    Steihaug, SIAM J. Numer. Anal. 20(3), 1983.
    """
    size = float(g.norm())
    wanted = min(0.5, math.sqrt(size)) * size
    s, Hs, r = torch.zeros_like(g), torch.zeros_like(g), g
    p = -r
    for _ in range(2 * len(g) + 10):
        if float(r.norm()) <= wanted:
            break
        Hp = H @ p
        curvature = float(p @ Hp)
        if curvature <= 1e-12 * float(p @ p):
            # both ends of the line through s along p
            low, high = _to_boundary(s, p, radius)
            models = [_model(g, s + t * p, Hs + t * Hp) for t in (low, high)]
            t = low if models[0] < models[1] else high
            return TrustRegionStep(s + t * p, max(-min(models), 0.0), True, True)
        alpha = float(r @ r) / curvature
        if float((s + alpha * p).norm()) >= radius:
            t = _to_boundary(s, p, radius)[1]
            predicted = -_model(g, s + t * p, Hs + t * Hp)
            return TrustRegionStep(s + t * p, predicted, True, False)
        s, Hs, after = s + alpha * p, Hs + alpha * Hp, r + alpha * Hp
        p = -after + (float(after @ after) / float(r @ r)) * p
        r = after
    return TrustRegionStep(s, max(-_model(g, s, Hs), 0.0), False, False)


def saddle_free_step(H: LinearOperator, g: Tensor) -> Tensor:
    r"""Newton's step with the absolute values of the eigenvalues, in a Krylov space of g.

    .. math:: s = -V Z\, (|t| + \lambda)^{-1} Z^\top V^\top g, \qquad T = Z \operatorname{diag}(t)
              Z^\top, \quad \lambda = 10^{-3} \max |t|

    from :math:`\min(d, 20)` Lanczos steps from g.

    Parameters
    ----------
    H
        The Hessian.
    g
        The gradient, not zero.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> H = as_operator(torch.diag(torch.tensor([1.0, -2.0])))
    >>> [round(x, 2) for x in saddle_free_step(H, torch.tensor([1.0, 1.0])).tolist()]
    [-1.0, -0.5]

    References
    ----------
    Dauphin, Pascanu, Gulcehre, Cho, Ganguli & Bengio, NeurIPS 2014 (arXiv 1406.2572).
    """
    process = lanczos(H, g, min(len(g), KRYLOV))
    t, Z, _ = process.ritz()
    b = Z[0] * float(g.norm())
    damped = t.abs() + max(1e-3 * float(t.abs().max()), 1e-300)
    return process.vectors((Z @ (-b / damped))[:, None])[:, 0]


class CubicStep(NamedTuple):
    """A global minimizer of the cubic model.

    Attributes
    ----------
    s
        The step.
    multiplier
        l, with :math:`(H + l I) s = -g`, :math:`l = \\sigma \\|s\\|` and :math:`H + l I` positive
        semidefinite.
    other
        The other global minimizer in the hard case, else None.
    predicted
        By how much the cubic model falls, >= 0.
    """

    s: Tensor
    multiplier: float
    other: Tensor | None
    predicted: float


def cubic_minimizer(t: Tensor, b: Tensor, sigma: float) -> CubicStep:
    r"""Minimize the cubic model in the coordinates of the eigenvectors.

    .. math:: \min_s\ b^\top s + \tfrac12 \sum_i t_i s_i^2 + \tfrac\sigma3 \|s\|^3

    by the root :math:`l \ge \max(0, -t_1)` of the secular equation :math:`\|(t + l)^{-1} b\| = l /
    \sigma`. In the hard case (b has nothing along the lowest eigenvalue, and the left side at
    :math:`l = -t_1` is below the right) s gets the multiple of the lowest eigenvector that makes
    up for it, with either sign.

    Parameters
    ----------
    t
        Eigenvalues, ascending, ``(k,)``.
    b
        Coordinates of the gradient, ``(k,)``.
    sigma
        :math:`\sigma > 0`.

    Examples
    --------
    >>> t, b = torch.tensor([-1.0, 1.0]).double(), torch.tensor([0.0, 0.0]).double()
    >>> step = cubic_minimizer(t, b, sigma=0.5)
    >>> step.s.tolist(), step.other.tolist(), round(step.predicted, 6)
    ([2.0, 0.0], [-2.0, -0.0], 0.666667)

    References
    ----------
    Nesterov & Polyak, Math. Program. 108, 2006; Cartis, Gould & Toint, Math. Program. 127, 2011.
    """
    least = max(0.0, -float(t[0]))
    scale = max(float(t.abs().max()), math.sqrt(sigma * float(b.norm())), 1e-300)
    lowest = (t - t[0]) <= 1e-12 * scale
    nothing = float(b[lowest].norm()) <= 1e-12 * float(b.norm())
    if least > 0 and nothing:
        s = torch.where(lowest, torch.zeros_like(b), -b / torch.where(lowest, 1.0, t + least))
        missing = (least / sigma) ** 2 - float(s @ s)
        if missing >= 0:
            u = torch.zeros_like(b)
            u[0] = math.sqrt(missing)
            return CubicStep(s + u, least, s - u, _cubic_decrease(t, b, sigma, s + u))
    if float(b.norm()) == 0:
        return CubicStep(torch.zeros_like(b), least, None, 0.0)

    def gap(shift: float) -> float:
        return float((b / (t + shift)).norm()) - shift / sigma

    # the gap falls from above 0 at `least` to below 0
    low, high = least, least + scale
    while gap(high) > 0:
        high = 2 * high - least
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if gap(middle) > 0 else (low, middle)
    s = -b / (t + high)
    return CubicStep(s, high, None, max(_cubic_decrease(t, b, sigma, s), 0.0))


def cubic_step(H: LinearOperator, g: Tensor, sigma: float) -> CubicStep:
    r"""Minimize the cubic model :math:`g^\top s + \frac12 s^\top H s + \frac\sigma3 \|s\|^3`.

    Exactly, from all eigenvectors, for d <= 500; beyond in a Krylov space of g.

    Parameters
    ----------
    H
        The Hessian.
    g
        The gradient.
    sigma
        :math:`\sigma > 0`.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> step = cubic_step(as_operator(torch.zeros(1, 1)), torch.tensor([4.0]), sigma=1.0)
    >>> round(step.s.item(), 5)  # 4 s + |s|^3 / 3
    -2.0
    """
    if len(g) <= DENSE_UP_TO:
        from thalweg.numeric.operator import dense

        A = dense(H).double()
        t, Z = torch.linalg.eigh((A + A.T) / 2)
        found = cubic_minimizer(t, Z.T @ g.double(), sigma)
        map_back = lambda c: (Z @ c).to(g)  # noqa: E731
    else:
        process = lanczos(H, g, KRYLOV)
        t, Z, _ = process.ritz()
        found = cubic_minimizer(t, Z[0] * float(g.norm()), sigma)
        map_back = lambda c: process.vectors((Z @ c)[:, None])[:, 0]  # noqa: E731
    other = None if found.other is None else map_back(found.other)
    return found._replace(s=map_back(found.s), other=other)


def _cubic_decrease(t: Tensor, b: Tensor, sigma: float, s: Tensor) -> float:
    return -float(b @ s + (t * s**2).sum() / 2 + sigma / 3 * s.norm() ** 3)


def _model(g: Tensor, s: Tensor, Hs: Tensor) -> float:
    return float(g @ s) + float(s @ Hs) / 2


def _to_boundary(s: Tensor, p: Tensor, radius: float) -> tuple[float, float]:
    """The two t with ||s + t p|| = radius."""
    a, b, c = float(p @ p), float(s @ p), float(s @ s) - radius**2
    root = math.sqrt(max(b * b - a * c, 0.0))
    return (-b - root) / a, (-b + root) / a
