"""The sub-gradient method from a small start: gross outliers, and a rank nobody knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.core import Reason, Result, check
from thalweg.core.catalogue import LogUniform, OneMinusLogUniform, method
from thalweg.solve.recovery.descent import descend
from thalweg.solve.recovery.robust_sensing import RobustSensing

EXHAUSTED = 0.1
"""With less than this left of the sum of all steps no direction grows by a quarter any more."""


@method(
    paper="Ma & Fattahi, JMLR 2023, arXiv:2202.08788",
    year=2023,
    family="low-rank recovery",
    problems=(RobustSensing,),
    search_space={
        "step_size": LogUniform(0.03, 0.3),
        "decay": OneMinusLogUniform(1e-3, 3e-2),
        "alpha": LogUniform(1e-6, 1e-2),
    },
)
def subgradient(
    problem: RobustSensing,
    *,
    alpha: float = 1e-3,
    columns: int | None = None,
    step_size: float = 0.1,
    decay: float = 0.995,
    step: Literal["geometric", "polyak"] = "geometric",
    polish: bool = False,
    start: str | Tensor = "small",
    tol: float = 1e-10,
    xtol: float | None = None,
    max_steps: int = 6000,
    max_seconds: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[Tensor]:
    r"""Sub-gradient method (SubGM) from a small start: a rank that is set too high does no harm.

    .. math:: D = \frac1m \sum_k \operatorname{sign}(\langle A_k, U U^T \rangle - y_k)
        \frac{A_k + A_k^T}{2}, \qquad U \leftarrow U - 2 \eta_t D U, \qquad \eta_t = \eta_0 \rho^t

    with the A divided by the root mean square of their entries. The start is
    :math:`\alpha \sqrt{\sigma}\, V \max(W, 0)^{1/2}`, from the leading eigenpairs of
    :math:`\frac1m \sum_k \operatorname{sign}(y_k) A_k`; :math:`\sigma = \operatorname{median} |y|
    / 0.6745` estimates the norm of X.

    Parameters
    ----------
    problem
        A `RobustSensing` with square A.
    alpha
        Size of the start, > 0. Smaller: a smaller error in the end, after more steps. Default 1e-3.
    columns
        Of U, 1 <= columns <= d. Default: the problem's rank, or d where that is unknown.
    step_size, decay
        :math:`\eta_0 > 0` and :math:`\rho` in (0, 1). All steps together, :math:`\eta_0 / (1 -
        \rho)`, have to be about :math:`\|X\| \ln(1/\alpha) / (1.6 (1 - p) \sigma_r)`, p the share
        of outliers, relative to the norm of X. Default 0.1 and 0.995.
    step
        ``"geometric"`` (default), or ``"polyak"`` for data without outliers and noise:
        :math:`\eta_t = \min(\eta_0, f / \|2 D U\|_F^2)`.
    polish
        In the end read the rank off the largest ratio of eigenvalues, and go on with as many
        columns: the error then falls to rounding. Default False.
    start
        ``"small"`` (default), ``"random"`` (as small), or a tensor U to continue from, with
        steps that are shorter by its residual.
    tol
        Stop at this residual, a ratio of medians, >= 0. Default 1e-10.
    xtol
        Stop at this relative change of U. Default 1e-12 (4 roundings in float32).
    max_steps, max_seconds
        Limits. Default 6000 steps, no limit of time; `polish` has as many once more.
    generator
        Of the random start.
    callback, progress
        As in `thalweg.core.iterate`.

    Returns
    -------
    Result
        With ``trace["residual"]``, ``trace["value"]`` and, for a problem that knows its truth,
        ``trace["error"]``. If the steps died out before the data were met the reason is `STALLED`
        and ``info["message"]`` says what to change. After `polish`, ``info["rank"]`` is the rank
        that was read and ``info["before"]`` the first result.

    Examples
    --------
    >>> problem = RobustSensing.random(10, 1, 400, generator=torch.Generator().manual_seed(0))
    >>> result = subgradient(problem, decay=0.98, polish=True, tol=1e-8)
    >>> result.info["rank"], problem.error(result.x).item() < 1e-7
    (1, True)
    """
    check.number("alpha", alpha, gt=0)
    check.number("step_size", step_size, gt=0)
    check.number("decay", decay, gt=0, lt=1)
    check.choice("step", step, ("geometric", "polyak"))
    d = problem.shape[0]
    if problem.shape != (d, d):
        raise ValueError(
            f"problem.A must hold square matrices, got shape {problem.shape}: "
            "scaled_subgradient takes any"
        )
    columns = check.number("columns", columns or problem.rank or d, ge=1, le=d, integer=True)
    first = small_start(problem, start, alpha, columns, generator)

    def solve(first: Tensor, warm: bool) -> Result[Tensor]:
        t = 0
        nearness: Tensor | float = 1.0  # a start near the answer is not to be thrown off it
        if warm:
            nearness = problem.residual(first).clamp(max=1)[..., None, None]

        def advance(U: Tensor, misfit: Tensor) -> Tensor:
            nonlocal t
            G = 2 * symmetric(problem.pull_back(misfit.sign())) @ U
            if step == "geometric":
                eta = step_size * decay**t * nearness
            else:
                f = problem.value_of(U, misfit) / problem.unit
                eta = (f / G.square().sum((-2, -1))).clamp(max=step_size)[..., None, None]
            t += 1
            return U - eta * G

        result = descend(
            problem,
            advance,
            first,
            tol=tol,
            xtol=xtol,
            max_steps=max_steps,
            max_seconds=max_seconds,
            callback=callback,
            progress=progress,
            patience=max_steps + 1,  # while small directions grow the residual stands still
        )
        left = step_size * decay**t / (1 - decay)
        return result if step == "polyak" else exhausted(problem, result, left)

    result = solve(first, isinstance(start, Tensor))
    if not polish or result.reason in (Reason.INTERRUPTED, Reason.NONFINITE, Reason.MAX_SECONDS):
        return result
    U, rank = truncate(result.x, problem.residual(result.x))
    again = solve(U, True)
    info = {**again.info, "rank": rank, "before": result}
    return dataclasses.replace(again, info=info)


def small_start(
    problem: RobustSensing,
    start: str | Tensor,
    alpha: float,
    columns: int,
    generator: torch.Generator | None,
) -> Tensor:
    """The point `subgradient` begins at: see there."""
    d = problem.shape[0]
    if isinstance(start, Tensor):
        if start.shape[-2:-1] != (d,) or not 1 <= start.shape[-1] <= d:
            raise ValueError(
                f"start must have shape (..., {d}, 1 to {d} columns), got {tuple(start.shape)}"
            )
        return start
    check.choice("start", start, ("small", "random"))
    C = symmetric(problem.pull_back(problem.y.sign()))
    W, V = torch.linalg.eigh(C)
    B = V * W.clamp(min=0).sqrt().unsqueeze(-2)
    B = B.flip(-1)[..., :columns]
    if not B.any(dim=-1).any(dim=-1).all():
        raise ValueError("y must come from a positive semidefinite matrix: its signs point to none")
    if start == "random":
        noise = torch.randn(B.shape, dtype=B.dtype, device=B.device, generator=generator)
        B = noise * (torch.linalg.matrix_norm(B) / torch.linalg.matrix_norm(noise))[..., None, None]
    return alpha * problem.size.sqrt()[..., None, None] * B


def exhausted(
    problem: RobustSensing, result: Result[Any], left: float, least: float = EXHAUSTED
) -> Result[Any]:
    """The result; as a stall if hardly any step is left and the data are not met."""
    if result.reason not in (Reason.TOLERANCE, Reason.MAX_STEPS) or left >= least:
        return result
    residual = problem.residual(result.x)
    if bool((residual <= problem.smallest_residual()).all()):
        return result
    message = (
        f"the steps died out at a residual of {float(residual.max()):.2g}, before the answer was "
        "reached; take decay nearer to 1, or a larger step_size"
    )
    info = {**result.info, "stopped_by": "step_exhausted", "message": message}
    return dataclasses.replace(result, reason=Reason.STALLED, info=info)


def truncate(U: Tensor, residual: Tensor | float) -> tuple[Tensor, int]:
    r"""U cut to the rank that the largest ratio of eigenvalues of :math:`U U^T` tells.

    Eigenvalues below the residual, relative to the largest one, say nothing and count as equal. In
    a batch the largest rank counts; members of a smaller one have columns of zeros, which the
    sub-gradient method leaves there.

    Examples
    --------
    >>> truncate(torch.diag(torch.tensor([2.0, 1.0, 1e-3])), 1e-5)[1]
    2
    """
    left, S, _ = torch.linalg.svd(U, full_matrices=False)
    W = S.square()
    floor = torch.as_tensor(residual, dtype=W.dtype, device=W.device)[..., None] * W[..., :1]
    floor = floor.clamp(min=torch.finfo(W.dtype).tiny)
    padded = torch.cat([W, floor.expand_as(W[..., :1])], dim=-1).clamp(min=floor)
    ranks = (padded[..., :-1] / padded[..., 1:]).argmax(-1) + 1
    kept = torch.arange(S.shape[-1], device=S.device) < ranks[..., None]
    rank = int(ranks.max())
    return (left * (S * kept).unsqueeze(-2))[..., :rank], rank


def symmetric(D: Tensor) -> Tensor:
    """The symmetric part of a matrix."""
    return (D + D.mT) / 2
