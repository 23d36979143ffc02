"""The loop of every recovery method: residual and step as tolerances, divergence, restarts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.core import Reason, Result, Stop, check, iterate

DIVERGED = 1e3
"""A value this many times above that of the start and of the zero point has diverged."""

PATIENCE = 50
"""Steps without a smaller residual after which a method is said to have stalled."""


class Measured(Protocol):
    """What the loop asks of a problem: see `thalweg.solve.recovery.low_rank.LowRankProblem`."""

    @property
    def truth(self) -> Any: ...
    def misfit(self, x: Any) -> Tensor: ...
    def value_of(self, x: Any, misfit: Tensor) -> Tensor: ...
    def residual_of(self, misfit: Tensor) -> Tensor: ...
    def error(self, x: Any) -> Tensor: ...


class _State(NamedTuple):
    x: Any
    misfit: Tensor
    change: Tensor
    """Relative length of the last step; the largest number there is at the start."""


def descend(
    problem: Measured,
    step: Callable[[Any, Tensor], Any],
    start: Any,
    *,
    tol: float,
    xtol: float | None,
    max_steps: int,
    max_seconds: float | None,
    callback: Callable[[Result[Any]], object] | None,
    progress: bool,
    patience: int = PATIENCE,
) -> Result[Any]:
    """Iterate ``x = step(x, misfit)`` until the data are met, x stands still, or it goes wrong.

    Parameters
    ----------
    problem
        Measured at every point: ``trace["residual"]``, ``"value"``, and ``"error"`` where the truth
        is known. In a batch the worst member counts.
    step
        One step, from a point and its misfit.
    start
        Where to begin: a NamedTuple of factors, or a tensor.
    tol
        Stop when the relative residual is at most this; never below 100 units of rounding. Not
        used where the problem has a ridge: then the value decides, and the residual need not fall.
    xtol
        Stop when ``||x_new - x|| <= xtol ||x||``. Default: the larger of 1e-12 and 4 units of
        rounding.
    max_steps, max_seconds, callback, progress
        As in `thalweg.core.iterate`.
    patience
        Steps without a smaller residual, >= 1: more for methods that descend another function than
        the residual and may cross a plateau of it.

    Returns
    -------
    Result
        ``info["stopped_by"]`` is ``"residual"`` or ``"step"`` after `Reason.TOLERANCE`. A value
        1e3 times above that of the start ends as `Reason.NONFINITE`, with the best point.
    """
    check.number("tol", tol, ge=0)
    penalized = bool(getattr(problem, "ridge", 0.0))
    first = problem.misfit(start)
    epsilon = torch.finfo(first.dtype).eps
    xtol = max(1e-12, 4 * epsilon) if xtol is None else check.number("xtol", xtol, ge=0)
    ceiling = DIVERGED * problem.value_of(start, first)
    nothing = pytree.tree_map(torch.zeros_like, start)
    ceiling = torch.maximum(ceiling, DIVERGED * problem.value_of(nothing, problem.misfit(nothing)))

    def advance(state: _State) -> _State:
        if bool((state.change <= xtol).all()):
            raise Stop(Reason.TOLERANCE)
        x = step(state.x, state.misfit)
        misfit = problem.misfit(x)
        if bool((problem.value_of(x, misfit) > ceiling).any()):
            raise Stop(Reason.NONFINITE)
        return _State(x, misfit, _relative_change(x, state.x))

    def measure(state: _State) -> dict[str, Tensor]:
        residual = problem.residual_of(state.misfit).max()
        value = problem.value_of(state.x, state.misfit).max()
        # Where the factors are penalized, the point sought is the least value's.
        measures = {"value": value, "residual": residual}
        if not penalized:
            measures = {"residual": residual, "value": value}
        if problem.truth is not None:
            measures["error"] = problem.error(state.x).max()
        return measures

    result = iterate(
        advance,
        _State(start, first, torch.full_like(ceiling, torch.finfo(ceiling.dtype).max)),
        measure=measure,
        point=lambda state: state.x,
        tol=None if penalized else max(tol, 100 * epsilon),
        max_steps=max_steps,
        max_seconds=max_seconds,
        callback=callback,
        patience=patience,
        progress=progress,
    )
    if result.reason is not Reason.TOLERANCE:
        return result
    met = not penalized and result.value <= max(tol, 100 * epsilon)
    by = "residual" if met else "step"
    return dataclasses.replace(result, info={**result.info, "stopped_by": by})


def halving(
    solve: Callable[[float], Result[Any]], step_size: float, halvings: int = 5
) -> Result[Any]:
    """Solve; after divergence or a stall again from the same start, with half the step size.

    A step that is a little too long need not diverge: with a projection it may circle the answer.
    A stall that a shorter step does not improve by a third is the data's own (noise), and is kept.
    The step size that was used is ``info["step_size"]``.
    """
    check.number("step_size", step_size, gt=0)
    check.number("halvings", halvings, ge=0, integer=True)
    best: Result[Any] | None = None
    for k in range(halvings + 1):
        result = solve(step_size / 2**k)
        result = dataclasses.replace(result, info={**result.info, "step_size": step_size / 2**k})
        if best is not None and best.reason is Reason.STALLED and result.value > best.value / 1.5:
            return best if best.value <= result.value else result
        best = result
        if result.reason not in (Reason.NONFINITE, Reason.STALLED):
            break
    assert best is not None
    return best


def _relative_change(new: Any, old: Any) -> Tensor:
    """||new - old|| / ||old||, all factors stacked, for each member of the batch."""
    moved, size = torch.zeros(()), torch.zeros(())
    for a, b in zip(pytree.tree_leaves(new), pytree.tree_leaves(old), strict=True):
        dims = (-1,) if a.ndim == 1 else (-2, -1)
        moved = moved.to(a.device) + (a - b).abs().square().sum(dims)
        size = size.to(a.device) + b.abs().square().sum(dims)
    return (moved / size).sqrt()
