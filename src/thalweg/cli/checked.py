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


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
