"""Bad input is one sentence on stderr and exit code 2; a traceback is shown if it is the user's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

BAD_INPUT = 2
INTERRUPTED = 130


def stop(sentence: str, traceback: str | None = None) -> typer.Exit:
    """Print what was wrong; the exit to raise."""
    if traceback:
        typer.echo(traceback.rstrip() + "\n", err=True)
    typer.echo(f"thalweg: {sentence}", err=True)
    return typer.Exit(BAD_INPUT)


@contextmanager
def told_in_one_sentence() -> Iterator[None]:
    """Turn `BadInput` and Ctrl-C into an exit code; everything else is a bug and stays one."""
    from thalweg.compare import BadInput

    try:
        yield
    except BadInput as error:
        raise stop(str(error), error.traceback) from None
    except KeyboardInterrupt:
        typer.echo("thalweg: interrupted; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None
