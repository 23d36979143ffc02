"""Figures one would put in a paper: landscape, slice, line, spectrum, trace with error bars.

Each function returns a ``matplotlib.figure.Figure`` that belongs to no window: save it with
``figure.savefig("landscape.pdf")``. The module ``matplotlib.pyplot``, its windows and the user's
style are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thalweg.core.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from thalweg.curvature.density import Density
    from thalweg.curvature.landscape import Line, Slice
    from thalweg.numeric.krylov import ExtremeEigenvalues

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#666666"  # told apart with any colour vision


def plane(slice: Slice, labels: tuple[str, str] = ("$D_1$", "$D_2$")) -> Figure:
    """Contours of the loss on a plane beside the surface, with the path if there is one.

    Parameters
    ----------
    slice
        Of two directions (`thalweg.curvature.landscape.slice`).
    labels
        Of the axes.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the slice is of one direction.

    Examples
    --------
    >>> from thalweg.core.problem import Training
    >>> from thalweg.curvature import landscape
    >>> f = Training.from_function(lambda x: x[0] ** 2 - x[1] ** 2, torch.zeros(2))
    >>> len(plane(landscape.slice(f, list(torch.eye(2)), points=5)).axes)
    3
    """
    if len(slice.axes) != 2:
        raise ValueError("slice must be of two directions, got one; see slope")
    import numpy as np
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    figure = _figure(9.0, 3.8)
    flat = figure.add_subplot(1, 2, 1)
    a, b, f = (t.numpy() for t in (*slice.axes, slice.values))
    levels, norm = _levels(slice.values)
    flat.contour(a, b, f.T, levels, norm=norm, cmap="viridis", linewidths=0.9)
    flat.plot(0, 0, "+", color=ORANGE, markersize=9, markeredgewidth=1.6, zorder=5)
    if slice.path is not None:
        path = slice.path.numpy()
        flat.plot(*path.T, ".-", color=ORANGE, linewidth=1.0, markersize=3.5)
    flat.set(xlabel=labels[0], ylabel=labels[1])
    flat.set_xlim(a[0], a[-1])
    flat.set_ylim(b[0], b[-1])
    flat.locator_params(nbins=5)
    figure.colorbar(ScalarMappable(norm, "viridis"), ax=flat, label="loss")

    surface: Any = figure.add_subplot(1, 2, 2, projection="3d")
    A, B = np.meshgrid(a, b, indexing="ij")
    logarithmic = isinstance(norm, LogNorm)
    height = np.log10(f) if logarithmic else f
    surface.plot_surface(
        A, B, height, cmap="viridis", linewidth=0.15, edgecolor=(0, 0, 0, 0.25),
        rcount=60, ccount=60,
    )  # fmt: skip
    surface.set(xlabel=labels[0], ylabel=labels[1])
    surface.set_title(r"$\log_{10}$ loss" if logarithmic else "loss", y=0.97, fontsize="medium")
    surface.locator_params(nbins=5)
    surface.view_init(elev=32, azim=-58)
    return figure


def slope(slice: Slice, label: str = "step along $D$") -> Figure:
    r"""The loss along one direction with the parabola of its slope and curvature.

    .. math:: f(x) + a\, g^T D + \tfrac{a^2}{2} D^T H D

    Parameters
    ----------
    slice
        Of one direction (`thalweg.curvature.landscape.slice`).
    label
        Of the axis.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the slice is of two directions.

    Examples
    --------
    >>> from thalweg.core.problem import Training
    >>> from thalweg.curvature import landscape
    >>> f = Training.from_function(lambda x: x.cos().sum(), torch.zeros(1))
    >>> len(slope(landscape.slice(f, torch.ones(1))).axes)
    1
    """
    if len(slice.axes) != 1:
        raise ValueError("slice must be of one direction, got two; see plane")
    figure = _figure(4.6, 3.4)
    axes = figure.add_subplot()
    a, f, model = (t.numpy() for t in (slice.axes[0], slice.values, slice.quadratic))
    curvature = float(slice.curvature)
    axes.plot(a, f, color=BLUE, label="loss")
    axes.plot(
        a, model, "--", color=ORANGE, linewidth=1.2,
        label=rf"second order, $D^\top\! H D = {_number(curvature)}$",
    )  # fmt: skip
    axes.plot(0, slice.centre, "o", color=ORANGE, markersize=4)
    low, high = float(f.min()), float(f.max())
    room = 0.15 * (high - low) or 0.1 * abs(low) or 1.0
    axes.set_ylim(low - room, high + room)  # the parabola may leave the picture, not the loss
    axes.set(xlabel=label, ylabel="loss")
    axes.legend(frameon=False)
    return figure


def segment(line: Line, labels: tuple[str, str] = ("first", "second")) -> Figure:
    """The loss on the line between two solutions, with the chord and the barrier above it.

    Parameters
    ----------
    line
        From `thalweg.curvature.landscape.line`.
    labels
        Names of the ends.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from thalweg.core.problem import Training
    >>> from thalweg.curvature import landscape
    >>> f = Training.from_function(lambda x: ((x**2 - 1) ** 2).sum(), torch.zeros(1))
    >>> found = landscape.line(f, -torch.ones(1), torch.ones(1))
    >>> segment(found).axes[0].get_title()
    'barrier 1'
    """
    figure = _figure(4.6, 3.4)
    axes = figure.add_subplot()
    axes.plot(line.positions.numpy(), line.values.numpy(), color=BLUE)
    axes.plot([0, 1], line.ends, "o--", color=ORANGE, linewidth=1.0, markersize=4)
    for x, y, label in zip((0, 1), line.ends, labels):
        axes.annotate(label, (x, y), (0, 5), textcoords="offset points", ha="center", color=GREY)
    axes.margins(x=0.08, y=0.12)
    axes.set(xlabel="position on the line", ylabel="loss", title=f"barrier {line.barrier:.3g}")
    return figure


def spectrum(density: Density | None = None, extremes: ExtremeEigenvalues | None = None) -> Figure:
    r"""The density of the eigenvalues over the extreme ones as stems, on a symmetric log axis.

    .. math:: z = \operatorname{asinh}(\lambda / \tau), \qquad
        p(z) = \frac1r \sum_r \sum_j w_j\, \mathcal{N}(z; z_j, 0.25^2)

    The axis is linear up to :math:`\tau`, a thousandth of the largest eigenvalue, and logarithmic
    beyond, so that the bulk at 0, both of its sides, and the outliers are seen. The density is one
    per unit of that axis: smoothed there, a bump has the same width everywhere.

    Parameters
    ----------
    density
        From `thalweg.curvature.spectrum.density`; one of the two at least.
    extremes
        From `thalweg.curvature.spectrum.extremes`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If neither is given.

    Examples
    --------
    >>> from thalweg.curvature.spectrum import density, extremes
    >>> from thalweg.numeric.operator import as_operator
    >>> H = as_operator(torch.diag(torch.linspace(-1, 9, 30, dtype=torch.float64)))
    >>> len(spectrum(density(H), extremes(H, k=3)).axes)
    2
    """
    if density is None and extremes is None:
        raise ValueError("density or extremes must be given, got neither")
    figure = _figure(6.0, 3.2 if density is None or extremes is None else 4.4)
    rows = [part for part in (density, extremes) if part is not None]
    ratios = [3, 1] if len(rows) == 2 else [1]
    panels: list[Axes] = list(
        figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    )
    ends = [] if extremes is None else extremes.values.tolist()
    if density is not None:
        ends += [density.lowest, density.highest]
    tau = 1e-3 * (max(map(abs, ends)) or 1.0)
    if density is not None:
        _draw_density(panels[0], density, tau)
    if extremes is not None:
        values = extremes.values
        for colour, chosen in ((BLUE, values >= 0), (ORANGE, values < 0)):
            stems = values[chosen].tolist()
            panels[-1].vlines(stems, 0, 1, color=colour, linewidth=1.2)
            panels[-1].plot(stems, [1.0] * len(stems), "o", color=colour, markersize=3.5)
        panels[-1].set(ylim=(0, 1.35), yticks=[], ylabel="extremes")
    for axes in panels:
        axes.axvline(0, color=GREY, linewidth=0.6)
    panels[-1].set_xscale("asinh", linear_width=tau)
    _symmetric_ticks(panels[-1], min(ends), max(ends), tau)
    panels[-1].set_xlabel(r"eigenvalue $\lambda$")
    return figure


def traces(estimates: Mapping[str, Estimate], exact: float | None = None) -> Figure:
    """Estimates with their 95 % intervals, one row each.

    Parameters
    ----------
    estimates
        Names to estimates of numbers, such as ``{"layer 1": trace(H1), "layer 2": trace(H2)}``.
    exact
        Where a line is to mark the truth. Default: none.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no estimate, or one of a tensor.

    Examples
    --------
    >>> figure = traces({"Hutchinson": Estimate(5.0, 0.4, 20), "XTrace": Estimate(5.1, 0.1, 20)})
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['Hutchinson', 'XTrace']
    """
    if not estimates:
        raise ValueError("estimates must hold at least one, got none")
    for name, estimate in estimates.items():
        if isinstance(estimate.value, Tensor):
            raise ValueError(f"estimates must be of numbers, got a tensor for {name!r}")
    figure = _figure(5.4, 0.8 + 0.42 * len(estimates))
    axes = figure.add_subplot()
    if exact is not None:
        axes.axvline(exact, color=GREY, linewidth=0.8, linestyle="--", label="exact")
        axes.legend(frameon=False)
    for row, estimate in enumerate(estimates.values()):
        half = float(estimate.half_width())
        known = math.isfinite(half)
        axes.errorbar(
            [estimate.value], [row], xerr=[half if known else 0.0], fmt="o", capsize=3,
            color=BLUE if known else ORANGE, markersize=4,
        )  # fmt: skip
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.invert_yaxis()
    axes.margins(y=0.25)
    axes.set_xlabel("value, 95 % interval")
    return figure


def _draw_density(axes: Axes, density: Density, tau: float, sigma: float = 0.25) -> None:
    low, high = (math.asinh(end / tau) for end in (density.lowest, density.highest))
    z = torch.linspace(low - 5 * sigma, high + 5 * sigma, 2000, dtype=torch.float64)
    each = torch.stack(
        [
            torch.exp(-0.5 * ((z[:, None] - torch.asinh(t / tau)) / sigma) ** 2) @ w
            for t, w in zip(density.nodes, density.weights)
        ]
    ) / (sigma * math.sqrt(2 * math.pi))
    y = each.mean(0)
    single = 1 / (density.n * sigma * math.sqrt(2 * math.pi))  # the top of one eigenvalue's bump
    floor, x = 0.1 * single, tau * torch.sinh(z)
    hidden = 1e-3 * floor  # below the picture: zeros would tear the line
    if density.probes > 1:
        error = each.std(0) / math.sqrt(density.probes)
        axes.fill_between(
            x.numpy(), (y - error).clamp_min(hidden).numpy(), (y + error).clamp_min(hidden).numpy(),
            color=BLUE, alpha=0.25, linewidth=0,
        )  # fmt: skip
    axes.plot(x.numpy(), y.clamp_min(hidden).numpy(), color=BLUE, linewidth=1.0)
    axes.axhline(single, color=GREY, linewidth=0.6, linestyle=":")
    axes.annotate(
        "one eigenvalue", (0.005, single), (0, 2), ("axes fraction", "data"), "offset points",
        color=GREY, fontsize="x-small",
    )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(floor, 2 * float(y.max()))
    axes.set_ylabel("density per unit of axis")


def _symmetric_ticks(axes: Axes, low: float, high: float, tau: float) -> None:
    """Ticks at 0 and at the powers of ten beyond the linear part."""
    first = math.ceil(math.log10(tau) - 1e-9)
    ticks = {0.0: "0"}
    for sign, end in ((1, high), (-1, -low)):
        if end > 0:
            for k in range(first, math.floor(math.log10(end)) + 1):
                ticks[sign * 10.0**k] = rf"${'-' if sign < 0 else ''}10^{{{k}}}$"
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()


def _levels(values: Tensor) -> tuple[Any, Any]:
    """Contour levels and colours: logarithmic for positive losses over two decades or more."""
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    low, high = float(values.min()), float(values.max())
    if low > 0 and high > 100 * low:
        return np.geomspace(low, high, 25)[1:-1], LogNorm(low, high)
    if not high > low:
        high = low + (abs(low) or 1.0)
    return np.linspace(low, high, 22)[1:-1], Normalize(low, high)


def _number(x: float) -> str:
    if x != 0 and not 1e-3 <= abs(x) < 1e4:
        exponent = math.floor(math.log10(abs(x)))
        return rf"{x / 10**exponent:.2f}\times 10^{{{exponent}}}"
    return f"{x:.3g}"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # here: importing thalweg must stay quick

    return Figure(figsize=(width, height), layout="constrained", dpi=150)
