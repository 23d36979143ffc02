"""What comes back from a solver: the point, its value, the trace, and why it stopped."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy

X = TypeVar("X")


class Reason(enum.Enum):
    """Why a run stopped; the value is the sentence shown to the user.

    Examples
    --------
    >>> str(Reason.MAX_STEPS)
    'stopped at max_steps before the tolerance was reached'
    >>> Reason.TOLERANCE.converged
    True
    """

    TOLERANCE = "converged: the measure fell below the tolerance"
    EXACT = "converged: the measure is exactly zero"
    MAX_STEPS = "stopped at max_steps before the tolerance was reached"
    MAX_SECONDS = "stopped at max_seconds before the tolerance was reached"
    STALLED = "stopped: the measure no longer improves"
    NONFINITE = "stopped: a value became infinite or NaN; the best finite point is returned"
    INTERRUPTED = "interrupted; the best point so far is returned"

    @property
    def converged(self) -> bool:
        """True for `TOLERANCE` and `EXACT`."""
        return self in (Reason.TOLERANCE, Reason.EXACT)

    def __str__(self) -> str:
        return self.value


class NotConvergedError(RuntimeError):
    """Raised by `Result.raise_if_failed`; its text is the reason."""


class NonFiniteError(ArithmeticError):
    """A loss, gradient or iterate became infinite or NaN; the text says which and where."""


@dataclass(frozen=True)
class Trace(Mapping[str, numpy.ndarray]):
    """The history of a run: one float64 array per measured name, all of one length.

    ``trace["step"]`` and ``trace["seconds"]`` are always there.
    """

    columns: Mapping[str, Sequence[float]]

    def __getitem__(self, name: str) -> numpy.ndarray:
        if name not in self.columns:
            raise KeyError(f"the trace has {', '.join(self.columns)}, not {name!r}")
        return numpy.asarray(self.columns[name], dtype=numpy.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        points = len(next(iter(self.columns.values()), ()))
        return f"Trace({', '.join(self.columns)}; {points} points)"


@dataclass(frozen=True)
class Result(Generic[X]):
    """The point a method reached and why it stopped there.

    Parameters
    ----------
    x
        The point returned: a tensor or a NamedTuple of tensors.
    value
        The measure **at `x`** (not at an earlier or extrapolated point).
    trace
        The history, one array per measured name.
    reason
        Why the run stopped.
    info
        Whatever else the method wants to say (step sizes, counts, certificates).

    Examples
    --------
    >>> result = Result(x=0.0, value=1e-9, trace=Trace({"step": [0]}), reason=Reason.TOLERANCE)
    >>> result.converged
    True
    >>> result.raise_if_failed() is result
    True
    """

    x: X
    value: float
    trace: Trace
    reason: Reason
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def converged(self) -> bool:
        """True if the tolerance was reached."""
        return self.reason.converged

    def raise_if_failed(self) -> Result[X]:
        """Return the result itself, or raise `NotConvergedError` with the reason."""
        if not self.converged:
            raise NotConvergedError(f"{self.reason} (measure {self.value:g})")
        return self

    def __str__(self) -> str:
        steps = int(self.trace["step"][-1]) if "step" in self.trace else 0
        return f"{self.reason} (measure {self.value:g} after {steps} steps)"
