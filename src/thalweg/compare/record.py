"""The file of a run: its points, its clocks, and the end line that marks it as finished."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from thalweg.compare.plan import write_atomically


class Record:
    """What a run has to say: its lines, its clocks, its counts."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.steps = self.evaluations = self.parameters = self.state_bytes = 0
        self.seconds = self.evaluation_seconds = self.compile_seconds = 0.0
        self.metric, self.goal = "", "min"
        self.final: dict[str, Any] = {}
        self.test: dict[str, float] | None = None
        self._owed = 0
        self._began = time.perf_counter()

    def training(self) -> _Clock:
        """Time inside the block is training time, unless the compiler worked."""
        return _Clock(self)

    def add(self, seconds: float, compiled: bool) -> None:
        """A step's time. One in which the compiler worked is charged what the next one takes."""
        if compiled:
            self.compile_seconds += seconds
            self._owed += 1
        else:
            self.seconds += seconds * (1 + self._owed)
            self._owed = 0

    def point(
        self, step: int, epoch: float, evaluations: int, seconds: float, train: float,
        validation: dict[str, float],
    ) -> None:  # fmt: skip
        """Add a measurement."""
        self.lines.append(
            {
                "kind": "point",
                "step": step,
                "epoch": epoch,
                "evaluations": evaluations,
                "seconds": seconds,
                "train": finite(train),
                "validation": finite(validation),
            }
        )

    def end(self, status: str, reason: str | None = None, traceback: str | None = None) -> None:
        """Add the last line: without it the run counts as not made."""
        done = status == "done"
        self.lines.append(
            {
                "kind": "end",
                "status": status,
                "reason": reason,
                "steps": self.steps,
                "evaluations": self.evaluations,
                "seconds": self.seconds,
                "evaluation_seconds": self.evaluation_seconds,
                "compile_seconds": self.compile_seconds,
                "job_seconds": time.perf_counter() - self._began,
                "state_bytes": self.state_bytes,
                "parameters": self.parameters,
                "best": self._best(),
                "final": self.final if done else dict.fromkeys(self.final),
                "test": finite(self.test) if done else None,
                **({"traceback": traceback} if traceback else {}),
            }
        )

    def _best(self) -> dict[str, Any]:
        points = [line for line in self.lines if line["validation"].get(self.metric) is not None]
        if not points:
            return {}
        choose = min if self.goal == "min" else max
        best = choose(points, key=lambda line: line["validation"][self.metric])
        return {"step": best["step"], self.metric: best["validation"][self.metric]}

    def text(self) -> str:
        """All lines, as they stand in the file."""
        return "".join(json.dumps(line, allow_nan=False) + "\n" for line in self.lines)


class _Clock:
    def __init__(self, record: Record) -> None:
        self.record = record

    def __enter__(self) -> None:
        self.compiled = _compilations()
        self.start = time.perf_counter()

    def __exit__(self, kind: object, *_: object) -> None:
        seconds = time.perf_counter() - self.start
        if kind is None:
            self.record.add(seconds, _compilations() != self.compiled)


def _compilations() -> float:
    """Grows whenever torch.compile works (loading the compiler counts)."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return -1.0
    return float(sum(getattr(dynamo, "cumulative_time_spent_ns", {}).values()))


def finite(value: Any) -> Any:
    """`value` with infinities and NaN as None, which is how JSON files here say them."""
    if isinstance(value, dict):
        return {name: finite(v) for name, v in value.items()}
    return value if value is None or math.isfinite(value) else None


def store(directory: Path, job_id: str, text: str) -> None:
    """Put a finished run into its place. What a power failure cuts short is run again."""
    write_atomically(directory / "runs" / f"{job_id}.jsonl", text, sync=False)


def read(directory: Path, job_id: str) -> list[dict[str, Any]] | None:
    """The lines of a finished run; None if there is none, or its file is not complete."""
    try:
        text = (directory / "runs" / f"{job_id}.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError):
        return None
    complete = bool(lines) and isinstance(lines[-1], dict) and lines[-1].get("kind") == "end"
    return lines if complete and text.endswith("\n") else None
