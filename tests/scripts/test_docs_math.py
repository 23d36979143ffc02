"""Formulas of the site, drawn when it is built."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

import pytest

from thalweg.cli.methods import catalogue
from thalweg.core.catalogue import Entry

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


math, pages = script("docs_math"), script("docs_pages")


class Page:
    class file:
        src_uri = "page.md"


def test_formulas_of_a_page_become_mathml() -> None:
    content = (
        r'<p>If <span class="arithmatex">\(a &lt; b\)</span> then</p>'
        r'<div class="arithmatex">\[x = \frac{1}{2}\]</div><code>\(c\)</code>'
    )
    drawn = math.on_page_content(content, Page())
    assert "arithmatex" not in drawn
    assert drawn.count("<math") == 2
    assert 'display="block"' in drawn
    assert r"<code>\(c\)</code>" in drawn


@pytest.mark.parametrize(
    ("latex", "sign"),
    [
        (r"\begin{aligned}a &= b \\ c &= d\end{aligned}", "<mtable"),
        (r"\bigl\|x\bigr\|", "<mi>x</mi>"),
        (r"\arg\min_{x} f", "<mo>arg</mo>"),
        (r"\textstyle\sum_i", "&#x02211;"),
    ],
)
def test_what_the_converter_does_not_know(latex: str, sign: str) -> None:
    drawn = math.mathml(latex, block=True, where="here")
    assert sign in drawn
    assert "\\" not in drawn


def test_an_unknown_command_stops_the_build() -> None:
    with pytest.raises(ValueError, match=r"page.md: cannot draw \\nosuch"):
        math.mathml(r"\nosuch{x}", block=True, where="page.md")


@pytest.mark.parametrize("entry", catalogue(), ids=lambda entry: entry.name)
def test_every_method_has_a_formula_that_can_be_drawn(entry: Entry) -> None:
    formula = pages.first_formula(inspect.getdoc(entry.target) or "")
    assert formula
    assert "<math" in math.mathml(formula, block=True, where=entry.name)
