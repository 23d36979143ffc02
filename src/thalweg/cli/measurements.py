"""What an inspection shows while it runs: a live table in a terminal, one line each elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from thalweg.cli.shown import Event, Shown

if TYPE_CHECKING:
    from rich.table import Table


@dataclass
class Measurements:
    """The state of an inspection, made of its events alone.

    Parameters
    ----------
    now
        The clock, in seconds.
    """

    now: Callable[[], float] = time.monotonic
    rows: dict[str, Event] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)

    def update(self, event: Event) -> None:
        """Take in one event of `thalweg.inspect`."""
        name = event["measurement"]
        self.begun.setdefault(name, self.now())
        self.rows[name] = event

    def table(self) -> Table:
        """The state as a table of rich."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, caption=self.caption(), caption_justify="left")
        for heading in ("measurement", "products", "passes", "seconds", ""):
            right = heading in ("products", "passes", "seconds")
            table.add_column(heading, justify="right" if right else "left", header_style="dim")
        for name, event in [*self.rows.items()]:  # events come while the clock draws
            over = event["kind"] in ("ended", "skipped")
            seconds = event["seconds"] if over else self.now() - self.begun[name]
            table.add_row(
                name,
                f"{event['products']:,}",
                f"{event['passes']:,}" if over else "",
                f"{seconds:.1f}",
                {"ended": "", "skipped": "not measured"}.get(event["kind"], "running"),
            )
        return table

    def caption(self) -> str:
        """Products spent and asked for, and the time since the first measurement began."""
        if not self.rows:
            return "preparing"
        last = [*self.rows.values()][-1]
        elapsed = self.now() - min(self.begun.values())
        return f"{last['spent']:,} of {last['budget']:,} products, {elapsed:.0f} s"


def line(event: Event) -> str | None:
    """A measurement that is over, as a line of plain text; None of one that is not.

    Examples
    --------
    >>> line({"kind": "ended", "measurement": "Trace", "products": 60, "passes": 0,
    ...       "seconds": 0.5, "spent": 1412, "budget": 3000})
    '[1412/3000] Trace: 60 products (0.50 s)'
    """
    if event["kind"] not in ("ended", "skipped"):
        return None
    parts = [
        f"{event[what]:,} {what if event[what] != 1 else one}"
        for what, one in (("products", "product"), ("passes", "pass"))
        if event[what]
    ]
    told = ", ".join(parts) if event["kind"] == "ended" else "not measured"
    total = str(event["budget"])
    spent = str(event["spent"]).rjust(len(total))
    return f"[{spent}/{total}] {event['measurement']}: {told} ({event['seconds']:.2f} s)"


def shown(stream: TextIO, quiet: bool = False) -> Shown:
    """A context that shows an inspection on a stream; call it with each event."""
    return Shown(stream, Measurements(), line, quiet)
