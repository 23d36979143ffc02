"""The batches of a run, and the steps at which it is measured."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

from thalweg.compare.plan import Budget
from thalweg.core import seeded_rng


def batches(data: Iterable[Any], seed: int) -> Iterator[tuple[int, Any]]:
    """``(passes done, batch)`` without end; the order of each pass depends on `seed` alone.

    Loaders draw the order of a pass when it begins: the global generators are seeded for that
    moment, so that a method that draws random numbers sees the batches the others see.
    """
    passes, nothing = 0, object()
    in_order = isinstance(data, list | tuple)  # nothing to draw
    while True:
        with nullcontext() if in_order else seeded_rng(derived(seed, f"pass {passes}")):
            iterator = iter(data)
            batch = next(iterator, nothing)
        if batch is nothing:
            raise ValueError("data must yield at least one batch per pass, got none")
        while batch is not nothing:
            yield passes, batch
            batch = next(iterator, nothing)
        passes += 1


@functools.cache
def derived(seed: int, purpose: str) -> int:
    """A seed for another stream of random numbers of the same run."""
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def length_of(data: Any) -> int | None:
    """Batches per pass, where the data know it."""
    try:
        return len(data) or None
    except TypeError:
        return None


class Schedule:
    """When a run is over, and when it is measured: about `points` times, early ones denser."""

    def __init__(self, budget: Budget, points: int, length: int | None) -> None:
        self.budget, self.length = budget, length
        self.total: int | None = None
        if budget.unit == "steps":
            self.total = int(budget.amount)
        elif budget.unit == "epochs" and length:
            self.total = max(1, round(budget.amount * length))
        self.marks = marks(self.total, points) if self.total else frozenset[int]()
        self.times = [budget.amount * x for x in spread(points)] if budget.unit == "s" else []
        self._passes, self._next = 0, 1

    def over(self, steps: int, passes: int, seconds: float) -> bool:
        """Whether the budget is spent."""
        if self.total is not None:
            return steps >= self.total
        spent = seconds if self.budget.unit == "s" else passes
        return steps > 0 and spent >= self.budget.amount

    def due(self, steps: int, passes: int, seconds: float) -> bool:
        """Whether it is time to measure; asked once after each step."""
        if self.total is not None:
            return steps in self.marks
        if self.budget.unit == "s":
            late = bool(self.times) and seconds >= self.times[0]
            while self.times and seconds >= self.times[0]:
                self.times.pop(0)
            return late
        # Epochs of unknown length: whenever the steps grew by 30 %, and after every pass.
        due = steps >= self._next or passes > self._passes
        if due:
            self._passes, self._next = passes, math.ceil(1.3 * steps) + 1
        return due


def spread(points: int) -> list[float]:
    """About `points` numbers in (0, 1], half of them evenly spaced, half in the logarithm."""
    half = max(1, points // 2)
    linear = [(i + 1) / half for i in range(half)]
    logarithmic = [10 ** (-3 * (1 - i / half)) for i in range(half)]
    return sorted({*linear, *logarithmic})


def marks(total: int, points: int) -> frozenset[int]:
    """The steps at which a run of `total` steps is measured; the last one is among them.

    Examples
    --------
    >>> sorted(marks(100, 8))
    [1, 3, 18, 25, 50, 75, 100]
    """
    return frozenset(max(1, round(total * x)) for x in spread(points))
