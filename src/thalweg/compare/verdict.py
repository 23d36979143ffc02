r"""What is asked of a pair of methods, and what is answered."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from thalweg.compare.paired import DRAWS, Goal, Interval, Scale, alpha_at_look, fewest_seeds

Word = Literal["better", "same", "cannot tell"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of every pair of a race; the fields are arguments of `compare_all`."""

    scale: Scale
    goal: Goal
    margin: float
    measure: str
    look: int
    pairs: int
    seeds: int

    @property
    def alpha(self) -> float:
        """Level of this look."""
        return alpha_at_look(self.look)

    @property
    def confidence(self) -> float:
        """Of all intervals but the one that decides *same*: 1 - alpha."""
        return 1 - self.alpha

    @property
    def fewest(self) -> int:
        """Fewest seeds with which this look can say *better*."""
        return fewest_seeds(self.pairs, self.alpha)

    @property
    def next_alpha(self) -> float:
        """Level of the look after this one: a look with too few seeds spends nothing."""
        return alpha_at_look(self.look + 1 if self.seeds >= self.fewest else self.look)

    @property
    def exhausted(self) -> bool:
        """Whether no later look can say *better*: random sign flips have no p that small."""
        return self.next_alpha / self.pairs < 1 / (1 + DRAWS)

    @property
    def tolerated(self) -> float:
        """The margin in the unit of the paired differences."""
        return math.log1p(self.margin) if self.scale == "ratio" else self.margin


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict(Question):
    """What the seeds say about two methods.

    Attributes
    ----------
    word
        ``"better"``, ``"same"`` or ``"cannot tell"``.
    first, second
        The two methods; `mean`, `low` and `high` are of log(first / second) on the ratio scale and
        of first - second on the difference scale.
    winner, loser
        Their names if the word is ``"better"``, else None.
    mean, sd
        Of the paired differences; None after a miss (sd also with one seed).
    low, high
        t interval of the mean at `confidence`; None where there is none.
    equivalence
        The 90 % interval that decides ``"same"``; None where there is none.
    p, p_adjusted
        Of the sign-flip test of the differences or, after a miss, of their signed ranks (`test`);
        alone and Holm-adjusted over `pairs`.
    more_seeds
        How many more seeds would settle it: rounded up to 5, infinite beyond 200; None if nothing
        is to be settled, no sd is known, or no later look can settle it. They are judged at the
        next look, whose level is a fifth of this one's.
    medians, successes, shares
        Of (first, second): median result, number of runs that did not miss, interval of its share.
    sentence
        All of it in plain English.
    """

    word: Word
    first: str
    second: str
    winner: str | None
    loser: str | None
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    equivalence: Interval | None
    p: float
    p_adjusted: float
    test: Literal["sign flip", "signed rank"]
    more_seeds: float | None
    medians: tuple[float, float]
    successes: tuple[int, int]
    shares: tuple[Interval, Interval]
    sentence: str = ""

    @property
    def missed(self) -> bool:
        """Whether a run of either method missed."""
        return self.test == "signed rank"
