"""Clauses on several processes: two local gloo ranks must follow the single process."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

from thalweg.testing.report import Outcome, Verdict, failed, not_applicable, passed
from thalweg.testing.subject import Subject

SECONDS = 120  # hard limit: a rank that waits for a collective nobody joins waits forever
STAGES = ("DDP", "FSDP2", "FSDP2 resume", "tensor parallel")


def clause(stage: str) -> Callable[[Subject], Verdict]:
    """The check of one stage; all stages share one pair of processes."""

    def check(subject: Subject) -> Verdict:
        if subject.closure:
            return not_applicable("needs a closure")
        if subject.dtype is not torch.float32:
            return not_applicable("takes bfloat16 parameters only")
        module = getattr(subject.cls, "__module__", "__main__")
        name = getattr(subject.cls, "__qualname__", "<lambda>")
        if module == "__main__" or "<" in name:
            return not_applicable(f"{name} of {module} cannot be imported by another process")
        hyper = pickle.dumps(dict(subject.hyper))
        outcome, detail = two_processes(module, name, hyper, subject.bias)[stage]
        return Verdict(Outcome(outcome), detail)

    return check


@lru_cache(maxsize=1)
def two_processes(module: str, name: str, hyper: bytes, bias: bool) -> dict[str, Verdict]:
    """Start both ranks, wait, and merge their answers stage by stage."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
        }
        if sys.platform == "linux":
            environment["GLOO_SOCKET_IFNAME"] = "lo"
        processes = []
        logs = []
        try:
            for rank in (0, 1):
                log = Path(folder) / f"rank{rank}"
                logs.append(log)
                with log.open("wb") as out, log.with_suffix(".err").open("wb") as err:
                    process = subprocess.Popen(
                        [sys.executable, "-m", "thalweg.testing.rank", folder, str(rank)]
                        + [module, name, str(int(bias)), hyper.hex()],
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=err,
                    )
                processes.append(process)
            late = not wait(processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        answers = [read(log) for log in logs]
        errors = [log.with_suffix(".err").read_text(errors="replace") for log in logs]
    return {stage: merge(stage, answers, errors, late) for stage in STAGES}


def wait(processes: list[subprocess.Popen[bytes]]) -> bool:
    """True if all ended in time. A rank that dies leaves the other waiting: stop then, too."""
    deadline = time.monotonic() + SECONDS
    while any(p.poll() is None for p in processes):
        if time.monotonic() > deadline:
            return False
        if any(p.poll() not in (None, 0) for p in processes):
            time.sleep(1.0)
            return True
        time.sleep(0.05)
    return True


def read(log: Path) -> dict[str, str | None]:
    """stage -> None if it holds, else what was got: one JSON line per stage."""
    found: dict[str, str | None] = {}
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith('["'):
            stage, problem = json.loads(line)
            found[stage] = problem
    return found


def merge(
    stage: str, answers: list[dict[str, str | None]], errors: list[str], late: bool
) -> Verdict:
    """One verdict from what both ranks answered, what they printed, and whether they were late."""
    expected = {
        "DDP": "the parameters of the single process on both ranks",
        "FSDP2": "the parameters of the single process, shard by shard",
        "FSDP2 resume": "the same bits as the uninterrupted sharded run",
        "tensor parallel": "the parameters of the single process, column by column, row by row",
    }[stage]
    for rank, answer in enumerate(answers):
        if answer.get(stage):
            return failed(f"{answer[stage]} on rank {rank}", expected)
    for rank, answer in enumerate(answers):
        if stage not in answer:
            last = errors[rank].strip().splitlines()[-1:] or ["no error message"]
            why = f"no answer within {SECONDS} s" if late else last[0][:200]
            return failed(f"{why} on rank {rank}", expected)
    return passed(f"2 processes: {expected}")
