"""How a run gets on, in one line."""

from __future__ import annotations

import time
from typing import Any


class ProgressLine:
    """Shows how a run gets on: one line that changes in a terminal, one every 5 s elsewhere."""

    def __init__(self, stream: Any, before: int) -> None:
        self.stream, self.before = stream, before
        self.live = stream.isatty()
        self.shown = time.monotonic()

    def __call__(self, result: Any) -> None:
        if time.monotonic() - self.shown < (0.1 if self.live else 5.0):
            return
        self.shown = time.monotonic()
        columns = result.trace.columns
        residual = columns.get("residual") or columns["value"]
        name = "residual" if "residual" in columns else "value"
        step = self.before + int(columns["step"][-1])
        words = f"iteration {step:,}: {name} {residual[-1]:.3e}"
        print(f"\r{words:<60}" if self.live else words, end="" if self.live else "\n",
              file=self.stream, flush=True)  # fmt: skip

    def end(self) -> None:
        """Leave an empty line in a terminal."""
        if self.live:
            print(f"\r{'':<60}\r", end="", file=self.stream, flush=True)
