"""What a study is made of: a claim, rows, and a verdict whose rule stands before the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scale = Literal["smoke", "laptop", "full"]
"""How large a run is: seconds (for tests), minutes, or the sizes of the experiment as described."""
SCALES: tuple[Scale, ...] = ("smoke", "laptop", "full")

Row = dict[str, str | int | float | bool]
"""One measurement: plain values under names."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Colours of figures, told apart by colour-blind readers too (Okabe and Ito 2008), grey added."""


def where(rows: Sequence[Row], **values: str | int | float | bool) -> list[Row]:
    """The rows that have these values, in their order.

    Examples
    --------
    >>> where([{"k": 1, "loss": 0.5}, {"k": 2, "loss": 0.3}], k=2)
    [{'k': 2, 'loss': 0.3}]
    """
    return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


def column(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    """One value of each row, as floats.

    Examples
    --------
    >>> column([{"k": 1, "loss": 0.5}, {"k": 2, "loss": 0.3}], "loss")
    array([0.5, 0.3])
    """
    return np.array([float(row[name]) for row in rows])


class Word(Enum):
    """The three words of a verdict."""

    HOLDS = "holds"
    FAILS = "does not hold"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Claim:
    """A published claim.

    Parameters
    ----------
    title
        The heading of the study.
    paper
        Where it was published.
    year
        When.
    sentence
        The claim in one sentence.
    expected
        Direction and rough size of what should be seen.
    refuted_by
        What would refute it.

    Examples
    --------
    >>> Claim("Noise", "A. Author, 2020", 2020, "Noise helps.", "above 0", "below 0").title
    'Noise'
    """

    title: str
    paper: str
    year: int
    sentence: str
    expected: str
    refuted_by: str


@dataclass(frozen=True)
class Part:
    """One statement of a claim with what was found.

    Parameters
    ----------
    statement
        What is claimed, with its threshold.
    word
        Whether it holds.
    effect
        The measured quantity; None if there is none.
    interval
        Its 95 % interval; None where the quantity is exact or a count decides.
    note
        What else a reader should know.
    control
        True for a statement that is no part of the claim, but without which nothing follows: a
        control experiment, or that no tuned step lies at the edge of its grid.

    Examples
    --------
    >>> Part("the slope is < 0", Word.HOLDS, effect=-0.5, interval=(-0.6, -0.4)).word.value
    'holds'
    """

    statement: str
    word: Word
    effect: float | None
    interval: tuple[float, float] | None
    note: str = ""
    control: bool = False


@dataclass(frozen=True)
class Verdict:
    """What was found at this scale.

    Parameters
    ----------
    word
        Whether the claim holds.
    parts
        Its statements.
    sentence
        What a reader takes away, with effect and interval.
    pairs
        Number of paired runs behind the intervals, from which the power is told; None where the
        result is exact or the parts differ.
    """

    word: Word
    parts: tuple[Part, ...]
    sentence: str
    pairs: int | None = None

    @staticmethod
    def all_of(parts: Sequence[Part], *, sentence: str, pairs: int | None = None) -> Verdict:
        """The verdict on a claim that says: all of these.

        A control that does not hold makes it inconclusive, whatever the parts say. Else one part
        that does not hold refutes the claim, and it holds if all parts hold.

        Raises
        ------
        ValueError
            Without a part that is not a control.

        Examples
        --------
        >>> slope = Part("the slope is < 0", Word.HOLDS, effect=-0.5, interval=(-0.6, -0.4))
        >>> edge = Part("no step at the edge", Word.FAILS, None, None, control=True)
        >>> Verdict.all_of([slope], sentence="It falls.").word.value
        'holds'
        >>> Verdict.all_of([slope, edge], sentence="It falls.").word.value
        'inconclusive'
        """
        words = [part.word for part in parts if not part.control]
        if not words:
            raise ValueError("parts must hold at least one that is no control, got none")
        if any(part.word is not Word.HOLDS for part in parts if part.control):
            word = Word.INCONCLUSIVE
        elif Word.FAILS in words:
            word = Word.FAILS
        elif Word.INCONCLUSIVE in words:
            word = Word.INCONCLUSIVE
        else:
            word = Word.HOLDS
        return Verdict(word, tuple(parts), sentence, pairs)


@dataclass(frozen=True)
class Study:
    """A claim with its experiment: one module of `thalweg.studies`.

    Parameters
    ----------
    name
        As on the command line, ``sgd-saddles``.
    claim
        What was published.
    run
        ``run(scale, seed)`` yields the rows, the same ones each time. Instead of a row it may
        yield a function that makes it: those whose rows are kept from an earlier, killed run are
        then not called again.
    verdict
        Pure function of the rows: the rule that stands before the run.
    figure
        The rows as a picture.
    source
        The module's file.

    Examples
    --------
    >>> from thalweg.studies import find
    >>> find("lr-perceptron").claim.year
    2025
    """

    name: str
    claim: Claim
    run: Callable[[Scale, int], Iterator[Row | Callable[[], Row]]]
    verdict: Callable[[Sequence[Row]], Verdict]
    figure: Callable[[Sequence[Row]], Figure]
    source: str

    @classmethod
    def of(cls, module: ModuleType) -> Study:
        """The study a module defines: its `claim`, `run`, `verdict` and `figure`."""
        return cls(
            name=module.__name__.rpartition(".")[2].replace("_", "-"),
            claim=module.claim,
            run=module.run,
            verdict=module.verdict,
            figure=module.figure,
            source=str(module.__file__),
        )
