"""The report of a race: one HTML page that opens from a file, with no network request."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["load_summary", "write"]

SCHEMA = "thalweg.race/1"
_HERE = Path(__file__).parent
_SCRIPTS = ("drawing.js", "charts.js", "report.js")


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
    folder = Path(directory) / "report"
    folder.mkdir(parents=True, exist_ok=True)
    plotly = _plotly()
    if not single_file:
        beside = folder / "plotly.min.js"
        if not beside.exists() or beside.stat().st_size != plotly.stat().st_size:
            shutil.copyfile(plotly, beside)
    page = folder / "index.html"
    # A reader who reloads while the race goes on never sees half a page.
    unfinished = folder / f".index.{os.getpid()}.html"
    html = _render(summary, plotly.read_text(encoding="utf-8") if single_file else None)
    unfinished.write_text(html, encoding="utf-8", newline="\n")
    unfinished.replace(page)
    return page


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


def _plotly() -> Path:
    found = importlib.util.find_spec("plotly")
    path = Path(str(found.origin)).parent / "package_data" / "plotly.min.js" if found else None
    if path is None or not path.exists():
        raise FileNotFoundError("the report needs plotly's own script: pip install plotly")
    return path


def _render(summary: Mapping[str, Any], plotly: str | None) -> str:
    import jinja2
    from markupsafe import Markup

    from thalweg.compare.report import figures, style, tables, text, verdicts

    scripts = [(_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    inline = [_inline(part) for part in ([plotly] if plotly else []) + ["\n".join(scripts)]]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(text=text, style=style, wbr=Markup("<wbr>"))
    drawn = figures.data(summary) | {"looks": style.looks()}
    csv = tables.csv_text(summary).encode("utf-8")
    return environment.get_template("index.html.j2").render(
        s=summary,
        standings=tables.standings(summary),
        matrix=verdicts.matrix(summary),
        pairs=verdicts.pairs(summary),
        targets=tables.targets(summary),
        tuning=tables.tuning(summary),
        defaults=tables.defaults(summary),
        cost=tables.cost(summary),
        failures=tables.failures(summary),
        margin=verdicts.margin(summary),
        labels=drawn["labels"],
        level=f"{100 * (1 - summary['protocol']['alpha']):g}",
        drawn=drawn,
        data_json=Markup(embedded_json(drawn)),
        css=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        csv="data:text/csv;charset=utf-8;base64," + base64.b64encode(csv).decode(),
        inline=[Markup(script) for script in inline],
        beside=plotly is None,
        policy=_policy(inline),
    )


def embedded_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever its strings hold.

    Examples
    --------
    >>> embedded_json({"name": "</script>"})
    '{"name":"\\\\u003c/script\\\\u003e"}'
    """
    written = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return written


def _inline(script: str) -> str:
    # Both sequences change how HTML reads a script element; in JavaScript they only occur in
    # strings and regular expressions, where the escape means the same.
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--").replace("\r", "")


def _policy(inline: list[str]) -> str:
    # 'self' and file: admit plotly.min.js beside the page; nothing else may load or run.
    hashes = [
        "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"
        for script in inline
    ]
    return (
        f"default-src 'none'; script-src 'self' file: {' '.join(hashes)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
