"""The commands put together, and what they share: the version, and how bad input is told."""

from __future__ import annotations

from typing import Annotated

import typer

from thalweg import __version__
from thalweg.cli import check_optimizer, compare, inspect, methods, report, solve, study

app = typer.Typer(
    help="Non-convex optimization for machine learning: descend, certify, compare.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("compare", short_help="Race methods on your problem.")(compare.compare)
app.command("inspect", short_help="Say what kind of point a model is at.")(inspect.inspect)
app.command("solve", short_help="Recover a matrix or a signal from a file.")(solve.solve)
app.command("methods", short_help="List the methods.")(methods.methods)
app.command("report", short_help="Build the report of a race again.")(report.report)
app.command("check-optimizer", short_help="Hold an optimizer to the contract.")(
    check_optimizer.check_optimizer
)
app.command("study", short_help="Re-measure a published claim.")(study.study)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"thalweg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass
