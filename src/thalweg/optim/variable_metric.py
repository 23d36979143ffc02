"""The variable-metric step: the definition that every adaptive method is tested against."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.optim.engine.elementwise import Constraint


def variable_metric_step(
    x: Tensor,
    g: Tensor,
    H: float | Tensor,
    lr: float,
    constraint: Constraint | None = None,
) -> Tensor:
    r"""One step of descent in the metric H: :math:`x_{k+1} = P_X^H(x_k - a\, H^{-1} g_k)`.

    With H a number: gradient descent with step a/H; a tensor like x: a diagonal metric (AdaGrad,
    RMSProp, Adam, AMSGrad are rules for it); a symmetric positive definite matrix: full-matrix
    AdaGrad, Newton.

    Parameters
    ----------
    x, g
        Point and gradient, of one shape.
    H
        A number > 0; a tensor of x's shape, > 0; or a matrix of shape (d, d), d the size of x.
    lr
        Step size a >= 0.
    constraint
        A set with ``project(y, weights)``; with a matrix H only None. Default None.

    Raises
    ------
    ValueError
        If H is not positive definite (the message names the smallest eigenvalue), not symmetric
        or of another shape.

    Examples
    --------
    >>> A = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    >>> x = torch.tensor([4.0, -1.0])
    >>> variable_metric_step(x, A @ x, A, lr=1.0).round(decimals=5).abs().tolist()  # Newton
    [0.0, 0.0]

    References
    ----------
    V. Cevher, EE-556 (EPFL 2020), lecture 9: variable-metric stochastic gradient descent.
    """
    check.number("lr", lr, ge=0)
    _same_shape(g, x)
    if isinstance(H, Tensor) and H.dim() == 2 and H.shape == (x.numel(), x.numel()) != x.shape:
        if constraint is not None:
            raise ValueError(
                "constraint must be None with a matrix H: the projection is not diagonal"
            )
        if not torch.allclose(H, H.mT, equal_nan=True):  # Cholesky reads one triangle only
            asymmetry = float((H - H.mT).abs().max())
            raise ValueError(f"H must be symmetric, got H - H^T with an entry of {asymmetry:.3g}")
        factor, failed = torch.linalg.cholesky_ex(H)
        if failed or not torch.isfinite(H).all():
            smallest = (
                float(torch.linalg.eigvalsh(H)[0]) if torch.isfinite(H).all() else float("nan")
            )
            raise ValueError(
                f"H must be positive definite, got a matrix with smallest eigenvalue {smallest:.3g}"
            )
        return x - lr * torch.cholesky_solve(g.reshape(-1, 1), factor).reshape(x.shape)
    h = _diagonal(H, x)
    y = x - lr * g / h
    return y if constraint is None else constraint.project(y, h)


def gradient_mapping(
    x: Tensor, g: Tensor, H: float | Tensor, constraint: Constraint, lam: float = 1.0
) -> Tensor:
    r"""The stationarity measure of constrained runs.

    .. math::
        G_\lambda(x) = \frac{H^{1/2}}{\lambda}
            \bigl(x - P_X^H(x - \lambda H^{-1} \nabla f(x))\bigr)

    It is zero exactly where x is stationary on X, and :math:`H^{-1/2} \nabla f(x)` inside X.

    Examples
    --------
    >>> from thalweg.numeric import Box
    >>> x, g = torch.tensor([1.0, 0.0]), torch.tensor([-3.0, 2.0])
    >>> gradient_mapping(x, g, 4.0, Box(-1, 1)).tolist()  # the first is held by the bound
    [0.0, 1.0]
    """
    check.number("lam", lam, gt=0)
    _same_shape(g, x)
    h = _diagonal(H, x)
    return h.sqrt() / lam * (x - constraint.project(x - lam * g / h, h))


def _same_shape(g: Tensor, x: Tensor) -> None:
    if g.shape != x.shape:
        raise ValueError(f"g must have the shape of x, {tuple(x.shape)}, got {tuple(g.shape)}")


def _diagonal(H: float | Tensor, x: Tensor) -> Tensor:
    if isinstance(H, Tensor) and H.numel() != 1 and H.shape != x.shape:
        d = x.numel()
        raise ValueError(
            f"H must be a number, a tensor of x's shape {tuple(x.shape)} or a matrix of shape "
            f"{(d, d)}, got {tuple(H.shape)}"
        )
    h = torch.as_tensor(H, dtype=x.dtype, device=x.device)
    h = h if h.shape == x.shape else h.reshape(()).expand(x.shape)
    if x.numel() and not bool((h > 0).all()):
        raise ValueError(f"H must be > 0, got a smallest entry of {float(h.min()):.3g}")
    return h
