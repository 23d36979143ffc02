"""What an inspection shows while it runs: a live table in a terminal, one line each elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.table import Table

Event = Mapping[str, Any]


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


def line(event: Event) -> str:
    """A measurement that is over, as a line of plain text.

    Examples
    --------
    >>> line({"kind": "ended", "measurement": "Trace", "products": 60, "passes": 0,
    ...       "seconds": 0.5, "spent": 1412, "budget": 3000})
    '[1412/3000] Trace: 60 products (0.50 s)'
    """
    parts = [
        f"{event[what]:,} {what if event[what] != 1 else one}"
        for what, one in (("products", "product"), ("passes", "pass"))
        if event[what]
    ]
    told = ", ".join(parts) if event["kind"] == "ended" else "not measured"
    total = str(event["budget"])
    spent = str(event["spent"]).rjust(len(total))
    return f"[{spent}/{total}] {event['measurement']}: {told} ({event['seconds']:.2f} s)"


class Shown:
    """A context that shows an inspection on a stream; call it with each event.

    Parameters
    ----------
    stream
        Where to; a live table if it is a terminal.
    quiet
        Show nothing.
    """

    def __init__(self, stream: TextIO, quiet: bool = False) -> None:
        from rich.console import Console

        self.quiet = quiet
        self.stream = stream
        self.measurements = Measurements()
        self.console = Console(file=stream)
        self._live: Any = None

    def __enter__(self) -> Shown:
        if not self.quiet and self.console.is_terminal:
            from rich.live import Live

            # Redrawn by the clock: the seconds move while one long measurement runs.
            self._live = Live(
                console=self.console,
                get_renderable=self.measurements.table,
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __call__(self, event: Event) -> None:
        self.measurements.update(event)
        if self._live is None and not self.quiet and event["kind"] in ("ended", "skipped"):
            print(line(event), file=self.stream, flush=True)

    def tell(self, message: str) -> None:
        """A line of its own, above a live table; it is shown even if quiet."""
        if self._live is not None:
            self.console.print(message, markup=False, highlight=False)
        else:
            print(message, file=self.stream, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
