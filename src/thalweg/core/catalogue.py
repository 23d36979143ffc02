"""The catalogue: what every method declares about itself, and the space it is tuned over."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol, TypeVar

from thalweg.core import check

F = TypeVar("F", bound=Callable[..., Any])


class Axis(Protocol):
    """One axis of a search space: maps a number in [0, 1) to a hyper-parameter's value."""

    def at(self, u: float) -> Any:
        """The value at `u` in [0, 1)."""


@dataclass(frozen=True)
class LogUniform:
    r"""Uniform in the logarithm: :math:`low\,(high/low)^u`.

    Examples
    --------
    >>> round(LogUniform(1e-4, 1e-2).at(0.5), 6)
    0.001
    """

    low: float
    high: float

    def at(self, u: float) -> float:
        r""":math:`low\,(high/low)^u`."""
        return math.exp(math.log(self.low) + u * math.log(self.high / self.low))


@dataclass(frozen=True)
class Uniform:
    """Uniform between `low` and `high`."""

    low: float
    high: float

    def at(self, u: float) -> float:
        r""":math:`low + u\,(high - low)`."""
        return self.low + u * (self.high - self.low)


@dataclass(frozen=True)
class OneMinusLogUniform:
    """One minus a log-uniform number: for momenta and betas, where 0.9 and 0.99 are a decade apart.

    Examples
    --------
    >>> round(OneMinusLogUniform(1e-3, 1e-1).at(0.5), 6)
    0.99
    """

    low: float
    high: float

    def at(self, u: float) -> float:
        r""":math:`1 - low\,(high/low)^u`."""
        return 1.0 - LogUniform(self.low, self.high).at(u)


@dataclass(frozen=True)
class Choice:
    """One of a few values, all equally likely."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """The value whose equal part of [0, 1) holds `u`."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue, read off the method itself.

    Parameters
    ----------
    name
        The class or function name.
    target
        The class or function.
    summary
        The first line of its docstring.
    paper, year, family
        Source, year of publication, and the family it is listed under.
    needs
        What it needs beyond gradients (``"closure"``, ``"small d"`` ...).
    memory
        State, in words of the parameter's size plus scalars: ``"2 per parameter"``.
    search_space
        Hyper-parameter name to `Axis`; ``"betas[0]"`` addresses the first of a pair. At most four;
        empty for a method with nothing to tune.
    problems
        The classes of problems it solves; empty for an optimizer, which takes a network's
        parameters.
    """

    name: str
    target: Any
    summary: str
    paper: str
    year: int
    family: str
    needs: tuple[str, ...] = ()
    memory: str = "0"
    search_space: Mapping[str, Axis] = field(default_factory=dict)
    problems: tuple[type, ...] = ()

    @property
    def place(self) -> str:
        """Where it is imported from: ``thalweg.optim.Adam``.

        Solvers are one floor further down: ``thalweg.solve.recovery.subgradient``.
        """
        parts = self.target.__module__.split(".")
        depth = 3 if parts[:2] == ["thalweg", "solve"] else 2
        return ".".join([*parts[:depth], self.name])


def method(
    *,
    paper: str,
    year: int,
    family: str,
    problems: tuple[type, ...],
    memory: str = "1 per unknown",
    needs: tuple[str, ...] = (),
    search_space: Mapping[str, Axis] | None = None,
) -> Callable[[F], F]:
    """Declare a function ``method(problem, *, ...) -> Result`` to be a method of the catalogue.

    Parameters
    ----------
    paper, year, family, memory, needs, search_space
        As in `Entry`.
    problems
        The classes of problems it solves.

    Examples
    --------
    >>> @method(paper="Cauchy 1847", year=1847, family="examples", problems=(object,))
    ... def steepest_descent(problem):
    ...     "Go down along the gradient."
    >>> entry(steepest_descent).year
    1847
    """

    def declare(function: F) -> F:
        declared: Any = function
        declared.paper, declared.year, declared.family = paper, year, family
        declared.problems, declared.memory, declared.needs = problems, memory, needs
        declared.search_space = dict(search_space or {})
        return function

    return declare


def entry(target: Any) -> Entry:
    """The catalogue line of a method, read from the attributes it declares."""
    summary = (inspect.getdoc(target) or "").split("\n", 1)[0]
    return Entry(
        name=target.__name__,
        target=target,
        summary=summary.rstrip("."),
        paper=target.paper,
        year=target.year,
        family=target.family,
        needs=tuple(target.needs),
        memory=target.memory,
        search_space=dict(target.search_space),
        problems=tuple(getattr(target, "problems", ())),
    )


def names_of(problems: Sequence[type]) -> list[str]:
    """The names of classes of problems, an abstract one as those that are derived from it.

    Examples
    --------
    >>> names_of([dict, Entry])
    ['Entry', 'dict']
    """
    found: set[type] = set()
    for problem in problems:
        found |= set(problem.__subclasses__()) if inspect.isabstract(problem) else {problem}
    return sorted(problem.__name__ for problem in found)


def collect(*modules: ModuleType) -> list[Entry]:
    """The catalogue of everything public in `modules` that declares a paper, by family and year."""
    found = [
        entry(getattr(module, name))
        for module in modules
        for name in module.__all__
        if getattr(getattr(module, name), "paper", None)
    ]
    return sorted(found, key=lambda e: (e.family, e.year, e.name))


def find(name: str, entries: Sequence[Entry]) -> Entry:
    """The entry called `name`, capital letters and underscores ignored.

    Raises
    ------
    ValueError
        If there is none; the message suggests the nearest name.
    """

    def plain(word: str) -> str:
        return word.lower().replace("_", "").replace("-", "")

    for candidate in entries:
        if plain(candidate.name) == plain(name):
            return candidate
    names = [candidate.name for candidate in entries]
    raise ValueError(
        f"unknown method {name!r}{check.did_you_mean(name, names)}; "
        "`thalweg methods` lists the catalogue, and `torch.optim:AdamW` or `my.module:MyOptimizer` "
        "names a class elsewhere"
    )
