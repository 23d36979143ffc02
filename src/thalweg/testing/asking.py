"""Optimizers asked in processes of their own, with a time limit: none can stop the others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from thalweg.testing import distributed
from thalweg.testing.peers import Job
from thalweg.testing.report import Clause, Finding, Outcome

SECONDS = 60.0  # for one clause
IMPORT = 60.0  # for importing torch and the library
STOPS = 2  # an optimizer that hung or crashed this often is asked nothing more


class Server:
    """The process that forks for every optimizer of one library: see `thalweg.testing.worker`."""

    def __init__(self, library: str) -> None:
        self.library = library
        self.child: int | None = None
        self.unread = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "thalweg.testing.worker", library],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.requests, self.answers = self.process.stdin, self.process.stdout
        os.set_blocking(self.answers.fileno(), False)

    def ask(self, job: Job, clauses: Sequence[Clause]) -> None:
        """Send one job; the answers come in `lines`."""
        line = [job.place, repr(dict(job.hyper)), [clause.name for clause in clauses]]
        with contextlib.suppress(BrokenPipeError):  # it died just now: `lines` will tell
            self.requests.write(json.dumps(line).encode() + b"\n")
            self.requests.flush()

    def lines(self) -> list[Any]:
        """The answers since the last call; ``["ended", ...]`` too if the server itself died."""
        died = self.process.poll()  # before reading: what it wrote is all there then
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.answers.fileno(), 1 << 16):
                self.unread += data
        *complete, self.unread = self.unread.split(b"\n")
        lines = [json.loads(line) for line in complete]
        for line in lines:
            if line[0] in ("started", "ended"):
                self.child = line[1] if line[0] == "started" else None
        if died is not None and not any(line[0] == "ended" for line in lines):
            self.child = None
            lines.append(["ended", died, ""])
        return lines

    @property
    def usable(self) -> bool:
        """Whether the process is alive."""
        return self.process.poll() is None

    def kill_child(self) -> None:
        """Kill the fork that is being asked, and what it started."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child, signal.SIGKILL)

    def close(self) -> None:
        """Kill the process and its fork."""
        self.kill_child()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.requests.close()
        self.answers.close()


class Asking:
    """One optimizer being asked; where it hangs or crashes, a second fork goes on.

    Examples
    --------
    >>> from thalweg.testing import CLAUSES
    >>> asking = Asking(Job("torch.optim", "torch.optim:SGD"), CLAUSES[:1], 60.0, None)
    >>> while not asking.poll():
    ...     time.sleep(0.01)
    >>> asking.findings[0].outcome
    <Outcome.PASS: 'pass'>
    >>> asking.server.close()
    """

    def __init__(
        self, job: Job, clauses: Sequence[Clause], seconds: float, server: Server | None
    ) -> None:
        self.job, self.seconds = job, seconds
        self.left = list(clauses)
        self.findings: list[Finding] = []
        self.left_out: str | None = None
        self.troubles: list[str] = []
        if server is not None and not (server.usable and server.library == job.library):
            server.close()
            server = None
        self.server = server or Server(job.library)
        self.start()

    def start(self) -> None:
        """Ask what is left, of a new process if the old one died."""
        self.late = False
        if not self.server.usable:
            self.server.close()
            self.server = Server(self.job.library)
        self.server.ask(self.job, self.left)
        self.deadline = time.monotonic() + max(self.seconds, IMPORT)

    @property
    def limit(self) -> float:
        """Seconds for the next answer; clauses on several processes have a limit of their own."""
        several = bool(self.left) and self.left[0].when == "distributed"
        return self.seconds + several * distributed.SECONDS

    def wait_again(self) -> None:
        """Give the next answer its full time."""
        self.deadline = time.monotonic() + self.limit

    def poll(self) -> bool:
        """Take the answers that have come; True once everything is known."""
        for kind, *words in self.server.lines():
            if kind == "built":
                self.left_out = words[0]
            elif kind == "found":
                name, outcome, detail = words
                self.findings.append(Finding(name, Outcome(outcome), detail))
                del self.left[0]
            elif kind == "ended":
                return self.ended(*words)
            self.wait_again()
        if time.monotonic() > self.deadline:
            self.late = True  # and go on waiting for the end of it
            self.server.kill_child()
            if self.server.child is None:  # the library itself hangs when imported
                self.server.close()
                return self.ended(-signal.SIGKILL, "")
            self.wait_again()
        return False

    def ended(self, code: int, said: str) -> bool:
        """Take the end of a fork; True once everything is known."""
        if self.left_out is not None or not self.left:
            return True
        if self.late:
            how = f"no answer within {self.limit:g} s"
        else:
            died = f"died of {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            how = f"{died} ({said})" if said else died
        clause = self.left.pop(0)
        self.troubles.append(f"{clause.name}: {how}")
        self.findings.append(Finding(clause.name, Outcome.FAIL, f"got {how}; expected an answer"))
        if self.left and len(self.troubles) < STOPS:
            self.start()
            return False
        why = f"not asked: it hung or crashed {STOPS} times before"
        self.findings += [Finding(c.name, Outcome.NOT_APPLICABLE, why) for c in self.left]
        self.left.clear()
        return True


def environment() -> dict[str, str]:
    """One thread a process, and the caller's import path."""
    path = os.pathsep.join(part or os.getcwd() for part in sys.path)
    threads = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    return os.environ | threads | {"PYTHONPATH": path}
