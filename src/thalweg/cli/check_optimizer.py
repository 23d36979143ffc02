"""``thalweg check-optimizer``: hold an optimizer class to the contract."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from thalweg.cli.errors import told_in_one_sentence

BROKEN = 1


def check_optimizer(
    optimizer: Annotated[
        str,
        typer.Argument(
            help="module:Class, or a name of the catalogue; "
            "for example torch.optim:AdamW, my.module:MyOptimizer, lion."
        ),
    ],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=VALUE]...",
            show_default=False,
            help="Hyper-parameters it is built with, for example lr=1e-3 betas=(0.9,0.99).",
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Also what needs a C++ compiler and what --distributed adds."),
    ] = False,
    distributed: Annotated[
        bool,
        typer.Option("--distributed", help="Also DDP and FSDP2 on two local processes (15 s)."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hold an optimizer to the contract: resuming bit for bit, groups, closures, odd inputs.

    \b
    Examples:
      thalweg check-optimizer torch.optim:AdamW
      thalweg check-optimizer my.module:MyOptimizer lr=1e-3 --distributed

    Exit codes: 0 every clause holds or is refused clearly, 1 some clause is broken, 2 bad input.
    """
    with told_in_one_sentence():
        from thalweg.compare.methods import resolve
        from thalweg.testing import CLAUSES, check_optimizer

        found = resolve([optimizer])[0]
        hyper = {**found.fixed, **parsed(values or ())}
        given = ",".join(f"{name}={value!r}" for name, value in hyper.items())
        resolve([f"{found.place}[{given}]"])  # tells of a name the class does not take
        names = [clause.name for clause in CLAUSES] if everything else None
        report = check_optimizer(
            found.target, checks=names, distributed=distributed or everything, **hyper
        )
    if as_json:
        findings = [dict(zip(("clause", "outcome", "detail"), f, strict=True)) for f in report]
        typer.echo(json.dumps({"subject": report.subject, "ok": report.ok, "findings": findings}))
    else:
        _print(report)
    raise typer.Exit(0 if report.ok else BROKEN)


def parsed(values: Sequence[str]) -> dict[str, Any]:
    """``["lr=1e-3", "betas=(0.9,0.99)"]`` as keyword arguments.

    Examples
    --------
    >>> parsed(["lr=1e-3", "nesterov=True", "rounding=stochastic"])
    {'lr': 0.001, 'nesterov': True, 'rounding': 'stochastic'}
    """
    from thalweg.compare import BadInput

    found: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (equals and name.isidentifier()):
            raise BadInput(f"hyper-parameters are written NAME=VALUE, as in lr=1e-3, got {value!r}")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text  # a word needs no quotes here
    return found


def _print(report: Any) -> None:
    from rich.console import Console

    console = Console()
    console.print(report.table())
    broken = f"broken: {', '.join(report.failed)}" if report.failed else "nothing is broken"
    console.print(f"{len(report.findings)} clauses, {broken}", markup=False, highlight=False)
