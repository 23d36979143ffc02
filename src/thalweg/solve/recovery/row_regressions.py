"""Least squares for every row of a sampled matrix at once, by conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.solve.recovery.factors import LowRank
from thalweg.solve.recovery.sampling import Sampling

SIGNS = 8
"""Nonzeros of each column of the sparse embedding."""

NUMBERS_AT_ONCE = 2**24
"""Numbers of the sketches that are held at a time."""


def conjugate_gradient_rows(
    sampling: Sampling,
    values: Tensor,
    V: Tensor,
    accuracy: float,
    ridge: float = 0.0,
    precondition: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, int]:
    r"""Conjugate gradients on the normal equations of every row, in time linear in the entries.

    .. math:: (B_i^T B_i + \lambda I)\, u_i = B_i^T b_i, \qquad
        B_i = V_{\Omega_i}, \quad b_i = M_{i, \Omega_i}

    One iteration for all rows is one reading of the entries and one product with the sparse matrix
    of what was read. Rows that are done stand still; a row that its entries do not determine gets
    the least of its solutions.

    Parameters
    ----------
    sampling, values
        The entries, in the order of `sampling`; shape ``(..., m)``.
    V
        Shape ``(..., n2, r)``.
    accuracy
        Stop where :math:`\|B_i^T b_i - (B_i^T B_i + \lambda I) u_i\| \le \text{accuracy}
        \|B_i^T b_i\|` in every row.
    ridge
        :math:`\lambda \ge 0`.
    precondition
        Applies an approximate inverse of the Gram matrices to all rows at once.

    Returns
    -------
    U, iterations
        Shape ``(..., n1, r)``, and how many it took for the slowest row.

    Examples
    --------
    >>> read = Sampling(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), (2, 2))
    >>> conjugate_gradient_rows(read, torch.tensor([2.0, 3.0, 3.0]), torch.ones(2, 1), 1e-6)
    (tensor([[2.],
            [3.]]), 1)
    """
    precondition = precondition or (lambda R: R)
    right = sampling.adjoint(values) @ V

    def gram(P: Tensor) -> Tensor:
        product = sampling.adjoint(sampling.forward(LowRank(P, V))) @ V
        return product + ridge * P if ridge else product

    U, R = torch.zeros_like(right), right
    enough = accuracy * right.norm(dim=-1, keepdim=True)
    P = Z = precondition(R)
    rho = (R * Z).sum(-1, keepdim=True)
    iterations, most = 0, 2 * V.shape[-1] + 20
    while iterations < most:
        active = R.norm(dim=-1, keepdim=True) > enough
        if not active.any():
            break
        Q = gram(P)
        curvature = (P * Q).sum(-1, keepdim=True)
        step = torch.where(active & (curvature > 0), rho / curvature, 0.0)
        U, R = U + step * P, R - step * Q
        Z = precondition(R)
        rho, before = (R * Z).sum(-1, keepdim=True), rho
        P = Z + torch.where(before > 0, rho / before, 0.0) * P
        iterations += 1
    return U, iterations


def sketched_triangles(
    sampling: Sampling, V: Tensor, sketch: int, generator: torch.Generator
) -> Tensor:
    r"""The triangular factors of sparse sketches of every row's regression matrix.

    .. math:: S B_i = Q_i R_i, \qquad B_i = V_{\Omega_i}

    S has `sketch` rows and eight random signs, divided by :math:`\sqrt 8`, in each column; it is
    one for all rows. :math:`B_i R_i^{-1}` has a condition number near 3 for ``sketch = 4 r``.

    Parameters
    ----------
    sampling
        The entries.
    V
        Shape ``(n2, r)``.
    sketch
        Rows of the sketch, >= r.
    generator
        Of the signs and their places.

    Returns
    -------
    Tensor
        Upper triangular, shape ``(n1, r, r)``.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> V = torch.randn(1000, 4, generator=generator, dtype=torch.float64)
    >>> every = torch.arange(1000)
    >>> row = Sampling(torch.zeros_like(every), every, (1, 1000))
    >>> R = sketched_triangles(row, V, 16, generator)[0]
    >>> torch.linalg.cond(V @ torch.linalg.inv(R)).item() < 4
    True
    """
    n2, r = V.shape
    rows, cols, size = sampling.rows, sampling.cols, sampling.shape[0]
    device = V.device
    places = torch.rand(n2, sketch, generator=generator, device=device).topk(min(SIGNS, sketch))
    signs = torch.randint(0, 2, places.indices.shape, generator=generator, device=device)
    signed = (2.0 * signs - 1).to(V.dtype) / signs.shape[1] ** 0.5
    pointers = torch.searchsorted(rows, torch.arange(size + 1, device=rows.device)).tolist()
    together = max(1, NUMBERS_AT_ONCE // (sketch * r))
    triangles = []
    for first in range(0, size, together):
        last = min(first + together, size)
        S = V.new_zeros((last - first) * sketch, r)
        piece = slice(pointers[first], pointers[last])
        at = (rows[piece] - first) * sketch
        seen = cols[piece]
        for k in range(signs.shape[1]):
            S.index_add_(0, at + places.indices[seen, k], signed[seen, k, None] * V[seen])
        triangles.append(torch.linalg.qr(S.view(-1, sketch, r)).R)
    return torch.cat(triangles)


def divide_by_triangles(R: Tensor) -> Callable[[Tensor], Tensor]:
    r"""The preconditioner :math:`u_i \mapsto R_i^{-1} R_i^{-T} u_i` of triangular factors.

    Rows whose triangle is singular are left as they are.

    Examples
    --------
    >>> divide_by_triangles(torch.tensor([[[2.0]]]))(torch.tensor([[4.0]]))
    tensor([[1.]])
    """
    diagonal = R.diagonal(dim1=-2, dim2=-1).abs()
    bad = diagonal.amin(-1) <= 1e-10 * diagonal.amax(-1)
    R = torch.where(bad[:, None, None], torch.eye(R.shape[-1], dtype=R.dtype, device=R.device), R)

    def divide(u: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(R.mT, u.unsqueeze(-1), upper=False)
        return torch.linalg.solve_triangular(R, half, upper=True).squeeze(-1)

    return divide
