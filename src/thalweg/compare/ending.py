"""Where the methods ended: what kind of point each has reached, and what lies between them.

The end point of one run of each method is made again (a run depends on its id alone), certified,
and kept in the run directory as ``ends/<id>.safetensors`` and ``ends/<id>.json``: what is there is
never computed twice.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thalweg.compare.contender import Contender
from thalweg.compare.errors import one_line
from thalweg.compare.plan import Job, Plan, cannot_write, write_atomically
from thalweg.compare.record import read
from thalweg.compare.run import end_point, one_thread

if TYPE_CHECKING:
    from thalweg.compare.problems import Problem
    from thalweg.core import Training
    from thalweg.curvature.objective import Objective

SHARE = 0.2
"""Of the race's time: what inspecting may cost if nobody asked for it."""
BUDGET = 48
"""Hessian-vector products for the certificate of one end point."""
TRACE_PRODUCTS = 12
NOISE, PAIRS = 0.05, 6
"""Of the sharpness: noise as long as this share of the parameters, drawn so often and mirrored."""
POINTS = 11
"""Where the loss is evaluated between two end points."""
ALL_PAIRS_UP_TO = 6
"""Methods; of more, only the lines from the first one are drawn."""

_OVERHEAD = 0.1  # seconds for each method, whatever its size
# What an inspection costs, in gradients: a product costs about one where its graph is kept, and
# few certificates take their whole budget.
_GRADIENTS = BUDGET + TRACE_PRODUCTS + 20

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

    def wanted(self, asked: bool | None, workers: int) -> bool:
        """Whether to inspect: as asked, as decided before, or if it is cheap against the race."""
        if not self.networks:
            return False
        if asked is None:
            asked = self.plan.inspects
        if asked is None:
            asked = self._cheap(workers)
        if asked != self.plan.inspects:
            self.plan.inspects = asked
            self.plan.write()
        return asked

    def _cheap(self, workers: int) -> bool:
        jobs = self.jobs()
        ends = [lines[-1] for job in self.plan.jobs if (lines := read(self.plan.directory, job.id))]
        limit = SHARE * sum(end["job_seconds"] for end in ends) / workers
        cost = sum(_OVERHEAD + end["job_seconds"] for _, end in jobs.values())
        if cost > limit or not jobs:
            return False
        gradient = self._gradient_seconds(next(iter(jobs.values()))[0].seed)
        between = 0.5 * POINTS * len(_pairs(list(jobs)))
        return cost + gradient * (_GRADIENTS * len(jobs) + between) <= limit

    def _gradient_seconds(self, seed: int) -> float:
        """Seconds of one gradient over all data; infinite where there is none."""
        times = []
        with one_thread():
            try:
                objective = _objective(self.problem(seed))
                for _ in range(3):
                    start = time.perf_counter()
                    objective.gradient()
                    times.append(time.perf_counter() - start)
            except Exception:  # whatever the user's code raises; the certificates will say it
                return float("inf")
        return min(times)

    def inspect(self, stopped: Callable[[], bool]) -> None:
        """Certify every end point that is not there yet, then the lines between them.

        Parameters
        ----------
        stopped
            Asked before each; after Ctrl-C what is there is kept.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            jobs = self.jobs()
            for job, end in jobs.values():
                if stopped():
                    return
                if self._read(job.id) is None:
                    self._write(job.id, self._certified(job, end))
            if not stopped() and self._lines_read() is None:
                self._write("lines", self._lines())
        except OSError as error:
            raise cannot_write(self.folder, error) from error

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
            "products": sum(c["products"] for c in spent),
            "seconds": sum(c["seconds"] for c in certificates.values()) + lines.get("seconds", 0.0),
        }

    # -- one end point -----------------------------------------------------------------------

    def _certified(self, job: Job, end: Mapping[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        told: dict[str, Any] = {"seed_of_run": job.seed, "checkpoint": f"ends/{job.id}.safetensors"}
        try:
            training = end_point(job, self.contenders[job.method], self.problem, end["steps"])
            self._save(job.id, training.model)
            with one_thread(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say is among the certificate's reasons
                told |= _measured(training)
        except Exception as error:  # of the user's model: the race stands
            told["refused"] = one_line(error) if not isinstance(error, ValueError) else str(error)
        return {**told, "seconds": time.perf_counter() - start}

    def _save(self, job_id: str, model: torch.nn.Module) -> None:
        from safetensors.torch import save_file

        state = {k: v.detach().cpu().clone().contiguous() for k, v in _tensors(model).items()}
        part = self.folder / f"{job_id}.safetensors.part-"
        save_file(state, part)
        part.replace(self.folder / f"{job_id}.safetensors")

    # -- between them ------------------------------------------------------------------------

    def _lines(self) -> dict[str, Any]:
        """The training loss on the straight lines between the end points."""
        from safetensors.torch import load_file

        start = time.perf_counter()
        jobs = self.jobs()
        at = {
            method: load_file(path)
            for method, (job, _) in jobs.items()
            if (path := self.folder / f"{job.id}.safetensors").exists()
        }
        lines: list[Line] = []
        seed = next((job.seed for job, _ in jobs.values()), 1)
        with one_thread():
            try:
                objective = _objective(self.problem(seed))
                lines = [
                    {"a": a, "b": b, **_between(objective, at[a], at[b])} for a, b in _pairs([*at])
                ]
            except Exception:  # as above
                lines = []
        ids = {method: job.id for method, (job, _) in jobs.items()}
        return {"of": ids, "lines": lines, "seconds": time.perf_counter() - start}

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


def _measured(training: Training) -> dict[str, Any]:
    """Certificate, trace and sharpness of a point, as plain numbers."""
    from thalweg.curvature.certify import certify
    from thalweg.curvature.operators import hessian
    from thalweg.curvature.sharpness import average_case
    from thalweg.curvature.trace import trace
    from thalweg.inspect.advice import HEADLINES
    from thalweg.inspect.record import estimate

    objective = _objective(training)
    certificate = certify(objective, budget=BUDGET)
    found = certificate.to_dict()
    spread = trace(hessian(objective), max_products=TRACE_PRODUCTS)
    size = float(objective.start.norm()) or 1.0
    rise = average_case(objective, NOISE * size / math.sqrt(objective.d), pairs=PAIRS)
    return {
        **found,
        "headline": HEADLINES[certificate.verdict],
        "products": certificate.products + spread.n_products,
        "trace": estimate(spread),
        "sharpness": estimate(rise),
    }


def _objective(training: Training) -> Objective:
    from thalweg.curvature.objective import Objective
    from thalweg.inspect.inspection import read_in_order

    return Objective(read_in_order(training)[0])


def _between(objective: Objective, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Line:
    """The loss from a to b; running statistics are interpolated like the parameters."""
    held = _tensors(objective.training.model)
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


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    if len(names) <= ALL_PAIRS_UP_TO:
        return list(combinations(names, 2))
    return [(names[0], name) for name in names[1:]]


def _tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, tied ones under each of their names."""
    return {k: v for k, v in model.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}
