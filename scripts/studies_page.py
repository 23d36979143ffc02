"""Write docs/studies.md from runs of ``thalweg study``.

    thalweg study NAME ... --out RUNS
    python scripts/studies_page.py RUNS

takes from RUNS, a directory with one run a study, the result and the figure of each to
docs/images/studies/, and writes the page anew from all that are there: studies that were not run
again stay. Without RUNS the page is only written anew. Where the text of a study is no longer the
one that was run (by the hash of its file that `run_study` keeps), the page says so.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from thalweg.cli.study import numbers_of
from thalweg.studies import discover
from thalweg.studies.run import code_of

DOCS = Path(__file__).resolve().parent.parent / "docs"

HEAD = """# Studies

Published claims, re-measured by one command each. The rule of every verdict stands in the code
before the run: a part *holds* if its 95 % interval (over paired seeds) lies wholly on the claimed
side, *does not hold* if it lies wholly on the other, and is *inconclusive* otherwise; a failed
control makes the study inconclusive. Step sizes are tuned for each method on the same grid, and a
winner at its edge is a failed control. A verdict is about the claim **at this scale**: "does not
hold" does not say that the paper is wrong.

`thalweg study --list` lists them, `thalweg study NAME` runs one in seconds to a quarter of
an hour on one core (`--scale smoke` in less), without any download. Rows, result and figure are
kept.
"""

EARLIER = (
    "This record is of an earlier text of the study: its file has changed since the run, so that\n"
    "the command need not give the same rows."
)


def main(arguments: Sequence[str], docs: Path = DOCS) -> None:
    """Take over the runs, then write the page."""
    images = docs / "images" / "studies"
    images.mkdir(parents=True, exist_ok=True)
    for runs in arguments:
        take(Path(runs), images)
    results = results_in(images)
    if not results:
        raise SystemExit(f"{images} has no result of a study; give the directory of the runs")
    (docs / "studies.md").write_text(page(results), encoding="utf-8", newline="\n")


def results_in(images: Path) -> list[dict[str, Any]]:
    """The results of the directory by name; other records beside them are not ours."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(images.glob("*.json")))
    return [result for result in map(json.loads, texts) if "study" in result]


def take(runs: Path, images: Path) -> None:
    """Copy result and figure of every finished run in the directory."""
    found = sorted(runs.glob("*/result.json"))
    if not found:
        raise SystemExit(f"{runs} has no runs: no NAME/result.json in it")
    for path in found:
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["verdict"] is None:
            print(f"{path.parent} is not finished: left out", file=sys.stderr)
            continue
        shutil.copyfile(path, images / f"{result['study']}.json")
        shutil.copyfile(path.parent / "figure.png", images / f"{result['study']}.png")


def page(results: Sequence[dict[str, Any]]) -> str:
    """The page: a table of all verdicts, then one section a study.

    >>> page([]).splitlines()[0]
    '# Studies'
    """
    table = [
        "| study | claim | verdict |",
        "| --- | --- | --- |",
        *(
            f"| [{r['study']}](#{r['study']}) | {cell(r['claim']['title'])} "
            f"| {r['verdict']['word']} |"
            for r in results
        ),
        "",
    ]
    return "\n".join([HEAD, *table, *(section(r) for r in results)])


def section(result: dict[str, Any]) -> str:
    """Claim, paper, command, verdict line, figure, parts."""
    name, claim, verdict = result["study"], result["claim"], result["verdict"]
    lines = [
        f'## <a id="{name}"></a>{claim["title"]}',
        "",
        f"**Claim.** {claim['sentence']} ({claim['paper']})",
        "",
        f"**Expected.** {sentence(claim['expected'])} **Refuted by** {claim['refuted_by']}.",
        "",
        f"**Verdict: {verdict['word']}** ({result['scale']} scale, seed {result['seed']}). "
        f"{verdict['sentence']}",
        "",
        f"![{claim['title']}](images/studies/{name}.png)",
        "",
        "| part | verdict | effect | 95 % interval |",
        "| --- | --- | --- | --- |",
        *(row(part) for part in verdict["parts"]),
        "",
    ]
    if verdict["power"]:
        lines += [f"Power: {verdict['power']}.", ""]
    command = f"thalweg study {name}"
    if result["scale"] != "laptop":
        command += f" --scale {result['scale']}"
    if result["seed"] != 0:
        command += f" --seed {result['seed']}"
    versions = ", ".join(f"{key} {result['versions'][key]}" for key in ("thalweg", "torch"))
    lines += ["```bash", command, "```", "", f"{result['rows']:,} rows; {versions}.", ""]
    if result.get("code") != codes().get(name):
        lines += [EARLIER, ""]
    return "\n".join(lines)


@cache
def codes() -> dict[str, str]:
    """The hash of each study's file as it is now."""
    return {name: code_of(study) for name, study in discover().items()}


def row(part: dict[str, Any]) -> str:
    """One line of the table of parts.

    >>> part = {"statement": "x > 0", "word": "holds", "effect": 1.0, "interval": [0.5, None]}
    >>> row({**part, "note": "a | b", "control": True})
    '| control: x > 0 (a \\\\| b) | holds | 1 | [0.5, not finite] |'
    """
    statement = ("control: " if part["control"] else "") + part["statement"]
    if part["note"]:
        statement += f" ({part['note']})"
    effect, interval = numbers_of(part)
    return f"| {cell(statement)} | {part['word']} | {effect} | {interval} |"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def cell(text: str) -> str:
    """Safe in a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", r"\|")


if __name__ == "__main__":
    main(sys.argv[1:])
