"""The pictures of the catalogue: every optimizer has one, and they show real paths."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest

from thalweg.compare import catalogues, methods

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location(
    "pictures", ROOT / "scripts" / "optimizer_pictures.py"
)
pictures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pictures)


def test_every_optimizer_has_its_picture():
    names = {
        entry.name.lower()
        for entry in catalogues.entries()
        if inspect.isclass(entry.target) and hasattr(entry.target, "step")
    }
    assert names == {file.stem for file in (ROOT / "docs" / "images" / "methods").glob("*.png")}


def test_a_path_is_the_methods_own():
    (contender,) = methods.resolve("sgd")
    points = pictures.path(contender, {"lr": 1e-3, "momentum": 0.0})
    (x0, y0, f0), (x1, y1, _) = points[0], points[1]
    # f = (1 - x)^2 + 10 (y - x^2)^2 at (-1.2, 1)
    assert f0 == pytest.approx(2.2**2 + 10 * 0.44**2, rel=1e-6)
    assert x1 - x0 == pytest.approx(1e-3 * (2 * 2.2 + 40 * 1.2 * 0.44), rel=1e-4)
    assert y1 - y0 == pytest.approx(-1e-3 * 20 * -0.44, rel=1e-4)


def test_the_best_path_is_complete(monkeypatch):
    monkeypatch.setattr(pictures, "STEPS", 20)
    monkeypatch.setattr(pictures, "TRIALS", 4)
    (contender,) = methods.resolve("adam")
    values, points = pictures.best_path(contender)
    assert set(values) <= set(contender.space) and len(points) == 20
    assert len(pictures.draw(contender).axes) == 2
