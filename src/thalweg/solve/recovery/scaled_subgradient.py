"""The scaled sub-gradient method: outliers and ill-conditioning at once, the rank known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thalweg.core import Result, check
from thalweg.core.catalogue import LogUniform, OneMinusLogUniform, method
from thalweg.solve.recovery.descent import descend
from thalweg.solve.recovery.factors import LowRank, from_svd
from thalweg.solve.recovery.robust_sensing import NORMAL_QUARTILE, RobustSensing, median
from thalweg.solve.recovery.steps import divide_by_gram
from thalweg.solve.recovery.subgradient import exhausted

EXHAUSTED_LENGTH = 1e-3
"""With less than this left of the path, relative to the distance at the start, it is over."""


@method(
    paper="Tong, Ma & Chi, IEEE Trans. Signal Processing 2021, arXiv:2010.13364",
    year=2021,
    family="low-rank recovery",
    problems=(RobustSensing,),
    search_space={"step_size": LogUniform(0.1, 1.0), "decay": OneMinusLogUniform(1e-2, 0.2)},
)
def scaled_subgradient(
    problem: RobustSensing,
    *,
    optimum: float | None = None,
    step_size: float = 0.7,
    decay: float = 0.95,
    outliers: float = 0.1,
    start: str | LowRank | Tensor = "spectral",
    tol: float = 1e-10,
    xtol: float | None = None,
    max_steps: int = 2000,
    max_seconds: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[LowRank]:
    r"""Scaled sub-gradient method: as fast for an ill-conditioned matrix as for any other.

    .. math:: Z = \sum_k \operatorname{sign}(\langle A_k, U V^T \rangle - y_k) A_k, \qquad
        U \leftarrow U - \eta Z V (V^T V)^{-1}, \quad V \leftarrow V - \eta Z^T U (U^T U)^{-1}

    .. math:: \eta = \frac{F - F_*}{N^2} \;\text{ or }\; \eta_t = \frac{\lambda \rho^t \delta}{N},
        \qquad N^2 = \|Z V (V^T V)^{-1/2}\|_F^2 + \|Z^T U (U^T U)^{-1/2}\|_F^2

    with :math:`F = \sum_k |\langle A_k, U V^T \rangle - y_k|` and :math:`\delta` =
    :math:`\operatorname{median} |\langle A_k, X_0 \rangle - y_k| / 0.6745`, A of unit mean square:
    a robust estimate of the distance from the start to the answer.

    Parameters
    ----------
    problem
        A `RobustSensing` that knows its rank.
    optimum
        :math:`F_*`, the sum of the absolute misfits at the answer, for Polyak's step. Default None:
        the step decays.
    step_size, decay
        :math:`\lambda > 0` and :math:`\rho` in (0, 1), without `optimum`. Default 0.7 and 0.95.
    outliers
        The share of outliers that the start expects, in [0, 1): so many of the largest y are left
        out of it. Default 0.1.
    start
        ``"spectral"`` (default), ``"random"`` (of its norm), a `LowRank` to continue from, or a
        tensor U, which stands for U and V = U.
    tol
        Stop at this residual, a ratio of medians, >= 0. Default 1e-10.
    xtol
        Stop at this relative change of the factors. Default 1e-12 (4 roundings in float32).
    max_steps, max_seconds
        Limits. Default 2000 steps, no limit of time.
    generator
        Of the random start.
    callback, progress
        As in `thalweg.core.iterate`.

    Returns
    -------
    Result
        As from `subgradient`.

    Examples
    --------
    >>> problem = RobustSensing.random(
    ...     (15, 12), 2, 400, condition=20.0, known_rank=True,
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> result = scaled_subgradient(problem, tol=1e-8)
    >>> result.reason.name, problem.error(result.x).item() < 1e-7
    ('TOLERANCE', True)
    """
    if problem.rank is None:
        raise ValueError("problem.rank must be known, got None: subgradient needs no rank")
    if optimum is not None:
        check.number("optimum", optimum, ge=0)
    check.number("step_size", step_size, gt=0)
    check.number("decay", decay, gt=0, lt=1)
    check.number("outliers", outliers, ge=0, lt=1)
    first = truncated_start(problem, start, outliers, generator)
    m, t = problem.y.shape[-1], 0
    distance = median(problem.misfit(first)) / (NORMAL_QUARTILE * problem.unit)

    def step(x: LowRank, misfit: Tensor) -> LowRank:
        nonlocal t
        U, V = x
        Z = problem.pull_back(misfit.sign())  # Z of the formula over m and the unit of A
        left, right = Z @ V, Z.mT @ U
        toward_U, toward_V = divide_by_gram(left, V), divide_by_gram(right, U)
        N2 = (left * toward_U).sum((-2, -1)) + (right * toward_V).sum((-2, -1))
        if optimum is None:
            eta = step_size * decay**t * distance / N2.sqrt()
        else:
            eta = (problem.value_of(x, misfit) - optimum / m).clamp(min=0) / (problem.unit * N2)
        # Where all signs cancel there is no direction: stand still.
        eta = torch.where(N2 > 0, eta, 0.0)[..., None, None]
        t += 1
        return LowRank(U - eta * toward_U, V - eta * toward_V)

    result = descend(
        problem,
        step,
        first,
        tol=tol,
        xtol=xtol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        callback=callback,
        progress=progress,
        patience=max_steps + 1,  # the median may rise while the sum falls
    )
    if optimum is not None:
        return result
    return exhausted(problem, result, step_size * decay**t / (1 - decay), EXHAUSTED_LENGTH)


def truncated_start(
    problem: RobustSensing,
    start: str | LowRank | Tensor,
    outliers: float,
    generator: torch.Generator | None,
) -> LowRank:
    r"""The best approximation of :math:`\operatorname{mean} y_k A_k` over the smallest |y_k|."""
    r, (n1, n2) = int(problem.rank or 0), problem.shape
    if isinstance(start, Tensor):
        start = LowRank(start, start)
    if isinstance(start, LowRank):
        for name, F, n in (("U", start.U, n1), ("V", start.V, n2)):
            if F.shape[-2:] != (n, r):
                raise ValueError(
                    f"start.{name} must have shape (..., {n}, {r}), got {tuple(F.shape)}"
                )
        return start
    check.choice("start", start, ("spectral", "random"))
    m = problem.y.shape[-1]
    kept = math.ceil(m * (1 - outliers))
    bound = problem.y.abs().kthvalue(kept, dim=-1, keepdim=True).values
    y = torch.where(problem.y.abs() <= bound, problem.y, 0.0)
    Y = problem.pull_back(y) * (m / kept / problem.unit)[..., None, None]
    U, S, Vh = torch.linalg.svd(Y, full_matrices=False)
    x = from_svd(U[..., :r], S[..., :r], Vh[..., :r, :].mT)
    if start == "spectral":
        return x

    def like(F: Tensor) -> Tensor:
        noise = torch.randn(F.shape, dtype=F.dtype, device=F.device, generator=generator)
        return (
            noise * (torch.linalg.matrix_norm(F) / torch.linalg.matrix_norm(noise))[..., None, None]
        )

    return LowRank(like(x.U), like(x.V))
