"""The command line: one file per command, each loading what it needs when it runs."""

from __future__ import annotations


def main() -> None:
    """Run the command line (the entry point ``thalweg``)."""
    from thalweg.cli.app import app

    app(prog_name="thalweg")
