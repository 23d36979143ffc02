"""From the files of the runs to summary.json, results.csv and the report."""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import io
import json
import math
import os
import platform
import re
import shlex
import statistics as plain
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thalweg.compare import tune
from thalweg.compare.methods import Contender, describe_axis
from thalweg.compare.plan import (
    DEFAULT_SEEDS,
    TUNING_SEED,
    Budget,
    Job,
    Plan,
    cannot_write,
    versions,
    write_atomically,
)
from thalweg.compare.problems import Problem
from thalweg.compare.run import read

SCHEMA = "thalweg.race/1"

# Metrics that are shares or scores: a difference in points means more than a ratio.
_RATE = re.compile(r"acc|err|rate|f1|auc|score|precision|recall|r2|top.?\d", re.IGNORECASE)

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
    ends = [lines[-1]["status"] for lines in runs.values()]
    measured = [m["runs"] for m in methods]
    complete = all(len(rows) == plan.seeds for rows in measured)
    values = {m["name"]: _deciding(m["runs"], facts) for m in methods}
    scale = _scale(facts, values)
    verdicts, answer, look = _verdicts(
        plan, facts, values, scale, budget, complete, len(runs), total
    )
    medians = [v for m in methods if (v := _median_validation(m, facts)) is not None]
    target = (
        None if not medians or not math.isfinite(plain.median(medians)) else plain.median(medians)
    )
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
        },
        "protocol": {
            "budget": str(budget),
            "trials": plan.asked["trials"],
            "seeds": plan.seeds,
            **look,
            "margin": _margin(plan, scale),
            "jobs": how["jobs"],
            "threads": 1,
            "backend": how["backend"],
            "exclusive": how["exclusive"],
            "adaptive": False,
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
        "ranking": _ranking(values, facts, look["alpha"]),
        "target": {"metric": facts["metric"], "value": target},
        "failures": _failures(plan, problem, runs),
        "reproduce": {
            "command": _command(plan, problem),
            "versions": _all_versions(contenders),
            "hardware": _hardware(facts),
            "seeds": list(range(1, plan.seeds + 1)),
            "tuning_seeds": [TUNING_SEED],
            "created": plan.created,
            "problem_source": problem.text or _source_of(problem),
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
    best = tune.best_trial(finished, facts["goal"])
    every = best is not None and all(t["status"] != "missing" for t in trials)
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
        "tuning_curve": _tuning_curve(finished, facts["goal"]) if every else _no_curve(),
        "runs": measured,
        "default_runs": defaults,
        "cost": _cost(cost_runs, plan.baseline_ms),
        "certificate": None,
    }


def _trial(job: Job, lines: Lines | None, metric: str) -> dict[str, Any]:
    end = lines[-1] if lines else {"status": "missing", "reason": None, "final": {}}
    return {
        "id": job.id,
        "values": dict(job.values),
        "validation": end["final"].get(metric),
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
    from thalweg.compare import statistics

    worst = math.inf if goal == "min" else -math.inf
    values = [worst if v is None else v for v in validation]
    return {
        "k": list(range(1, len(values) + 1)),
        "median": _finite_list(statistics.tuning_curve_median(values, goal=goal)),  # type: ignore[arg-type]
        "expected": _finite_list(statistics.tuning_curve(values, goal=goal)),  # type: ignore[arg-type]
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


# ------------------------------------------------------------------------------------ verdicts


def _deciding(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> list[float]:
    """The result of each seed: the test metric where there is one; a miss is infinitely bad."""
    worst = math.inf if facts["goal"] == "min" else -math.inf
    values = []
    for row in rows:
        metrics = row["test"] if facts["has_test"] else row["final"]
        value = (metrics or {}).get(facts["metric"]) if row["status"] == "done" else None
        values.append(worst if value is None else float(value))
    return values


def _scale(facts: Mapping[str, Any], values: Mapping[str, Sequence[float]]) -> str:
    """Ratios for losses > 0; differences for rates, scores and what can be <= 0."""
    positive = all(v > 0 for column in values.values() for v in column)
    loss = facts["goal"] == "min" and not _RATE.search(facts["metric"])
    return "ratio" if loss and positive and facts["positive"] else "difference"


def _verdicts(
    plan: Plan, facts: Mapping[str, Any], values: Mapping[str, Sequence[float]], scale: Any,
    budget: Budget, complete: bool, done: int, total: int,
) -> tuple[list[dict[str, Any]], str, dict[str, Any]]:  # fmt: skip
    """Verdicts, the answer, and ``look, alpha, fewest_seeds`` of the protocol."""
    from thalweg.compare import statistics

    names = list(values)
    reference = plan.asked["reference"]
    pairs = len(names) - 1 if reference else len(names) * (len(names) - 1) // 2
    number = plan.next_look()
    alpha = statistics.alpha_at_look(number)
    fewest = statistics.fewest_seeds(pairs, alpha) if pairs else 1
    look = {"look": number, "alpha": alpha, "fewest_seeds": fewest}
    if not complete:
        # No verdict on part of the seeds: that would be a look, and the next one would pay for it.
        return (
            [],
            f"No verdict yet: {done} of {total} runs are done; the same command goes on.",
            look,
        )
    if not pairs:
        shown = plain.median(next(iter(values.values())))
        ending = f"{_measure(facts)} {shown:.4g}" if math.isfinite(shown) else "no finite result"
        return [], f"{names[0]} raced alone on {facts['title']}: median {ending}.", look
    if all(math.isinf(v) for column in values.values() for v in column):
        return [], f"No method finished a run on {facts['title']}; the failures say why.", look
    plan.look(counts=plan.seeds >= fewest)
    verdicts = statistics.compare_all(
        values,
        scale=scale,
        margin=plan.asked["margin"],
        look=number,
        reference=reference,
        goal=facts["goal"],
        measure=_measure(facts),
    )
    answer = statistics.answer(verdicts, values, problem=facts["title"])
    return [_told(v) for v in verdicts], answer, look


def _told(verdict: Any) -> dict[str, Any]:
    more = verdict.more_seeds
    if more is not None:
        more = "more than 200" if math.isinf(more) else int(more)
    return {
        "word": verdict.word,
        "a": verdict.first,
        "b": verdict.second,
        "winner": verdict.winner,
        "mean": _number(verdict.mean),
        "sd": _number(verdict.sd),
        "low": _number(verdict.low),
        "high": _number(verdict.high),
        "p": float(verdict.p),
        "p_adjusted": float(verdict.p_adjusted),
        "more_seeds": more,
        "sentence": verdict.sentence,
    }


def _margin(plan: Plan, scale: str) -> float:
    from thalweg.compare import statistics

    asked = plan.asked["margin"]
    return float(statistics.DEFAULT_MARGIN[scale] if asked is None else asked)


def _ranking(
    values: Mapping[str, Sequence[float]], facts: Mapping[str, Any], alpha: float
) -> list[dict[str, Any]]:
    """Best median of the deciding metric first."""
    from thalweg.compare import paired

    sign = 1 if facts["goal"] == "min" else -1
    rows = []
    for name, column in values.items():
        if not column:
            continue
        done = sum(math.isfinite(v) for v in column)
        share = paired.clopper_pearson(done, len(column), 1 - alpha)
        median = _median(column)
        rows.append(
            (
                sign * median,
                {
                    "name": name,
                    "median_final": _number(median),
                    "success": done / len(column),
                    "success_low": share.low,
                    "success_high": share.high,
                },
            )
        )
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def _median_validation(method: Mapping[str, Any], facts: Mapping[str, Any]) -> float | None:
    values = _deciding(method["runs"], {**facts, "has_test": False})
    return _median(values) if values else None


def _median(values: Sequence[float]) -> float:
    """The median; the mean of two where one is infinite is infinite."""
    return float(plain.median(values))


def _measure(facts: Mapping[str, Any]) -> str:
    return f"{'test' if facts['has_test'] else 'training'} {facts['metric']}"


def _question(facts: Mapping[str, Any], methods: Sequence[Any], budget: Budget) -> str:
    extreme = "lowest" if facts["goal"] == "min" else "highest"
    return (
        f"Which of {_counted(len(methods), 'method')}, tuned equally, ends {facts['title']} with the "
        f"{extreme} {_measure(facts)} after {budget.words}?"
    )


# ------------------------------------------------------------------------- failures, reproduce


def _failures(plan: Plan, problem: Problem, runs: Mapping[str, Lines]) -> list[dict[str, Any]]:
    found = []
    for job in plan.jobs:
        end = runs[job.id][-1] if job.id in runs else None
        if end is None or end["status"] == "done":
            continue
        if problem.source is not None:
            command = (
                f"python -m thalweg.compare.repeat {shlex.quote(str(plan.directory))} {job.id}"
            )
        else:
            command = f"thalweg.compare.repeat.repeat({str(plan.directory)!r}, {job.id!r}, problem)"
        found.append(
            {
                "method": job.method,
                "stage": job.stage,
                "seed": job.seed,
                "trial": job.trial,
                "status": end["status"],
                "reason": end["reason"],
                "id": job.id,
                "command": command,
            }
        )
    return found


def _command(plan: Plan, problem: Problem) -> str:
    asked = plan.asked
    specs = [method["spec"] for method in asked["methods"]]
    options = {k: asked[k] for k in ("budget", "trials", "points", "reference", "margin")}
    if problem.source is None or asked["points"] != 30:
        given = {**options, "seeds": plan.seeds}
        told = ", ".join(f"{k}={v!r}" for k, v in given.items() if v is not None)
        what = "problem" if problem.source is None else repr(problem.source)
        return f"thalweg.compare({what}, {specs!r}, {told})"
    words = ["thalweg", "compare", problem.source, *specs]
    for name in ("budget", "trials", "reference", "margin"):
        if options[name] is not None:
            words += [f"--{name}", str(options[name])]
    return shlex.join([*words, "--seeds", str(plan.seeds)])


def _source_of(problem: Problem) -> str | None:
    import inspect

    try:
        return inspect.getsource(problem.function)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return None


def _all_versions(contenders: Sequence[Contender]) -> dict[str, str]:
    found = {"python": platform.python_version(), **versions()}
    others = {c.target.__module__.split(".", 1)[0] for c in contenders} - {"torch", "thalweg"}
    for package in ["numpy", "scipy", *sorted(others)]:
        try:
            found[package] = importlib.metadata.version(package.replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def _hardware(facts: Mapping[str, Any]) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        cpu = re.search(r"model name\s*:\s*(.+)", text).group(1).strip()  # type: ignore[union-attr]
    except (OSError, AttributeError):
        pass
    try:
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        memory = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu,
        "cores": cores,
        "memory_gb": memory,
        "platform": platform.platform(),
        "device": facts["device"],
    }


# ----------------------------------------------------------------------------------- files


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


def _report(found: Mapping[str, Any], directory: Path, single_file: bool) -> Path | None:
    needed = ("thalweg.compare.report", "jinja2", "plotly")
    if not all(importlib.util.find_spec(name) for name in needed):
        return None
    from thalweg.compare import report

    return report.write(found, directory, single_file=single_file)


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _finite_list(values: Any) -> list[float | None]:
    return [_number(v) for v in values]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
