r"""Projections in a diagonal metric, as pure functions of tensors.

Each function returns :math:`\arg\min_{x \in X} \sum_i h_i (x_i - y_i)^2` for one family of sets
:math:`X`; ``weights=None`` stands for :math:`h = 1`. The projection does not change when
:math:`h` is multiplied by a number. Arguments are taken as valid: :mod:`thalweg.numeric.sets`
checks them, and is what users call.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wide(tensor: Tensor) -> torch.dtype:
    """The dtype in which sums are accumulated: float64 where the device has it.

    Examples
    --------
    >>> wide(torch.zeros(3))
    torch.float64
    """
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def onto_simplex(y: Tensor, weights: Tensor | None, total: float) -> Tensor:
    r"""Projection onto :math:`\{x \ge 0, \sum_i x_i = s\}` by sorting breakpoints.

    .. math:: x_i = \max(y_i - \nu / h_i, 0), \qquad
              \nu = \max_k \frac{\sum_{i \in A_k} y_i - s}{\sum_{i \in A_k} 1 / h_i},

    where :math:`A_k` holds the :math:`k` largest breakpoints :math:`y_i h_i`. The sum
    :math:`\phi(\nu) = \sum_i \max(y_i - \nu / h_i, 0)` is decreasing and at least
    :math:`\sum_{i \in A} (y_i - \nu / h_i)` for every :math:`A`, with equality for the active set:
    so the root of :math:`\phi(\nu) = s` is the largest of the candidates, and no search is needed.

    Parameters
    ----------
    y
        Point to project, any shape.
    weights
        :math:`h > 0`, shape of `y`, or None.
    total
        :math:`s > 0`.

    Returns
    -------
    Tensor
        The projection, shape and dtype of `y`. O(d log d).

    Examples
    --------
    >>> onto_simplex(torch.tensor([1.0, 0.5, -1.0]), None, total=1.0)
    tensor([0.7500, 0.2500, 0.0000])

    References
    ----------
    Duchi, Shalev-Shwartz, Singer, Chandra, "Efficient projections onto the l1-ball for learning
    in high dimensions", ICML 2008.
    """
    flat = y.flatten().to(wide(y))
    if weights is None:
        # the answer does not depend on a common offset, so a large one need not cost digits
        flat = flat - flat.amax()
        partial_sums = flat.sort(descending=True).values.cumsum(0)
        counts = torch.arange(1, flat.numel() + 1, dtype=flat.dtype, device=flat.device)
        nu = ((partial_sums - total) / counts).amax()
        return (flat - nu).clamp_(min=0).to(y.dtype).reshape(y.shape)
    h = weights.flatten().to(flat.dtype)
    order, inverse = (flat * h).argsort(descending=True), h.reciprocal()
    nu = ((flat[order].cumsum(0) - total) / inverse[order].cumsum(0)).amax()
    return (flat - nu * inverse).clamp_(min=0).to(y.dtype).reshape(y.shape)


def onto_l1_ball(y: Tensor, weights: Tensor | None, radius: float) -> Tensor:
    r"""Projection onto :math:`\{\|x\|_1 \le r\}`: `y` if inside, else the simplex rule on |y|.

    Parameters
    ----------
    y
        Point to project, any shape.
    weights
        :math:`h > 0`, shape of `y`, or None.
    radius
        :math:`r > 0`.

    Returns
    -------
    Tensor
        The projection, shape and dtype of `y`. O(d log d).

    Examples
    --------
    >>> onto_l1_ball(torch.tensor([2.0, -1.5, 0.1]), None, radius=1.0)
    tensor([ 0.7500, -0.2500,  0.0000])

    References
    ----------
    Duchi, Shalev-Shwartz, Singer, Chandra, "Efficient projections onto the l1-ball for learning
    in high dimensions", ICML 2008.
    """
    if bool(y.abs().sum(dtype=wide(y)) <= radius):
        return y.clone()
    return onto_simplex(y.abs(), weights, radius) * y.sign()


def onto_l2_ball(y: Tensor, weights: Tensor | None, radius: float) -> Tensor:
    r"""Projection onto :math:`\{\|x\|_2 \le r\}`: `y` if inside, else on the sphere.

    .. math:: x_i = \frac{h_i y_i}{h_i + \nu}, \qquad \nu > 0 : \ \|x(\nu)\|_2 = r.

    :math:`1 / \|x(\nu)\|` is increasing and concave in :math:`\nu`, so Newton's method on
    :math:`1 / \|x(\nu)\| = 1 / r` climbs to the root from any point on its left; a bracket guards
    the steps against rounding. With equal weights :math:`x = r y / \|y\|`.

    Parameters
    ----------
    y
        Point to project (its centre at 0), any shape.
    weights
        :math:`h > 0`, shape of `y`, or None.
    radius
        :math:`r > 0`.

    Returns
    -------
    Tensor
        The projection, shape and dtype of `y`; :math:`\|x\|` is within 1e-12 r of r before it is
        rounded to that dtype. O(d) per Newton step, 4 to 9 steps as a rule.

    Examples
    --------
    >>> onto_l2_ball(torch.tensor([3.0, 4.0]), None, radius=1.0)
    tensor([0.6000, 0.8000])

    References
    ----------
    Conn, Gould, Toint, "Trust-region methods", SIAM 2000, section 7.3 (the secular equation).
    """
    norm = torch.linalg.vector_norm(y, dtype=wide(y))
    if weights is None:
        return torch.where(norm <= radius, y, y * (radius / norm).to(y.dtype))
    if bool(norm <= radius):
        return y.clone()
    h = weights.to(wide(y))
    start = y.to(wide(y)) / radius  # from here on the radius is 1
    excess = norm / radius - 1
    low, high = h.amin() * excess, h.amax() * excess  # both from min h <= h_i <= max h in x(nu)
    tolerance = max(1e-12, 4 * torch.finfo(h.dtype).eps)
    nu = low
    for _ in range(100):
        x = start * (h / (h + nu))
        norm = torch.linalg.vector_norm(x)
        if bool((norm - 1).abs() <= tolerance):
            break
        low, high = torch.where(norm > 1, nu, low), torch.where(norm > 1, high, nu)
        newton = nu + (norm - 1) * norm.square() / (x.square() / (h + nu)).sum()
        inside = (newton > low) & (newton < high)
        nu = torch.where(inside, newton, (low * high).sqrt())
    return (x * (radius / norm)).to(y.dtype)


def onto_halfspace(y: Tensor, weights: Tensor | None, a: Tensor, b: float) -> Tensor:
    r"""Projection onto :math:`\{a^\top x \le b\}`.

    .. math:: x = y - \frac{a}{h} \, \frac{\max(a^\top y - b, 0)}{\sum_i a_i^2 / h_i}.

    Parameters
    ----------
    y
        Point to project, any shape.
    weights
        :math:`h > 0`, shape of `y`, or None.
    a
        Normal vector, not zero, shape of `y`.
    b
        Offset.

    Returns
    -------
    Tensor
        The projection, shape and dtype of `y`; `y` if inside.

    Examples
    --------
    >>> onto_halfspace(torch.tensor([2.0, 1.0]), None, torch.tensor([1.0, 0.0]), b=1.0)
    tensor([1., 1.])

    References
    ----------
    Boyd, Vandenberghe, "Convex optimization", Cambridge 2004, section 8.1.
    """
    a, start = a.to(wide(y)), y.to(wide(y))
    direction = a if weights is None else a / weights.to(a.dtype)
    excess = ((a * start).sum() - b).clamp(min=0)
    return (start - direction * (excess / (a * direction).sum())).to(y.dtype)


def onto_affine(y: Tensor, weights: Tensor | None, A: Tensor, b: Tensor, factor: Tensor) -> Tensor:
    r"""Projection onto :math:`\{A x = b\}`.

    .. math:: x = y - H^{-1} A^\top (A H^{-1} A^\top)^{-1} (A y - b).

    Parameters
    ----------
    y
        Point to project, d elements in any shape.
    weights
        Diagonal of :math:`H`, shape of `y`, or None.
    A, b
        The equations, shapes (m, d) and (m,), in the dtype of :func:`wide`.
    factor
        :func:`gram_factor` of `A`, used where `weights` is None.

    Returns
    -------
    Tensor
        The projection, shape and dtype of `y`. O(m^2 d) with weights, O(m d) without.

    Examples
    --------
    >>> A, b = torch.tensor([[3.0, 4.0]]).double(), torch.tensor([5.0]).double()
    >>> onto_affine(torch.tensor([3.0, 4.0]), None, A, b, gram_factor(A))
    tensor([0.6000, 0.8000])

    References
    ----------
    Boyd, Vandenberghe, "Convex optimization", Cambridge 2004, section 8.1.
    """
    inverse = None if weights is None else weights.flatten().to(A.dtype).reciprocal()
    directions = A if inverse is None else A * inverse
    factor = factor if inverse is None else gram_factor(A, inverse)
    x = y.flatten().to(A.dtype)
    for _ in range(2):  # the second pass removes what rounding left of the residual
        multipliers = torch.cholesky_solve((A @ x - b)[:, None], factor)[:, 0]
        x = x - directions.T @ multipliers
    return x.to(y.dtype).reshape(y.shape)


def gram_factor(A: Tensor, inverse_weights: Tensor | None = None) -> Tensor:
    r"""Cholesky factor of :math:`A H^{-1} A^\top`, refused where it is singular to rounding.

    Parameters
    ----------
    A
        Shape (m, d), m <= d.
    inverse_weights
        Diagonal of :math:`H^{-1}`, shape (d,), or None for the identity.

    Returns
    -------
    Tensor
        Lower triangular, shape (m, m).

    Raises
    ------
    ValueError
        If a row of `A` is, to rounding, a combination of those above it.

    Examples
    --------
    >>> gram_factor(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    tensor([[5.]], dtype=torch.float64)
    >>> gram_factor(torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=torch.float64))
    Traceback (most recent call last):
    ...
    ValueError: A must have full row rank, got a (2, 2) matrix where row 1 depends on those above it
    """
    gram = A @ (A if inverse_weights is None else A * inverse_weights).T
    factor, failed = torch.linalg.cholesky_ex(gram)
    # The square of a pivot, relative to its row, is the squared sine of the angle between that row
    # and the span of the rows above; the Gram matrix resolves it to a few m * eps.
    sine = factor.diagonal().square() / gram.diagonal()
    dependent = ~(sine > 100 * A.shape[0] * torch.finfo(A.dtype).eps)
    first_failed = int(failed) - 1
    if first_failed >= 0 or bool(dependent.any()):
        rows = dependent.nonzero().flatten().tolist()
        row = min([*rows, first_failed] if first_failed >= 0 else rows)
        reason = f"got a {tuple(A.shape)} matrix where row {row} depends on those above it"
        if inverse_weights is not None:
            reason += " in the metric of `weights`, which spread too widely for these equations"
        raise ValueError(f"A must have full row rank, {reason}")
    return factor
