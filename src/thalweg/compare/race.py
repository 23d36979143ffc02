"""`compare`: tune every method equally, measure it on fresh seeds, say who won."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from thalweg.compare import adaptive as adaptively
from thalweg.compare import summary as summaries
from thalweg.compare import tune
from thalweg.compare.contender import Contender
from thalweg.compare.ending import Endings
from thalweg.compare.entrants import budget_of, entrants
from thalweg.compare.errors import BadInput
from thalweg.compare.methods import Method, resolve
from thalweg.compare.plan import (
    DEFAULT_SEEDS,
    TUNING_SEED,
    Budget,
    Job,
    Plan,
    Stage,
    default_directory,
    job,
    what_is_asked,
)
from thalweg.compare.problems import Problem
from thalweg.compare.record import read
from thalweg.compare.run import run_job
from thalweg.compare.workers import BACKENDS, Interrupt, release, run_all
from thalweg.core import check

BASELINE_BUDGET = Budget(0.3, "s")
"""How long torch's fused AdamW runs to be timed."""

Event = Callable[[dict[str, Any]], object]


@dataclasses.dataclass(frozen=True)
class Race:
    """What a race found.

    Parameters
    ----------
    summary
        The content of summary.json.
    directory
        Where everything is; the same call goes on from there.
    report
        The page, or None if it could not be made.
    interrupted
        True after Ctrl-C: the summary tells what is there.
    """

    summary: Mapping[str, Any]
    directory: Path
    report: Path | None
    interrupted: bool = False

    @property
    def verdicts(self) -> list[Mapping[str, Any]]:
        """One per pair: ``word``, ``a``, ``b``, ``winner``, ``sentence`` and the numbers."""
        return list(self.summary["verdicts"])

    @property
    def answer(self) -> str:
        """The race in one sentence."""
        return str(self.summary["answer"])

    @property
    def exit_code(self) -> int:
        """0 done, 3 some runs failed, 130 interrupted."""
        if self.interrupted:
            return 130
        return 3 if self.summary["progress"]["failed"] else 0

    def __str__(self) -> str:
        return self.answer

    def __repr__(self) -> str:
        return f"Race({self.answer!r}, directory={str(self.directory)!r})"


def compare(
    problem: str | Callable[[int], Any] | None = None,
    methods: Sequence[Method] | Method | None = None,
    *,
    budget: str | int | None = None,
    trials: int = 12,
    adaptive: str | None = None,
    seeds: int = 10,
    reference: str | None = None,
    margin: float | None = None,
    directory: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    backend: str = "loky",
    scheduler: str | None = None,
    exclusive: bool = False,
    inspect: bool | None = None,
    single_file: bool = False,
    on_event: Event | None = None,
    points: int = 30,
) -> Race:
    """Race methods on a problem: the same tuning budget for each, paired seeds, one report.

    Each method is *tuned* (`trials` points of its own space, one seed), *measured* with its best
    point on `seeds` fresh seeds, the same for all, and run at its *defaults*. Finished runs are
    kept: the same call goes on where it was stopped.

    Parameters
    ----------
    problem
        A built-in name (default ``"digits-mlp"``), ``"path.py[:name]"``,
        ``"package.module:name"`` or a function ``problem(seed)``. It returns a `Training`, on
        which optimizers race, or a problem such as a `MatrixCompletion`, on which solvers do.
    methods
        Catalogue names, with values inline as in ``"lion[lr=1e-4]"``, ``"torch.optim:AdamW"``,
        optimizer classes, or solvers. Default: six optimizers, or every solver of the problem.
    budget
        Of every run: ``"300steps"``, ``"20epochs"`` or ``"30s"``. Default: 420 steps of training,
        or 500 of a solver, whose run ends earlier when it is solved.
    trials
        Tuning points per method, >= 0; 0 measures every method at its defaults.
    adaptive
        ``"optuna"``: after the first third, place each trial of a method by what its earlier ones
        have found. Default: points of a Sobol sequence, all fixed before anything runs.
    seeds
        Measured runs per method, >= 1. It can be raised later (which counts as another look).
    reference
        A method all others are compared with. Default: all pairs.
    margin
        Smallest difference that matters: relative for losses (0.01: 1 %), else in the metric's
        unit. Default: 0.01, or 0.005.
    directory
        Where the runs go. Default: ``race-<problem>-<hash>`` here.
    jobs
        Worker processes, >= 1, or -1 for one per core.
    backend, scheduler
        ``"loky"`` (here), ``"dask"`` or ``"ray"``, and the address of the cluster's scheduler.
    exclusive
        Run the measured stage once more, one run at a time, for its times.
    inspect
        Say what kind of point each optimizer has reached. Default: if that costs less than a fifth
        of the race.
    single_file
        Inline everything into the report's page.
    on_event
        Called with a dict after every run and at the beginning of a stage.
    points
        How often a run is measured, >= 2.

    Returns
    -------
    Race

    Raises
    ------
    BadInput
        If an argument, the problem, a method or the directory cannot be used; one sentence.

    Examples
    --------
    >>> import tempfile, torch
    >>> from thalweg import Training
    >>> def bowl(seed):
    ...     return Training.from_function(lambda x: (x**2).sum(), torch.randn(3), name="bowl")
    >>> race = compare(bowl, ["torch.optim:SGD", "torch.optim:Adam"], budget="10steps", trials=2,
    ...                seeds=2, directory=tempfile.mkdtemp())
    >>> race.exit_code, len(race.verdicts)
    (0, 1)
    """
    _check_numbers(trials=(trials, 0), seeds=(seeds, 1), points=(points, 2))
    if budget is not None:
        Budget.parse(budget)  # what is no budget is told before the problem is built
    workers = _workers(jobs, backend)
    sampler = adaptively.sampler_of(adaptive)
    try:
        check.choice("backend", backend, BACKENDS)
        if margin is not None:
            check.number("margin", margin, ge=0)
    except (ValueError, TypeError) as error:
        raise BadInput(str(error)) from error
    loaded, contenders = entrants(problem, methods)
    length = budget_of(budget, loaded)
    if inspect and loaded.facts.get("kind") == "solver":
        raise BadInput(f"inspect is for networks, and {loaded.name} is a {loaded.facts['class']}")
    if reference is not None:
        reference = _named(reference, contenders)
    asked = what_is_asked(loaded, contenders, length, trials, points, reference, margin, sampler)
    place = Path(directory) if directory is not None else default_directory(asked)
    plan = Plan(place, asked, seeds).open()
    race = _Race(plan, loaded, contenders, length, trials, seeds, points, on_event or (lambda _: 0))
    race.how = {"workers": workers, "backend": backend, "scheduler": scheduler}
    try:
        with Interrupt() as interrupt:
            race.run(interrupt, exclusive)
            race.inspect(interrupt, inspect, workers, backend, scheduler)
    finally:
        if workers != 1:
            release(backend)
    # From here on a Ctrl-C is a plain one.
    stopped = interrupt.asked and race.done < race.total
    how = {"jobs": workers, "backend": backend, "exclusive": exclusive}
    found, report = summaries.write(
        plan, loaded, contenders, length, how, race.total, stopped, single_file
    )
    return Race(found, place, report, stopped)


