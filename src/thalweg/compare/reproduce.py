"""What it takes to make a race, or one of its runs, again."""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thalweg.compare.contender import Contender
from thalweg.compare.plan import Plan, versions
from thalweg.compare.problems import Problem


def failures(
    plan: Plan, problem: Problem, runs: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Runs that diverged or failed, each with what repeats it."""
    found: list[dict[str, Any]] = []
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


def command(plan: Plan, problem: Problem) -> str:
    """The command that makes the race again; the Python call where no command can."""
    asked = plan.asked
    specs = [method["spec"] for method in asked["methods"]]
    options = {k: asked[k] for k in ("budget", "trials", "points", "reference", "margin")}
    options["adaptive"] = asked["adaptive"]["name"] if plan.adaptive else None
    if problem.source is None or asked["points"] != 30:
        given = {**options, "seeds": plan.seeds}
        told = ", ".join(f"{k}={v!r}" for k, v in given.items() if v is not None)
        what = "problem" if problem.source is None else repr(problem.source)
        return f"thalweg.compare({what}, {specs!r}, {told})"
    words = ["thalweg", "compare", problem.source, *specs]
    for name in ("budget", "trials", "adaptive", "reference", "margin"):
        if options[name] is not None:
            words += [f"--{name}", str(options[name])]
    return shlex.join([*words, "--seeds", str(plan.seeds)])


def source_of(problem: Problem) -> str | None:
    """The text of the problem's function, where there is one."""
    try:
        return inspect.getsource(problem.function)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return None


def all_versions(
    contenders: Sequence[Contender], sampler: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Versions of Python, of what computes, of the packages the methods and trials are from."""
    found = {"python": platform.python_version(), **versions()}
    if sampler is not None:
        found[sampler["name"]] = sampler["version"]
    others = {c.target.__module__.split(".", 1)[0] for c in contenders} - {"torch", "thalweg"}
    for package in ["numpy", "scipy", *sorted(others)]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package.replace("_", "-"))
    return found


def hardware(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The machine, as the report names it."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        cpu = model.group(1).strip() if model else cpu
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
