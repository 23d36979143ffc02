"""Run a study into a directory; the same call goes on from the rows that are there."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from thalweg.core import check
from thalweg.studies.intervals import power_sentence
from thalweg.studies.study import SCALES, Row, Scale, Study, Verdict

RESULT = "result.json"
ROWS = "rows.jsonl"
PACKAGES = ("thalweg", "torch", "numpy", "scipy", "scikit-learn", "matplotlib")


class OtherRunError(ValueError):
    """The directory holds something else than a run that this one could go on with."""


def run_study(
    study: Study,
    directory: Path,
    *,
    scale: Scale = "laptop",
    seed: int = 0,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Run a study, or go on with it, and write what it found.

    ``rows.jsonl`` grows row by row, so a run that was killed goes on from the rows it has. At the
    end ``result.json``, ``figure.png`` and ``figure.svg`` are written. A finished run is not
    repeated: its figure is drawn anew, and its result is returned.

    Parameters
    ----------
    study
        The study, from `thalweg.studies.find`.
    directory
        Where to write; made if it does not exist.
    scale
        ``"smoke"`` (seconds), ``"laptop"`` (minutes), ``"full"``. Default ``"laptop"``.
    seed
        All randomness of the study follows from it. Default 0.
    progress
        Called with the number of rows so far.

    Returns
    -------
    dict
        The content of ``result.json``.

    Raises
    ------
    OtherRunError
        If the directory holds a run of another study, scale, seed or version of the study.

    Examples
    --------
    >>> import tempfile
    >>> from thalweg.studies import find
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     result = run_study(find("lr-perceptron"), Path(directory), scale="smoke")
    >>> result["scale"]
    'smoke'
    """
    check.choice("scale", scale, SCALES)
    check.number("seed", seed, ge=0, integer=True)
    directory.mkdir(parents=True, exist_ok=True)
    result = _begin(study, directory, scale, seed)
    if result["verdict"] is not None:
        draw(study, _kept_rows(directory / ROWS), directory)
        return result
    began = time.perf_counter()
    kept = len(_kept_rows(directory / ROWS))
    with _own_threads_and_random_numbers(seed), (directory / ROWS).open("a") as file:
        for index, row in enumerate(study.run(scale, seed)):
            if index < kept:
                continue
            made = row() if callable(row) else row
            file.write(json.dumps(made, default=_plain) + "\n")
            file.flush()
            progress(index + 1)
    rows = _kept_rows(directory / ROWS)  # as they are on disk, so that both agree for ever
    result["rows"] = len(rows)
    result["rows_kept_from_an_earlier_run"] = kept
    result["seconds"] = round(time.perf_counter() - began, 2)
    result["verdict"] = as_json(study.verdict(rows))
    draw(study, rows, directory)
    _write(directory / RESULT, result)
    return result


def as_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain values, numbers that are not finite as None.

    Examples
    --------
    >>> from thalweg.studies.study import Part, Word
    >>> part = Part("x > 0", Word.HOLDS, 1.0, (0.5, float("inf")))
    >>> as_json(Verdict.all_of([part], sentence="Above.", pairs=10))["parts"][0]["interval"]
    [0.5, None]
    """
    parts = [
        {
            **asdict(part),
            "word": part.word.value,
            "effect": _finite(part.effect),
            "interval": None if part.interval is None else [_finite(end) for end in part.interval],
        }
        for part in verdict.parts
    ]
    pairs = verdict.pairs  # of one there is no spread
    return {
        "word": verdict.word.value,
        "sentence": verdict.sentence,
        "parts": parts,
        "power": "" if pairs is None or pairs < 2 else power_sentence(pairs),
    }


def draw(study: Study, rows: Sequence[Row], directory: Path) -> None:
    """Write the figure as PNG and SVG, the same bytes for the same rows."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "thalweg"}):
        figure = study.figure(rows)
        figure.savefig(directory / "figure.png", dpi=150, bbox_inches="tight")
        figure.savefig(directory / "figure.svg", bbox_inches="tight", metadata={"Date": None})


def code_of(study: Study) -> str:
    """The hash of a study's file, by which a result tells which text of the study made it.

    Docstrings and the function `figure` do not count: neither rows nor verdict depend on them, and
    figures are drawn anew from rows that are there. Nor do blank lines.

    Examples
    --------
    >>> from thalweg.studies import find
    >>> len(code_of(find("rates")))
    16
    """
    text = Path(study.source).read_text(encoding="utf-8")
    left_out = _lines_of_docstrings_and_figure(text)
    lines = [
        line.rstrip()
        for number, line in enumerate(text.splitlines(), start=1)
        if number not in left_out and line.strip()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _lines_of_docstrings_and_figure(text: str) -> set[int]:
    # line numbers, not the tree itself: how a tree is printed depends on the version of Python
    module, found = ast.parse(text), set[int]()
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            found |= _lines(node.body[0])
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "figure":
            found |= _lines(statement)
    return found


def _lines(statement: ast.stmt) -> set[int]:
    return set(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))


def _begin(study: Study, directory: Path, scale: Scale, seed: int) -> dict[str, Any]:
    """The result so far: found in the directory, or a new one without a verdict."""
    identity = {
        "study": study.name,
        "scale": scale,
        "seed": seed,
        "code": code_of(study),
    }
    path = directory / RESULT
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key, wanted in identity.items():
            if found.get(key) != wanted:
                what = "version of the study (its code)" if key == "code" else key
                raise OtherRunError(
                    f"{directory} holds a run of another {what}, "
                    f"{found.get(key)!r} instead of {wanted!r}; "
                    "choose another directory with --out, or delete this one"
                )
        return found
    if (directory / ROWS).exists():
        raise OtherRunError(f"{directory} has {ROWS} but no {RESULT}: it is not the run of a study")
    result = {
        **identity,
        "claim": asdict(study.claim),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "rows": 0,
        "rows_kept_from_an_earlier_run": 0,
        "seconds": None,
        "verdict": None,
    }
    _write(path, result)
    return result


def _kept_rows(path: Path) -> list[Row]:
    """The whole rows of the file; a last one that was cut off is removed from it."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines()]


@contextmanager
def _own_threads_and_random_numbers(seed: int) -> Iterator[None]:
    """One thread, so that sums have one order; the caller's random numbers stay where they are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _write(path: Path, value: dict[str, Any]) -> None:
    """All of the file or nothing of it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def _plain(value: Any) -> Any:
    """A number of numpy or torch as Python's own."""
    return value.item()


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
