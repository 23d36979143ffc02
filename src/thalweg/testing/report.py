"""What a contract says: clauses, what was found for each, and the report that collects them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table


class Outcome(StrEnum):
    """How a clause ended; only `FAIL` makes a report not ok.

    `NOTE` is a true weakness that `torch.optim.Optimizer` itself has, so that nobody can be blamed
    for inheriting it; `REFUSED` is a clear error where the alternative would be a wrong result.
    """

    PASS = "pass"
    FAIL = "fail"
    REFUSED = "refused"
    NOT_APPLICABLE = "not applicable"
    NOTE = "note"


class Verdict(NamedTuple):
    """What one check returns: the outcome and one sentence."""

    outcome: Outcome
    detail: str


def passed(detail: str) -> Verdict:
    """The clause holds."""
    return Verdict(Outcome.PASS, detail)


def failed(got: str, expected: str) -> Verdict:
    """It does not: what was got, and what was expected."""
    return Verdict(Outcome.FAIL, f"got {got}; expected {expected}")


def refused(detail: str) -> Verdict:
    """A clear error instead of a wrong result."""
    return Verdict(Outcome.REFUSED, detail)


def not_applicable(detail: str) -> Verdict:
    """There is nothing to check, and why."""
    return Verdict(Outcome.NOT_APPLICABLE, detail)


def noted(detail: str) -> Verdict:
    """A weakness that torch.optim.Optimizer has too."""
    return Verdict(Outcome.NOTE, detail)


@dataclass(frozen=True)
class Clause:
    """One sentence of the contract and the pure function that checks it.

    Parameters
    ----------
    name
        Short name, used to select the clause.
    statement
        What must hold, in one sentence.
    check
        ``check(subject) -> Verdict``.
    when
        ``"always"``, ``"distributed"`` (with ``distributed=True``) or ``"named"`` (only when its
        name is in ``checks``).
    """

    name: str
    statement: str
    check: Callable[[Any], Verdict]
    when: str = "always"


@dataclass(frozen=True)
class Finding:
    """The outcome of one clause."""

    clause: str
    outcome: Outcome
    detail: str

    def __iter__(self) -> Iterator[str]:
        return iter((self.clause, str(self.outcome), self.detail))


@dataclass(frozen=True)
class ContractReport:
    """What was found, clause by clause, for one optimizer class.

    Parameters
    ----------
    subject
        The class and its hyper-parameters, as text.
    findings
        One `Finding` (clause, outcome, detail) per clause, in the order of the contract.

    Examples
    --------
    >>> report = ContractReport("Adam()", (Finding("closure", Outcome.PASS, "called once"),))
    >>> report.ok, report["closure"].detail
    (True, 'called once')
    >>> [tuple(finding) for finding in report]
    [('closure', 'pass', 'called once')]
    """

    subject: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True if no clause failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the clauses that failed."""
        return self.named(Outcome.FAIL)

    def named(self, outcome: Outcome | str) -> tuple[str, ...]:
        """Names of the clauses that ended with `outcome`."""
        wanted = Outcome(outcome)
        return tuple(f.clause for f in self.findings if f.outcome is wanted)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, clause: str) -> Finding:
        for finding in self.findings:
            if finding.clause == clause:
                return finding
        raise KeyError(f"no clause {clause!r} in this report; it has {[f.clause for f in self]}")

    def table(self) -> Table:
        """The report as a `rich.table.Table`."""
        from rich.table import Table
        from rich.text import Text

        colour = {
            Outcome.PASS: "green",
            Outcome.FAIL: "bold red",
            Outcome.REFUSED: "yellow",
            Outcome.NOT_APPLICABLE: "dim",
            Outcome.NOTE: "cyan",
        }
        table = Table(title=f"Optimizer contract: {self.subject}")
        for header in ("clause", "outcome", "detail"):
            table.add_column(header, overflow="fold")
        for f in self.findings:
            # Text, not markup: a detail may hold square brackets of the optimizer's own message.
            table.add_row(
                Text(f.clause), Text(str(f.outcome), style=colour[f.outcome]), Text(f.detail)
            )
        return table

    def raise_if_failed(self) -> ContractReport:
        """Return the report, or raise an AssertionError that lists every clause that failed."""
        if self.ok:
            return self
        lines = [f"  {f.clause}: {f.detail}" for f in self if f.outcome is Outcome.FAIL]
        count = f"{len(lines)} of {len(self.findings)} clauses"
        raise AssertionError(f"{self.subject} fails {count}:\n" + "\n".join(lines))
