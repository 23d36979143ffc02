"""The contract over many optimizers: each asked in a process of its own, the answers counted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thalweg.core import check
from thalweg.testing.asking import SECONDS, Asking, Server, environment
from thalweg.testing.contract import CLAUSES
from thalweg.testing.peers import Job, Library
from thalweg.testing.report import Clause, ContractReport, Finding, Outcome

SCHEMA = "thalweg.contract/1"


@dataclass(frozen=True)
class Row:
    """What was found for one optimizer.

    Parameters
    ----------
    library, method, place
        Whose it is, the class with its hyper-parameters, ``"module:Class"``.
    findings
        One per clause; empty if it was left out.
    left_out
        Why it could not be asked: it is not built from parameters alone, or takes other steps.
    trouble
        How its process ended, if not by itself: hung or crashed.

    Examples
    --------
    >>> finding = Finding("closure", Outcome.PASS, "called once")
    >>> Row("torch.optim", "SGD", "torch.optim:SGD", (finding,)).ok
    True
    """

    library: str
    method: str
    place: str
    findings: tuple[Finding, ...] = ()
    left_out: str | None = None
    trouble: str | None = None

    @property
    def report(self) -> ContractReport:
        """The findings as the report of one optimizer."""
        return ContractReport(f"{self.library} {self.method}", self.findings)

    @property
    def ok(self) -> bool:
        """True if it was asked and no clause failed."""
        return self.left_out is None and self.report.ok


@dataclass(frozen=True)
class Share:
    """How many methods of a library hold a clause, of those it applies to."""

    held: int = 0
    noted: int = 0
    asked: int = 0

    def __str__(self) -> str:
        return f"{self.held}/{self.asked}" if self.asked else "-"

    @property
    def failed(self) -> int:
        """How many break it; a weakness inherited from `torch.optim.Optimizer` is only noted."""
        return self.asked - self.held - self.noted


def clauses_of(*, distributed: bool = False) -> list[Clause]:
    """The clauses of the table: all of the contract, those on two processes if asked for.

    Examples
    --------
    >>> "FSDP2" in [clause.name for clause in clauses_of()]
    False
    """
    return [clause for clause in CLAUSES if distributed or clause.when != "distributed"]


def group(clause: Clause) -> str:
    """What a clause is about: the file its check stands in.

    Examples
    --------
    >>> [group(clause) for clause in CLAUSES if clause.name in ("closure", "pickle")]
    ['resume', 'gradients']
    """
    return clause.check.__module__.rpartition(".")[2]


def methods(library: Library, seconds: float = SECONDS) -> list[Job]:
    """The optimizers of an installed library, listed by another process.

    Raises
    ------
    RuntimeError
        If it cannot be imported there.
    """
    command = [sys.executable, "-m", "thalweg.testing.peers", library.name]
    try:
        found = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{library.name} was not imported within {seconds:g} s") from None
    if found.returncode:
        why = (found.stderr.strip().splitlines() or ["no error message"])[-1]
        raise RuntimeError(f"{library.name} cannot be imported: {why[:200]}")
    places = json.loads(found.stdout.strip().splitlines()[-1])
    return [Job(library.name, place) for place in places]


def run(
    jobs: Sequence[Job],
    clauses: Iterable[Clause] | None = None,
    *,
    processes: int = 1,
    seconds: float = SECONDS,
    tell: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Ask every optimizer, each in a process of its own, so that none can stop the others.

    Parameters
    ----------
    jobs
        The optimizers.
    clauses
        The clauses; default: `clauses_of()`.
    processes
        How many are asked at the same time, >= 1. Default 1.
    seconds
        Time for one clause, > 0; those on several processes have their own on top. Default 60.
    tell
        Called with each row as it is complete.

    Returns
    -------
    list of Row
        In the order of `jobs`.

    Raises
    ------
    ValueError
        For a number out of range.

    Examples
    --------
    >>> closure = [clause for clause in CLAUSES if clause.name == "closure"]
    >>> [row] = run([Job("torch.optim", "torch.optim:SGD")], closure)
    >>> [tuple(finding)[:2] for finding in row.findings]
    [('closure', 'pass')]
    """
    check.number("processes", processes, ge=1, integer=True)
    check.number("seconds", seconds, gt=0)
    chosen = list(clauses_of() if clauses is None else clauses)
    waiting = list(enumerate(jobs))[::-1]
    asking: dict[int, Asking] = {}
    idle: list[Server] = []
    rows: dict[int, Row] = {}
    try:
        while waiting or asking:
            while waiting and len(asking) < processes:
                index, job = waiting.pop()
                asking[index] = Asking(job, chosen, seconds, idle.pop() if idle else None)
            for index, one in list(asking.items()):
                if one.poll():
                    del asking[index]
                    idle.append(one.server)
                    rows[index] = complete(one)
                    if tell:
                        tell(rows[index])
            time.sleep(0.01)
    finally:
        for server in [*idle, *(one.server for one in asking.values())]:
            server.close()
    return [rows[index] for index in range(len(jobs))]


