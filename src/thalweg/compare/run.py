"""One run: a method trains a problem on one seed for a budget, and everything is written down.

A run *diverged* when the loss of a batch is not finite or exceeds the first loss by more than
1000 max(1, |first loss|), or when the deciding metric is not finite at the end. A run *failed*
when something raised. Both end the run, never the race.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from thalweg.compare.errors import one_line, own_traceback
from thalweg.compare.methods import Contender, parameters_of
from thalweg.compare.plan import Budget, Job, write_atomically
from thalweg.core import Training, preserved_rng, seeded_rng

if TYPE_CHECKING:
    from thalweg.compare.problems import Problem

TOO_LARGE = 1e3
"""A loss this many times max(1, |first loss|) above the first one has diverged."""

# Jobs seed the global generators: two in one process (threads of a dask worker) take turns.
_one_at_a_time = threading.Lock()


class Diverged(ArithmeticError):
    """The loss left every useful range; the text says when."""


def run_job(job: Job, contender: Contender, problem: Problem) -> str:
    """Run one job and return the text of its file: points, then the end line.

    The losses depend on the job's id alone: everything random is seeded from `job.seed`, the batch
    order is that of the seed whatever the method draws, and one thread computes.

    Parameters
    ----------
    job
        What to run.
    contender, problem
        The method and the problem that `job` names.

    Returns
    -------
    str
        One JSON object a line; the last one has ``"kind": "end"``.
    """
    record = Record()
    with _one_at_a_time, one_thread(), seeded_rng(job.seed):
        try:
            _train(job, contender, problem, record)
            record.end("done")
        except Diverged as error:
            record.end("diverged", str(error))
        except Exception as error:
            record.end("failed", one_line(error), own_traceback(error))
    return record.text()


def _train(job: Job, contender: Contender, problem: Problem, record: Record) -> None:
    training = problem.callable()(job.seed)
    model = training.model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    record.parameters = sum(p.numel() for p in trained)
    device = trained[0].device
    torch.manual_seed(_derived(job.seed, "training"))
    arguments = contender.arguments(job.values)
    if "generator" in parameters_of(contender.target):
        noise = torch.Generator(device).manual_seed(_derived(job.seed, "method"))
        arguments.setdefault("generator", noise)
    optimizer = contender.target(trained, **arguments)
    step = _stepper(training, optimizer, contender, record)
    schedule = Schedule(Budget.parse(job.budget), job.points, _length(training.data))

    record.goal = training.goal
    _set_mode(optimizer, "train")
    before = _measure(training, optimizer, record, "validation")
    record.metric = next(iter(before))
    record.final = dict.fromkeys(before)
    first = math.nan
    losses: list[float] = []
    stream = batches(training.data, job.seed)
    passes, last = 0, 0
    while not schedule.over(record.steps, passes, record.seconds):
        with record.training():
            passes, batch = next(stream)
            if schedule.over(record.steps, passes, record.seconds):
                break
            loss = step(batch)
        record.steps += 1
        losses.append(loss)
        if record.steps == 1:
            first = loss
            record.point(0, 0.0, 0, 0.0, loss, before)
        if not math.isfinite(loss):
            raise Diverged(f"the loss became {loss} at step {record.steps}")
        if loss - first > TOO_LARGE * max(1.0, abs(first)):
            raise Diverged(f"the loss rose from {first:.4g} to {loss:.4g} by step {record.steps}")
        if schedule.due(record.steps, passes, record.seconds):
            last = record.steps
            _point(training, optimizer, record, schedule, passes, losses)
    if last != record.steps:
        _point(training, optimizer, record, schedule, passes, losses)
    record.state_bytes = state_bytes(optimizer)
    final = record.lines[-1]["validation"]
    if final[record.metric] is None:
        raise Diverged(f"validation {record.metric} is not finite after {record.steps} steps")
    record.final = final
    if job.stage != "tune" and training.evaluate is not None:
        record.test = _measure(training, optimizer, record, "test")


def _point(
    training: Training, optimizer: Any, record: Record, schedule: Schedule, passes: int,
    losses: list[float],
) -> None:  # fmt: skip
    validation = _measure(training, optimizer, record, "validation")
    epoch = record.steps / schedule.length if schedule.length else float(passes)
    mean = sum(losses) / len(losses)
    record.point(record.steps, epoch, record.evaluations, record.seconds, mean, validation)
    losses.clear()


def _measure(training: Training, optimizer: Any, record: Record, split: Any) -> dict[str, float]:
    """The metrics where the method wants to be judged (an average, say), its point left alone."""
    start = time.perf_counter()
    _set_mode(optimizer, "eval")
    with preserved_rng():
        metrics = training.measure(split)
    _set_mode(optimizer, "train")
    record.evaluation_seconds += time.perf_counter() - start
    return metrics


def _set_mode(optimizer: Any, mode: str) -> None:
    """Methods that return an average (AcceleGrad, schedule-free) swap points: train() and eval()."""
    both = callable(getattr(optimizer, "train", None)) and callable(
        getattr(optimizer, "eval", None)
    )
    if both:
        getattr(optimizer, mode)()


def _stepper(training: Training, optimizer: Any, contender: Contender, record: Record) -> Any:
    """``step(batch) -> loss`` before the step, for methods with and without a closure."""
    again = "create_graph" in contender.needs or "hessian" in contender.needs

    def loss_of(batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = training.batch_loss(batch)
        loss.backward(create_graph=again)
        record.evaluations += 1
        return loss

    def plain(batch: Any) -> float:
        loss = loss_of(batch)
        optimizer.step()
        return loss.item()

    def closed(batch: Any) -> float:
        losses: list[torch.Tensor] = []

        def closure() -> torch.Tensor:
            with torch.enable_grad():
                losses.append(loss_of(batch))
            return losses[-1]

        optimizer.step(closure)
        return losses[0].item()

    return closed if needs_closure(contender) else plain


def needs_closure(contender: Contender) -> bool:
    """Whether step() wants a closure: declared, or a `closure` argument without a default."""
    if "closure" in contender.needs:
        return True
    closure = inspect.signature(contender.target.step).parameters.get("closure")  # type: ignore[attr-defined]
    return closure is not None and closure.default is closure.empty


def batches(data: Iterable[Any], seed: int) -> Iterator[tuple[int, Any]]:
    """``(passes done, batch)`` without end; the order of each pass depends on `seed` alone.

    Loaders draw the order of a pass when it begins: the global generators are seeded for that
    moment, so that a method that draws random numbers sees the batches the others see.
    """
    passes, nothing = 0, object()
    in_order = isinstance(data, list | tuple)  # nothing to draw
    while True:
        with nullcontext() if in_order else seeded_rng(_derived(seed, f"pass {passes}")):
            iterator = iter(data)
            batch = next(iterator, nothing)
        if batch is nothing:
            raise ValueError("data must yield at least one batch per pass, got none")
        while batch is not nothing:
            yield passes, batch
            batch = next(iterator, nothing)
        passes += 1


class Schedule:
    """When a run is over, and when it is measured: about `points` times, early ones denser."""

    def __init__(self, budget: Budget, points: int, length: int | None) -> None:
        self.budget, self.length = budget, length
        self.total: int | None = None
        if budget.unit == "steps":
            self.total = int(budget.amount)
        elif budget.unit == "epochs" and length:
            self.total = max(1, round(budget.amount * length))
        self.marks = marks(self.total, points) if self.total else frozenset[int]()
        self.times = [budget.amount * x for x in spread(points)] if budget.unit == "s" else []
        self._passes, self._next = 0, 1

    def over(self, steps: int, passes: int, seconds: float) -> bool:
        if self.total is not None:
            return steps >= self.total
        spent = seconds if self.budget.unit == "s" else passes
        return steps > 0 and spent >= self.budget.amount

    def due(self, steps: int, passes: int, seconds: float) -> bool:
        if self.total is not None:
            return steps in self.marks
        if self.budget.unit == "s":
            late = bool(self.times) and seconds >= self.times[0]
            while self.times and seconds >= self.times[0]:
                self.times.pop(0)
            return late
        # Epochs of unknown length: whenever the steps grew by 30 %, and after every pass.
        due = steps >= self._next or passes > self._passes
        if due:
            self._passes, self._next = passes, math.ceil(1.3 * steps) + 1
        return due


def spread(points: int) -> list[float]:
    """About `points` numbers in (0, 1], half of them evenly spaced, half in the logarithm."""
    half = max(1, points // 2)
    linear = [(i + 1) / half for i in range(half)]
    logarithmic = [10 ** (-3 * (1 - i / half)) for i in range(half)]
    return sorted({*linear, *logarithmic})


def marks(total: int, points: int) -> frozenset[int]:
    """The steps at which a run of `total` steps is measured; the last one is among them.

    Examples
    --------
    >>> sorted(marks(100, 8))
    [1, 3, 18, 25, 50, 75, 100]
    """
    return frozenset(max(1, round(total * x)) for x in spread(points))


class Record:
    """What a run has to say: its lines, its clocks, its counts."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.steps = self.evaluations = self.parameters = self.state_bytes = 0
        self.seconds = self.evaluation_seconds = self.compile_seconds = 0.0
        self.metric, self.goal = "", "min"
        self.final: dict[str, Any] = {}
        self.test: dict[str, float] | None = None
        self._owed = 0

    def training(self) -> _Clock:
        """Time inside the block is training time, unless the compiler worked."""
        return _Clock(self)

    def add(self, seconds: float, compiled: bool) -> None:
        """A step's time. One in which the compiler worked is charged what the next one takes."""
        if compiled:
            self.compile_seconds += seconds
            self._owed += 1
        else:
            self.seconds += seconds * (1 + self._owed)
            self._owed = 0

    def point(
        self, step: int, epoch: float, evaluations: int, seconds: float, train: float,
        validation: dict[str, float],
    ) -> None:  # fmt: skip
        self.lines.append(
            {
                "kind": "point",
                "step": step,
                "epoch": epoch,
                "evaluations": evaluations,
                "seconds": seconds,
                "train": finite(train),
                "validation": finite(validation),
            }
        )

    def end(self, status: str, reason: str | None = None, traceback: str | None = None) -> None:
        done = status == "done"
        self.lines.append(
            {
                "kind": "end",
                "status": status,
                "reason": reason,
                "steps": self.steps,
                "evaluations": self.evaluations,
                "seconds": self.seconds,
                "evaluation_seconds": self.evaluation_seconds,
                "compile_seconds": self.compile_seconds,
                "state_bytes": self.state_bytes,
                "parameters": self.parameters,
                "best": self._best(),
                "final": self.final if done else dict.fromkeys(self.final),
                "test": finite(self.test) if done else None,
                **({"traceback": traceback} if traceback else {}),
            }
        )

    def _best(self) -> dict[str, Any]:
        points = [line for line in self.lines if line["validation"].get(self.metric) is not None]
        if not points:
            return {}
        choose = min if self.goal == "min" else max
        best = choose(points, key=lambda line: line["validation"][self.metric])
        return {"step": best["step"], self.metric: best["validation"][self.metric]}

    def text(self) -> str:
        return "".join(json.dumps(line, allow_nan=False) + "\n" for line in self.lines)


