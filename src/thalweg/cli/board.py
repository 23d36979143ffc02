"""What a race shows while it runs: a live table in a terminal, one line a run elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from thalweg.cli.shown import Event, Shown

if TYPE_CHECKING:
    from rich.table import Table

BARS = "▁▂▃▄▅▆▇█"
STAGES = {
    "tune": "tuning",
    "measure": "measuring",
    "default": "at defaults",
    "exclusive": "measuring alone",
    "inspect": "inspecting where it ended",
}
_WIDTH = 16


@dataclass
class Row:
    """One method of the race."""

    stage: str = ""
    done: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    values: list[float | None] = field(default_factory=list)


@dataclass
class Board:
    """The state of a race, made of its events alone.

    Parameters
    ----------
    goal
        ``"min"`` or ``"max"``: which validation value is the best.
    now
        The clock, in seconds.
    """

    goal: str = "min"
    now: Callable[[], float] = time.monotonic
    rows: dict[str, Row] = field(default_factory=dict)
    stage: str = ""
    done: int = 0
    total: int = 0
    _marks: list[tuple[float, int]] = field(default_factory=list)

    def update(self, event: Event) -> None:
        """Take in one event of `thalweg.compare.compare`."""
        self.stage = event.get("stage") or self.stage
        self.goal = event.get("goal") or self.goal
        self.done = int(event.get("done") or self.done)
        self.total = int(event.get("total") or self.total)
        self._marks = [*self._marks, (self.now(), self.done)][-40:]
        method = event.get("method")
        if not method:
            return
        row = self.rows.setdefault(method, Row())
        row.stage = self.stage
        if event.get("kind") == "job":
            row.done[self.stage] += 1
            row.ends[event.get("status") or "done"] += 1
            row.values.append(event.get("validation") if event.get("status") == "done" else None)

    def best(self, method: str) -> float | None:
        """The best validation value of a method so far."""
        finite = [value for value in self.rows[method].values if value is not None]
        if not finite:
            return None
        return max(finite) if self.goal == "max" else min(finite)

    def seconds_left(self) -> float | None:
        """What is left at the pace of the last 40 runs; None before anything is known."""
        if len(self._marks) < 2:
            return None
        (begun, first), (ended, last) = self._marks[0], self._marks[-1]
        if last <= first:
            return None
        return (ended - begun) / (last - first) * (self.total - last)

    def table(self) -> Table:
        """The state as a table of rich."""
        from rich.table import Table
        from rich.text import Text

        left = self.seconds_left()
        caption = f"{self.done} of {self.total} runs" if self.total else "preparing"
        if left is not None and self.done < self.total:
            caption += f", about {duration(left)} left; Ctrl-C ends with a report of what is there"
        table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
        for heading in ("method", "stage", "done", "best so far", "", ""):
            right = heading in ("done", "best so far")
            table.add_column(heading, justify="right" if right else "left", header_style="dim")
        for method, row in self.rows.items():
            best = self.best(method)
            trouble = [f"{row.ends[end]} {end}" for end in ("diverged", "failed") if row.ends[end]]
            table.add_row(
                Text(method),  # Text, not markup: a method's name may hold square brackets
                STAGES.get(row.stage, row.stage),
                str(sum(row.done.values())),
                "" if best is None else f"{best:.4g}",
                sparkline(row.values[-_WIDTH:]),
                Text(", ".join(trouble), style="yellow"),
            )
        return table


def sparkline(values: Sequence[float | None]) -> str:
    """Small bars, low for low values; a run without a value is a cross.

    Examples
    --------
    >>> sparkline([1.0, None, 10.0, 100.0])
    '▁×▅█'
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    # Losses differ by factors: equal heights for equal factors.
    scale = math.log if finite and min(finite) > 0 else float
    low, high = (scale(min(finite)), scale(max(finite))) if finite else (0.0, 0.0)
    largest = max(abs(low), abs(high)) or 1.0  # the difference itself may be infinite
    width = high / largest - low / largest

    def bar(value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return "×"
        share = (scale(value) / largest - low / largest) / width if width > 0 else 0.0
        return BARS[round(share * (len(BARS) - 1))]

    return "".join(map(bar, values))


def duration(seconds: float) -> str:
    """Seconds in words.

    Examples
    --------
    >>> duration(42), duration(160), duration(7300)
    ('42 s', '3 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def line(event: Event) -> str:
    """One event as a line of plain text.

    Examples
    --------
    >>> line({"kind": "job", "stage": "tune", "method": "lion", "trial": 3, "status": "done",
    ...       "validation": 0.1234567, "done": 4, "total": 96, "seconds": 0.31})
    '[ 4/96] tuning lion, trial 3: 0.1235 (0.31 s)'
    """
    stage = STAGES.get(event.get("stage") or "", event.get("stage") or "")
    if event.get("kind") != "job":
        return f"-- {stage} {event.get('method') or ''}".rstrip()
    total = str(event.get("total", "?"))
    unit = next((u for u in ("trial", "seed") if event.get(u) is not None), None)
    which = f", {unit} {event[unit]}" if unit else ""
    status, value = event.get("status"), event.get("validation")
    told = f"{value:.4g}" if status == "done" and value is not None else str(status)
    reason = f": {event['reason']}" if status != "done" and event.get("reason") else ""
    seconds = f" ({event['seconds']:.2f} s)" if event.get("seconds") is not None else ""
    done = str(event.get("done", "?")).rjust(len(total))
    return f"[{done}/{total}] {stage} {event.get('method')}{which}: {told}{reason}{seconds}"


def shown(stream: TextIO, quiet: bool = False) -> Shown:
    """A context that shows a race on a stream; call it with each event."""
    return Shown(stream, Board(), line, quiet)
