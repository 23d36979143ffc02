"""``thalweg report``: the page of a race, built again from its run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thalweg.cli.errors import stop


def report(
    directory: Annotated[
        Path, typer.Argument(help="A run directory, as thalweg compare has written it.")
    ],
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Put everything into the one page (about 5 MB).")
    ] = False,
) -> None:
    """Build the report of a race again, and print where it is.

    \b
    Examples:
      thalweg report race-digits-mlp
      thalweg report race-digits-mlp --single-file
    """
    from thalweg.compare.report import load_summary, write

    if not directory.is_dir():
        raise stop(f"DIRECTORY must be a run directory, got {str(directory)!r}, which is none")
    try:
        summary = load_summary(directory)
    except FileNotFoundError:
        raise stop(
            f"{directory} has no summary.json; the command that began this race writes it, "
            "and goes on from the runs that are there"
        ) from None
    except ValueError as error:
        raise stop(str(error)) from None
    typer.echo(write(summary, directory, single_file=single_file))
