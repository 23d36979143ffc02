"""An inspection as plain numbers and words: what inspection.json holds and the page is made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from thalweg.core.estimate import Estimate, student_quantile

if TYPE_CHECKING:
    from thalweg.curvature.density import Density
    from thalweg.curvature.landscape import Slice
    from thalweg.inspect.inspection import Inspection

SCHEMA = "thalweg.inspection/1"


def as_record(found: Inspection) -> dict[str, Any]:
    """The content of inspection.json; JSON without NaN and infinities."""
    import torch

    import thalweg

    ends = found.ends
    return {
        "schema": SCHEMA,
        "name": found.name,
        "created": found.created,
        "versions": {"thalweg": thalweg.__version__, "torch": str(torch.__version__)},
        "budget": found.budget,
        "seed": found.seed,
        "headline": found.headline,
        "next_step": found.next_step,
        "certificate": found.certificate.to_dict(),
        "notes": list(found.notes),
        "ends": None
        if ends is None
        else {
            "values": ends.values.tolist(),
            "residuals": ends.residuals.tolist(),
            "lower_bound": finite(ends.lower_bound),
            "upper_bound": finite(ends.upper_bound),
            "k": min(ends.k, ends.values.numel()),
            "dense": ends.dense,
            "delta": ends.delta,
            "steps": ends.steps,
        },
        "density": None if found.density is None else _density(found.density),
        "trace": None
        if found.trace is None
        else {**estimate(found.trace), "method": found.trace.method},
        "sharpness": [
            {
                "name": row.name,
                "meaning": row.meaning,
                "unit": row.unit,
                "predicted": finite(row.predicted),
                **estimate(row.value),
            }
            for row in found.sharpness
        ],
        "slices": {key: _slice(s) for key, s in found.slices.items()},
        "layers": [
            {
                "name": layer.name,
                "parameters": layer.parameters,
                "gradient_norm": finite(layer.gradient_norm),
                "trace": estimate(layer.trace),
                "share": estimate(layer.share),
                "top": None if layer.top is None else [finite(end) for end in layer.top],
            }
            for layer in found.layers
        ],
        "cost": [
            {
                "name": row.name,
                "products": row.products,
                "passes": row.passes,
                "seconds": row.seconds,
            }
            for row in found.cost
        ],
        "skipped": dict(found.skipped),
    }


def estimate(value: float | Estimate) -> dict[str, Any]:
    """A number with its 95 % interval; without one if it is no estimate."""
    if isinstance(value, Estimate):
        low, high = value.interval()
        return {
            "value": finite(value.value),
            "low": finite(low),
            "high": finite(high),
            "samples": value.samples,
        }
    return {"value": finite(value), "low": None, "high": None, "samples": None}


def _density(found: Density) -> dict[str, Any]:
    curve = found.curve(400)
    below = found.mass_below(0.0)
    quantile = student_quantile(0.95, found.probes)
    return {
        "x": curve.x.tolist(),
        "y": curve.y.tolist(),
        "half": None if found.probes < 2 else (quantile * curve.stderr).tolist(),
        "probes": found.probes,
        "steps": found.steps,
        "sigma": found.sigma,
        "at_or_below_zero": estimate(below.estimate),
    }


def _slice(found: Slice) -> dict[str, Any]:
    return {
        "axes": [axis.tolist() for axis in found.axes],
        "values": found.values.tolist(),
        "quadratic": found.quadratic.tolist() if len(found.axes) == 1 else None,
        "centre": found.centre,
        "slopes": found.slopes.tolist(),
        "curvature": found.curvature.tolist(),
    }


def finite(value: Any) -> float | None:
    """A number for JSON: None where it is infinite or NaN."""
    return float(value) if value is not None and math.isfinite(value) else None
