"""What is raced on: from a name, a file or a function to a `Problem`, checked before it is used."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import linecache
import os
import re
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from thalweg.compare import solver_problems, solving
from thalweg.compare.errors import BadInput, one_line, own_traceback
from thalweg.compare.run import one_thread
from thalweg.compare.schedule import batches
from thalweg.core import Training, check, seeded_rng
from thalweg.data import problems

DEFAULT_PROBLEM = "digits-mlp"


@dataclass(frozen=True, eq=False)
class Problem:
    """A function of the seed that builds what is raced on, and where it came from.

    It builds a `Training`, or a problem that solvers take, such as a `MatrixCompletion`.

    It travels to workers as a function, or as the text of the user's file: a worker runs what was
    read when the race began, whatever happens to the file meanwhile.

    Parameters
    ----------
    name
        How the report calls it.
    source
        What the user typed, so that one command can repeat a run; None for a function object.
    function
        ``function(seed)``, for problems that can be imported.
    path, text, attribute
        The user's file, its content, and the function's name in it.
    """

    name: str
    source: str | None = None
    function: Callable[[int], Any] | None = None
    path: str | None = None
    text: str | None = None
    attribute: str = "problem"
    hash: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def callable(self) -> Callable[[int], Any]:
        """``problem(seed)``."""
        if self.function is not None:
            return self.function
        assert self.path is not None and self.text is not None
        return getattr(_run_file(self.path, self.text), self.attribute)

    def __call__(self, seed: int) -> Any:
        with seeded_rng(seed):
            return self.callable()(seed)


def load(problem: str | Callable[[int], Any] | None, *, inspect_it: bool = True) -> Problem:
    """The problem called `problem`; the first that fits wins.

    Parameters
    ----------
    problem
        None (``digits-mlp``), a built-in name, ``path.py[:name]``, ``package.module:name``, or a
        callable ``problem(seed)`` that returns a `Training` or a problem for solvers.
    inspect_it
        Build it twice with one seed and make sure that it is a problem that can be raced.

    Raises
    ------
    BadInput
        With one sentence; with the user's own traceback if it is their code that raised.
    """
    loaded = _load(DEFAULT_PROBLEM if problem is None else problem)
    return _inspected(loaded) if inspect_it else loaded


def _load(problem: Any) -> Problem:
    if isinstance(problem, Training):
        raise BadInput(
            "problem must be a function of the seed that returns a Training, got one Training: "
            "wrap its construction in `def problem(seed): ...` so that every run starts afresh"
        )
    if solving.is_problem(problem):
        kind = type(problem).__name__
        raise BadInput(
            f"problem must be a function of the seed that returns a {kind}, got one {kind}: write "
            "`def problem(seed): ...`, which may draw a fresh instance, or hold out other data, "
            "for every seed"
        )
    if callable(problem):
        name = getattr(problem, "__name__", None) or getattr(problem, "name", None)
        return Problem(str(name or type(problem).__name__).strip("<>"), None, problem)
    if not isinstance(problem, str | os.PathLike):
        raise BadInput(
            "problem must be a built-in name, 'path.py[:name]', 'package.module:name' or a "
            f"function problem(seed) -> Training, got {problem!r}"
        )
    word = str(problem).strip()
    known = builtin()
    if word in known:
        return Problem(word, word, known[word])
    match = re.fullmatch(r"(.*\.py)(?::(\w+))?", word)
    if match is not None:
        return _from_file(word, Path(match.group(1)), match.group(2) or "problem")
    if ":" in word:
        return _from_module(word)
    raise BadInput(
        f"unknown problem {word!r}{check.did_you_mean(word, known)}; the built-in ones are "
        f"{', '.join(known) or 'not installed'}, and 'path.py', 'path.py:name' or "
        "'package.module:name' names one of your own"
    )


def builtin() -> dict[str, Callable[[int], Any]]:
    """The built-in problems by name: networks first, then those that solvers take."""
    return {**problems.builtin(), **solver_problems.builtin()}


def _from_file(word: str, path: Path, attribute: str) -> Problem:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(f"cannot read the problem file {str(path)!r}: {reason}") from error
    try:
        module = _run_file(str(path.resolve()), text)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise BadInput(f"{path} raised {one_line(error)}", own_traceback(error)) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        names = [
            n
            for n, v in vars(module).items()
            if inspect.isfunction(v) and v.__module__ == module.__name__
        ]
        listed = f"; it defines {', '.join(names)}" if names else ""
        raise BadInput(
            f"{path} has no function {attribute!r}: define `def {attribute}(seed): ...` that "
            "returns a thalweg.Training or a problem to solve, or name another one as "
            f"{path}:name{listed}"
            f"{check.did_you_mean(attribute, names)}"
        )
    name = path.stem if attribute == "problem" else f"{path.stem}:{attribute}"
    return Problem(name, word, None, str(path.resolve()), text, attribute)


def _from_module(word: str) -> Problem:
    module_name, _, attribute = word.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and (module_name + ".").startswith(
            f"{error.name}."
        )
        raise BadInput(
            f"cannot import the problem {word!r}: {one_line(error)}",
            None if missing else own_traceback(error),
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        names = [n for n, v in vars(module).items() if inspect.isfunction(v)]
        raise BadInput(
            f"module {module_name!r} has no function {attribute!r}"
            f"{check.did_you_mean(attribute, names)}"
        )
    return Problem(attribute, word, function)


@functools.lru_cache(maxsize=8)
def _run_file(path: str, text: str) -> types.ModuleType:
    """The user's file as a module, from its text; what it imports from its folder is found."""
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    digest = hashlib.sha256(f"{path}\0{text}".encode()).hexdigest()[:12]
    module = types.ModuleType(f"_thalweg_problem_{digest}")
    module.__file__ = path
    sys.modules[module.__name__] = module
    linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    try:
        exec(compile(text, path, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


# ------------------------------------------------------------------------------------- checks


def _inspected(problem: Problem) -> Problem:
    """`problem` with its hash and facts, after two builds with one seed agreed."""
    built = call(problem, 0)
    if solving.is_problem(built):
        facts = solving.facts_of(problem, built, call(problem, 0), call(problem, 1))
        told = f"{_source_text(problem)}\0{solving.fingerprint(built)}\0{facts['metric']}"
        return _with(problem, told, facts)
    losses, first = [], None
    for training in (_training(problem, 0, built), build(problem, 0)):
        first = training if first is None else first
        losses.append(first_loss(problem, training))
    if losses[0] != losses[1]:
        raise BadInput(
            f"{problem.name}: two calls with one seed give two first losses, {losses[0]!r} and "
            f"{losses[1]!r}; draw everything random from torch, numpy or random (they are seeded "
            "for you), or from a generator seeded with the seed"
        )
    assert first is not None
    metrics = {split: measured(problem, first, split) for split in ("validation", "test")}
    metric = next(iter(metrics["validation"]))
    parameters = {n: tuple(p.shape) for n, p in first.model.named_parameters() if p.requires_grad}
    if not parameters:
        raise BadInput(f"{problem.name}: the model has no parameter that requires a gradient")
    told = f"{_source_text(problem)}\0{parameters}\0{losses[0]:.4g}\0{metric}\0{first.goal}"
    facts = {
        "metric": metric,
        "goal": first.goal,
        "parameters": sum(p.numel() for p in first.model.parameters() if p.requires_grad),
        "has_test": first.evaluate is not None,
        "positive": metrics["validation"][metric] > 0,
        "title": first.name if first.name not in ("training", "function") else problem.name,
        "minimum": first.minimum,
        "device": str(next(first.model.parameters()).device),
    }
    return _with(problem, told, facts)


def _with(problem: Problem, told: str, facts: dict[str, Any]) -> Problem:
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    return replace(problem, hash=digest, facts=facts)


def call(problem: Problem, seed: int) -> Any:
    """``problem(seed)``, or BadInput with the user's own traceback."""
    try:
        return problem(seed)
    except Exception as error:
        raise BadInput(
            f"{problem.name}({seed}) raised {one_line(error)}", own_traceback(error)
        ) from error


def build(problem: Problem, seed: int) -> Training:
    """``problem(seed)`` where a network is needed; BadInput where it is something else."""
    return _training(problem, seed, call(problem, seed))


def _training(problem: Problem, seed: int, built: Any) -> Training:
    if solving.is_problem(built):
        raise BadInput(
            f"{problem.name} is a {type(built).__name__}, a problem for solvers; what is accepted "
            "here is a problem that returns a thalweg.Training (a network with its loss and data), "
            "such as digits-mlp"
        )
    if not isinstance(built, Training):
        raise BadInput(
            f"{problem.name}({seed}) must return a thalweg.Training(model, loss, data, ...) or a "
            f"problem for solvers, as MatrixCompletion(...), got {type(built).__name__}"
        )
    return built


def first_loss(problem: Problem, training: Training) -> float:
    """The loss of the first batch of seed 0; finite, or BadInput."""
    with one_thread(), seeded_rng(0):
        try:
            _, batch = next(batches(training.data, 0))
            loss = training.batch_loss(batch)
            value = loss.item()
        except Exception as error:
            raise BadInput(
                f"{problem.name}: the loss of the first batch raised {one_line(error)}",
                own_traceback(error),
            ) from error
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise BadInput(
            f"{problem.name}: the loss must be a scalar tensor that depends on the parameters"
        )
    if value != value or value in (float("inf"), float("-inf")):
        raise BadInput(
            f"{problem.name}: the loss of the first batch is {value}, before any step was made"
        )
    return value


def measured(problem: Problem, training: Training, split: Any) -> dict[str, float]:
    """`training.measure(split)` on one thread; what the user's `evaluate` raises is bad input."""
    try:
        with one_thread():
            return training.measure(split)
    except Exception as error:
        raise BadInput(
            f"{problem.name}: evaluate(model, {split!r}) raised {one_line(error)}",
            own_traceback(error),
        ) from error


def _source_text(problem: Problem) -> str:
    """What the hash of a problem is made of: the text of its file, or of its module."""
    if problem.text is not None:
        return f"{problem.text}\0{problem.attribute}"
    function: Any = problem.function
    while isinstance(function, functools.partial):
        function = function.func
    named = function if inspect.isroutine(function) else type(function)
    try:
        text = inspect.getsource(named)
    except (OSError, TypeError):
        text = ""
    values = repr(problem.function)
    return (
        f"{named.__module__}:{named.__qualname__}\0{text}\0{re.sub(r' at 0x[0-9a-f]+', '', values)}"
    )
