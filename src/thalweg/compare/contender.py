"""A method in a race."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thalweg.compare.signatures import defaults_of, element
from thalweg.core.catalogue import Axis


@dataclass(frozen=True, eq=False)
class Contender:
    """A method in a race.

    Parameters
    ----------
    name
        How the report calls it; unique in a race.
    spec
        What the user typed (or ``module:Class``).
    target
        The optimizer class, or the solver: a function ``method(problem, ...) -> Result``.
    place
        Where it is imported from, ``module:Class``.
    fixed
        Hyper-parameters given inline, ``{"lr": 1e-3}``.
    space
        The axes that are tuned; empty for a parameter-free method, or when all are fixed.
    declared
        Whether the method has any axis at all, fixed ones included.
    defaults
        What the signature says, for every axis and every fixed value.
    version
        Version of the distribution it comes from, and a hash of its source.
    """

    name: str
    spec: str
    target: Any
    place: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Axis] = field(default_factory=dict)
    declared: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    summary: str = ""
    paper: str = ""
    year: int | None = None
    memory: str = ""
    needs: tuple[str, ...] = ()
    problems: tuple[type, ...] = ()

    @property
    def solves(self) -> bool:
        """Whether it is a solver: it takes a problem, and not a network's parameters."""
        return not isinstance(self.target, type)

    @property
    def key(self) -> str:
        """What its runs depend on: two contenders with one key share all their runs."""
        return json.dumps(
            [self.place, self.version, dict(self.fixed)], sort_keys=True, default=repr
        )

    def default_values(self) -> dict[str, Any]:
        """The axes at the signature's defaults; the middle of the axis where there is none.

        A solver's default may be None: then it asks the problem, and no value is given.
        """
        return {
            name: self.defaults.get(name, axis.at(0.5))
            for name, axis in self.space.items()
            if name in self.defaults or not self.solves
        }

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments of `target`: `values` over the fixed ones; ``betas[0]`` in its tuple.

        Examples
        --------
        >>> from thalweg.compare.methods import resolve
        >>> contender = resolve(["torch.optim:AdamW[eps=1e-6]"])[0]
        >>> contender.arguments({"lr": 0.1, "betas[0]": 0.5})
        {'eps': 1e-06, 'lr': 0.1, 'betas': (0.5, 0.999)}
        """
        arguments = dict(self.fixed)
        for name, value in values.items():
            whole, index = element(name)
            if index is None:
                arguments[whole] = value
            else:
                parts = list(arguments.get(whole, defaults_of(self.target)[whole]))
                parts[index] = value
                arguments[whole] = tuple(parts)
        return arguments
