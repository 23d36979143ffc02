"""One run of a solver: a method solves a problem of one seed, and everything is written down.

What decides is the error against the truth where the problem knows it, else the relative residual
(the value, where the factors are penalized). A run is *solved* when that falls to the tolerance of
`solved_at`: it ends there, and a smaller number, which would be rounding, counts as no better. A
run *diverged* when the method says so, or when the deciding measure is not finite at the end.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from thalweg.compare.contender import Contender
from thalweg.compare.errors import BadInput, one_line, own_traceback
from thalweg.compare.plan import Budget, Job
from thalweg.compare.record import Record
from thalweg.compare.run import Diverged, one_at_a_time, one_thread
from thalweg.compare.run import run_job as run_optimizer
from thalweg.compare.schedule import derived
from thalweg.compare.signatures import parameters_of
from thalweg.core import Reason, Result, seeded_rng

if TYPE_CHECKING:
    from thalweg.compare.problems import Problem

DEFAULT_BUDGET = "500steps"
"""Of a solver's run where none is asked for; a solved run ends earlier."""
POINTS = 4
"""Recorded points per point that is asked for: a solver measures every step anyhow."""
NO_END = 10**9
"""Steps of a run that a clock ends."""


def is_problem(built: Any) -> bool:
    """Whether solvers can race on it: it tells the residual of a point."""
    return callable(getattr(built, "residual", None)) and not isinstance(built, type)


def deciding_measure(problem: Any) -> str:
    """``"error"`` where the truth is known, else ``"value"`` under a penalty, or ``"residual"``."""
    if getattr(problem, "truth", None) is not None:
        return "error"
    return "value" if getattr(problem, "ridge", 0) else "residual"


def solved_at(problem: Any) -> float:
    """1e-8, or a thousand roundings of the data's type; 0 for a value, which has no zero.

    Examples
    --------
    >>> from thalweg.solve.recovery import MatrixSensing
    >>> solved_at(MatrixSensing(torch.ones(9, 2, 2), torch.ones(9), 1)) > 1e-5
    True
    """
    if deciding_measure(problem) == "value":
        return 0.0
    roundings = [
        torch.finfo(t.dtype).eps
        for t in tensors_of(problem)
        if t.is_floating_point() or t.is_complex()
    ]
    return max(1e-8, 1000 * max(roundings, default=0.0))


def tensors_of(problem: Any) -> Iterator[Tensor]:
    """The tensors a problem is made of, in the order of its fields."""
    fields = (
        [getattr(problem, f.name) for f in dataclasses.fields(problem) if f.init]
        if dataclasses.is_dataclass(problem)
        else list(vars(problem).values())
    )
    for leaf in pytree.tree_leaves(fields):
        if isinstance(leaf, Tensor):
            yield leaf
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            yield from tensors_of(leaf)


def fingerprint(problem: Any) -> str:
    """A hash of all numbers of a problem: equal for two builds of one seed."""
    digest = hashlib.sha256(type(problem).__qualname__.encode())
    for tensor in tensors_of(problem):
        digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.detach().resolve_conj().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def facts_of(loaded: Problem, first: Any, again: Any, other: Any) -> dict[str, Any]:
    """What a race has to know about a problem, from two builds of seed 0 and one of seed 1.

    Raises
    ------
    BadInput
        If two builds of one seed differ, or the problem cannot say where its methods begin.
    """
    if fingerprint(first) != fingerprint(again):
        raise BadInput(
            f"{loaded.name}: two calls with one seed give two problems; draw everything random "
            "from torch, numpy or random (they are seeded for you), or from a generator seeded "
            "with the seed"
        )
    metric = deciding_measure(first)
    return {
        "kind": "solver",
        "class": type(first).__name__,
        "metric": metric,
        "train": "residual" if metric == "error" else "value",
        "goal": "min",
        "parameters": unknowns(loaded, first),
        "has_test": False,
        "positive": True,
        "title": loaded.name,
        "minimum": None,
        "device": str(next(tensors_of(first)).device),
        "solved": solved_at(first),
        "same_every_seed": fingerprint(first) == fingerprint(other),
    }


def unknowns(loaded: Problem, problem: Any) -> int:
    """The numbers that are sought: those of the truth, or of a start."""
    point = getattr(problem, "truth", None)
    if point is None:
        try:
            with one_thread(), seeded_rng(0):
                point = problem.start()
        except Exception as error:
            raise BadInput(
                f"{loaded.name}: the start of its methods raised {one_line(error)}",
                own_traceback(error),
            ) from error
    return sum(leaf.numel() for leaf in pytree.tree_leaves(point) if isinstance(leaf, Tensor))


# ---------------------------------------------------------------------------------------- a run


