"""The page of an inspection: from its record to one HTML file."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thalweg.curvature.certificate import Verdict
from thalweg.page import Page, text

_PAGE = Page(Path(__file__).parent, scripts=("charts.js",), styles=("inspect.css",))
BAR = 90.0
"""Width of the bar of a layer's share, in CSS pixels."""
COLUMNS = (
    ("step", "Step"),
    ("loss", "Loss"),
    ("gradient_norm", "Gradient norm"),
    ("lowest", "Smallest eigenvalue"),
    ("highest", "Largest eigenvalue"),
    ("trace", "Trace"),
    ("directional_sharpness", "Curvature along the step"),
)
"""Of what a `Tracker` has measured."""
SHOWN = 30
"""Rows of them on the page."""


def write(
    record: Mapping[str, Any],
    directory: str | os.PathLike[str],
    *,
    single_file: bool = False,
    command: str = "",
    curves: Mapping[str, Sequence[Any]] | None = None,
) -> Path:
    """Write ``directory/index.html``, with inspection.json and plotly's script beside it.

    Parameters
    ----------
    record
        What `Inspection.to_dict` returns; without ``"certificate"`` only the curves are shown.
    directory
        Made if it is not there.
    single_file
        Put everything into the one page (about 5 MB).
    command
        What made the inspection.
    curves
        What a `Tracker` has measured: a column per quantity.

    Returns
    -------
    Path
        Of ``index.html``.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    whole = {**record, **({"curves": curves} if curves is not None else {})}
    content = json.dumps(whole, indent=1, allow_nan=False) + "\n"
    (folder / "inspection.json").write_text(content, encoding="utf-8")
    certificate = record.get("certificate")
    c = certificate and {**certificate, "sentence": certificate["sentence"].rstrip(".")}
    slices = record.get("slices") or {}
    plane = [v for row in slices["plane"]["values"] for v in row] if slices.get("plane") else [0.0]
    every = {"top": None, "bottom": None, "plane": None, **slices} if slices else {}
    shown = {**record, "slices": every}
    latest = list(zip(*(curves[key] for key, _ in COLUMNS)))[-SHOWN:] if curves else []
    return _PAGE.write(
        folder,
        title=f"{record['name']}: {record['headline']}",
        created=record["created"],
        version=record["versions"].get("thalweg"),
        drawn={
            "density": record.get("density"),
            "ends": record.get("ends"),
            "slices": slices,
            "curves": curves,
        },
        single_file=single_file,
        s=shown,
        c=c,
        kind=_kind(c["verdict"]) if c else "",
        question="What kind of point is this?" if c else "How did the curvature change?",
        spent=_spent(record) if c else "",
        ends_from=_ends_from(c) if c else "",
        eigenvalues=_eigenvalues(record.get("ends")),
        layers=[_layer(row) for row in record.get("layers", [])],
        plane_low=min(plane),
        plane_high=max(plane),
        percent=percent,
        command=command,
        curves=curves,
        columns=COLUMNS,
        latest=latest,
        json="data:application/json;base64," + base64.b64encode(content.encode()).decode(),
    )


def percent(row: Mapping[str, Any]) -> str:
    """A share with half its 95 % interval, in per cent."""
    value, low, high = row["value"], row.get("low"), row.get("high")
    if value is None:
        return "–"
    half = "" if low is None or high is None or high - low < 1e-9 else (high - low) / 2
    error = f" ± {100 * half:.2g}" if half else ""
    shown = f"{100 * value:.1f}".replace("-", text.MINUS)
    return f"{shown}{error}{text.NARROW}%"


def _kind(verdict: str) -> str:
    found = Verdict[verdict]
    return "down" if found.goes_down else "open" if found is Verdict.INCONCLUSIVE else "stays"


def _spent(record: Mapping[str, Any]) -> str:
    rows = record["cost"]
    products = sum(row["products"] for row in rows)
    passes = sum(row["passes"] for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    return (
        f"It took {text.plural(products, 'Hessian-vector product')} and {passes:,} passes over "
        f"the data, {text.duration(seconds)}."
    )


def _ends_from(c: Mapping[str, Any]) -> str:
    return {"dense": "all eigenvalues computed", "lanczos": "bound from a random start"}.get(
        c["bound"], c["bound"]
    )


def _eigenvalues(ends: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if ends is None:
        return []
    values, residuals, k = ends["values"], ends["residuals"], ends["k"]
    rows = [
        {"end": "lowest" if i < k else "highest", "value": v, "residual": r}
        for i, (v, r) in enumerate(zip(values, residuals))
    ]
    if len(rows) <= 2 * k and len(values) < 2 * k:  # all there are
        return [{**row, "end": f"{i + 1}"} for i, row in enumerate(rows)]
    return rows


def _layer(row: Mapping[str, Any]) -> dict[str, Any]:
    def place(share: float) -> float:
        return round(BAR * min(max(share, 0.0), 1.0), 1)

    share = row["share"]
    low, high = share["low"], share["high"]
    exact = low is None or high is None or high - low < 1e-9
    value = share["value"] or 0.0
    return {
        **row,
        "percent": percent(share),
        "width": place(value),
        "whisker": None if exact else (place(low), place(high)),
    }
