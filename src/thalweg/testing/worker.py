"""The process that asks optimizers of one library; started by `thalweg.testing.asking`.

It imports torch and the library once and then forks for every optimizer: importing takes far
longer than asking, and a fork can hang or crash without harm to the next. Reads one job a line
from standard input, ``[place, hyper, clauses]``, and answers in JSON lines:

    ["started", pid]                      the fork
    ["built", null or why it cannot be asked]
    ["found", clause, outcome, detail]    one a clause, as soon as it is known
    ["ended", exit code, last words]      the fork is gone
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from thalweg.testing.contract import check_optimizer, prepare, undisturbed
from thalweg.testing.peers import Job, load
from thalweg.testing.subject import message

# What the first optimizer.step() imports, and the first compilation; seconds, so only once.
STEPPING = ("torch._dynamo",)
COMPILING = ("torch._inductor.compile_fx",)


def main(library: str) -> None:
    """Answer the jobs on standard input until it ends."""
    warnings.simplefilter("ignore")
    # Standard output is for the answers alone: whatever else is printed goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(*line: Any) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    for line in sys.stdin:
        place, hyper, clauses = json.loads(line)
        job = Job(library, place, ast.literal_eval(hyper))
        with contextlib.suppress(Exception):  # what is wrong here is wrong in the fork, and told
            for module in STEPPING + COMPILING * ("compile" in clauses):
                importlib.import_module(module)
            load(job)
        with tempfile.TemporaryFile() as words:
            child = os.fork()
            if child == 0:
                os.setpgid(0, 0)  # so that what it starts can be killed with it
                os.dup2(words.fileno(), 1)
                os.dup2(words.fileno(), 2)
                ask(job, clauses, answer)
                os._exit(0)
            with contextlib.suppress(OSError):
                os.setpgid(child, child)
            answer("started", child)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            words.seek(0)
            said = words.read().decode(errors="replace").strip().splitlines()
        answer("ended", code, said[-1].strip()[:200] if said else "")


def ask(job: Job, clauses: Sequence[str], answer: Callable[..., None]) -> None:
    """Hold one optimizer to the contract, clause by clause."""
    try:
        cls = load(job)
        with undisturbed():
            problem = prepare(cls, dict(job.hyper))[1]
    except Exception as error:
        answer("built", message(error))
        return
    answer("built", problem.detail if problem else None)
    if problem is None:
        for name in clauses:
            answer("found", *check_optimizer(cls, checks=(name,), **job.hyper)[name])


if __name__ == "__main__":
    main(sys.argv[1])
