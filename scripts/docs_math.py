"""Formulas become MathML when the site is built: browsers draw it, no script and no network.

A hook of mkdocs (see mkdocs.yml). The extension `arithmatex` has marked the formulas.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\s*\\(?:\((?P<inline>.*?)\\\)|\[(?P<block>.*?)\\\])\s*</\1>',
    re.DOTALL,
)

# What the converter does not know, in words that it does.
SYNONYMS = (
    (re.compile(r"\\(begin|end)\{(?:aligned|split)\}"), r"\\\1{align*}"),
    (re.compile(r"\\[bB]igg?[lr]?\s*(?=[\\()\[\]|/])"), ""),
    (re.compile(r"\\textstyle(?![A-Za-z])"), ""),
    (re.compile(r"\\arg(?![A-Za-z])"), r"\\operatorname{arg}\\,"),
)


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Replace each marked formula of a page."""

    def draw(match: re.Match[str]) -> str:
        block = match["block"] is not None
        latex = html.unescape(match["block"] if block else match["inline"]).strip()
        return mathml(latex, block=block, where=page.file.src_uri)

    return FORMULA.sub(draw, content)


def mathml(latex: str, *, block: bool, where: str) -> str:
    """One formula as MathML; a command the converter does not know stops the build."""
    source = latex
    for pattern, known in SYNONYMS:
        source = pattern.sub(known, source)
    drawn = convert(source, display="block" if block else "inline")
    left_over = re.search(r"<m[iot]>\s*(\\[A-Za-z]+|&amp;|&)\s*</m[iot]>", drawn)
    if left_over:
        raise ValueError(f"{where}: cannot draw {left_over[1]} in the formula {latex}")
    return f'<div class="formula">{drawn}</div>' if block else drawn