def run_job(job: Job, contender: Contender, problem: Problem) -> str:
    """Run one job, of a solver or an optimizer, and return the text of its file.

    See `thalweg.compare.run.run_job`.
    """
    if not contender.solves:
        return run_optimizer(job, contender, problem)
    record = Record()
    with one_at_a_time, one_thread(), seeded_rng(job.seed):
        try:
            _solve(job, contender, problem, record)
            record.end("done")
        except Diverged as error:
            record.end("diverged", str(error))
        except Exception as error:
            record.end("failed", one_line(error), own_traceback(error))
    return record.text()


def _solve(job: Job, contender: Contender, problem: Problem, record: Record) -> None:
    built = problem.callable()(job.seed)
    metric, solved = deciding_measure(built), solved_at(built)
    record.metric, record.goal, record.final = metric, "min", {metric: math.nan}
    budget = Budget.parse(job.budget)
    torch.manual_seed(derived(job.seed, "training"))
    watch = _Watch(built, metric, solved, budget, POINTS * job.points, record)
    arguments = contender.arguments(job.values)
    known = parameters_of(contender.target)
    if "generator" in known:
        device = next(tensors_of(built)).device
        noise = torch.Generator(device).manual_seed(derived(job.seed, "method"))
        arguments.setdefault("generator", noise)
    if "callback" in known:
        arguments["callback"] = watch
    if "max_steps" in known:
        steps = int(budget.amount) if budget.unit == "steps" else NO_END
        arguments["max_steps"] = min(steps, arguments.get("max_steps", steps))
    if "max_seconds" in known and budget.unit == "s":
        arguments["max_seconds"] = budget.amount
    watch.begin()
    result = contender.target(built, **arguments)
    watch.end()
    if not isinstance(result, Result):
        raise TypeError(f"a solver must return a thalweg.Result, got {type(result).__name__}")
    record.parameters = sum(
        leaf.numel() for leaf in pytree.tree_leaves(result.x) if isinstance(leaf, Tensor)
    )
    final = float(torch.as_tensor(getattr(built, metric)(result.x)).max())
    if result.reason is Reason.NONFINITE or not math.isfinite(final):
        raise Diverged(f"{result.reason}, after {record.steps} steps")
    record.final = {metric: max(final, solved)}


class _Watch:
    """The callback of a run: its clock, its points, and its end when it is solved or too long."""

    def __init__(
        self, problem: Any, metric: str, solved: float, budget: Budget, most: int, record: Record
    ) -> None:
        self.problem, self.metric, self.solved = problem, metric, solved
        self.budget, self.most, self.record = budget, most, record
        self.every, self.before, self.last_step = 1, 0, 0
        self.latest: tuple[int, float, float, dict[str, float]] | None = None

    def begin(self) -> None:
        self.resumed = time.perf_counter()

    def __call__(self, result: Result[Any]) -> None:
        record = self.record
        record.seconds += time.perf_counter() - self.resumed
        began = time.perf_counter()
        columns = result.trace.columns
        step = int(columns["step"][-1])
        if step < self.last_step:  # the method begins again, with a shorter step
            self.before += self.last_step
        self.last_step = step
        record.steps = record.evaluations = self.before + step
        deciding = self._measure(self.metric, result, columns)
        other = "residual" if self.metric == "error" else "value"
        second = self._measure(other, result, columns)
        self.latest = (record.steps, record.seconds, second, {self.metric: deciding})
        if record.steps % self.every == 0:
            self._point()
        over = (
            record.steps >= self.budget.amount
            if self.budget.unit == "steps"
            else record.seconds >= self.budget.amount
        )
        self.resumed = time.perf_counter()
        record.evaluation_seconds += self.resumed - began
        if over or (deciding <= self.solved and self.solved > 0):
            raise StopIteration

    def end(self) -> None:
        """The time since the last measurement, and the last point if it is not there yet."""
        self.record.seconds += time.perf_counter() - self.resumed
        if self.latest is not None and (
            not self.record.lines or self.record.lines[-1]["step"] != self.latest[0]
        ):
            self._point()

    def _measure(self, name: str, result: Result[Any], columns: Mapping[str, Any]) -> float:
        if name in columns:
            return float(columns[name][-1])
        return float(torch.as_tensor(getattr(self.problem, name)(result.x)).max())

    def _point(self) -> None:
        assert self.latest is not None
        step, seconds, second, deciding = self.latest
        lines = self.record.lines
        self.record.point(step, float(step), step, seconds, second, deciding)
        if len(lines) > self.most:  # every second point goes, and from now on fewer come
            self.every *= 2
            lines[:] = [line for line in lines if line["step"] % self.every == 0]
