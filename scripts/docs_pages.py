"""Pages made when the site is built: the catalogue from the code, the pages kept beside it.

A hook of mkdocs (see mkdocs.yml). The catalogue is what each method declares about itself, so it
cannot go stale; `python scripts/docs_pages.py` prints it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

from thalweg.cli.methods import catalogue as every_method
from thalweg.cli.methods import source
from thalweg.core.catalogue import (
    Choice,
    Entry,
    LogUniform,
    OneMinusLogUniform,
    Uniform,
    names_of,
)

ROOT = Path(__file__).resolve().parent.parent

HEAD = """# Catalogue

Every method of `thalweg`, as it declares itself: where the formula comes from, what it keeps in
memory on top of the parameters or unknowns, and the space `thalweg compare` tunes it over (chosen
once per method, not per problem). An optimizer trains networks; a solver says which problems it
solves. `thalweg methods` prints the same list.
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the site."""
    from mkdocs.structure.files import File

    pages = {
        "catalogue.md": catalogue(),
        "contributing.md": beside_the_code("CONTRIBUTING.md"),
        "changelog.md": beside_the_code("CHANGELOG.md"),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def beside_the_code(name: str) -> str:
    """A page of the repository's root, its links as seen from docs/."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    return re.sub(r"\]\((CHANGELOG|CONTRIBUTING)\.md\)", lambda m: f"]({m[1].lower()}.md)", text)


def catalogue() -> str:
    """The catalogue as Markdown: an overview table, then one section a method."""
    entries = every_method()
    rows = [
        f"| [{e.name}](#{e.name.lower()}) | {cell(e.summary)} | {e.year} | {cell(e.memory)} |"
        for e in entries
    ]
    table = ["| method | what it is | year | memory |", "| --- | --- | --- | --- |", *rows, ""]
    sections = [
        part
        for family, members in groupby(entries, key=lambda e: e.family)
        for part in (f"## {family[:1].upper()}{family[1:]}", "", *map(section, members))
    ]
    return "\n".join([HEAD, *table, *sections])


def section(e: Entry) -> str:
    """One method: formula, source, memory, search space."""
    formula = first_formula(inspect.getdoc(e.target) or "")
    lines = [f"### {e.name}", "", f"{plain(e.summary)}. `{e.place}`", ""]
    if formula:
        lines += ["$$", formula, "$$", ""]
    picture = Path("images", "methods", f"{e.name.lower()}.png")
    if (ROOT / "docs" / picture).exists():
        lines += [f"![The path of {e.name} down a curved valley]({picture})", ""]
    facts = {
        "source": source(e),
        "solves": ", ".join(f"`{name}`" for name in names_of(e.problems)),
        "memory": e.memory,
        "needs": ", ".join(e.needs),
        "tuned over": "; ".join(axes(e.search_space)),
    }
    races = hasattr(e.target, "step") or e.problems
    if races and not e.search_space:  # what cannot race is not tuned at all
        facts["tuned over"] = "nothing: it has no parameter to tune"
    lines += [f"- **{name}**: {plain(text)}" for name, text in facts.items() if text]
    return "\n".join([*lines, ""])


def axes(space: Mapping[str, Any]) -> Iterable[str]:
    """Each axis of a search space in words."""
    for name, axis in space.items():
        match axis:
            case LogUniform(low=low, high=high):
                yield f"`{name}` log-uniform in [{low:g}, {high:g}]"
            case OneMinusLogUniform(low=low, high=high):
                yield f"1 - `{name}` log-uniform in [{low:g}, {high:g}]"
            case Uniform(low=low, high=high):
                yield f"`{name}` uniform in [{low:g}, {high:g}]"
            case Choice(values=values):
                yield f"`{name}` in {', '.join(map(str, values))}"
            case _:
                yield f"`{name}`"


def first_formula(docstring: str) -> str:
    """The LaTeX of the first displayed formula of a docstring, else of the first inline one."""
    lines = iter(docstring.splitlines())
    for line in lines:
        if line.startswith(".. math::"):
            block = takewhile(lambda line: not line.strip() or line[0].isspace(), lines)
            formula = [line.removeprefix(".. math::").strip(), *map(str.strip, block)]
            return aligned("\n".join(filter(None, formula)))
    inline = re.search(r":math:`([^`]+)`", docstring)
    return inline[1] if inline else ""


def aligned(formula: str) -> str:
    """A formula of several lines gets the environment that Sphinx would have put around it."""
    if r"\begin" in formula or not ("&" in formula or r"\\" in formula):
        return formula
    return "\\begin{aligned}\n" + formula + "\n\\end{aligned}"


def plain(text: str) -> str:
    """The mark-up of docstrings as Markdown, on one line."""
    inline = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    return " ".join(inline.replace("``", "`").split())


def cell(text: str) -> str:
    """The same, safe in a cell of a Markdown table."""
    return plain(text).replace("|", r"\|")


if __name__ == "__main__":
    print(catalogue())
