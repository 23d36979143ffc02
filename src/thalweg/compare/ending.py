"""Where the methods ended: what kind of point each has reached, and what lies between them.

The end point of one run of each method is made again (a run depends on its id alone), certified,
and kept in the run directory as ``ends/<id>.safetensors`` and ``ends/<id>.json``: what is there is
never computed twice.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thalweg.compare.contender import Contender
from thalweg.compare.end_points import inspected, objective_of, tensors_of
from thalweg.compare.plan import Job, Plan, cannot_write, write_atomically
from thalweg.compare.price import OVERHEAD, VALUE, affordable, makespan, measured_price
from thalweg.compare.record import read
from thalweg.compare.run import one_thread
from thalweg.compare.workers import Interrupt, in_parallel

if TYPE_CHECKING:
    from thalweg.compare.problems import Problem
    from thalweg.curvature.objective import Objective

SHARE = 0.2
"""Of the race's time: what inspecting may cost if nobody asked for it."""
LEAST, ASKED, MOST = 8, 48, 400
"""Products of a certificate: the fewest, the fewest if they were asked for, and the most."""
POINTS = 11
"""Where the loss is evaluated between two end points."""
ALL_PAIRS_UP_TO = 6
"""Methods; of more, only the lines from the first one are drawn."""

Line = dict[str, Any]


class Endings:
    """The end points of a race, from its directory and into it.

    Parameters
    ----------
    plan
        Of the race, with its measured jobs.
    problem, contenders
        What was raced, and on what.
    """

    def __init__(self, plan: Plan, problem: Problem, contenders: Mapping[str, Contender]) -> None:
        self.plan, self.problem, self.contenders = plan, problem, contenders
        self.folder = plan.directory / "ends"
        self.networks = problem.facts.get("kind") != "solver"

    def jobs(self) -> dict[str, tuple[Job, dict[str, Any]]]:
        """For each method its first measured run that finished, with its end line."""
        found: dict[str, tuple[Job, dict[str, Any]]] = {}
        if not self.networks:
            return found
        for job in sorted(self.plan.jobs, key=lambda job: job.seed):
            if job.stage != "measure" or job.method in found:
                continue
            lines = read(self.plan.directory, job.id)
            if lines and lines[-1]["status"] == "done":
                found[job.method] = job, lines[-1]
        return found

    def wanted(self, asked: bool | None, workers: int, elapsed: float = 0.0) -> bool:
        """Whether to inspect: as asked, as decided before, or if it is cheap against the race.

        How many products a certificate may take is decided here as well, once, from their measured
        time: the plan keeps both, so that the same race is inspected alike. `elapsed` is how long
        the race took; of one that was continued, the time of its runs is known.
        """
        if not self.networks:
            return False
        plan = self.plan
        if asked is None and plan.inspects is not None:
            return plan.inspects
        if asked is None or (asked and not plan.inspects):
            plan.products = self._affordable(workers, elapsed)
            if asked:
                plan.products = max(plan.products or 0, ASKED)
            else:
                asked = plan.products is not None
        if asked != plan.inspects:
            plan.inspects = asked
            plan.write()
        return asked

    def _affordable(self, workers: int, elapsed: float) -> int | None:
        """Products for each certificate such that all costs less than its share of the race."""
        start = time.perf_counter()
        jobs = self.jobs()
        ends = [
            (job, lines[-1])
            for job in self.plan.jobs
            if (lines := read(self.plan.directory, job.id))
        ]
        limit = SHARE * max(elapsed, sum(end["job_seconds"] for _, end in ends) / workers)
        # of each method the median: a run that the machine once held up is not slow
        remade = [
            statistics.median(
                end["job_seconds"]
                for job, end in ends
                if job.method == method and job.stage == "measure"
            )
            for method in jobs
        ]
        if not jobs or makespan([OVERHEAD + again for again in remade], workers) > limit:
            return None
        with one_thread():
            try:
                price = measured_price(self.problem(next(iter(jobs.values()))[0].seed))
            except Exception:  # whatever the user's code raises; the certificates would say it
                return None
        between = [VALUE * price.gradient * POINTS * len(to) for _, to in _rays(list(jobs))]
        spent = makespan(between, workers) + time.perf_counter() - start
        return affordable(price, remade, workers, limit - spent, LEAST, MOST)

    def inspect(
        self, interrupt: Interrupt, workers: int = 1, backend: str = "loky",
        scheduler: str | None = None,
    ) -> None:  # fmt: skip
        """Certify every end point that is not there yet, then the lines between them.

        Parameters
        ----------
        interrupt
            Asked before each; after Ctrl-C what is there is kept.
        workers, backend, scheduler
            As in `thalweg.compare.workers.run_all`.
        """
        where: dict[str, Any] = {"workers": workers, "backend": backend, "scheduler": scheduler}
        try:
            self.folder.mkdir(exist_ok=True)
            for found in self._each(inspected, self._missing(interrupt), **where):
                self._keep(*found)
            if not interrupt.asked and self._lines_read() is None:
                self._write("lines", self._lines(**where))
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    @staticmethod
    def _each(
        function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], *, workers: int,
        backend: str, scheduler: str | None,
    ) -> Iterator[Any]:  # fmt: skip
        """``function(*call)`` of each, here or in the workers."""
        if workers == 1 and backend == "loky":
            yield from (function(*call) for call in calls)
            return
        made = in_parallel(function, calls, workers, backend, scheduler)
        with contextlib.closing(made):
            yield from made

    def _missing(self, interrupt: Interrupt) -> Iterator[tuple[Any, ...]]:
        products = self.plan.products or ASKED
        for job, end in self.jobs().values():
            if interrupt.asked:
                return
            if self._read(job.id) is None:
                yield job, self.contenders[job.method], self.problem, end["steps"], products

    def _keep(self, job_id: str, told: Mapping[str, Any], state: bytes | None) -> None:
        if state is not None:
            part = self.folder / f"{job_id}.safetensors.part-"
            part.write_bytes(state)
            part.replace(self.folder / f"{job_id}.safetensors")
        self._write(job_id, told)

    def found(self) -> dict[str, Any]:
        """What is in the directory: ``certificates`` by method, ``lines``, ``asked``, the cost."""
        certificates = {
            method: kept
            for method, (job, _) in self.jobs().items()
            if self.plan.inspects and (kept := self._read(job.id)) is not None
        }
        lines = (self._lines_read() or {}) if certificates else {}
        spent = [c for c in certificates.values() if "verdict" in c]
        return {
            "certificates": certificates,
            "inspected": self.plan.inspects,
            "networks": self.networks,
            "lines": lines.get("lines", []),
            "budget": self.plan.products,
            "products": sum(c["products"] for c in spent),
            "seconds": sum(c["seconds"] for c in certificates.values()) + lines.get("seconds", 0.0),
        }

    # -- between them ------------------------------------------------------------------------

    def _lines(self, **where: Any) -> dict[str, Any]:
        """The training loss on the straight lines between the end points."""
        start = time.perf_counter()
        jobs = self.jobs()
        at = {
            method: path.resolve()
            for method, (job, _) in jobs.items()
            if (path := self.folder / f"{job.id}.safetensors").exists()
        }
        if where["backend"] != "loky":  # on another machine there are no such files
            where |= {"workers": 1, "backend": "loky"}
        seed = next((job.seed for job, _ in jobs.values()), 1)
        calls = ((self.problem, seed, a, to, at) for a, to in _rays([*at]))
        found: list[Line] = [line for ray in self._each(lines_from, calls, **where) for line in ray]
        order = [*at]
        found.sort(key=lambda line: (order.index(line["a"]), order.index(line["b"])))
        ids = {method: job.id for method, (job, _) in jobs.items()}
        return {"of": ids, "lines": found, "seconds": time.perf_counter() - start}

    def _lines_read(self) -> dict[str, Any] | None:
        kept = self._read("lines")
        ids = {method: job.id for method, (job, _) in self.jobs().items()}
        return kept if kept is not None and kept["of"] == ids else None

    # -- files -------------------------------------------------------------------------------

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            kept: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return kept

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_atomically(self.folder / f"{name}.json", text, sync=False)


