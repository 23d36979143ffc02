"""Methods for robust PCA: clipped or trimmed scaled gradients, alternating projections, PCP."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from thalweg.core import Result, check, iterate
from thalweg.core.catalogue import LogUniform, method
from thalweg.solve.recovery.descent import descend, halving
from thalweg.solve.recovery.factors import LowRank, from_svd
from thalweg.solve.recovery.robust_pca import LowRankPlusSparse, RobustPCA, truncated_svd
from thalweg.solve.recovery.steps import scaled_step

Start = str | LowRank | LowRankPlusSparse


@method(
    paper="Yi, Park, Chen, Caramanis, NeurIPS 2016, arXiv:1605.07784; "
    "Tong, Ma, Chi, JMLR 2021, arXiv:2005.08898",
    year=2021,
    family="low-rank recovery",
    problems=(RobustPCA,),
    search_space={"step_size": LogUniform(0.05, 1.0)},
)
def robust_pca(
    problem: RobustPCA,
    *,
    sparse: Literal["soft", "largest"] = "soft",
    step_size: float | None = None,
    start: Start = "spectral",
    tol: float = 1e-10,
    xtol: float | None = None,
    max_steps: int = 1000,
    max_seconds: float | None = None,
    halvings: int = 5,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[LowRankPlusSparse]:
    r"""Scaled gradient descent on the low-rank part, with the gross errors taken out of the misfit.

    .. math:: D = U V^T + S - Y, \qquad U \leftarrow U - \eta D V (V^T V)^{-1}, \qquad
        V \leftarrow V - \eta D^T U (U^T U)^{-1}

    ``sparse="soft"`` shrinks by the largest entry that the problem does not call gross,

    .. math:: S = \operatorname{sign}(W) \max(|W| - \zeta, 0), \qquad W = Y - U V^T, \qquad
        \zeta = \|W - T_{2\alpha}(W)\|_\infty,

    so that D is W clipped at :math:`\pm\zeta`: a step on Huber's loss, whose width falls with the
    misfit. ``sparse="largest"`` is the published :math:`S = T_{2\alpha}(W)`, which
    `scaled_gradient` runs too; it throws away good entries with the bad, and needs about ten times
    the steps.

    Parameters
    ----------
    problem
        A `RobustPCA`.
    sparse
        ``"soft"`` (default) or ``"largest"``.
    step_size
        :math:`\eta > 0`. Default 0.7, or the published 0.5 for ``"largest"``.
    start
        ``"spectral"`` (default), ``"random"``, or a point to continue from.
    tol
        Stop at this relative residual :math:`\|Y - U V^T - S\|_F / \|Y\|_F` with
        :math:`S = T_{2\alpha}(Y - U V^T)`, whatever `sparse` is; >= 0. Default 1e-10.
    xtol
        Stop at this relative change of the factors. Default 1e-12 (4 roundings in float32).
    max_steps, max_seconds
        Limits. Default 1000 steps, no limit of time.
    halvings
        After divergence, how often to halve the step size and begin again. Default 5.
    generator
        Of what is random in the start.
    callback, progress
        As in `thalweg.core.iterate`.

    Returns
    -------
    Result
        ``x`` is a `LowRankPlusSparse`. A residual that stays large says that more than the share
        alpha is gross, or that the rank is too small.

    Notes
    -----
    The width :math:`\zeta` is our choice. A geometric one, :math:`\zeta \leftarrow 0.65 \zeta`, may
    fall faster than the misfit and then ends at a wrong point.

    Examples
    --------
    >>> problem = RobustPCA.random((60, 60), 2, 0.05, generator=torch.Generator().manual_seed(0))
    >>> result = robust_pca(problem, tol=1e-8)
    >>> result.reason.name, problem.error(result.x).item() < 1e-7
    ('TOLERANCE', True)
    >>> torch.linalg.matrix_norm(result.x.dense() - problem.Y).item() < 1e-7
    True
    """
    check.choice("sparse", sparse, ("soft", "largest"))
    if step_size is None:
        step_size = 0.7 if sparse == "soft" else 0.5
    first = problem.start(start, generator)

    def solve(eta: float) -> Result[LowRank]:
        def step(x: LowRank, misfit: Tensor) -> LowRank:
            D = problem.pull_back(misfit)
            if sparse == "soft":
                zeta = D.abs().amax((-2, -1), keepdim=True)
                D = (x.dense() - problem.Y).clamp(-zeta, zeta)
            return scaled_step(x, D, eta)

        return descend(
            problem,
            step,
            first,
            tol=tol,
            xtol=xtol,
            max_steps=max_steps,
            max_seconds=max_seconds,
            callback=callback,
            progress=progress,
        )

    return _with_sparse_part(problem, halving(solve, step_size, halvings))


@method(
    paper="Netrapalli, Niranjan, Sanghavi, Anandkumar, Jain, NeurIPS 2014, arXiv:1410.7660",
    year=2014,
    family="low-rank recovery",
    problems=(RobustPCA,),
)
def alternating_projections(
    problem: RobustPCA,
    *,
    start: Start = "spectral",
    tol: float = 1e-10,
    xtol: float | None = None,
    max_steps: int = 1000,
    max_seconds: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[LowRankPlusSparse]:
    r"""Project in turn on the sparse matrices and on those of rank r: one SVD a step.

    .. math:: S \leftarrow T_{2\alpha}(Y - X), \qquad X \leftarrow H_r(Y - S)

    :math:`H_r` is the truncated singular value decomposition. The paper raises the rank in stages
    and lowers an absolute threshold; here the share of gross entries does that work.

    Parameters
    ----------
    problem
        A `RobustPCA`.
    start, tol, xtol, max_steps, max_seconds, generator, callback, progress
        As in `robust_pca`.

    Returns
    -------
    Result
        As of `robust_pca`.

    Examples
    --------
    >>> problem = RobustPCA.random((60, 60), 2, 0.05, generator=torch.Generator().manual_seed(0))
    >>> result = alternating_projections(problem, tol=1e-8)
    >>> result.reason.name, problem.error(result.x).item() < 1e-7
    ('TOLERANCE', True)
    """

    def step(x: LowRank, misfit: Tensor) -> LowRank:
        return truncated_svd(x.dense() - problem.pull_back(misfit), problem.rank, generator)

    result = descend(
        problem,
        step,
        problem.start(start, generator),
        tol=tol,
        xtol=xtol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        callback=callback,
        progress=progress,
    )
    return _with_sparse_part(problem, result)


class _Augmented(NamedTuple):
    """The state of the augmented Lagrangian method: both parts, the multiplier, its weight."""

    U: Tensor
    V: Tensor
    S: Tensor
    multiplier: Tensor
    mu: Tensor


def principal_component_pursuit(
    Y: Tensor, *, weight: float | None = None, tol: float = 1e-7, max_steps: int = 200
) -> Result[LowRankPlusSparse]:
    r"""The convex way, a baseline: it needs neither rank nor share, and a full SVD in every step.

    .. math:: \min \|L\|_* + \lambda \|S\|_1 \quad \text{subject to } L + S = Y

    by the inexact augmented Lagrangian method: singular values of :math:`Y - S + \Lambda/\mu`
    shrunk by :math:`1/\mu`, entries of :math:`Y - L + \Lambda/\mu` by :math:`\lambda/\mu`, then
    :math:`\Lambda \leftarrow \Lambda + \mu (Y - L - S)` and :math:`\mu \leftarrow 1.5 \mu`.

    Parameters
    ----------
    Y
        The data, shape ``(n1, n2)``.
    weight
        :math:`\lambda > 0`. Default :math:`1/\sqrt{\max(n_1, n_2)}`.
    tol
        Stop at :math:`\|Y - L - S\|_F \le \text{tol} \|Y\|_F`. Default 1e-7.
    max_steps
        Limit. Default 200.

    Returns
    -------
    Result
        ``x`` is a `LowRankPlusSparse`; the rank of its factors is what the method found.

    Examples
    --------
    >>> problem = RobustPCA.random((60, 60), 2, 0.05, generator=torch.Generator().manual_seed(0))
    >>> result = principal_component_pursuit(problem.Y)
    >>> result.converged, result.x.low_rank.rank, problem.error(result.x).item() < 1e-5
    (True, 2, True)

    References
    ----------
    Candes, Li, Ma, Wright, "Robust principal component analysis?", J. ACM 2011, arXiv:0912.3599;
    Lin, Chen, Ma, "The augmented Lagrange multiplier method", 2010, arXiv:1009.5055.
    """
    if weight is None:
        weight = max(Y.shape) ** -0.5
    check.number("weight", weight, gt=0)
    size = torch.linalg.matrix_norm(Y)
    largest = torch.linalg.matrix_norm(Y, ord=2)
    multiplier = Y / torch.maximum(largest, Y.abs().max() / weight)

    def step(state: _Augmented) -> _Augmented:
        _, _, S, multiplier, mu = state
        U, sigma, Vh = torch.linalg.svd(Y - S + multiplier / mu, full_matrices=False)
        sigma = sigma[sigma > 1 / mu] - 1 / mu
        U, V = from_svd(U[:, : len(sigma)], sigma, Vh[: len(sigma)].mT)
        S = torch.nn.functional.softshrink(Y - U @ V.mT + multiplier / mu, float(weight / mu))
        return _Augmented(U, V, S, multiplier + mu * (Y - U @ V.mT - S), 1.5 * mu)

    nothing = Y.new_zeros(Y.shape[0], 0), Y.new_zeros(Y.shape[1], 0)
    return iterate(
        step,
        _Augmented(*nothing, torch.zeros_like(Y), multiplier, 1.25 / largest),
        measure=lambda s: {"residual": torch.linalg.matrix_norm(Y - s.U @ s.V.mT - s.S) / size},
        point=lambda state: LowRankPlusSparse(*state[:3]),
        tol=tol,
        max_steps=max_steps,
    )


def _with_sparse_part(problem: RobustPCA, result: Result[Any]) -> Result[LowRankPlusSparse]:
    return dataclasses.replace(result, x=problem.split(result.x))
