r"""Three steps on the factors of a low-rank matrix; all use the old pair on the right-hand side.

With :math:`Z` the pulled-back misfit, the gradient of f is :math:`(Z V, Z^T U)`, plus `decay`
times the factors where these are penalized.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.solve.recovery.factors import LowRank


def gradient_step(x: LowRank, Z: Any, step_size: Tensor | float, decay: float = 0.0) -> LowRank:
    r"""Plain gradient descent.

    .. math:: U \leftarrow U - \eta Z V, \qquad V \leftarrow V - \eta Z^T U

    Examples
    --------
    >>> gradient_step(LowRank(torch.ones(1, 1), torch.ones(1, 1)), torch.ones(1, 1), 0.5).U
    tensor([[0.5000]])
    """
    U, V = x
    return LowRank(U - step_size * (Z @ V + decay * U), V - step_size * (Z.mT @ U + decay * V))


def balanced_step(x: LowRank, Z: Any, step_size: Tensor | float, decay: float = 0.0) -> LowRank:
    r"""Gradient descent with the gradient of :math:`\tfrac18\|U^T U - V^T V\|_F^2` added.

    .. math:: D = U^T U - V^T V, \qquad
        U \leftarrow U - \eta (Z V + \tfrac12 U D), \qquad
        V \leftarrow V - \eta (Z^T U - \tfrac12 V D)

    Examples
    --------
    >>> x = LowRank(2 * torch.ones(1, 1), torch.ones(1, 1))
    >>> balanced_step(x, torch.zeros(1, 1), 0.1).U
    tensor([[1.7000]])
    """
    U, V = x
    D = U.mT @ U - V.mT @ V
    return LowRank(
        U - step_size * (Z @ V + decay * U + U @ D / 2),
        V - step_size * (Z.mT @ U + decay * V - V @ D / 2),
    )


def scaled_step(x: LowRank, Z: Any, step_size: Tensor | float, decay: float = 0.0) -> LowRank:
    r"""Scaled gradient descent: each factor preconditioned by the Gram matrix of the other.

    .. math:: U \leftarrow U - \eta Z V (V^T V)^{-1}, \qquad
        V \leftarrow V - \eta Z^T U (U^T U)^{-1}

    Examples
    --------
    >>> x = LowRank(torch.ones(1, 1), 2 * torch.ones(1, 1))
    >>> scaled_step(x, torch.ones(1, 1), 0.5).U
    tensor([[0.7500]])
    """
    U, V = x
    return LowRank(
        U - step_size * divide_by_gram(Z @ V + decay * U, V),
        V - step_size * divide_by_gram(Z.mT @ U + decay * V, U),
    )


def divide_by_gram(W: Tensor, F: Tensor) -> Tensor:
    r""":math:`W (F^T F)^{-1}`, with a ridge of 1e-12 of the trace where F has lost a column.

    Examples
    --------
    >>> divide_by_gram(torch.tensor([[8.0]]), torch.tensor([[2.0]]))
    tensor([[2.]])
    """
    gram = F.mT @ F
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed.any():
        ridge = 1e-12 * gram.diagonal(dim1=-2, dim2=-1).mean(-1)
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        # A Gram matrix beyond help gives infinities, which the loop reports.
        return torch.linalg.solve_ex(gram + ridge[..., None, None] * eye, W.mT).result.mT
    return torch.cholesky_solve(W.mT, factor).mT
