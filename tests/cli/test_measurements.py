"""What is shown while an inspection runs, from its events alone."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console

from thalweg import Training
from thalweg.cli.measurements import Measurements, line, shown
from thalweg.inspect import inspect


def event(kind: str, **what: Any) -> dict[str, Any]:
    told = {"measurement": "Trace", "products": 0, "passes": 0, "seconds": 0.0}
    return {**told, "spent": 40, "budget": 60, "kind": kind, **what}


def drawn(state: Measurements) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    console.print(state.table())
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_the_table_counts_products_and_seconds_while_one_runs() -> None:
    clock = [0.0]
    state = Measurements(now=lambda: clock[0])
    assert "preparing" in "".join(drawn(state))
    state.update(event("begun", measurement="Certificate", spent=0))
    clock[0] = 2.0
    state.update(event("products", measurement="Certificate", products=12, seconds=1.9, spent=12))
    clock[0] = 5.0  # nothing has come since: the time moves all the same
    text = drawn(state)
    assert text[1].split() == ["Certificate", "12", "5.0", "running"]
    assert text[-1].strip() == "12 of 60 products, 5 s"
    ended = {"products": 30, "passes": 3, "seconds": 6.0, "spent": 30}
    state.update(event("ended", measurement="Certificate", **ended))
    state.update(event("skipped", seconds=0.5))
    clock[0] = 9.0
    text = drawn(state)
    assert text[1].split() == ["Certificate", "30", "3", "6.0"]
    assert text[2].split() == ["Trace", "0", "0", "0.5", "not", "measured"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (event("ended", products=1, passes=3, seconds=2.0),
         "[40/60] Trace: 1 product, 3 passes (2.00 s)"),
        (event("ended", passes=1, spent=7), "[ 7/60] Trace: 1 pass (0.00 s)"),
        (event("skipped", products=4), "[40/60] Trace: not measured (0.00 s)"),
    ],
)  # fmt: skip
def test_line(told: dict[str, Any], expected: str) -> None:
    assert line(told) == expected


def test_lines_only_of_what_is_over_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with shown(stream) as display:
        for kind in ("begun", "products", "ended"):
            display(event(kind, products=8))
    assert stream.getvalue() == "[40/60] Trace: 8 products (0.00 s)\n"


def test_quiet_shows_warnings_alone() -> None:
    stream = io.StringIO()
    with shown(stream, quiet=True) as display:
        display(event("ended"))
        display.tell("thalweg: warning: [x]")
    assert stream.getvalue() == "thalweg: warning: [x]\n"


def test_a_live_table_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "is_terminal", property(lambda self: True))
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    with shown(stream) as display:
        display(event("ended", products=8))
        display.tell("thalweg: warning: [x]")
    text = stream.getvalue()
    assert "40 of 60 products" in text and "[40/60]" not in text
    assert "thalweg: warning: [x]" in text


def test_the_events_of_an_inspection_add_up_to_its_cost() -> None:
    start = torch.tensor([0.5, 0.5, 0.1], dtype=torch.float64)
    events: list[dict[str, Any]] = []
    f = Training.from_function(lambda x: ((x - 0.5) ** 2).sum() + x[0] ** 3, start)
    found = inspect(f, budget=60, on_event=events.append)
    over = [e for e in events if e["kind"] == "ended"]
    assert [e["measurement"] for e in over] == [row.name for row in found.cost]
    assert [e["products"] for e in over] == [row.products for row in found.cost]
    assert over[-1]["spent"] == sum(row.products for row in found.cost)
    assert {e["budget"] for e in events} == {60}
    trace = [e["products"] for e in events if e["measurement"] == "Trace"]
    assert trace[0] == 0 and trace == sorted(trace) and trace[-2] == trace[-1] > 0
