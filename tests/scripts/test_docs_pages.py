"""The pages of the site that are made from the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import thalweg.learn
import thalweg.nn
import thalweg.optim
import thalweg.solve.recovery
from thalweg.core.catalogue import Choice, LogUniform, OneMinusLogUniform, Uniform

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_pages", ROOT / "scripts/docs_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("docstring", "formula"),
    [
        ("A.\n\n.. math:: a = 1,\n    b = 2\n\nText.", "a = 1,\nb = 2"),
        ("A :math:`x`.\n\n.. math::\n\n    a = 1\n\nText.", "a = 1"),
        ("A.\n\n.. math:: a &= 1", "\\begin{aligned}\na &= 1\n\\end{aligned}"),
        ("A :math:`x^2`.", "x^2"),
        ("No formula.", ""),
    ],
)
def test_first_formula(pages: ModuleType, docstring: str, formula: str) -> None:
    assert pages.first_formula(docstring) == formula


def test_axes_in_words(pages: ModuleType) -> None:
    space = {
        "lr": LogUniform(1e-4, 1.0),
        "betas[0]": OneMinusLogUniform(1e-3, 0.3),
        "delta": Uniform(0.0, 0.5),
        "nesterov": Choice((False, True)),
    }
    assert list(pages.axes(space)) == [
        "`lr` log-uniform in [0.0001, 1]",
        "1 - `betas[0]` log-uniform in [0.001, 0.3]",
        "`delta` uniform in [0, 0.5]",
        "`nesterov` in False, True",
    ]


def test_a_bar_does_not_break_the_table(pages: ModuleType) -> None:
    assert pages.cell("the norm\n|x| of ``x`` and :math:`y`") == r"the norm \|x\| of `x` and $y$"


def test_the_catalogue_has_every_method_once(pages: ModuleType) -> None:
    headings = [line for line in pages.catalogue().splitlines() if line.startswith("### ")]
    places = (thalweg.optim, thalweg.solve.recovery, thalweg.nn, thalweg.learn)
    methods = {name: getattr(place, name) for place in places for name in place.__all__}
    declared = [name for name, method in methods.items() if getattr(method, "paper", None)]
    assert {"Adam", "MomentumLSTM", "NormalizedLogisticRegression"} <= set(declared)
    assert sorted(headings) == sorted(f"### {name}" for name in declared)


def test_a_solver_says_what_it_solves_and_whether_it_is_tuned(pages: ModuleType) -> None:
    entries = {entry.name: entry for entry in pages.every_method()}
    tuned = pages.section(entries["scaled_gradient"])
    assert "`thalweg.solve.recovery.scaled_gradient`" in tuned
    assert "- **solves**: `MatrixCompletion`, `MatrixSensing`" in tuned
    assert "- **tuned over**: `step_size` log-uniform" in tuned
    assert "nothing: it has no parameter" in pages.section(entries["alternating_minimization"])
    assert "**solves**" not in pages.section(entries["Adam"])


def test_links_of_the_root_pages_lead_into_the_site(pages: ModuleType) -> None:
    text = pages.beside_the_code("CONTRIBUTING.md")
    assert "](protocol.md)" in text
    assert "](changelog.md)" in text
    assert "](docs/" not in text
