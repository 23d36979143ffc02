"""Pictures: they hold the numbers they are given, and leave pyplot alone."""

from __future__ import annotations

import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from thalweg.core.estimate import Estimate
from thalweg.core.problem import Training
from thalweg.curvature import landscape, pictures
from thalweg.curvature.spectrum import density, extremes
from thalweg.numeric.operator import as_operator

SADDLE = Training.from_function(lambda x: x[0] ** 2 - 3 * x[1] ** 2 + 5, torch.zeros(2).double())
E1, E2 = torch.eye(2, dtype=torch.float64)
H = as_operator(torch.diag(torch.cat([torch.linspace(-0.01, 0.02, 60), torch.tensor([1.0, 9.0])])))


def drawn(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_the_parabola_and_the_loss_of_a_slice() -> None:
    found = landscape.slice(SADDLE, E2, points=11)
    axes = pictures.slope(found).axes[0]
    loss, model, centre = axes.lines
    assert np.allclose(loss.get_ydata(), found.values) and np.allclose(loss.get_xdata(), found.axes)
    assert np.allclose(model.get_ydata(), 5 - 3 * found.axes[0] ** 2)
    assert centre.get_ydata() == [5.0]
    assert "= -6$" in axes.get_legend().get_texts()[1].get_text()


def test_a_steep_parabola_does_not_hide_the_loss() -> None:
    flat = Training.from_function(lambda x: torch.tanh(100 * x**2).sum(), torch.zeros(1).double())
    axes = pictures.slope(landscape.slice(flat, torch.ones(1).double())).axes[0]
    assert axes.get_ylim()[1] < 2
    assert "200$" in axes.get_legend().get_texts()[1].get_text()


@pytest.mark.parametrize("logarithmic", [False, True])
def test_the_plane(logarithmic: bool) -> None:
    f = Training.from_function(
        lambda x: (x**2).sum() + (1e-3 if logarithmic else 1.0), torch.zeros(2).double()
    )
    path = torch.tensor([[0.5, 0.4], [0.0, 0.0]])
    found = landscape.slice(f, [E1, E2], points=9, path=path, extent=[1.0, (-0.5, 2.0)])
    figure = pictures.plane(found, ("a", "b"))
    flat, bar, surface = figure.axes
    assert flat.get_xlim() == (-1, 1) and flat.get_ylim() == (-0.5, 2)
    assert np.allclose(flat.lines[1].get_xydata(), path)
    assert bar.get_ylabel() == "loss" and (flat.get_xlabel(), flat.get_ylabel()) == ("a", "b")
    assert surface.get_title() == (r"$\log_{10}$ loss" if logarithmic else "loss")
    low, high = surface.get_zlim()
    heights = found.values.log10() if logarithmic else found.values
    assert low <= float(heights.min()) and high >= float(heights.max())


def test_the_contours_are_not_transposed() -> None:
    found = landscape.slice(SADDLE, [E1, E2], points=21)
    contours = pictures.plane(found).axes[0].collections[0]
    for level, path in zip(contours.get_array(), contours.get_paths()):
        x, y = path.vertices.T
        assert np.allclose(x**2 - 3 * y**2 + 5, level, atol=0.02)


def test_a_constant_loss_can_be_drawn() -> None:
    flat = Training.from_function(lambda x: 0 * x.sum() + 2, torch.zeros(2).double())
    assert drawn(pictures.plane(landscape.slice(flat, [E1, E2], points=3)))
    assert drawn(pictures.slope(landscape.slice(flat, E1, points=3)))


def test_the_segment() -> None:
    found = landscape.line(SADDLE, -E1, E1 + E2, points=7)
    axes = pictures.segment(found, ("SGD", "Adam")).axes[0]
    assert np.allclose(axes.lines[0].get_ydata(), found.values)
    assert list(axes.lines[1].get_ydata()) == list(found.ends)
    assert [t.get_text() for t in axes.texts] == ["SGD", "Adam"]
    assert axes.get_title() == f"barrier {found.barrier:.3g}"


def test_the_density_integrates_to_one_over_the_axis() -> None:
    axes = pictures.spectrum(density(H)).axes[0]
    curve = axes.lines[0]
    z = np.arcsinh(curve.get_xdata() / (1e-3 * 9.0))
    assert np.trapezoid(curve.get_ydata(), z) == pytest.approx(1, abs=5e-3)
    # the outlier 9 is one of 62 eigenvalues: its bump tops at the dotted line
    top = curve.get_ydata()[np.argmin(abs(curve.get_xdata() - 9.0))]
    assert top == pytest.approx(axes.lines[1].get_ydata()[0], rel=0.5)


def test_the_stems_are_the_extreme_eigenvalues() -> None:
    found = extremes(H, k=2)
    axes = pictures.spectrum(extremes=found).axes[0]
    positive, negative = (line.get_xdata().tolist() for line in axes.lines[:2])
    assert [*negative, *positive] == pytest.approx(found.values.tolist())
    assert all(x < 0 for x in negative) and all(x >= 0 for x in positive)
    both = pictures.spectrum(density(H), found)
    assert len(both.axes) == 2 and both.axes[0].get_xlim() == both.axes[1].get_xlim()
    labels = [label.get_text() for label in both.axes[1].get_xticklabels()]
    assert {"0", "$10^{-2}$", "$10^{-1}$", "$10^{0}$"} <= set(labels)


def test_a_zero_spectrum_can_be_drawn() -> None:
    zero = as_operator(torch.zeros(20, 20, dtype=torch.float64))
    assert drawn(pictures.spectrum(density(zero), extremes(zero)))


def test_the_error_bars() -> None:
    estimates = {"a": Estimate(5.0, 0.5, 20), "b": Estimate(4.0, float("inf"), 1)}
    axes = pictures.traces(estimates, exact=4.5).axes[0]
    bars = [c.lines[2][0].get_segments()[0][:, 0] for c in axes.containers]
    assert bars[0] == pytest.approx(estimates["a"].interval()) and bars[1] == pytest.approx([4, 4])
    assert axes.lines[0].get_xdata() == [4.5, 4.5]


def test_every_figure_can_be_saved_and_pyplot_is_not_touched() -> None:
    style = dict(mpl.rcParams)
    plane = landscape.slice(SADDLE, [E1, E2], points=5)
    for figure in (
        pictures.plane(plane),
        pictures.slope(landscape.slice(SADDLE, E1, points=5)),
        pictures.segment(landscape.line(SADDLE, E1, E2, points=5)),
        pictures.spectrum(density(H), extremes(H)),
        pictures.traces({"trace": Estimate(1.0, 0.1, 9)}),
    ):
        assert drawn(figure).startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == style


def test_importing_does_not_import_matplotlib() -> None:
    code = (
        "import sys, thalweg.curvature.pictures, thalweg.curvature.landscape\n"
        "import thalweg.curvature.sharpness, thalweg.curvature.trace\n"
        "sys.exit(any(m.split('.')[0] in ('matplotlib', 'scipy') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_refused() -> None:
    one, two = (landscape.slice(SADDLE, d, points=3) for d in (E1, [E1, E2]))
    with pytest.raises(ValueError, match="slice must be of two directions, got one"):
        pictures.plane(one)
    with pytest.raises(ValueError, match="slice must be of one direction, got two"):
        pictures.slope(two)
    with pytest.raises(ValueError, match="density or extremes must be given, got neither"):
        pictures.spectrum()
    with pytest.raises(ValueError, match="estimates must hold at least one, got none"):
        pictures.traces({})
    with pytest.raises(ValueError, match="estimates must be of numbers, got a tensor for 'd'"):
        pictures.traces({"d": Estimate(torch.ones(2), torch.ones(2), 3)})
