"""Fair times: everything that is compared runs in turn, in one process, under the same load."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Parameters
    ----------
    threads
        Threads of torch. Default 2.
    rounds
        How often each contender is timed after `warm_up` untimed rounds.
    processes
        How many fresh processes measure what happens only once in a process.
    tiny
        Sizes that take a blink, rules uncompiled: do all rows run? The numbers mean nothing.
    """

    threads: int = 2
    rounds: int = 40
    warm_up: int = 5
    processes: int = 3
    tiny: bool = False


@dataclass(frozen=True)
class Contender:
    """What is timed (`run`), and what has to happen before it each time, untimed (`prepare`)."""

    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Sample:
    """Repeated measurements of one contender."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)


@dataclass(frozen=True)
class Comparison:
    """One row: `ours` is to need at most `bar` times what `peer` needs (None: for context).

    A row with a `limit` compares with that number instead of a peer.
    """

    work: str
    ours: str
    peer: str = ""
    bar: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Suite:
    """Comparisons measured together; `measure` gets the names of the contenders it must run."""

    name: str
    unit: str
    comparisons: Sequence[Comparison]
    measure: Callable[[Collection[str], Settings], Mapping[str, Sample]]
    heavy: bool = False


@dataclass(frozen=True)
class Row:
    """A measured comparison."""

    suite: str
    work: str
    ours_name: str
    peer_name: str
    unit: str
    ours: float
    peer: float
    ratio: float
    ratio_of_minima: float
    bar: float | None

    @property
    def met(self) -> bool | None:
        return None if self.bar is None else self.ratio <= self.bar


def measured(suite: Suite, selected: Sequence[Comparison], settings: Settings) -> list[Row]:
    """Measure the selected comparisons of a suite in one run."""
    names = {name for c in selected for name in (c.ours, c.peer) if name}
    samples = suite.measure(names, settings)
    rows = []
    for c in selected:
        ours = samples[c.ours]
        peer = samples[c.peer] if c.limit is None else Sample([c.limit])
        rows.append(
            Row(
                suite=suite.name,
                work=c.work,
                ours_name=c.ours,
                peer_name=c.peer or "limit",
                unit=suite.unit,
                ours=ours.median,
                peer=peer.median,
                ratio=ours.median / peer.median,
                ratio_of_minima=ours.least / peer.least,
                bar=c.bar if c.limit is None else 1.0,
            )
        )
    return rows


def interleaved(
    contenders: Mapping[str, Contender], rounds: int, warm_up: int
) -> dict[str, Sample]:
    """Milliseconds per run of every contender, timed in turn.

    The order is drawn anew each round (always the same draws): nobody always inherits the caches
    that the same predecessor leaves behind. Garbage is collected between rounds only.
    """
    order = list(contenders)
    shuffle = random.Random(0).shuffle
    times: dict[str, list[float]] = {name: [] for name in order}
    collected = gc.isenabled()
    gc.disable()
    try:
        for turn in range(warm_up + rounds):
            gc.collect()
            shuffle(order)
            for name in order:
                contender = contenders[name]
                contender.prepare()
                start = time.perf_counter()
                contender.run()
                seconds = time.perf_counter() - start
                if turn >= warm_up:
                    times[name].append(1e3 * seconds)
    finally:
        if collected:
            gc.enable()
    return {name: Sample(values) for name, values in times.items()}
