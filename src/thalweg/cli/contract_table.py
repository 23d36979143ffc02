"""``thalweg check-optimizer --all``: the contract over every optimizer, as a table."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from thalweg.testing.report import Clause
    from thalweg.testing.table import Row

MARKS = {
    "pass": ("✓", "green"),
    "refused": ("r", "yellow"),
    "note": ("n", "cyan"),
    "not applicable": ("·", "dim"),
    "fail": ("✗", "bold red"),
}
LEGEND = (
    "✓ holds  r refused with a clear error  n weakness of torch.optim.Optimizer itself  "
    "· does not apply  ✗ broken"
)


def contract_table(
    *,
    peers: bool,
    distributed: bool,
    processes: int,
    seconds: float,
    verbose: bool,
    file: Path | None,
    as_json: bool,
) -> bool:
    """Ask, print and write; True if every optimizer of thalweg meets the contract."""
    from rich.console import Console

    from thalweg import __version__
    from thalweg.testing import table
    from thalweg.testing.peers import LIBRARIES, ours

    jobs = ours()
    versions = {
        "python": platform.python_version(),
        "torch": version_of_torch(),
        "thalweg": __version__,
    }
    notes: dict[str, str] = {}
    for library in LIBRARIES if peers else ():
        if library.version is None:
            notes[library.name] = f"not installed: {library.install}"
            continue
        versions[library.name] = library.version
        try:
            jobs += table.methods(library, seconds)
        except RuntimeError as error:
            notes[library.name] = str(error)
            continue
        if library.how:
            notes[library.name] = library.how
    clauses = table.clauses_of(distributed=distributed)
    progress = Console(stderr=True)
    with progress.status(f"0/{len(jobs)}") as status:  # silent unless this is a terminal
        done: list[Row] = []

        def tell(row: Row) -> None:
            done.append(row)
            status.update(f"{len(done)}/{len(jobs)} {row.library} {row.method}")

        rows = table.run(jobs, clauses, processes=processes, seconds=seconds, tell=tell)
    found = table.record(
        rows, clauses, command=command(peers, distributed), versions=versions, notes=notes
    )
    if file is not None:
        file.write_text(table.as_json(found), encoding="utf-8")
    if as_json and file is None:
        typer.echo(table.as_json(found), nl=False)
    else:
        show(Console(), rows, clauses, versions, notes, verbose=verbose)
    return all(row.ok for row in rows if row.library == "thalweg")


def command(peers: bool, distributed: bool) -> str:
    """The command that gives this table again."""
    options = " --peers" * peers + " --distributed" * distributed
    return f"thalweg check-optimizer --all{options}"


def version_of_torch() -> str:
    """The torch the table was made with."""
    import torch

    return torch.__version__


def show(
    console: Console,
    rows: Sequence[Row],
    clauses: Sequence[Clause],
    versions: Mapping[str, str],
    notes: Mapping[str, str],
    *,
    verbose: bool = False,
) -> None:
    """The table of ours, what is broken in it, and the shares of the others."""
    from rich.text import Text

    ours = [row for row in rows if row.library == "thalweg"]
    if verbose:
        for row in rows:
            if row.left_out is None:
                console.print(row.report.table())
            else:
                console.print(Text(f"{row.library} {row.method} left out: {row.left_out}"))
    print_methods(console, ours, clauses)
    for row in rows:
        if row.library == "thalweg":
            for sentence in broken(row):
                console.print(Text(sentence, style="red"))
        elif row.trouble:
            console.print(Text(f"{row.library} {row.method}: {row.trouble}", style="yellow"))
    if len(rows) > len(ours):
        print_shares(console, rows, clauses, versions)
    for name, note in notes.items():
        console.print(Text(f"{name}: {note}", style="yellow" if name not in versions else ""))
    bad = sum(not row.ok for row in ours)
    verdict = f"{bad} of them break it" if bad else "nothing is broken"
    console.print(
        Text(f"{len(ours)} optimizers of thalweg, {len(clauses)} clauses: {verdict}", style="bold")
    )


def broken(row: Row) -> Iterable[str]:
    """A sentence for everything that is wrong with a row."""
    if row.left_out is not None:
        yield f"{row.method} cannot be asked: {row.left_out}"
    for finding in row.findings:
        if finding.outcome == "fail":
            yield f"{row.method} breaks {finding.clause!r}: {finding.detail}"


def by_group(clauses: Sequence[Clause]) -> dict[str, list[Clause]]:
    """The clauses under what they are about, in the order of the contract."""
    from thalweg.testing.table import group

    groups: dict[str, list[Clause]] = {}
    for clause in clauses:
        groups.setdefault(group(clause), []).append(clause)
    return groups


def print_methods(console: Console, rows: Sequence[Row], clauses: Sequence[Clause]) -> None:
    """A line a method, a mark a clause, and the names of the clauses in the order of the marks."""
    from rich.table import Table
    from rich.text import Text

    groups = by_group(clauses)
    table = Table(box=None, pad_edge=False)
    for heading in ("optimizer", *groups):
        table.add_column(heading, header_style="dim", no_wrap=heading != "optimizer")
    for row in rows:
        outcome = {finding.clause: str(finding.outcome) for finding in row.findings}
        cells = [Text(row.method, style="" if row.ok else "bold red")]
        for members in groups.values():
            marks = [MARKS[outcome.get(c.name, "not applicable")] for c in members]
            cells.append(Text.assemble(*marks))
        table.add_row(*cells)
    console.print(table)
    console.print(Text(f"\n{LEGEND}", style="dim"))
    for name, members in groups.items():
        words = ", ".join(clause.name for clause in members)
        console.print(Text.assemble((f"{name}: ", "bold"), (words, "dim")))


def print_shares(
    console: Console,
    rows: Sequence[Row],
    clauses: Sequence[Clause],
    versions: Mapping[str, str],
) -> None:
    """A line a clause, a library a column: how many of its methods hold it, of those asked."""
    from rich.table import Table
    from rich.text import Text

    from thalweg.testing.table import Share, tabulate

    shares = tabulate(rows)
    table = Table(box=None, pad_edge=False)
    table.add_column("clause", header_style="dim")
    libraries = [name for name, _ in groupby(rows, key=lambda row: row.library)]
    for library in libraries:
        table.add_column(f"{library}\n{versions.get(library, '')}", justify="right")
    for name, members in by_group(clauses).items():
        table.add_row(Text(name, style="bold"))
        for clause in members:
            cells = [shares.get(library, {}).get(clause.name, Share()) for library in libraries]
            table.add_row(f"  {clause.name}", *(Text(str(s), style=colour(s)) for s in cells))
    left = [[r.left_out is not None for r in rows if r.library == name] for name in libraries]
    table.add_row()
    table.add_row("left out, of all", *(f"{sum(x)} of {len(x)}" for x in left))
    console.print()
    console.print(table)
    console.print(
        Text("left out: needs more than its parameters to be built and stepped\n", style="dim")
    )


def colour(share: Any) -> str:
    """By the worst that was found: red, cyan for notes, green; dim where nothing was asked."""
    if not share.asked:
        return "dim"
    return "red" if share.failed else "cyan" if share.noted else "green"


def available() -> int:
    """How many processors this process may use."""
    import os

    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
