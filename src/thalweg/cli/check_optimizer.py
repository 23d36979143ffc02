"""``thalweg check-optimizer``: hold an optimizer class to the contract, or all of ours."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from thalweg.cli.errors import INTERRUPTED, stop, told_in_one_sentence

BROKEN = 1


def check_optimizer(
    optimizer: Annotated[
        str | None,
        typer.Argument(
            help="module:Class, or a name of the catalogue; "
            "for example torch.optim:AdamW, my.module:MyOptimizer, lion.",
            show_default=False,
        ),
    ] = None,
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
        typer.Option(
            "--all",
            help="Without OPTIMIZER: every optimizer of thalweg, as a table. "
            "With one: also what needs a C++ compiler and what --distributed adds.",
        ),
    ] = False,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Beside them torch.optim, pytorch-optimizer, heavyball and torchzero, "
            "as far as they are installed (10 minutes).",
        ),
    ] = False,
    distributed: Annotated[
        bool,
        typer.Option("--distributed", help="Also DDP and FSDP2 on two local processes (15 s)."),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            "-j",
            "--jobs",
            min=1,
            show_default="one a processor",
            help="With the table: how many optimizers are asked at the same time.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=1.0, help="With the table: seconds a clause may take before it counts as broken."
        ),
    ] = 60.0,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="With the table: every finding, too.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON; --json FILE.json with the table: write it there."),
    ] = False,
) -> None:
    """Hold an optimizer to the contract: resuming bit for bit, groups, closures, odd inputs.

    \b
    Examples:
      thalweg check-optimizer torch.optim:AdamW
      thalweg check-optimizer my.module:MyOptimizer lr=1e-3 --distributed
      thalweg check-optimizer --all
      thalweg check-optimizer --all --peers --json contract.json

    Exit codes: 0 every clause holds or is refused clearly, 1 some clause is broken (of the table:
    by an optimizer of thalweg), 2 bad input.
    """
    file = None
    if everything and as_json and optimizer is not None and optimizer.endswith(".json"):
        file, optimizer = Path(optimizer), None  # --json FILE: an option cannot take a word or none
    if optimizer is None:
        ok = _table(
            everything, values, peers, distributed, processes, timeout, verbose, file, as_json
        )
    else:
        if peers:
            raise stop("--peers goes with --all and no OPTIMIZER")
        ok = _one(optimizer, values or (), everything, distributed, as_json)
    raise typer.Exit(0 if ok else BROKEN)


def _table(
    everything: bool,
    values: Sequence[str] | None,
    peers: bool,
    distributed: bool,
    processes: int | None,
    timeout: float,
    verbose: bool,
    file: Path | None,
    as_json: bool,
) -> bool:
    if not everything:
        raise stop("OPTIMIZER is missing: name one, or ask for every one of thalweg with --all")
    if values:
        raise stop(f"--all asks every optimizer with its defaults, got {values[0]!r}")
    if file is not None and not file.absolute().parent.is_dir():
        raise stop(f"--json FILE must be in a directory that exists, got {str(file)!r}")
    from thalweg.cli.contract_table import available, contract_table

    try:
        return contract_table(
            peers=peers,
            distributed=distributed,
            processes=processes or available(),
            seconds=timeout,
            verbose=verbose,
            file=file,
            as_json=as_json,
        )
    except KeyboardInterrupt:
        typer.echo("thalweg: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _one(
    optimizer: str, values: Sequence[str], everything: bool, distributed: bool, as_json: bool
) -> bool:
    with told_in_one_sentence():
        from thalweg.compare.methods import resolve
        from thalweg.testing import CLAUSES, check_optimizer

        found = resolve([optimizer])[0]
        hyper = {**found.fixed, **parsed(values)}
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
    return report.ok


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
