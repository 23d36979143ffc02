"""Rayleigh-Ritz: what a set of vectors says about the eigenpairs of an operator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thalweg.numeric.krylov.block import inner, norms, orthonormalize
from thalweg.numeric.operator import LinearOperator


def rayleigh_ritz(
    operator: LinearOperator, Y: Tensor, k: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Eigenpairs of a symmetric operator on the span of Y, with fresh residuals.

    .. math:: Q = \operatorname{orth}(Y), \quad Q^* A Q = Z \operatorname{diag}(t) Z^*, \quad
              y_i = Q z_i, \quad r_i = \|A y_i - t_i y_i\|

    Parameters
    ----------
    operator
        Symmetric (Hermitian).
    Y
        ``(n, p)``; dependent columns do no harm. One block product with p columns or fewer.
    k
        Keep the k lowest and k highest pairs. Default: all.

    Returns
    -------
    values, vectors, residuals
        ``(m,)`` ascending, float64; ``(n, m)``; ``(m,)``.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> A = as_operator(torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)))
    >>> t, y, r = rayleigh_ritz(A, torch.eye(3, dtype=torch.float64)[:, 1:])
    >>> [round(x, 9) for x in t.tolist()], round(float(r.max()), 9)
    ([2.0, 4.0], 0.0)
    """
    Q, _, _ = orthonormalize(Y, math.sqrt(torch.finfo(Y.dtype).eps))
    AQ = operator @ Q
    G = inner(Q, AQ).cpu()
    values, Z = torch.linalg.eigh((G + G.mH) / 2)
    if k is not None:
        kept = ends(len(values), k)
        values, Z = values[kept], Z[:, kept]
    coordinates = Z.to(Q)
    vectors = Q @ coordinates
    residuals = norms(AQ @ coordinates - vectors * values.to(Q))
    return values, vectors, residuals.cpu()


def ends(m: int, k: int) -> Tensor:
    """Indices of the k first and k last of m sorted values; each once.

    Examples
    --------
    >>> ends(5, 2).tolist(), ends(3, 2).tolist()
    ([0, 1, 3, 4], [0, 1, 2])
    """
    return torch.arange(m) if 2 * k >= m else torch.cat([torch.arange(k), torch.arange(m - k, m)])


def relative_noise(dtype: torch.dtype) -> float:
    """Error of a product as a share of the norm: 1e-14 in double precision, else 1e-6.

    Examples
    --------
    >>> relative_noise(torch.float32)
    1e-06
    """
    return 1e-14 if torch.finfo(dtype).eps < 1e-10 else 1e-6
