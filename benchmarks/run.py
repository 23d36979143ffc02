"""Speed against the peers: ``make bench``.

Ratios count, not seconds: what is compared ran in turn, in one process, on one machine. A ratio is
that of the medians; the ratio of the fastest repetitions stands beside it, and if the two differ
much, the machine was busy. Each section has a process of its own: what others leave behind in the
allocator changes how long large blocks of memory take.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import platform
import sys
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import certificate
import first_order
import kronecker
import memory
import optimizers
import phase_retrieval
import projections
import race
import recovery
import recovery_phases
import report
import spectrum
import start_up
import torch
import traces
from timing import Comparison, Row, Settings, Suite, measured

import curvature

SUITES: tuple[Suite, ...] = tuple(
    suite
    for module in (
        optimizers,
        first_order,
        kronecker,
        projections,
        curvature,
        spectrum,
        traces,
        certificate,
        memory,
        start_up,
        race,
        report,
        phase_retrieval,
        recovery,
        recovery_phases,
    )
    for suite in module.SUITES
)
RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("thalweg", "torch", "numpy", "heavyball", "pytorch_optimizer", "adamp")
HEADINGS = ("work", "ours", "peer", "time", "peer's", "ratio", "of minima", "bar", "met?")


def select(only: Sequence[str], heavy: bool) -> list[tuple[Suite, list[Comparison]]]:
    """The suites, each with the comparisons whose text holds one of `only` (none: all)."""
    chosen = []
    for suite in SUITES:
        if suite.heavy and not heavy:
            continue
        rows = [
            c
            for c in suite.comparisons
            if not only or any(part.lower() in _text(suite, c).lower() for part in only)
        ]
        if rows:
            chosen.append((suite, rows))
    return chosen


def measured_apart(suite: Suite, selected: Sequence[Comparison], settings: Settings) -> list[Row]:
    """`measured` in a fresh process."""
    places = [suite.comparisons.index(c) for c in selected]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_measured_here, SUITES.index(suite), places, settings).result()


def _measured_here(place: int, places: Sequence[int], settings: Settings) -> list[Row]:
    torch.set_num_threads(settings.threads)
    suite = SUITES[place]
    return measured(suite, [suite.comparisons[i] for i in places], settings)


def _text(suite: Suite, c: Comparison) -> str:
    return f"{suite.name}: {c.work}: {c.ours} / {c.peer or 'limit'}"


def table(rows: Sequence[Row]) -> str:
    """Rows of one suite as a table of Markdown."""
    lines = [HEADINGS, ("---",) * 3 + ("---:",) * 5 + ("---",), *map(_cells, rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cells(row: Row) -> tuple[str, ...]:
    limit = row.peer_name == "limit"
    return (
        row.work,
        row.ours_name,
        row.peer_name,
        _quantity(row.ours, row.unit),
        _quantity(row.peer, row.unit),
        f"{row.ratio:.2f}",
        "" if limit else f"{row.ratio_of_minima:.2f}",
        "" if row.bar is None else f"{row.bar:g}",
        {True: "yes", False: "**no**", None: ""}[row.met],
    )


def _quantity(value: float, unit: str) -> str:
    if unit == "MB":
        value /= 1e6
    return f"{value:g}" if unit == "compilations" else f"{value:.3g} {unit}"


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    installed = {d.metadata["Name"].replace("-", "_"): d.version for d in _distributions()}
    versions = [f"{name} {installed[name]}" for name in PACKAGES if name in installed]
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "system": f"{platform.system()} {platform.machine()}",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
    }


def _distributions() -> list[importlib.metadata.Distribution]:
    return [d for d in importlib.metadata.distributions() if d.metadata["Name"]]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def document(sections: Mapping[str, str]) -> str:
    """The content of RESULTS.md."""
    parts = [
        "# Measured speed",
        "Written by `benchmarks/run.py --write`, which replaces the sections it measures; do not "
        "edit. A ratio is ours over the peer's, of medians (beside it, of the fastest "
        "repetitions); below the bar is good. Rows without a bar are context. A limit is an "
        "absolute bar, its ratio is ours over the limit.",
    ]
    parts += [f"## {name}\n\n{content}" for name, content in sections.items()]
    return "\n\n".join(parts) + "\n"


def section(rows: Sequence[Row], settings: Settings) -> str:
    """The table of one suite, and what its numbers depend on."""
    return (
        table(rows)
        + f"\n\n{datetime.date.today()}, {settings.threads} threads, {settings.rounds} interleaved "
        f"rounds after {settings.warm_up} untimed ones, {settings.processes} fresh processes where "
        f"that is what counts; {', '.join(machine().values())}"
    )


def kept_sections() -> dict[str, str]:
    """The sections of RESULTS.md as they are, in the order of the suites."""
    text = RESULTS.read_text("utf-8") if RESULTS.exists() else ""
    written = dict(part.split("\n\n", 1) for part in text.split("\n## ")[1:])
    names = [_heading(suite.name) for suite in SUITES]
    return {name: written[name].strip() for name in names if name in written}


def _heading(name: str) -> str:
    return name[0].upper() + name[1:]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=Settings.threads, help="of torch (2)")
    parser.add_argument("--rounds", type=int, help="timed rounds (40)")
    parser.add_argument("--processes", type=int, help="fresh processes per start-up row (3)")
    parser.add_argument("--only", action="append", default=[], metavar="SUBSTRING",
                        help="rows whose text holds this; may be repeated")  # fmt: skip
    parser.add_argument("--all", action="store_true", help="with the default race and the report")
    parser.add_argument("--list", action="store_true", help="print the rows, measure nothing")
    parser.add_argument("--json", action="store_true", help="print rows as JSON, and nothing else")
    parser.add_argument(
        "--write", action="store_true", help=f"put what is measured into {RESULTS.name}"
    )
    parser.add_argument("--tiny", action="store_true", help="one round of tiny sizes: does it run?")
    given = parser.parse_args(arguments)
    chosen = select(given.only, given.all)
    if given.list:
        print("\n".join(_text(suite, c) for suite, rows in chosen for c in rows))
        return 0
    if not chosen:
        parser.error(f"--only {' '.join(given.only)} fits no row; see --list")
    if given.write and given.tiny:
        parser.error("--write and --tiny cannot be given together")
    if (
        given.write
        and given.only
        and any(len(rows) < len(suite.comparisons) for suite, rows in chosen)
    ):
        parser.error("--write takes whole suites: --only must name a suite, not some of its rows")

    settings = Settings(given.threads, tiny=given.tiny)
    if given.tiny:
        settings = dataclasses.replace(settings, rounds=1, warm_up=0, processes=1)
    for name in ("rounds", "processes"):
        if getattr(given, name) is not None:
            settings = dataclasses.replace(settings, **{name: getattr(given, name)})
    torch.set_num_threads(settings.threads)
    rows: list[Row] = []
    failed = False
    for suite, comparisons in chosen:
        try:
            measure = measured if given.tiny else measured_apart
            found = measure(suite, comparisons, settings)
        except Exception:  # the others are worth measuring all the same
            print(f"\n{suite.name}\n", file=sys.stderr)
            traceback.print_exc()
            failed = True
            continue
        rows += found
        if not given.json:
            print(f"\n{suite.name}\n\n{table(found)}", flush=True)
        if given.write:
            name = _heading(suite.name)
            sections = {**kept_sections(), name: section(found, settings)}
            RESULTS.write_text(document(sections), encoding="utf-8")
            RESULTS.write_text(document(kept_sections()), encoding="utf-8")  # in order
    if given.json:
        told = [{**dataclasses.asdict(row), "met": row.met} for row in rows]
        print(json.dumps({"machine": machine(), "rows": told}, indent=2))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
