"""Who races on what: optimizers on a network, solvers on a problem of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from thalweg.compare.catalogues import solvers
from thalweg.compare.contender import Contender
from thalweg.compare.errors import BadInput, one_line
from thalweg.compare.methods import Method, resolve
from thalweg.compare.plan import Budget
from thalweg.compare.problems import Problem, load
from thalweg.compare.run import one_thread
from thalweg.compare.solver_problems import builtin
from thalweg.compare.solving import DEFAULT_BUDGET as SOLVER_BUDGET
from thalweg.core import seeded_rng
from thalweg.core.catalogue import names_of

DEFAULT_BUDGET = "420steps"
"""Of an optimizer's run."""


def entrants(
    problem: Any, methods: Sequence[Method] | Method | None
) -> tuple[Problem, list[Contender]]:
    """The problem and the methods of a race, which fit each other.

    Parameters
    ----------
    problem
        As for `thalweg.compare.compare`. None: the default of the methods' kind.
    methods
        As for `thalweg.compare.compare`. None: six optimizers, or all solvers of the problem.

    Raises
    ------
    BadInput
        With one sentence, if they do not fit.
    """
    contenders = resolve(methods) if methods is not None else []
    _of_one_kind(contenders)
    if problem is None and contenders and contenders[0].solves:
        problem = _default_problem(contenders[0])
    loaded = load(problem)
    if loaded.facts.get("kind") != "solver":
        contenders = contenders or resolve(None)
        if contenders[0].solves:
            raise BadInput(
                f"{loaded.name} is a network to train, and {contenders[0].name} solves "
                f"{_solved_by(contenders[0])}: it can race on a function problem(seed) that "
                f"returns one{_for_example(contenders[0])}"
            )
        return loaded, contenders
    built = loaded(0)
    able = [e.target for e in solvers() if isinstance(built, e.problems)]
    names = _listed((target.__name__ for target in able), "or")
    kind = type(built).__name__
    contenders = contenders or (resolve(able) if able else [])
    if not contenders:
        raise BadInput(f"the catalogue has no solver of {loaded.name}, a {kind}: name one of yours")
    for contender in contenders:
        if not contender.solves:
            raise BadInput(
                f"{loaded.name} is a {kind} to solve, and {contender.name} is an optimizer of "
                f"networks: use {names or 'a solver of yours'}"
            )
        if contender.problems and not isinstance(built, contender.problems):
            raise BadInput(
                f"{contender.name} solves {_solved_by(contender)}, and {loaded.name} is a {kind}: "
                f"use {names or 'a solver of yours'}"
            )
        if contender.fixed:
            _check_values(contender, built)
    return loaded, contenders


def budget_of(asked: str | int | None, loaded: Problem) -> Budget:
    """The length of a run: as asked, or the default of the problem's kind.

    Raises
    ------
    BadInput
        For epochs of a problem that has no batches, or what is no budget.
    """
    solved = loaded.facts.get("kind") == "solver"
    if asked is None:
        asked = SOLVER_BUDGET if solved else DEFAULT_BUDGET
    budget = Budget.parse(asked)
    if solved and budget.unit == "epochs":
        raise BadInput(
            f"budget must be in steps or seconds for a solver, which has no epochs, got {asked!r}"
        )
    return budget


def _of_one_kind(contenders: Sequence[Contender]) -> None:
    solving = [c.name for c in contenders if c.solves]
    others = [c.name for c in contenders if not c.solves]
    if solving and others:
        raise BadInput(
            f"{_listed(others)} and {_listed(solving)} cannot race on one problem: an optimizer "
            "trains a network, a solver takes a problem as a whole"
        )


def _default_problem(contender: Contender) -> str:
    for name in _built_in_for(contender):
        return name
    raise BadInput(
        f"there is no built-in problem for {contender.name}, which solves {_solved_by(contender)}: "
        "give a function problem(seed) that returns one, as path.py or package.module:name"
    )


def _built_in_for(contender: Contender) -> list[str]:
    able = contender.problems or object
    return [name for name, function in builtin().items() if isinstance(function(0), able)]


def _for_example(contender: Contender) -> str:
    names = _built_in_for(contender)
    return f", as {_listed(names)} {'do' if len(names) > 1 else 'does'}" if names else ""


def _check_values(contender: Contender, built: Any) -> None:
    """Let the solver itself say whether it takes the fixed values."""
    middle = {name: axis.at(0.5) for name, axis in contender.space.items()}
    arguments = {**contender.arguments(middle), "max_steps": 0}
    try:
        with one_thread(), seeded_rng(0):
            contender.target(built, **arguments)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{contender.spec}: {one_line(error)}") from error


def _solved_by(contender: Contender) -> str:
    return _listed(names_of(contender.problems), "or") or "problems of its own"


def _listed(names: Any, word: str = "and") -> str:
    *first, last = list(names) or [""]
    return f"{', '.join(first)} {word} {last}" if first else str(last)
