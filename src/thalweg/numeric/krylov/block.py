"""Blocks of long vectors: inner products, and orthonormal bases without dependent directions."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2**13  # entries that are summed in single precision


def wide(dtype: torch.dtype) -> torch.dtype:
    """Double precision of the same kind: for numbers, not for vectors.

    Examples
    --------
    >>> wide(torch.float32), wide(torch.complex64)
    (torch.float64, torch.complex128)
    """
    return torch.complex128 if dtype.is_complex else torch.float64


def inner(X: Tensor, Y: Tensor) -> Tensor:
    r"""Return :math:`X^* Y` in double precision, for ``(n, a)`` and ``(n, b)``.

    Single precision is summed in pieces: over 10^7 entries at once, a matrix product loses the
    second digit (measured: 1.3e-2 of a unit vector's norm, against 1e-6 in pieces).

    Examples
    --------
    >>> inner(torch.ones(3, 1), torch.ones(3, 2)).tolist()
    [[3.0, 3.0]]
    """
    n = X.shape[0]
    if n <= CHUNK or torch.finfo(X.dtype).eps < 1e-10:
        return (X.mH @ Y).to(wide(X.dtype))
    total = torch.zeros(X.shape[1], Y.shape[1], dtype=wide(X.dtype), device=X.device)
    for x, y in zip(X.split(CHUNK), Y.split(CHUNK)):
        total += x.mH @ y
    return total


def norms(X: Tensor) -> Tensor:
    """Euclidean norms of the columns of ``(n, b)``, in float64.

    Examples
    --------
    >>> norms(torch.tensor([[3.0], [4.0]])).tolist()
    [5.0]
    """
    return torch.linalg.vector_norm(X, dim=0, dtype=wide(X.dtype)).to(torch.float64)


def orthonormalize(W: Tensor, drop: float = 0.0) -> tuple[Tensor, Tensor, float]:
    r"""Factor :math:`W = Q R + E` with orthonormal Q; directions of norm <= `drop` go into E.

    .. math:: W = U \Sigma V^*, \qquad Q = U_+, \quad R = \Sigma_+ V_+^*, \quad
              \|E\|_2 = \max \{\sigma_i : \sigma_i \le \text{drop}\}

    Parameters
    ----------
    W
        ``(n, b)`` with b <= n, real or complex.
    drop
        Singular values up to this are left out, >= 0. Default 0.

    Returns
    -------
    Q
        ``(n, r)``, r <= b.
    R
        ``(r, b)``, in double precision on the CPU.
    dropped
        :math:`\|E\|_2`; 0 if nothing was left out.

    Examples
    --------
    >>> W = torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0]])
    >>> Q, R, dropped = orthonormalize(W, drop=1e-6)
    >>> Q.shape, bool(torch.allclose(Q @ R.float(), W))
    (torch.Size([3, 1]), True)
    """
    if W.shape[1] == 1:  # what a Lanczos step without blocks needs, at the price of one norm
        size = float(norms(W))
        if size <= drop:
            return W[:, :0], torch.zeros(0, 1, dtype=wide(W.dtype)), size
        return W / size, torch.tensor([[size]], dtype=wide(W.dtype)), 0.0
    # the QR factor first: the singular value decomposition is then one of a b x b matrix
    Q, R = torch.linalg.qr(W)
    U, sigma, Vh = torch.linalg.svd(R.to("cpu", wide(R.dtype)))
    kept = sigma > drop
    dropped = float(sigma[~kept].max()) if not bool(kept.all()) else 0.0
    Q, R = Q @ U[:, kept].to(Q), sigma[kept, None] * Vh[kept]
    # QR in single precision sums over all entries at once, too: Q (Q^* Q)^{-1/2} mends that
    defect = (inner(Q, Q) - torch.eye(Q.shape[1], dtype=R.dtype, device=Q.device)) / 2
    return Q - Q @ defect.to(Q), R + defect.to(R) @ R, dropped