def lines_from(
    problem: Problem, seed: int, a: str, to: Sequence[str], at: Mapping[str, Path]
) -> list[Line]:
    """The training loss from the end point of `a` to those of `to`, which are in files `at`."""
    from safetensors.torch import load_file

    with one_thread():
        try:
            objective = objective_of(problem(seed))
            origin = load_file(at[a])
            return [{"a": a, "b": b, **_between(objective, origin, load_file(at[b]))} for b in to]
        except Exception:  # of the user's model: the race stands
            return []


def _between(objective: Objective, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Line:
    """The loss from a to b; running statistics are interpolated like the parameters."""
    held = tensors_of(objective.training.model)
    before = {name: tensor.detach().clone() for name, tensor in held.items()}
    positions = [i / (POINTS - 1) for i in range(POINTS)]
    values: list[float | None] = []
    try:
        for t in positions:
            with torch.no_grad():
                for name, tensor in held.items():
                    moves = tensor.is_floating_point()
                    tensor.copy_((1 - t) * a[name] + t * b[name] if moves else a[name])
            try:
                values.append(objective.value())
            except ValueError:  # not finite there
                values.append(None)
    finally:
        with torch.no_grad():
            for name, tensor in held.items():
                tensor.copy_(before[name])
    return {"positions": positions, "values": values, "barrier": barrier(positions, values)}


def barrier(positions: list[float], values: list[float | None]) -> float | None:
    r"""The highest rise above the chord, >= 0; None where the loss is not finite.

    .. math:: \max_t f((1 - t) a + t b) - (1 - t) f(a) - t f(b)

    Examples
    --------
    >>> barrier([0.0, 0.5, 1.0], [1.0, 5.0, 3.0])
    3.0
    """
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return None
    chord = [(1 - t) * known[0] + t * known[-1] for t in positions]
    return max(0.0, *(v - c for v, c in zip(known, chord)))


def _rays(names: list[str]) -> list[tuple[str, list[str]]]:
    """From which method lines are drawn, and to which."""
    if len(names) <= ALL_PAIRS_UP_TO:
        return [(name, names[i + 1 :]) for i, name in enumerate(names[:-1])]
    return [(names[0], names[1:])]