def complete(asking: Asking) -> Row:
    """What was found, as a row."""
    job, trouble = asking.job, "; ".join(asking.troubles) or None
    findings = tuple(asking.findings)
    return Row(job.library, job.method, job.place, findings, asking.left_out, trouble)


def tabulate(rows: Iterable[Row]) -> dict[str, dict[str, Share]]:
    """Per library and clause, the share of methods that hold it.

    A clear refusal holds a clause; a clause that does not apply to a method is not counted for it,
    and neither is a method that was left out.

    Examples
    --------
    >>> rows = [
    ...     Row("mine", name, f"mine:{name}", (Finding("closure", outcome, ""),))
    ...     for name, outcome in [("A", Outcome.PASS), ("B", Outcome.FAIL)]
    ... ]
    >>> str(tabulate(rows)["mine"]["closure"])
    '1/2'
    """
    table: dict[str, dict[str, Share]] = {}
    for row in rows:
        shares = table.setdefault(row.library, {})
        for f in row.findings:
            old = shares.get(f.clause, Share())
            shares[f.clause] = Share(
                old.held + (f.outcome in (Outcome.PASS, Outcome.REFUSED)),
                old.noted + (f.outcome is Outcome.NOTE),
                old.asked + (f.outcome is not Outcome.NOT_APPLICABLE),
            )
    return table


def record(
    rows: Iterable[Row],
    clauses: Iterable[Clause],
    *,
    command: str = "",
    versions: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """All that was found, for JSON; no date in it, so that the same findings give the same file.

    Examples
    --------
    >>> row = Row("mine", "A", "mine:A", (Finding("closure", Outcome.PASS, "called once"),))
    >>> rows_of(json.loads(as_json(record([row], CLAUSES)))) == [row]
    True
    """
    return {
        "schema": SCHEMA,
        "command": command,
        "versions": dict(versions or {}),
        "notes": dict(notes or {}),
        "clauses": [
            {"name": c.name, "group": group(c), "statement": c.statement, "when": c.when}
            for c in clauses
        ],
        "rows": [
            {
                "library": row.library,
                "method": row.method,
                "place": row.place,
                "left_out": row.left_out,
                "trouble": row.trouble,
                "findings": {f.clause: [str(f.outcome), f.detail] for f in row.findings},
            }
            for row in rows
        ],
    }


def as_json(record: Mapping[str, Any]) -> str:
    """A record as JSON text, one line a method, so that a change of one is a change of a line."""
    head = json.dumps({k: v for k, v in record.items() if k != "rows"}, indent=2)
    rows = ",\n".join("    " + json.dumps(row) for row in record["rows"])
    return head.removesuffix("\n}") + f',\n  "rows": [\n{rows}\n  ]\n}}\n'


def rows_of(record: Mapping[str, Any]) -> list[Row]:
    """The rows of a record.

    Raises
    ------
    ValueError
        If it is no record of this table.
    """
    if record.get("schema") != SCHEMA:
        raise ValueError(f"schema must be {SCHEMA!r}, got {record.get('schema')!r}")
    return [
        Row(
            row["library"],
            row["method"],
            row["place"],
            tuple(Finding(name, Outcome(o), text) for name, (o, text) in row["findings"].items()),
            row["left_out"],
            row["trouble"],
        )
        for row in record["rows"]
    ]
