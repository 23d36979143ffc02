"""From the files of the runs to summary.json, results.csv and the report."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
import statistics as plain
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thalweg.compare import outcome, solved, statistics, tune
from thalweg.compare.contender import Contender
from thalweg.compare.ending import Endings
from thalweg.compare.plan import (
    DEFAULT_SEEDS,
    TUNING_SEED,
    Budget,
    Job,
    Plan,
    cannot_write,
    write_atomically,
)
from thalweg.compare.problems import Problem
from thalweg.compare.record import read
from thalweg.compare.reproduce import all_versions, command, failures, hardware, source_of
from thalweg.compare.spaces import describe_axis

SCHEMA = "thalweg.race/1"

Lines = list[dict[str, Any]]


def write(
    plan: Plan,
    problem: Problem,
    contenders: Sequence[Contender],
    budget: Budget,
    how: Mapping[str, Any],
    total: int,
    interrupted: bool,
    single_file: bool,
) -> tuple[dict[str, Any], Path | None]:
    """Write summary.json, results.csv and the report of what is there.

    Parameters
    ----------
    plan, problem, contenders, budget
        The race.
    how
        ``jobs, backend, exclusive``: how the runs were made.
    total
        Number of runs of the whole race.
    interrupted
        Whether it was stopped before its end.
    single_file
        For the report.

    Returns
    -------
    (summary, path of the report)
        No path if the report's packages are not installed.
    """
    runs = {job.id: lines for job in plan.jobs if (lines := read(plan.directory, job.id))}
    found = summary(plan, problem, contenders, budget, how, runs, total, interrupted)
    try:
        write_atomically(plan.directory / "results.csv", table(plan, runs))
        text = json.dumps(found, indent=1, allow_nan=False) + "\n"
        write_atomically(plan.directory / "summary.json", text)
        if len(runs) == total:
            _sweep(plan.directory)
        return found, _report(found, plan.directory, single_file)
    except OSError as error:
        raise cannot_write(plan.directory, error) from error


def summary(
    plan: Plan,
    problem: Problem,
    contenders: Sequence[Contender],
    budget: Budget,
    how: Mapping[str, Any],
    runs: Mapping[str, Lines],
    total: int,
    interrupted: bool,
) -> dict[str, Any]:
    """The content of summary.json (schema ``thalweg.race/1``)."""
    facts = problem.facts
    methods = [_method(c, plan, facts, runs) for c in contenders]
    solvers = facts.get("kind") == "solver"
    ending = Endings(plan, problem, {c.name: c for c in contenders}).found()
    for method in methods:
        method["certificate"] = ending["certificates"].get(method["name"])
    ends = [lines[-1]["status"] for lines in runs.values()]
    measured = [m["runs"] for m in methods]
    complete = all(len(rows) == plan.seeds for rows in measured)
    values = {m["name"]: outcome.deciding(m["runs"], facts) for m in methods}
    if solvers and complete and solved.by_all(facts, values):
        facts = {**facts, "decided_by": f"time to {solved.named(facts, facts['solved'])}"}
        values = {m["name"]: solved.note_arrivals(m, facts["solved"]) for m in methods}
    scale = outcome.scale(facts, values)
    verdicts, answer, look = outcome.verdicts(
        plan, facts, values, scale, complete, len(runs), total
    )
    medians = [v for m in methods if (v := outcome.median_validation(m, facts)) is not None]
    target = (
        None if not medians or not math.isfinite(plain.median(medians)) else plain.median(medians)
    )
    if solvers and target is None:  # half of the methods miss: what the worst of the others reach
        target = max((v for v in medians if math.isfinite(v)), default=None)
    if solvers and target is not None and target > facts["solved"]:
        target *= solved.NEARLY
    if solvers and verdicts:
        answer += solved.answer(facts, methods, target)
    return {
        "schema": SCHEMA,
        "title": f"{facts['title']}: {_counted(len(methods), 'method')}",
        "question": _question(facts, methods, budget),
        "answer": answer,
        "problem": {
            "name": facts["title"],
            "source": problem.source,
            "metric": facts["metric"],
            "goal": facts["goal"],
            "scale": scale,
            "parameters": facts["parameters"],
            "hash": problem.hash,
            **({k: facts.get(k) for k in solved.FACTS} if solvers else {}),
        },
        "protocol": {
            "budget": str(budget),
            "trials": plan.asked["trials"],
            "seeds": plan.seeds,
            **look,
            "margin": outcome.margin(plan, scale),
            "jobs": how["jobs"],
            "threads": 1,
            "backend": how["backend"],
            "exclusive": how["exclusive"],
            "adaptive": plan.adaptive,
        },
        "progress": {
            "done": len(runs),
            "total": total,
            "failed": ends.count("failed"),
            "diverged": ends.count("diverged"),
            "interrupted": interrupted,
        },
        "methods": methods,
        "verdicts": verdicts,
        "ranking": outcome.ranking(values, facts, look["alpha"]),
        "target": {"metric": facts["metric"], "value": target},
        "ending": {name: value for name, value in ending.items() if name != "certificates"},
        "failures": failures(plan, problem, runs),
        "reproduce": {
            "command": command(plan, problem),
            "versions": all_versions(contenders, plan.asked.get("adaptive")),
            "hardware": hardware(facts),
            "seeds": list(range(1, plan.seeds + 1)),
            "tuning_seeds": [TUNING_SEED],
            "created": plan.created,
            "problem_source": problem.text or source_of(problem),
        },
    }


# ------------------------------------------------------------------------------------- methods


def _method(
    contender: Contender, plan: Plan, facts: Mapping[str, Any], runs: Mapping[str, Lines]
) -> dict[str, Any]:
    mine = [job for job in plan.jobs if job.method == contender.name]
    stages = {
        s: [j for j in mine if j.stage == s] for s in ("tune", "measure", "default", "exclusive")
    }
    trials = [_trial(j, runs.get(j.id), facts["metric"]) for j in stages["tune"]]
    measured = _rows(stages["exclusive"], runs, facts)
    if not measured or len(measured) < plan.seeds:
        measured = _rows(stages["measure"], runs, facts)
    defaults = _rows(stages["default"], runs, facts)
    if not stages["tune"]:  # nothing was tuned: the measured runs are those at the defaults
        defaults = measured[:DEFAULT_SEEDS]
    tuned = dict(stages["measure"][0].values) if stages["measure"] else {}
    finished = [t["validation"] for t in trials]
    best = tune.best_trial(finished, facts["goal"], [t["steps"] for t in trials])
    every = (
        best is not None
        and len(trials) == plan.asked["trials"]
        and all(t["status"] != "missing" for t in trials)
    )
    curve = _best_so_far if plan.adaptive else _tuning_curve
    cost_runs = [runs[row["id"]][-1] for row in measured]
    return {
        "name": contender.name,
        "spec": contender.spec,
        "place": contender.place,
        "summary": contender.summary,
        "paper": contender.paper,
        "year": contender.year,
        "memory": contender.memory,
        "parameter_free": not contender.declared,
        "axes": [describe_axis(name, axis) for name, axis in contender.space.items()],
        "tuned": tuned,
        "defaults": contender.default_values(),
        "edge": tune.edges(contender.space, [j.at for j in stages["tune"]], best)  # type: ignore[arg-type]
        if every
        else [],
        "trials": [t for t in trials if t["status"] != "missing"],
        "tuning_curve": curve(finished, facts["goal"]) if every else _no_curve(),
        "runs": measured,
        "default_runs": defaults,
        "cost": _cost(cost_runs, plan.baseline_ms),
        "certificate": None,
    }


def _trial(job: Job, lines: Lines | None, metric: str) -> dict[str, Any]:
    end = lines[-1] if lines else {"status": "missing", "reason": None, "final": {}, "steps": 0}
    return {
        "id": job.id,
        "values": dict(job.values),
        "validation": end["final"].get(metric),
        "steps": end["steps"],
        "status": end["status"],
        "reason": end["reason"],
    }


def _rows(
    jobs: Sequence[Job], runs: Mapping[str, Lines], facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    return [_row(job, runs[job.id], facts["metric"]) for job in jobs if job.id in runs]


def _row(job: Job, lines: Lines, metric: str) -> dict[str, Any]:
    points, end = lines[:-1], lines[-1]
    columns = ("step", "evaluations", "seconds", "train")
    return {
        "id": job.id,
        "seed": job.seed,
        "status": end["status"],
        "reason": end["reason"],
        "final": end["final"] or {metric: None},
        "test": end["test"],
        "curve": {
            **{name: [point[name] for point in points] for name in columns},
            "validation": [point["validation"].get(metric) for point in points],
        },
    }


def _tuning_curve(validation: Sequence[float | None], goal: str) -> dict[str, Any]:
    worst = math.inf if goal == "min" else -math.inf
    values = [worst if v is None else v for v in validation]
    return {
        "k": list(range(1, len(values) + 1)),
        "median": _finite_list(statistics.tuning_curve_median(values, goal=goal)),  # type: ignore[arg-type]
        "expected": _finite_list(statistics.tuning_curve(values, goal=goal)),  # type: ignore[arg-type]
    }


def _best_so_far(validation: Sequence[float | None], goal: str) -> dict[str, Any]:
    """For trials that know the earlier ones: they have one order, and no mean over orders."""
    places = [tune.best_trial(validation[:k], goal) for k in range(1, len(validation) + 1)]
    return {
        "k": list(range(1, len(validation) + 1)),
        "median": [None if place is None else validation[place] for place in places],
        "expected": [],
    }


def _no_curve() -> dict[str, Any]:
    return {"k": [], "median": [], "expected": []}


def _cost(ends: Sequence[Mapping[str, Any]], baseline_ms: float | None) -> dict[str, Any]:
    times = [1e3 * end["seconds"] / end["steps"] for end in ends if end["steps"] > 0]
    done = [end for end in ends if end["status"] == "done"]
    ms = plain.median(times) if times else None
    return {
        "ms_per_step": ms,
        "ratio_to_fused_adamw": ms / baseline_ms if ms is not None and baseline_ms else None,
        "state_bytes_per_parameter": max(
            (end["state_bytes"] / end["parameters"] for end in done), default=None
        ),
        "compile_seconds": max((end["compile_seconds"] for end in ends), default=0.0),
        "gradient_evaluations": plain.median([end["evaluations"] for end in done])
        if done
        else None,
    }


# ------------------------------------------------------------------------------------- wording


def _question(facts: Mapping[str, Any], methods: Sequence[Any], budget: Budget) -> str:
    if facts.get("kind") == "solver":
        return (
            f"Which of {_counted(len(methods), 'solver')}, tuned equally, brings {facts['title']} "
            f"to the lowest {facts['metric']}, or first to {facts['solved']:.2g}, within "
            f"{budget.words.removesuffix(' of training')}?"
        )
    extreme = "lowest" if facts["goal"] == "min" else "highest"
    return (
        f"Which of {_counted(len(methods), 'method')}, tuned equally, ends {facts['title']} "
        f"with the {extreme} {outcome.measure(facts)} after {budget.words}?"
    )


# --------------------------------------------------------------------------------------- files


def table(plan: Plan, runs: Mapping[str, Lines]) -> str:
    """results.csv: one line per run."""
    names = sorted({n for lines in runs.values() for n in lines[-1]["final"]})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    counts = ["steps", "evaluations", "seconds", "evaluation_seconds", "compile_seconds"]
    head = ["method", "stage", "seed", "trial", "status", "reason", "values"]
    writer.writerow(
        [*head, *counts, *(f"validation_{n}" for n in names), *(f"test_{n}" for n in names), "id"]
    )
    for job in plan.jobs:
        if job.id not in runs:
            continue
        end = runs[job.id][-1]
        values = " ".join(f"{k}={v}" for k, v in job.values.items())
        told = [job.method, job.stage, job.seed, job.trial, end["status"], end["reason"], values]
        test = end["test"] or {}
        metrics = [end["final"].get(n) for n in names] + [test.get(n) for n in names]
        writer.writerow([*told, *(end[c] for c in counts), *metrics, job.id])
    return out.getvalue()


def _sweep(directory: Path) -> None:
    """Remove the unfinished files that kills have left behind."""
    for part in (
        *directory.glob("*.part-*"),
        *(directory / "runs").glob("*.part-*"),
        *(directory / "ends").glob("*.part-*"),
    ):
        part.unlink(missing_ok=True)


def _report(found: Mapping[str, Any], directory: Path, single_file: bool) -> Path | None:
    needed = ("thalweg.compare.report", "jinja2", "plotly")
    if not all(importlib.util.find_spec(name) for name in needed):
        return None
    from thalweg.compare import report

    return report.write(found, directory, single_file=single_file)


def _finite_list(values: Any) -> list[float | None]:
    return [outcome.number(v) for v in values]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
