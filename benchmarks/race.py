"""The race that `thalweg compare` runs when nothing is said, on two workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from timing import Comparison, Sample, Settings, Suite

JOBS = 2
SHORT = ("SGD", "Adam", "--budget", "10steps", "--trials", "2", "--seeds", "2")

FIRST, WALL, SHARE = "time to the first row", "wall time", "share of coordination"


def run(settings: Settings) -> dict[str, Sample]:
    """Run it once, in a process of its own, and watch its lines.

    *Time to the first row* is from the command to the first finished run on the screen, *wall time*
    to the command's end, report included. The *share of coordination* is

        1 - (seconds of all jobs) / (workers x wall time of the stages),

    where a job's seconds last from its model's construction to its end line, and a stage from its
    heading to its last row: what is left is joblib's dispatch, files, the terminal, and a worker
    that idles while the other ends a stage. Tuning, the first stage, is left out: its wall time is
    mostly the start of the workers, which the time to the first row shows.
    """
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "race"
        command = [
            sys.executable,
            "-m",
            "thalweg.cli",
            "compare",
            *(SHORT if settings.tiny else ()),
        ]
        start = time.perf_counter()
        process = subprocess.Popen(
            [*command, "-j", str(JOBS), "-o", str(directory)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        lines = [(time.perf_counter() - start, line) for line in process.stdout]
        code, wall = process.wait(), time.perf_counter() - start
        if code:
            raise RuntimeError(f"the race ended with exit code {code}:\n{lines[-1:]}")
        first = next(moment for moment, line in lines if line.startswith("["))
        return {
            FIRST: Sample([first]),
            WALL: Sample([wall]),
            SHARE: Sample([100 * coordination(lines, directory)]),
        }


def coordination(lines: Sequence[tuple[float, str]], directory: Path) -> float:
    """The share of the workers' time in which no job ran, after tuning."""
    heading = next(i for i, (_, line) in enumerate(lines) if line.startswith("-- measuring"))
    last = max(i for i, (_, line) in enumerate(lines) if line.startswith("["))
    wall = lines[last][0] - lines[heading][0]
    plan = json.loads((directory / "plan.json").read_text())
    seconds = 0.0
    for job in plan["jobs"]:
        if job["stage"] != "tune":
            record = (directory / "runs" / f"{job['id']}.jsonl").read_text()
            seconds += json.loads(record.splitlines()[-1])["job_seconds"]
    return 1 - seconds / (JOBS * wall)


_found: dict[Settings, dict[str, Sample]] = {}


def _once(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    if settings not in _found:
        _found[settings] = run(settings)
    return _found[settings]


SUITES = (
    Suite(
        "thalweg compare -j 2, all defaults",
        "s",
        [
            Comparison("digits-mlp", FIRST, limit=15.0),
            Comparison("digits-mlp", WALL, limit=120.0),
        ],
        _once,
        heavy=True,
    ),
    Suite(
        "thalweg compare -j 2, all defaults: workers not working",
        "%",
        [Comparison("digits-mlp", SHARE, limit=2.0)],
        _once,
        heavy=True,
    ),
)