class _Clock:
    def __init__(self, record: Record) -> None:
        self.record = record

    def __enter__(self) -> None:
        self.compiled = _compilations()
        self.start = time.perf_counter()

    def __exit__(self, kind: object, *_: object) -> None:
        seconds = time.perf_counter() - self.start
        if kind is None:
            self.record.add(seconds, _compilations() != self.compiled)


def _compilations() -> float:
    """Grows whenever torch.compile works (loading the compiler counts)."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return -1.0
    return float(sum(getattr(dynamo, "cumulative_time_spent_ns", {}).values()))


class one_thread:
    """One thread inside the block: what workers use, so that all processes agree bit for bit."""

    def __enter__(self) -> None:
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.threads)


def state_bytes(optimizer: Any) -> int:
    """Bytes of the tensors in the optimizer's state, shared memory counted once."""
    storages = {}
    for leaf in pytree.tree_leaves([dict(state) for state in optimizer.state.values()]):
        if isinstance(leaf, torch.Tensor):
            storage = leaf.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def finite(value: Any) -> Any:
    """`value` with infinities and NaN as None, which is how JSON files here say them."""
    if isinstance(value, dict):
        return {name: finite(v) for name, v in value.items()}
    return value if value is None or math.isfinite(value) else None


def store(directory: Path, job_id: str, text: str) -> None:
    """Put a finished run into its place, at once or not at all."""
    write_atomically(directory / "runs" / f"{job_id}.jsonl", text)


def read(directory: Path, job_id: str) -> list[dict[str, Any]] | None:
    """The lines of a finished run; None if there is none, or its file is not complete."""
    try:
        text = (directory / "runs" / f"{job_id}.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError):
        return None
    complete = bool(lines) and isinstance(lines[-1], dict) and lines[-1].get("kind") == "end"
    return lines if complete and text.endswith("\n") else None


def _length(data: Any) -> int | None:
    try:
        return len(data) or None
    except TypeError:
        return None


@functools.cache
def _derived(seed: int, purpose: str) -> int:
    """A seed for another stream of random numbers of the same run."""
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return int.from_bytes(digest[:4], "little")
