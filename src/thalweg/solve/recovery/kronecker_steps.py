"""The steps of Kronecker-structured sparse Bayesian learning: E-step, M-steps, noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.solve.recovery.kronecker import multiply, outer

FLOOR = 1e-12
"""Entries of a factor are kept above this, relative to its largest: it is divided by."""


class Expectation(NamedTuple):
    """What the E-step finds, as tensors with one axis per dictionary."""

    mean: Tensor
    variance: Tensor
    cost: Tensor
    """log det Sigma_y + y^H Sigma_y^{-1} y."""
    misfit2: Tensor
    """||y - H mean||^2."""


def expectation(
    dictionaries: Sequence[Tensor], y: Tensor, factors: Sequence[Tensor], noise: Tensor
) -> Expectation:
    r"""The posterior of x, exact and without any N x N or M x M matrix.

    .. math:: H_i\, \mathrm{diag}(g_i)\, H_i^* = Q_i \Lambda_i Q_i^*, \qquad
        \Sigma_y^{-1} = Q\, \mathrm{diag}\frac{1}{\sigma^2 + \lambda}\, Q^*, \qquad P_i = H_i^* Q_i

    .. math:: \mu = \gamma \odot P\, \frac{Q^* y}{\sigma^2 + \lambda}, \qquad
        \Sigma_{jj} = \gamma_j - \gamma_j^2
        \Big(|P|^2 \frac{1}{\sigma^2 + \lambda}\Big)_j

    with Q, :math:`\lambda`, P and :math:`\gamma` the Kronecker products of their factors: O(N + M)
    memory.

    Parameters
    ----------
    dictionaries
        :math:`H_i`, shapes :math:`(M_i, N_i)`.
    y
        The measurements, shape :math:`(M_1, ..., M_I)`.
    factors
        :math:`g_i \ge 0`, shapes :math:`(N_i,)`.
    noise
        :math:`\sigma^2 > 0`, a scalar tensor.

    Examples
    --------
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> found = expectation([one[:, None]], 4 * one, [one], one[0])
    >>> found.mean.item(), found.variance.item()
    (2.0, 0.5)
    """
    eigen = [torch.linalg.eigh((H * g) @ H.mH) for H, g in zip(dictionaries, factors, strict=True)]
    spread = noise + outer([L.clamp(min=0) for L, _ in eigen])
    P = [H.mH @ Q for H, (_, Q) in zip(dictionaries, eigen, strict=True)]
    seen = multiply([Q.mH for _, Q in eigen], y)
    gamma = outer(factors)
    mean = gamma * multiply(P, seen / spread)
    explained = gamma.square() * multiply([p.abs().square() for p in P], 1 / spread)
    energy = seen.abs().square()
    return Expectation(
        mean=mean,
        variance=(gamma - explained).clamp(min=0),
        cost=spread.log().sum() + (energy / spread).sum(),
        misfit2=noise.square() * (energy / spread.square()).sum(),
    )


def classical_expectation(
    dictionaries: Sequence[Tensor], y: Tensor, factors: Sequence[Tensor], noise: Tensor
) -> Expectation:
    r"""The E-step with one dictionary, by the Cholesky factor of :math:`\Sigma_y = L L^*`.

    .. math:: \mu = \gamma \odot H^* \Sigma_y^{-1} y, \qquad
        \Sigma_{jj} = \gamma_j - \gamma_j^2 \|L^{-1} h_j\|^2

    Examples
    --------
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> round(classical_expectation([one[:, None]], 4 * one, [one], one[0]).mean.item(), 6)
    2.0
    """
    (H,), (gamma,) = dictionaries, factors
    eye = torch.eye(len(y), dtype=H.dtype, device=H.device)
    L = torch.linalg.cholesky((H * gamma) @ H.mH + noise * eye)
    whitened = torch.linalg.solve_triangular(L, torch.cat([H, y[:, None]], dim=1), upper=False)
    W, w = whitened[:, :-1], whitened[:, -1]
    mean = gamma * (W.mH @ w)
    return Expectation(
        mean=mean,
        variance=(gamma - gamma.square() * W.abs().square().sum(0)).clamp(min=0),
        cost=2 * L.diagonal().real.log().sum() + w.abs().square().sum(),
        misfit2=(y - H @ mean).abs().square().sum(),
    )


def alternating_update(
    d: Tensor, factors: Sequence[Tensor], *, tol: float = 1e-5, sweeps: int = 200
) -> list[Tensor]:
    r"""M-step by alternating minimization (AM): each factor in turn is the exact minimizer.

    .. math:: \min_{g_1, \dots, g_I} \; \sum_i \frac{N}{N_i} \mathbf 1^T \log g_i
        + d^T (g_1^{-1} \otimes \dots \otimes g_I^{-1}), \qquad
        (g_i)_j \leftarrow \frac{N_i}{N} \sum_{k:\, k_i = j} \frac{d_k}{\prod_{l \ne i} (g_l)_{k_l}}

    Parameters
    ----------
    d
        :math:`\Sigma_{jj} + |\mu_j|^2`, shape :math:`(N_1, ..., N_I)`.
    factors
        Where to begin.
    tol, sweeps
        Stop at this relative change of :math:`\gamma` in a sweep over the factors, or after as
        many sweeps.

    Examples
    --------
    >>> g = [torch.tensor([0.6, 0.8]), torch.tensor([3.0, 1.0])]
    >>> start = [torch.full((2,), 0.5**0.5), torch.ones(2)]
    >>> torch.allclose(outer(alternating_update(outer(g), start)), outer(g))
    True
    """
    factors, gamma = list(factors), outer(factors)
    for _ in range(sweeps):
        for i in range(len(factors)):
            others = [1 / g for k, g in enumerate(factors) if k != i]
            rest = d.movedim(i, 0).reshape(len(factors[i]), -1)
            weights = outer(others).flatten() if others else rest.new_ones(1)
            factors[i] = floored(rest @ weights / rest.shape[1])
        factors = normalized(factors)
        before, gamma = gamma, outer(factors)
        if (gamma - before).norm() <= tol * before.norm():
            break
    return factors


def singular_update(d: Tensor, factors: Sequence[Tensor] = ()) -> list[Tensor]:
    r"""M-step by singular vectors (SVD): the best rank-one fit of d, one axis after the other.

    .. math:: d \approx s_1 u_1 v_1^T \in R^{N_1 \times N / N_1}, \qquad g_1 = |u_1|, \quad
        d \leftarrow |s_1 v_1|

    Not an exact minimizer (the cost may rise), but fast.

    Parameters
    ----------
    d
        :math:`\Sigma_{jj} + |\mu_j|^2`, shape :math:`(N_1, ..., N_I)`.
    factors
        Not used.

    Examples
    --------
    >>> g = [torch.tensor([0.6, 0.8]), torch.tensor([3.0, 1.0])]
    >>> torch.allclose(outer(singular_update(outer(g))), outer(g))
    True
    """
    found = []
    while d.ndim > 1:
        U, S, Vh = torch.linalg.svd(d.reshape(d.shape[0], -1), full_matrices=False)
        found.append(floored(U[:, 0].abs()))
        d = (S[0] * Vh[0]).abs().reshape(d.shape[1:])
    return [*found, floored(d)]


def learned_noise(
    found: Expectation, factors: Sequence[Tensor], noise: Tensor, measured: int
) -> Tensor:
    r"""The variance of the noise, by EM.

    .. math:: \sigma^2 \leftarrow \frac1M \Big( \|y - H \mu\|^2
        + \sigma^2 \sum_j (1 - \Sigma_{jj} / \gamma_j) \Big)

    Parameters
    ----------
    found, factors, noise
        An E-step, and the prior variances and the variance of the noise that it was done with.
    measured
        M, the number of measurements.

    Examples
    --------
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> found = expectation([one[:, None]], 4 * one, [one], one[0])
    >>> learned_noise(found, [one], one[0], 1).item()
    4.5
    """
    unexplained = (1 - found.variance / outer(factors)).sum()
    return (found.misfit2 + noise * unexplained) / measured


def normalized(factors: Sequence[Tensor]) -> list[Tensor]:
    """All factors but the last of norm 1; the last one takes their scale."""
    norms = [g.norm() for g in factors[:-1]]
    scaled = [g / norm for g, norm in zip(factors[:-1], norms, strict=True)]
    scale = math.prod(norms, start=torch.ones_like(factors[-1][0]))
    return [*scaled, factors[-1] * scale]


def floored(g: Tensor) -> Tensor:
    """A factor without zeros."""
    return g.clamp(min=FLOOR * float(g.max()))