class _Race:
    """The stages of a race, one after the other."""

    def __init__(
        self, plan: Plan, problem: Problem, contenders: Sequence[Contender], budget: Budget,
        trials: int, seeds: int, points: int, on_event: Event,
    ) -> None:  # fmt: skip
        self.plan, self.problem, self.contenders = plan, problem, contenders
        self.by_name = {c.name: c for c in contenders}
        self.budget, self.points, self.on_event = budget, points, on_event
        self.how: dict[str, Any] = {}
        self.began = time.perf_counter()
        self.seeds = range(1, seeds + 1)
        # Trial by trial and seed by seed, so that an interrupted race is balanced.
        tables = {c.name: tune.table(c, trials) for c in contenders}
        known = adaptively.first_trials(trials) if plan.adaptive else trials
        self.later = range(known, trials)
        self.tuning = [
            self._job(c, "tune", TUNING_SEED, tables[c.name][k][1], k, tables[c.name][k][0])
            for k in range(known)
            for c in contenders
            if tables[c.name]
        ]
        self.defaults = [
            self._job(c, "default", seed, c.default_values())
            for seed in self.seeds[:DEFAULT_SEEDS]
            for c in contenders
            if tables[c.name]
        ]
        plan.jobs = [*self.tuning, *self.defaults]
        plan.write()
        distinct = len({c.key for c in contenders})
        self.tunable = {c.key for c in contenders if tables[c.name]}
        later = len(self.tunable) * len(self.later)
        self.total = len({j.id for j in plan.jobs}) + later + distinct * seeds
        self.done = 0
        self.begun: list[str] = []

    def _job(
        self, contender: Contender, stage: Stage, seed: int, values: Mapping[str, Any], *rest: Any
    ) -> Job:
        return job(self.problem, contender, stage, seed, self.budget, self.points, values, *rest)

    def run(self, interrupt: Interrupt, exclusive: bool) -> None:
        if exclusive:
            self.total += len({c.key for c in self.contenders}) * len(self.seeds)
        self._run(self.tuning, interrupt)
        for trial in self.later:
            if interrupt.asked:
                return
            self._run(self._ask(trial), interrupt)
        if interrupt.asked:
            return
        best = {c.name: self._best(c) for c in self.contenders}
        measured = [
            self._job(c, "measure", seed, best[c.name])
            for seed in self.seeds
            for c in self.contenders
        ]
        again = [self._job(self.by_name[j.method], "exclusive", j.seed, j.values) for j in measured]
        self.plan.jobs = [*self.tuning, *measured, *self.defaults, *(again if exclusive else [])]
        self.plan.write()
        # Together, so that no worker waits at the end of a stage.
        self._run([*measured, *self.defaults], interrupt)
        if exclusive:
            self.how = {"workers": 1, "backend": "loky"}
            self._run(again, interrupt)
        self._baseline(interrupt)

    def _best(self, contender: Contender) -> dict[str, Any]:
        """The best trial's values; the defaults where there is no trial that finished."""
        trials, results = self._tried(contender)
        best = tune.best_trial(*results)
        return dict(trials[best].values) if best is not None else contender.default_values()

    def _tried(self, contender: Contender) -> tuple[list[Job], tuple[list[Any], str, list[int]]]:
        """The trials of a method, and what they are judged by: results, goal and steps."""
        trials = [j for j in self.tuning if j.method == contender.name]
        ends = [read(self.plan.directory, j.id) for j in trials]
        metric = self.problem.facts["metric"]
        finals = [lines[-1]["final"].get(metric) if lines else None for lines in ends]
        steps = [lines[-1]["steps"] if lines else 0 for lines in ends]
        return trials, (finals, self.problem.facts["goal"], steps)

    def _ask(self, trial: int) -> list[Job]:
        """Adaptive tuning: the next trial of every method; a point that was tried is not run."""
        asked = []
        for c in self.contenders:
            if c.key in self.tunable:
                trials, results = self._tried(c)
                points = [j.at for j in trials]
                at, values = adaptively.next_trial(c, points, tune.ranks(*results))
                asked.append(self._job(c, "tune", TUNING_SEED, values, trial, at))
        tried = {j.id for j in self.tuning}
        new = {j.id: j for j in asked if j.id not in tried}
        self.total += len(new) - len(self.tunable)
        self.tuning += asked
        self.plan.jobs = [*self.tuning, *self.defaults]
        self.plan.write()
        return list(new.values())

    def _run(self, jobs: Sequence[Job], interrupt: Interrupt) -> None:
        """Run what is not finished of `jobs`, stage after stage."""
        if interrupt.asked or not jobs:
            return
        self._begin(jobs[0].stage)
        unique = list({j.id: j for j in jobs}.values())
        todo = []
        for j in unique:
            lines = read(self.plan.directory, j.id)
            if lines is None:
                todo.append(j)
            else:
                self._finished(j, lines[-1])
        finished = run_all(
            todo, self.by_name, self.problem, self.plan.directory, interrupt, **self.how
        )
        with contextlib.closing(finished):
            for j, end in finished:
                self._finished(j, end)

    def _begin(self, stage: str) -> None:
        if stage not in self.begun:
            self.begun.append(stage)
            self._event(kind="stage", stage=stage, goal=self.problem.facts["goal"])

    def _finished(self, j: Job, end: Mapping[str, Any]) -> None:
        self._begin(j.stage)
        self.done += 1
        self._event(
            kind="job",
            stage=j.stage,
            method=j.method,
            seed=j.seed,
            trial=j.trial,
            id=j.id,
            status=end["status"],
            validation=end["final"].get(self.problem.facts["metric"]),
            reason=end["reason"],
            seconds=end["seconds"],
        )

    def _event(self, **event: Any) -> None:
        self.on_event({**event, "done": self.done, "total": self.total})

    def inspect(
        self, interrupt: Interrupt, wanted: bool | None, workers: int, backend: str,
        scheduler: str | None,
    ) -> None:  # fmt: skip
        """Certify the end points of a finished race of optimizers."""
        solved = self.problem.facts.get("kind") == "solver"
        if solved or interrupt.asked or self.done < self.total:
            return
        endings = Endings(self.plan, self.problem, self.by_name)
        elapsed = time.perf_counter() - self.began
        if endings.wanted(wanted, max(1, workers), elapsed):
            self._event(kind="stage", stage="inspect", goal=self.problem.facts["goal"])
            endings.inspect(interrupt, workers, backend, scheduler)

    def _baseline(self, interrupt: Interrupt) -> None:
        """Milliseconds per step of torch's fused AdamW on this model, for the cost ratios."""
        solved = self.problem.facts.get("kind") == "solver"
        if solved or interrupt.asked or self.plan.baseline_ms is not None:
            return
        fused = resolve("torch.optim:AdamW[fused=True]")[0]
        brief = job(self.problem, fused, "tune", 1, BASELINE_BUDGET, 2, {})
        text = run_job(brief, fused, self.problem)
        end = json.loads(text.splitlines()[-1])
        if end["status"] == "done" and end["steps"]:
            self.plan.baseline_ms = 1e3 * end["seconds"] / end["steps"]
            self.plan.write()


def _check_numbers(**bounds: tuple[Any, int]) -> None:
    for name, (value, least) in bounds.items():
        try:
            check.number(name, value, ge=least, integer=True)
        except (ValueError, TypeError) as error:
            raise BadInput(str(error)) from error


def _workers(jobs: int, backend: str) -> int:
    """-1 is one per core here, and all of a cluster."""
    if jobs == -1:
        if backend != "loky":
            return -1
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
    _check_numbers(jobs=(jobs, 1))
    return jobs


def _named(reference: str, contenders: Sequence[Contender]) -> str:
    """The contender called `reference`: by its name, what was typed, or in small letters."""
    for contender in contenders:
        if reference.lower() in (contender.name.lower(), contender.spec.lower()):
            return contender.name
    names = [c.name for c in contenders]
    raise BadInput(
        f"reference must be one of the methods {', '.join(names)}, got {reference!r}"
        f"{check.did_you_mean(reference, names)}"
    )
