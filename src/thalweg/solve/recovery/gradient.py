"""Gradient descent on the factors of a low-rank matrix: plain, balanced and scaled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thalweg.core import Result
from thalweg.core.catalogue import LogUniform, method
from thalweg.solve.recovery.descent import descend, halving
from thalweg.solve.recovery.factors import LowRank
from thalweg.solve.recovery.low_rank import LowRankProblem
from thalweg.solve.recovery.steps import balanced_step, gradient_step, scaled_step

Start = str | LowRank


@method(
    paper="Chi, Lu, Chen 2019, arXiv:1809.09573; Ma, Wang, Chi, Chen, arXiv:1711.10467",
    year=2017,
    family="low-rank recovery",
    problems=(LowRankProblem,),
    search_space={"step_size": LogUniform(0.05, 1.0)},
)
def gradient_descent(
    problem: LowRankProblem,
    *,
    step_size: float = 0.5,
    balanced: bool = False,
    start: Start = "spectral",
    tol: float = 1e-10,
    xtol: float | None = None,
    max_steps: int = 5000,
    max_seconds: float | None = None,
    halvings: int = 5,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[LowRank]:
    r"""Gradient descent on both factors, from the spectral start.

    .. math:: U \leftarrow U - \frac{\eta}{\sigma_1} Z V, \qquad
        V \leftarrow V - \frac{\eta}{\sigma_1} Z^T U

    :math:`\sigma_1` is the largest singular value of the start. The number of steps grows with the
    condition number of the matrix; `scaled_gradient` does not mind it.

    Parameters
    ----------
    problem
        A `MatrixCompletion` or another `LowRankProblem`.
    step_size
        :math:`\eta > 0`. Default 0.5.
    balanced
        Add the gradient of :math:`\tfrac18 \|U^T U - V^T V\|_F^2`. Default False.
    start
        ``"spectral"`` (default), ``"random"``, or a `LowRank` to continue from.
    tol
        Stop at this relative residual, >= 0. Default 1e-10.
    xtol
        Stop at this relative change of the factors. Default 1e-12 (4 roundings in float32).
    max_steps, max_seconds
        Limits. Default 5000 steps, no limit of time.
    halvings
        After divergence, how often to halve the step size and begin again. Default 5.
    generator
        Of what is random in the start.
    callback, progress
        As in `thalweg.core.iterate`.

    Returns
    -------
    Result
        With ``trace["residual"]``, ``trace["value"]`` and, for a problem that knows its truth,
        ``trace["error"]``; ``info["step_size"]`` is the one that was used.

    Examples
    --------
    >>> from thalweg.solve.recovery import MatrixCompletion
    >>> generator = torch.Generator().manual_seed(0)
    >>> problem = MatrixCompletion.random((60, 50), 2, 0.5, generator=generator)
    >>> result = gradient_descent(problem, tol=1e-6)
    >>> result.reason.name, problem.error(result.x).item() < 1e-5
    ('TOLERANCE', True)
    """
    first = problem.start(start, generator)
    largest = _largest_singular_value(first)
    rule = balanced_step if balanced else gradient_step

    def solve(eta: float) -> Result[LowRank]:
        def step(x: LowRank, misfit: Tensor) -> LowRank:
            return rule(x, problem.pull_back(misfit), eta / largest, problem.decay())

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

    return halving(solve, step_size, halvings)


@method(
    paper="Tong, Ma, Chi, JMLR 2021, arXiv:2005.08898",
    year=2021,
    family="low-rank recovery",
    problems=(LowRankProblem,),
    search_space={"step_size": LogUniform(0.05, 1.0)},
)
def scaled_gradient(
    problem: LowRankProblem,
    *,
    step_size: float | None = None,
    project: bool = True,
    start: Start = "spectral",
    tol: float = 1e-10,
    xtol: float | None = None,
    max_steps: int = 1000,
    max_seconds: float | None = None,
    halvings: int = 5,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[LowRank]:
    r"""Scaled gradient descent (ScaledGD): as fast for an ill-conditioned matrix as for any other.

    .. math:: U \leftarrow U - \eta Z V (V^T V)^{-1}, \qquad
        V \leftarrow V - \eta Z^T U (U^T U)^{-1}

    The error shrinks by :math:`1 - 0.6 \eta` a step for :math:`\eta \le 2/3`, whatever the
    condition number. The preconditioners are r x r: a step costs what a gradient step costs.

    Parameters
    ----------
    problem
        A `MatrixCompletion` or another `LowRankProblem`.
    step_size
        :math:`\eta > 0`. Default 0.5, or 0.3 for a completion without projection.
    project
        After each step, bring rows far above the others back (the paper's Algorithm 2); for
        `MatrixCompletion` only. Default True.
    start
        ``"spectral"`` (default), ``"random"``, or a `LowRank` to continue from.
    tol
        Stop at this relative residual, >= 0. Default 1e-10.
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
        With ``trace["residual"]``, ``trace["value"]`` and, for a problem that knows its truth,
        ``trace["error"]``; ``info["step_size"]`` is the one that was used.

    Notes
    -----
    In three of the official scripts the right factor of the test matrix is drawn from the left
    one's seed; the published curves are for matrices with equal factors.

    Examples
    --------
    >>> from thalweg.solve.recovery import MatrixCompletion
    >>> generator = torch.Generator().manual_seed(0)
    >>> problem = MatrixCompletion.random((60, 50), 2, 0.5, condition=5, generator=generator)
    >>> result = scaled_gradient(problem, tol=1e-6)
    >>> result.reason.name, problem.error(result.x).item() < 1e-5
    ('TOLERANCE', True)
    """
    first = problem.start(start, generator)
    projection = problem.projection(first) if project else None
    if projection is not None:
        first = projection(first)
    if step_size is None:
        step_size = 0.5 if projection is not None else problem.safe_step_size

    def solve(eta: float) -> Result[LowRank]:
        def step(x: LowRank, misfit: Tensor) -> LowRank:
            new = scaled_step(x, problem.pull_back(misfit), eta, problem.decay())
            return new if projection is None else projection(new)

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

    return halving(solve, step_size, halvings)


def _largest_singular_value(x: LowRank) -> Tensor:
    core = torch.linalg.qr(x.U).R @ torch.linalg.qr(x.V).R.mT
    return torch.linalg.matrix_norm(core, ord=2)[..., None, None]
