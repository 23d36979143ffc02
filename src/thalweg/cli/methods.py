"""``thalweg methods``: the catalogue."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.errors import stop

if TYPE_CHECKING:
    from thalweg.core.catalogue import Entry


def methods(
    family: Annotated[
        str | None, typer.Option(help="Only this family, for example adaptive.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, search spaces included.")
    ] = False,
) -> None:
    """List the methods: what each is, the memory it needs, where it comes from.

    \b
    Examples:
      thalweg methods
      thalweg methods --family adaptive
      thalweg methods --json
    """
    entries = catalogue()
    if family is not None:
        entries = [entry for entry in entries if entry.family.lower() == family.lower()] or (
            _no_family(family, entries)
        )
    if as_json:
        typer.echo(json.dumps([facts(entry) for entry in entries], indent=2))
    else:
        _print_table(entries)


def catalogue() -> list[Entry]:
    """Every method of the house; of these the optimizers race on networks, solvers on problems."""
    import thalweg.learn
    import thalweg.nn
    import thalweg.optim
    import thalweg.solve.recovery
    from thalweg.core.catalogue import collect

    return collect(thalweg.optim, thalweg.solve.recovery, thalweg.nn, thalweg.learn)


def facts(entry: Entry) -> dict[str, Any]:
    """One line of the catalogue as JSON."""
    from thalweg.compare.spaces import describe_axis
    from thalweg.core.catalogue import names_of

    return {
        "name": entry.name,
        "place": entry.place,
        "family": entry.family,
        "summary": entry.summary,
        "paper": entry.paper,
        "year": entry.year,
        "memory": entry.memory,
        "needs": list(entry.needs),
        "problems": names_of(entry.problems),
        "search_space": [describe_axis(name, axis) for name, axis in entry.search_space.items()],
    }


def plain(summary: str) -> str:
    r"""A line of a docstring without its mark-up.

    Examples
    --------
    >>> plain(r"Samples from :math:`\exp(-U)`, with ``lr`` fixed")
    'Samples from exp(-U), with lr fixed'
    """
    bare = re.sub(r":\w+:`([^`]*)`", lambda m: m[1].replace("\\", ""), summary)
    return bare.replace("`", "")


def _no_family(family: str, entries: list[Entry]) -> list[Entry]:
    from thalweg.core import check

    known = sorted({entry.family for entry in entries})
    raise stop(
        f"--family must be one of {', '.join(known)}, got {family!r}"
        f"{check.did_you_mean(family, known)}"
    )


def _print_table(entries: list[Entry]) -> None:
    from itertools import groupby

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from thalweg.core.catalogue import names_of

    console = Console()
    if not console.is_terminal:  # a pipe has no width: one line a method
        console = Console(width=max(console.width, 240))
    table = Table(box=None, pad_edge=False)
    for heading in ("method", "what it is", "memory", "source"):
        table.add_column(heading, header_style="dim", no_wrap=heading == "method")
    for family, members in groupby(entries, key=lambda entry: entry.family):
        table.add_row()
        table.add_row(Text(family, style="bold"))
        for entry in members:
            solved = ", ".join(names_of(entry.problems))
            what = plain(entry.summary) + (f" (for {solved})" if solved else "")
            cells = (entry.name, what, entry.memory, source(entry))
            table.add_row(*map(Text, cells))
    console.print(table)


def source(entry: Entry) -> str:
    """The paper, with its year unless it says one (a journal's may be later than the method's)."""
    said = re.search(r"\b(19|20)\d\d\b", entry.paper)
    return entry.paper if said else f"{entry.paper} ({entry.year})"
