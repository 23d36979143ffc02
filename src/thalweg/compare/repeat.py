"""Repeat one run, with its traceback: ``python -m thalweg.compare.repeat DIRECTORY ID``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thalweg.compare.errors import BadInput
from thalweg.compare.methods import resolve
from thalweg.compare.plan import Job
from thalweg.compare.problems import load
from thalweg.compare.solving import run_job
from thalweg.core import Training


def repeat(
    directory: str | Path, job_id: str, problem: Callable[[int], Training] | None = None
) -> dict[str, Any]:
    """Run one job of a race again; nothing is written.

    Parameters
    ----------
    directory
        The race directory.
    job_id
        Name of the run's file without ``.jsonl``.
    problem
        The function, for a race on a function that is in no file.

    Returns
    -------
    dict
        The end line: status, reason, final metrics, and the traceback of a failure.
    """
    path = Path(directory) / "plan.json"
    if not path.exists():
        raise BadInput(f"{directory} is not a race directory: it has no plan.json")
    plan = json.loads(path.read_text(encoding="utf-8"))
    found = next((job for job in plan["jobs"] if job["id"] == job_id), None)
    if found is None:
        raise BadInput(f"{path} has no job {job_id!r}")
    source = plan["asked"]["problem"]["source"]
    if problem is None and source is None:
        raise BadInput("this race was on a function: give it as `problem`")
    contenders = resolve([method["spec"] for method in plan["asked"]["methods"]])
    contender = next(c for c in contenders if c.name == found["method"])
    job = Job(**{**found, "at": tuple(found["at"])})
    end: dict[str, Any] = json.loads(
        run_job(job, contender, load(problem or source)).splitlines()[-1]
    )
    return end


def main(arguments: list[str]) -> int:
    """Print the end line, and the traceback of a failure; 3 if the run failed."""
    if len(arguments) != 2:
        print("usage: python -m thalweg.compare.repeat DIRECTORY ID", file=sys.stderr)
        return 2
    try:
        end = repeat(arguments[0], arguments[1])
    except BadInput as error:
        print(error.traceback or "", f"thalweg: {error}", sep="", file=sys.stderr)
        return 2
    print(end.pop("traceback", ""), json.dumps(end, indent=1), sep="")
    return 3 if end["status"] == "failed" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
