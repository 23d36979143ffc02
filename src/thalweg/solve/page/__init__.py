"""The page of a solved problem: how it converged, what the answer's spectrum is, how it looks."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.page import Page

_PAGE = Page(Path(__file__).parent, scripts=("charts.js",), styles=("solve.css",))
SHOWN = 500
"""Points of a curve, and values of a spectrum, at most."""
LARGEST_IMAGE = 512


def write(
    found: Mapping[str, Any],
    folder: Path,
    *,
    trace: Mapping[str, list[float]],
    spectrum: tuple[str, Tensor],
    images: Mapping[str, Tensor],
    single_file: bool = False,
) -> Path:
    """Write ``folder/index.html``.

    Parameters
    ----------
    found
        What ``thalweg solve --json`` prints.
    folder
        Made if it is not there.
    trace
        Columns of the trace of all runs.
    spectrum
        Name and values, largest first.
    images
        Matrices by name, to be shown in grey.
    single_file
        Put plotly into the page (about 5 MB).

    Returns
    -------
    Path
        Of ``index.html``.
    """
    length = len(trace["step"])
    kept = sorted({*range(0, length, max(1, math.ceil(length / SHOWN))), length - 1})
    curves = {
        name: [_plain(column[i]) for i in kept]
        for name, column in trace.items()
        if name in ("step", "seconds", "residual", "error", "value")
    }
    name, values = spectrum
    return _PAGE.write(
        folder,
        title=found["title"],
        created=found["created"],
        version=found["versions"]["thalweg"],
        drawn={
            "curves": curves,
            "spectrum": [_plain(float(v)) for v in values[:SHOWN]],
            "spectrum_name": name,
        },
        single_file=single_file,
        s=found,
        spectrum_name=name,
        spectrum_count=len(values),
        images={title: _png(matrix) for title, matrix in images.items()},
        has_error="error" in curves,
    )


def _plain(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _png(matrix: Tensor) -> str:
    """A matrix as a grey picture, in a URL of its own."""
    import matplotlib.image

    stride = max(1, math.ceil(max(matrix.shape) / LARGEST_IMAGE))
    file = io.BytesIO()
    shown = matrix[::stride, ::stride].detach().cpu().to(torch.float64).numpy()
    matplotlib.image.imsave(file, shown, cmap="gray", format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
