"""What is shown while a race runs, from its events alone."""

from __future__ import annotations

import io
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from thalweg.cli.board import BARS, Board, duration, line, shown, sparkline


def job(method: str, **event: Any) -> dict[str, Any]:
    return {"kind": "job", "stage": "tune", "method": method, "status": "done", "total": 8} | event


def drawn(board: Board) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(board.table())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_holds_each_method_with_its_best_value_and_its_trouble() -> None:
    board = Board()
    board.update({"kind": "stage", "stage": "tune", "method": None, "done": 0, "total": 8})
    board.update(job("adam", validation=0.5, done=1))
    board.update(job("adam", validation=0.25, done=2))
    board.update(job("sgd", validation=None, status="diverged", done=3))
    board.update(job("sgd", validation=0.01, status="failed", done=4))
    text = drawn(board)
    adam = next(text_line for text_line in text.splitlines() if text_line.startswith("adam"))
    sgd = next(text_line for text_line in text.splitlines() if text_line.startswith("sgd"))
    assert adam.split() == ["adam", "tuning", "2", "0.25", "█▁"]
    assert sgd.split() == ["sgd", "tuning", "2", "××", "1", "diverged,", "1", "failed"]
    assert "4 of 8 runs" in text


@pytest.mark.parametrize(("goal", "best"), [("min", 0.25), ("max", 0.5)])
def test_best_follows_the_goal(goal: str, best: float) -> None:
    board = Board()
    board.update({"kind": "stage", "stage": "tune", "goal": goal})
    for value in (0.3, 0.5, 0.25):
        board.update(job("adam", validation=value))
    assert board.best("adam") == best


def test_a_method_name_is_no_markup() -> None:
    board = Board()
    board.update(job("lion[lr=1e-4]", validation=1.0))
    board.update(job("[bold]x[/bold]", validation=1.0))
    assert "lion[lr=1e-4]" in drawn(board)
    assert "[bold]x[/bold]" in drawn(board)


def test_time_left_is_that_of_the_recent_pace() -> None:
    clock = iter([0.0, 2.0, 4.0])
    board = Board(now=lambda: next(clock))
    for done in (0, 1, 2):
        board.update(job("adam", validation=1.0, done=done, total=10))
    assert board.seconds_left() == 16.0
    assert "about 16 s left" in drawn(board)


def test_no_time_is_promised_before_anything_is_known() -> None:
    board = Board()
    assert board.seconds_left() is None
    board.update(job("adam", done=1))
    assert board.seconds_left() is None


@given(st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), max_size=30))
def test_a_sparkline_has_one_sign_a_run(values: list[float | None]) -> None:
    drawn = sparkline(values)
    assert len(drawn) == len(values)
    for sign, value in zip(drawn, values, strict=True):
        assert (sign == "×") == (value is None or not math.isfinite(value))
        assert sign in BARS + "×"


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=20))
def test_a_sparkline_keeps_the_order(values: list[float]) -> None:
    heights = [BARS.index(sign) for sign in sparkline(values)]
    for a, b in pairwise(values):
        if a < b:
            i = values.index(a)
            assert heights[i] <= heights[values.index(b)]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"kind": "stage", "stage": "measure"}, "-- measuring"),
        (
            {"stage": "measure", "seed": 2, "trial": None, "status": "failed", "reason": "OOM"},
            "[?/8] measuring adam, seed 2: failed: OOM",
        ),
        ({"status": "diverged", "done": 3, "seconds": 1.0}, "[3/8] tuning adam: diverged (1.00 s)"),
        ({"status": "done", "validation": None, "done": 3}, "[3/8] tuning adam: done"),
    ],
)
def test_line(event: dict[str, Any], expected: str) -> None:
    assert line({**job("adam"), **event} if "kind" not in event else event) == expected


def test_plain_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with shown(stream) as display:
        display(job("adam", validation=0.5, done=1))
    assert stream.getvalue() == "[1/8] tuning adam: 0.5\n"


def test_quiet_shows_nothing() -> None:
    stream = io.StringIO()
    with shown(stream, quiet=True) as display:
        display(job("adam", validation=0.5, done=1))
    assert stream.getvalue() == ""


def test_a_live_table_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "is_terminal", property(lambda self: True))
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    with shown(stream) as display:
        display(job("adam", validation=0.5, done=1))
    text = stream.getvalue()
    assert "best so far" in text
    assert "0.5" in text
    assert "[1/8]" not in text


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min")]
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words
