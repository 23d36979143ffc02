"""The page docs/contract.md from the record of `thalweg check-optimizer --all`.

thalweg check-optimizer --all --peers -j 1 --json docs/images/studies/contract.json
python scripts/contract_page.py docs/images/studies/contract.json docs/contract.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from thalweg.testing.report import Outcome
from thalweg.testing.table import Row, Share, rows_of, tabulate

MARKS = {
    Outcome.PASS: "✓",
    Outcome.REFUSED: "r",
    Outcome.NOTE: "n",
    Outcome.NOT_APPLICABLE: "·",
    Outcome.FAIL: "✗",
}

NO_STATE = "got KeyError: 'state'"

HEAD = """# The contract

An optimizer is more than its formula: a long run is stopped and resumed, its learning rate is
scheduled, its checkpoint goes through other hands, and none of this should change a bit. The
contract says what must hold, in {clauses} clauses; `thalweg.testing.check_optimizer` checks any
`torch.optim.Optimizer` class, ours, PyTorch's or your own:

```bash
thalweg check-optimizer my.module:MyOptimizer lr=1e-3
```

This page is the table over every optimizer of `thalweg`, with other libraries beside it. Two
commands make it, and anyone can run them again:

```bash
{command} -j 1 --json docs/images/studies/contract.json
python scripts/contract_page.py docs/images/studies/contract.json docs/contract.md
```

Every class is built with its default hyper-parameters and trains a tanh network of 8-16-4 units
for 4 + 4 steps on the CPU, in a process of its own. Versions: {versions}.{distributed}
"""

SUMMARY = """## How many hold each clause

Methods that hold a clause, of those it applies to. A clear refusal (of complex parameters, say)
holds a clause whose alternative would be a wrong result. *Noted* is a weakness that
`torch.optim.Optimizer` itself has and that a library inherits. Nearly all clauses compare bit for
bit; *compile* cannot, and a method that amplifies the last bits of a gradient (eigenvectors, line
searches) may miss its tolerance without being at fault.
"""

OURS = """## Every optimizer of thalweg

✓ holds, r refused with a clear error, n noted, · does not apply, ✗ broken; the marks stand in the
order of the clauses [below](#what-each-clause-demands).
"""


def page(record: Mapping[str, Any]) -> str:
    """The whole page as Markdown."""
    rows = rows_of(record)
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    several = any(clause["when"] == "distributed" for clause in record["clauses"])
    head = HEAD.format(
        clauses=len(record["clauses"]),
        command=record["command"],
        versions=versions,
        distributed=""
        if several
        else "\nThe clauses on several processes (DDP, FSDP2, ...) are added by `--distributed`.",
    )
    parts = [head, verdict(rows), SUMMARY, *summary(record, rows), "", *notes(record, rows)]
    parts += [OURS, *methods(record, rows), "", "## What each clause demands", ""]
    return "\n".join([*parts, *demands(record)]).rstrip() + "\n"


def verdict(rows: Iterable[Row]) -> str:
    ours = [row for row in rows if row.library == "thalweg"]
    bad = [row.method for row in ours if not row.ok]
    if bad:
        return f"**Verdict:** {len(bad)} of {len(ours)} break a clause: {', '.join(bad)}.\n"
    return f"**Verdict:** {len(ours)} of {len(ours)} hold every clause asked here.\n"


def grouped(record: Mapping[str, Any]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """The clauses under what they are about, in the order of the contract."""
    names = dict.fromkeys(clause["group"] for clause in record["clauses"])
    for name in names:
        yield name, [clause for clause in record["clauses"] if clause["group"] == name]


def summary(record: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[str]:
    """A line a clause, a library a column."""
    shares = tabulate(rows)
    libraries = [name for name, _ in groupby(rows, key=lambda row: row.library)]
    yield table_line("clause", *libraries)
    yield table_line("---", *("---:" for _ in libraries))
    for group, clauses in grouped(record):
        yield table_line(f"*{group}*", *("" for _ in libraries))
        for clause in clauses:
            found = (shares.get(name, {}).get(clause["name"], Share()) for name in libraries)
            yield table_line(clause["name"], *map(share, found))
    members = {name: [row for row in rows if row.library == name] for name in libraries}
    left = (sum(row.left_out is not None for row in members[name]) for name in libraries)
    yield table_line(
        "left out, of all",
        *(f"{n} of {len(members[x])}" for n, x in zip(left, libraries, strict=True)),
    )


def share(found: Share) -> str:
    return f"{found} ({found.noted} noted)" if found.noted else str(found)


def notes(record: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[str]:
    """How the others were asked, who was left out and why, and whose process had to be stopped."""
    yield "Left out are methods that need more than their parameters to be built and stepped:"
    yield ""
    for library, members in groupby(rows, key=lambda row: row.library):
        out = [row.method for row in members if row.left_out is not None]
        if out:
            yield f"- {library}: {', '.join(out)}"
    yield ""
    for name, note in record["notes"].items():
        yield f"- {name}: {note}"
    for library, members in groupby(rows, key=lambda row: row.library):
        asked = [
            {f.clause for f in m.findings if NO_STATE in f.detail} for m in members if m.findings
        ]
        if asked and all(asked):
            yield (
                f"- {library}: its `state_dict()` has no key `state`, which torch's own has and "
                f"{len(set.union(*asked))} of the clauses read; there it breaks at once"
            )
    for row in rows:
        if row.trouble:
            yield f"- {row.library} {row.method}: {row.trouble}"
    yield ""
    yield "What was found for each method of each library, in words:"
    yield "[contract.json](images/studies/contract.json)."
    yield ""


def methods(record: Mapping[str, Any], rows: Iterable[Row]) -> Iterator[str]:
    """A line a method of ours, a mark a clause."""
    groups = list(grouped(record))
    yield table_line("optimizer", *(name for name, _ in groups))
    yield table_line("---", *("---" for _ in groups))
    for row in rows:
        if row.library == "thalweg":
            outcome = {finding.clause: finding.outcome for finding in row.findings}
            marks = (
                "".join(MARKS[outcome.get(c["name"], Outcome.NOT_APPLICABLE)] for c in clauses)
                for _, clauses in groups
            )
            yield table_line(row.method, *marks)


def demands(record: Mapping[str, Any]) -> Iterator[str]:
    """Every clause in its own words."""
    for group, clauses in grouped(record):
        yield f"### {group[:1].upper()}{group[1:]}"
        yield ""
        for number, clause in enumerate(clauses, 1):
            yield f"{number}. **{clause['name']}**: {escaped(clause['statement'])}"
        yield ""


def table_line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    return text.replace("*", r"\*").replace("_", r"\_").replace("[", r"\[")


def main(source: Path, target: Path) -> None:
    """Write the page of a record."""
    record = json.loads(source.read_text(encoding="utf-8"))
    target.write_text(page(record), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
