"""The picture of every optimizer in the catalogue: its path down a curved valley.

    python scripts/optimizer_pictures.py [DIRECTORY]

Each picture (default: docs/images/methods/NAME.png) shows 200 steps on Rosenbrock's function with
the best of 32 points of the method's own search space, which is what a race would tune over. It is
a picture of how a method moves, not a measurement of how good it is.
"""

from __future__ import annotations

import inspect
import math
import sys
from pathlib import Path
from typing import Any

import matplotlib.figure
import torch
from torch import Tensor

from thalweg.compare import catalogues, methods, tune
from thalweg.compare.contender import Contender
from thalweg.compare.run import needs_closure

ROOT = Path(__file__).resolve().parent.parent
START, MINIMUM = (-1.2, 1.0), (1.0, 1.0)
STEPS, TRIALS = 200, 32


def value(x: Tensor) -> Tensor:
    """Rosenbrock's function, with a valley that two dimensions can show."""
    return (1 - x[0]) ** 2 + 10 * (x[1] - x[0] ** 2) ** 2


def path(contender: Contender, values: dict[str, Any]) -> list[tuple[float, float, float]]:
    """(x, y, f) before every step; it ends where a value is not finite."""
    x = torch.nn.Parameter(torch.tensor(START))
    arguments = contender.arguments(values)
    if "generator" in inspect.signature(contender.target).parameters:
        arguments["generator"] = torch.Generator().manual_seed(0)
    optimizer = contender.target([x], **arguments)

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            f = value(x)
            f.backward()
        return f

    found = []
    for _ in range(STEPS):
        f = value(x.detach()).item()
        if not math.isfinite(f):
            break
        found.append((x[0].item(), x[1].item(), f))
        if needs_closure(contender):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    return found


def best_path(contender: Contender) -> tuple[dict[str, Any], list[Any]]:
    """The point of the search space that ends lowest, and its path."""
    trials = [values for _, values in tune.table(contender, TRIALS)] or [{}]
    paths = [(values, path(contender, values)) for values in trials]
    complete = [(values, p) for values, p in paths if len(p) == STEPS]
    return min(complete, key=lambda each: each[1][-1][2])


def draw(contender: Contender) -> matplotlib.figure.Figure:
    """The path over the contours, and the values along it."""
    values, points = best_path(contender)
    figure = matplotlib.figure.Figure(figsize=(7.2, 2.8), dpi=90, layout="constrained")
    plane, curve = figure.subplots(1, 2, width_ratios=(1.35, 1))
    a, b = torch.linspace(-1.8, 1.8, 160), torch.linspace(-0.7, 2.1, 160)
    grid = value(torch.stack(torch.meshgrid(a, b, indexing="xy")))
    levels = [10 ** (k / 3) for k in range(-6, 7)]
    plane.contour(a, b, grid, levels=levels, colors="0.75", linewidths=0.7)
    x, y, f = zip(*points, strict=True)
    plane.plot(x, y, ".-", color="#0072B2", markersize=3, linewidth=0.8)
    plane.plot(*START, "o", color="#D55E00", markersize=5)
    plane.plot(*MINIMUM, "*", color="#009E73", markersize=10)
    plane.set(xlim=(-1.8, 1.8), ylim=(-0.7, 2.1), xlabel="$x_1$", ylabel="$x_2$")
    curve.semilogy(range(len(f)), [max(v, 1e-12) for v in f], color="#0072B2")
    curve.set(xlabel="step", ylabel="f")
    curve.grid(alpha=0.3)
    said = ", ".join(f"{name}={v:.3g}" for name, v in values.items()) or "nothing to tune"
    figure.suptitle(f"{contender.target.__name__}: {said}", fontsize=9)
    return figure


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for entry in catalogues.entries():
        if not (inspect.isclass(entry.target) and hasattr(entry.target, "step")):
            continue
        (contender,) = methods.resolve(entry.name)
        if contender.target is not entry.target:
            continue
        draw(contender).savefig(directory / f"{entry.name.lower()}.png")
        print(entry.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "methods")
