"""The one solver loop: stopping, trace, non-finite values, Ctrl-C, progress and time budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.core import check
from thalweg.core.result import Reason, Result, Trace

State = TypeVar("State")


class Stop(Exception):
    """Raised inside `step` or `callback` to end the loop for a reason of the method's own."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


def iterate(
    step: Callable[[State], State],
    state: State,
    *,
    measure: Callable[[State], Mapping[str, float | Tensor]],
    point: Callable[[State], Any] = lambda state: state,
    tol: float | None = None,
    max_steps: int = 1000,
    max_seconds: float | None = None,
    measure_every: int = 1,
    patience: int | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[Any]:
    """Run ``state = step(state)`` until a reason to stop is found; every solver goes through here.

    Parameters
    ----------
    step
        One step of the method, a function of its state alone.
    state
        The first state (usually a NamedTuple of tensors); it is measured as step 0.
    measure
        Names and values of what is watched **at the state's point**, the same names every time
        (not ``"step"`` or ``"seconds"``, which the trace has of its own); the first one is
        compared with `tol`, and decides which point is the best so far.
    point
        Takes the point to return out of a state. Default: the state itself.
    tol
        Stop when the measure is <= `tol` (>= 0). None: never.
    max_steps
        Most steps, >= 0. Default 1000.
    max_seconds
        Most seconds, > 0. None: no limit.
    measure_every
        Steps between measurements, >= 1; the point returned is always measured.
    patience
        Stop as `STALLED` after this many measurements without a new best (relative gain 1e-12).
    callback
        Called after each measurement with the result so far; may raise `StopIteration`.
    progress
        Show a progress bar.

    Raises
    ------
    ValueError
        If an argument is outside its range, or `measure` changes its names.

    Returns
    -------
    Result
        At tolerance, step limit and time limit: the last point. After Ctrl-C, a stall or a
        non-finite value: the best point so far.

    Examples
    --------
    >>> halve = lambda x: x / 2
    >>> result = iterate(halve, torch.tensor(1.0), measure=lambda x: {"size": abs(x)}, tol=0.1)
    >>> result.reason.name, float(result.x), len(result.trace["size"])
    ('TOLERANCE', 0.0625, 5)
    """
    if tol is not None:
        check.number("tol", tol, ge=0)
    check.number("max_steps", max_steps, ge=0, integer=True)
    check.number("measure_every", measure_every, ge=1, integer=True)
    if max_seconds is not None:
        check.number("max_seconds", max_seconds, gt=0)
    if patience is not None:
        check.number("patience", patience, ge=1, integer=True)

    columns: dict[str, list[float]] = {"step": [], "seconds": []}
    start = time.perf_counter()
    best_state, best_value, since_best = state, math.inf, 0
    last_value = math.nan

    def record(k: int) -> float:
        """Measure the state, add a line to the trace, and keep the state if it is the best."""
        nonlocal best_state, best_value, since_best, last_value
        row = {name: float(value) for name, value in measure(state).items()}
        if k == 0 and (not row or row.keys() & columns.keys()):
            raise ValueError(
                "measure must return at least one name, none of them 'step' or 'seconds', "
                f"got {list(row)}"
            )
        if k > 0 and row.keys() != columns.keys() - {"step", "seconds"}:
            raise ValueError(
                "measure must return the same names at every step, "
                f"got {list(row)} at step {k} after {list(columns)[2:]}"
            )
        columns["step"].append(k)
        columns["seconds"].append(time.perf_counter() - start)
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
        last_value = value = next(iter(row.values()))
        if k == 0:
            best_state, best_value = state, value
        elif math.isfinite(value) and _finite(state):
            gain = best_value - value
            since_best = 0 if gain > 1e-12 * abs(best_value) else since_best + 1
            if gain > 0:
                best_state, best_value = state, value
        return value

    def result(reason: Reason, at: State, value: float) -> Result[Any]:
        return Result(x=point(at), value=value, trace=Trace(columns), reason=reason)

    k = 0
    reason: Reason | None = None
    bar = _bar(max_steps) if progress else None
    try:
        while True:
            last = k == max_steps
            late = max_seconds is not None and time.perf_counter() - start >= max_seconds
            if last or late or k % measure_every == 0:
                value = record(k)
                if not math.isfinite(value) or not _finite(state):
                    reason = Reason.NONFINITE
                    break
                if bar is not None:
                    bar(k, value)
                if value == 0:
                    reason = Reason.EXACT
                elif tol is not None and value <= tol:
                    reason = Reason.TOLERANCE
                if reason is None and callback is not None:
                    # caught here alone: from `step` or `measure` it would be an error of theirs
                    try:
                        callback(result(Reason.MAX_STEPS, state, value))
                    except StopIteration:
                        reason = Reason.INTERRUPTED
                if reason is None and patience is not None and since_best >= patience:
                    reason = Reason.STALLED
                if reason is not None:
                    break
            if last or late:
                reason = Reason.MAX_STEPS if last else Reason.MAX_SECONDS
                break
            state = step(state)
            k += 1
    except KeyboardInterrupt:
        # it may have come between two columns of the trace, or before anything was measured
        rows = min(len(column) for column in columns.values())
        for column in columns.values():
            del column[rows:]
        if rows == 0:
            raise
        reason = Reason.INTERRUPTED
    except Stop as stop:
        reason = stop.reason
        if columns["step"][-1:] != [k]:
            record(k)
        if not math.isfinite(last_value) or not _finite(state):
            reason = Reason.NONFINITE
    finally:
        if bar is not None:
            bar(None, last_value)
    if reason in (Reason.NONFINITE, Reason.INTERRUPTED, Reason.STALLED):
        return result(reason, best_state, best_value)
    return result(reason, state, last_value)


def _finite(state: Any) -> bool:
    """True if no floating-point tensor of the state holds an infinity or a NaN."""
    return all(
        bool(torch.isfinite(leaf).all())
        for leaf in pytree.tree_leaves(state)
        if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())
    )


def _bar(max_steps: int) -> Callable[[int | None, float], None]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("measure {task.fields[value]:.3e}"),
        TimeRemainingColumn(),
        transient=True,
    )
    task = progress.add_task("", total=max_steps, value=math.nan)
    progress.start()

    def update(k: int | None, value: float) -> None:
        if k is None:
            progress.stop()
        else:
            progress.update(task, completed=k, value=value)

    return update
