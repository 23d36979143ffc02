"""Orthonormal bases of blocks of vectors, dependent directions left out."""

from __future__ import annotations

import torch
from torch import Tensor


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
        ``(r, b)``.
    dropped
        :math:`\|E\|_2`; 0 if nothing was left out.

    Examples
    --------
    >>> W = torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0]])
    >>> Q, R, dropped = orthonormalize(W, drop=1e-6)
    >>> Q.shape, bool(torch.allclose(Q @ R, W))
    (torch.Size([3, 1]), True)
    """
    if W.shape[1] == 1:  # what a Lanczos step without blocks needs, at the price of one norm
        norm = torch.linalg.vector_norm(W)
        size = float(norm)
        if size <= drop:
            return W[:, :0], W.new_zeros(0, 1), size
        return W / norm, norm.reshape(1, 1).to(W.dtype), 0.0
    # the QR factor first: the singular value decomposition is then one of a b x b matrix
    Q, R = torch.linalg.qr(W)
    U, sigma, Vh = torch.linalg.svd(R)
    kept = sigma > drop
    dropped = float(sigma[~kept].max()) if not bool(kept.all()) else 0.0
    return Q @ U[:, kept], sigma[kept, None] * Vh[kept], dropped
