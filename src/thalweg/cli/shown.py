"""What a long command does, shown while it does it: a live table, or lines, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

Event = Mapping[str, Any]


class Table(Protocol):
    """What a table has to know: the events so far, and how to draw itself."""

    def update(self, event: Event) -> None: ...

    def table(self) -> Any: ...


class Shown:
    """A context that shows events on a stream; call it with each.

    Parameters
    ----------
    stream
        Where to; a live table if it is a terminal.
    table
        Told every event.
    line
        An event as a line of plain text, where there is no terminal; None: nothing is printed.
    quiet
        Show nothing.
    """

    def __init__(
        self,
        stream: TextIO,
        table: Table,
        line: Callable[[Event], str | None],
        quiet: bool = False,
    ) -> None:
        from rich.console import Console

        self.stream, self.table, self.line, self.quiet = stream, table, line, quiet
        self.console = Console(file=stream)
        self._live: Any = None

    def __enter__(self) -> Shown:
        if not self.quiet and self.console.is_terminal:
            from rich.live import Live

            # Redrawn by the clock, and not by events: a thousand short runs cost no more than one,
            # and the seconds move while a long one runs.
            self._live = Live(
                console=self.console,
                get_renderable=self.table.table,
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __call__(self, event: Event) -> None:
        self.table.update(event)
        if self._live is None and not self.quiet:
            text = self.line(event)
            if text is not None:
                print(text, file=self.stream, flush=True)

    def tell(self, message: str) -> None:
        """A line of its own, above a live table; it is shown even if quiet."""
        if self._live is not None:
            self.console.print(message, markup=False, highlight=False)
        else:
            print(message, file=self.stream, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
