"""The report of a race: one HTML page that opens from a file, with no network request."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thalweg.page import Page, embedded_json

__all__ = ["embedded_json", "load_summary", "write"]

SCHEMA = "thalweg.race/1"
_PAGE = Page(Path(__file__).parent, scripts=("charts.js", "report.js"))


def write(summary: Mapping[str, Any], directory: str | Path, single_file: bool = False) -> Path:
    """Write the report of a race into its run directory.

    Parameters
    ----------
    summary
        The race, schema ``thalweg.race/1``.
    directory
        The run directory; the page goes to ``directory/report/index.html``.
    single_file
        Put plotly into the page (about 5 MB) instead of beside it, so that the page alone can be
        mailed.

    Returns
    -------
    Path
        Of ``index.html``.

    Raises
    ------
    ValueError
        If `summary` has another schema.
    """
    _check(summary, "summary")
    from thalweg.compare.report import endings, figures, tables, text, verdicts

    drawn = figures.data(summary)
    csv = tables.csv_text(summary).encode("utf-8")
    return _PAGE.write(
        Path(directory) / "report",
        title=summary["title"],
        created=summary["reproduce"]["created"],
        version=summary["reproduce"]["versions"].get("thalweg"),
        drawn=drawn,
        single_file=single_file,
        s=summary,
        text=text,
        standings=tables.standings(summary),
        matrix=verdicts.matrix(summary),
        pairs=verdicts.pairs(summary),
        targets=tables.targets(summary),
        tuning=tables.tuning(summary),
        defaults=tables.defaults(summary),
        cost=tables.cost(summary),
        **endings.context(summary),
        failures=tables.failures(summary),
        margin=verdicts.margin(summary),
        labels=drawn["labels"],
        solver=summary["problem"].get("kind") == "solver",
        level=f"{100 * (1 - summary['protocol']['alpha']):g}",
        csv="data:text/csv;charset=utf-8;base64," + base64.b64encode(csv).decode(),
    )


def load_summary(directory: str | Path) -> dict[str, Any]:
    """Read ``summary.json`` of a run directory.

    Parameters
    ----------
    directory
        The run directory (or the file itself).

    Returns
    -------
    dict
        The race, schema ``thalweg.race/1``.

    Raises
    ------
    FileNotFoundError
        If the directory has no summary yet.
    ValueError
        If the file is not a summary of this version.
    """
    path = Path(directory)
    path = path / "summary.json" if path.is_dir() else path
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must be JSON, got: {error}") from error
    _check(summary, str(path))
    return dict(summary)


def _check(summary: Any, name: str) -> None:
    got = summary.get("schema") if isinstance(summary, Mapping) else type(summary).__name__
    if got != SCHEMA:
        raise ValueError(f"{name} must have the schema {SCHEMA!r}, got {got!r}")
