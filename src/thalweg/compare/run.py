"""One run: a method trains a problem on one seed for a budget, and everything is written down.

A run *diverged* when the loss of a batch is not finite or exceeds the first loss by more than
1000 max(1, |first loss|), or when the deciding metric is not finite at the end. A run *failed*
when something raised. Both end the run, never the race.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import threading
import time
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from thalweg.compare.contender import Contender
from thalweg.compare.errors import one_line, own_traceback
from thalweg.compare.plan import Budget, Job
from thalweg.compare.record import Record
from thalweg.compare.schedule import Schedule, batches, derived, length_of
from thalweg.compare.signatures import parameters_of
from thalweg.core import Training, seeded_rng

if TYPE_CHECKING:
    from thalweg.compare.problems import Problem

TOO_LARGE = 1e3
"""A loss this many times max(1, |first loss|) above the first one has diverged."""

# Jobs seed the global generators: two in one process (threads of a dask worker) take turns.
one_at_a_time = threading.Lock()


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
    with one_at_a_time, one_thread(), seeded_rng(job.seed):
        try:
            _train(job, contender, problem, record)
            record.end("done")
        except Diverged as error:
            record.end("diverged", str(error))
        except Exception as error:
            record.end("failed", one_line(error), own_traceback(error))
    return record.text()


def end_point(job: Job, contender: Contender, problem: Problem, steps: int) -> Training:
    """Where a run has ended: its training with the model at the point that was judged.

    The run is made again, step for step, which needs no file of its own.

    Parameters
    ----------
    job, contender, problem
        The run, as it was made.
    steps
        How many it made (a budget in seconds may allow others another time).
    """
    again = dataclasses.replace(job, budget=f"{steps}steps", points=2)
    with one_at_a_time, one_thread(), seeded_rng(job.seed):
        training, optimizer = _train(again, contender, problem, Record())
        _set_mode(optimizer, "eval")
    return training


def _train(
    job: Job, contender: Contender, problem: Problem, record: Record
) -> tuple[Training, Any]:
    training = problem.callable()(job.seed)
    model = training.model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    record.parameters = sum(p.numel() for p in trained)
    device = trained[0].device
    torch.manual_seed(derived(job.seed, "training"))
    arguments = contender.arguments(job.values)
    if "generator" in parameters_of(contender.target):
        noise = torch.Generator(device).manual_seed(derived(job.seed, "method"))
        arguments.setdefault("generator", noise)
    optimizer = contender.target(trained, **arguments)
    step = _stepper(training, optimizer, contender, record)
    schedule = Schedule(Budget.parse(job.budget), job.points, length_of(training.data))

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
    return training, optimizer


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
    metrics = training.measure(split)
    _set_mode(optimizer, "train")
    record.evaluation_seconds += time.perf_counter() - start
    return metrics


def _set_mode(optimizer: Any, mode: str) -> None:
    """Methods that return an average (AcceleGrad, schedule-free) swap points: eval(), train()."""
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
    closure = inspect.signature(contender.target.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


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
