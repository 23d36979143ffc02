"""``thalweg compare --check``: what three steps of a problem have shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from thalweg.cli.board import duration


def check_and_tell(problem: Any, methods: Sequence[str], *, as_json: bool, out: TextIO) -> None:
    """Check a problem (and that the methods exist) and print what was found."""
    from thalweg.compare import check_problem
    from thalweg.compare.methods import resolve

    if methods:
        resolve(methods)
    found = check_problem(problem)
    if as_json:
        from thalweg.cli.streams import as_strict_json

        print(as_strict_json(found), file=out)
    else:
        print("\n".join(sentences(found)), file=out)


def sentences(found: Mapping[str, Any]) -> list[str]:
    """The findings of `thalweg.compare.check_problem`, a line each."""
    if found.get("kind") == "solver":
        return _of_solvers(found)
    good = "small" if found["goal"] == "min" else "large"
    losses = ", ".join(f"{loss:.4g}" for loss in found["losses"])
    lines = [
        f"{found['name']}: {found['parameters']:,} parameters; "
        f"{found['metric']} decides, {good} is good",
        f"  repeatable      two calls with one seed give the same losses ({losses})",
        "  evaluation      leaves model, mode, batches and random numbers as they were",
        f"  validation      {_metrics(found['validation'])}",
        "  test            "
        + (_metrics(found["test"]) if found["test"] else "none: the training loss decides"),
        f"  a step          {1000 * found['step_seconds']:.2f} ms; "
        f"an evaluation {1000 * found['evaluation_seconds']:.2f} ms",
        f"  a default race  about {duration(found['race_seconds'])} with one worker",
    ]
    return lines


def _of_solvers(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{found['name']}: a {found['class']} with {found['parameters']:,} unknowns; "
        f"{found['metric']} decides, small is good",
        "  repeatable      two calls with one seed give the same problem",
        "  seeds           "
        + ("every seed gives the same problem" if found["same_every_seed"] else "decide it"),
    ]
    if found["solved"]:
        lines.append(
            f"  solved          at {found['metric']} {found['solved']:.2g}: runs end there"
        )
    width = max((len(row["name"]) for row in found["solvers"]), default=0)
    for row in found["solvers"]:
        ways = ", ".join("not finite" if v is None else f"{v:.4g}" for v in row["values"])
        told = f"{ways}; {1000 * row['step_seconds']:.2f} ms a step" if row["step_seconds"] else ""
        reason = f"{row['status']}: {row['reason']}" if row["status"] != "done" else ""
        lines.append(f"  {row['name']:<{width}}  {'; '.join(filter(None, (told, reason)))}")
    lines.append(f"  a default race  at most {duration(found['race_seconds'])} with one worker")
    return lines


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
