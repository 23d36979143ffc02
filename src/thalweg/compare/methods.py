"""Who races: from what the user typed to a `Contender`."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from thalweg.compare.errors import BadInput, one_line, own_traceback
from thalweg.core import catalogue, check
from thalweg.core.catalogue import Axis, Choice, LogUniform, OneMinusLogUniform, Uniform

DEFAULT_METHODS = ("sgd[momentum=0.9]", "adam", "adamw", "lion", "novograd", "adamp")
_SPARE_METHODS = ("amsgrad", "rmsprop", "adagrad", "sgdp", "adagradnorm", "salsa")

# Foreign optimizers that are published as having no learning rate to tune.
_PARAMETER_FREE = {"Prodigy", "DAdaptAdam", "DAdaptSGD", "DAdaptLion", "DAdaptAdaGrad", "DoG"}


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
        >>> contender = resolve(["torch.optim:AdamW[eps=1e-6]"])[0]
        >>> contender.arguments({"lr": 0.1, "betas[0]": 0.5})
        {'eps': 1e-06, 'lr': 0.1, 'betas': (0.5, 0.999)}
        """
        arguments = dict(self.fixed)
        for name, value in values.items():
            whole, index = _element(name)
            if index is None:
                arguments[whole] = value
            else:
                parts = list(arguments.get(whole, _signature_defaults(self.target)[whole]))
                parts[index] = value
                arguments[whole] = tuple(parts)
        return arguments


Method = str | Callable[..., Any]
"""How a method is named: a word, an optimizer class, or a solver."""


def resolve(methods: Sequence[Method] | Method | None) -> list[Contender]:
    """The contenders of a race; every name is unique.

    Parameters
    ----------
    methods
        Catalogue names, ``"adam[lr=1e-3,betas=(0.9,0.99)]"``, ``"package.module:name"``,
        optimizer classes, solvers. None: six optimizers of the catalogue.

    Raises
    ------
    BadInput
        If a method is unknown (the nearest name is suggested), cannot be imported, is neither an
        optimizer class nor a solver, or a value does not fit its signature.

    Examples
    --------
    >>> [c.name for c in resolve(["torch.optim:SGD", "torch.optim:SGD[lr=0.1]"])]
    ['torch.optim:SGD', 'torch.optim:SGD[lr=0.1]']
    """
    if methods is None:
        methods = _default_methods()
    elif isinstance(methods, str) or callable(methods):
        methods = [methods]
    if not methods:
        raise BadInput("methods must name at least one method, got none")
    return _distinct([_contender(method) for method in methods])


def _contender(method: Method) -> Contender:
    if isinstance(method, str):
        word, fixed = _parse(method)
        target, spec = _find(word), method.strip()
    elif isinstance(method, type) or inspect.isfunction(method):
        target, fixed, spec = method, {}, f"{method.__module__}:{method.__qualname__}"
        word = method.__name__
        _can_race(word, method)
    else:
        raise BadInput(
            "a method must be a name, 'module:name', an optimizer class or a solver, "
            f"got {method!r} of type {type(method).__name__}"
        )
    signature = _signature_defaults(target)
    _check_fixed(spec, target, fixed)
    space = search_space(target)
    kept = {name: axis for name, axis in space.items() if _element(name)[0] not in fixed}
    ours = _ours(target)
    shown = target.__name__ if ours else word
    if fixed:
        shown += "[" + ",".join(f"{name}={value!r}" for name, value in fixed.items()) + "]"
    defaults = {name: signature[name] for name in signature if signature[name] is not None}
    for name in space:
        whole, index = _element(name)
        if index is not None and isinstance(defaults.get(whole), tuple | list):
            defaults[name] = defaults[whole][index]
    contender = Contender(
        name=shown,
        spec=spec,
        target=target,
        place=f"{target.__module__}:{target.__qualname__}",
        fixed=fixed,
        space=kept,
        declared=bool(space),
        defaults={n: v for n, v in defaults.items() if n in space or _plain(v)},
        version=_version(target),
        summary=_first_line(target),
        paper=str(getattr(target, "paper", "") or ""),
        year=getattr(target, "year", None),
        memory=str(getattr(target, "memory", "") or ""),
        needs=tuple(getattr(target, "needs", ()) or ()),
        problems=tuple(getattr(target, "problems", ()) or ()),
    )
    if fixed and not contender.solves:  # a solver's values are checked on its problem
        _check_values(contender)
    return contender


# --------------------------------------------------------------------------------------- names


def _parse(method: str) -> tuple[str, dict[str, Any]]:
    """``"adam[lr=1e-3]"`` -> ``("adam", {"lr": 1e-3})``."""
    match = re.fullmatch(r"\s*([^\[\]\s]+)\s*(?:\[(.*)\])?\s*", method, flags=re.DOTALL)
    if match is None:
        raise BadInput(
            f"cannot read method {method!r}: write a name, or a name with values in brackets, "
            "as in adam[lr=1e-3,betas=(0.9,0.99)]"
        )
    word, inside = match.group(1), match.group(2)
    fixed: dict[str, Any] = {}
    if inside and inside.strip():
        try:
            call = ast.parse(f"f({inside})", mode="eval").body
            assert isinstance(call, ast.Call) and not call.args
            for keyword in call.keywords:
                assert keyword.arg is not None
                fixed[keyword.arg] = ast.literal_eval(keyword.value)
        except (SyntaxError, ValueError, AssertionError) as error:
            raise BadInput(
                f"cannot read the values in {method!r}: write name=value pairs of numbers, tuples, "
                "True, False, None or quoted words, as in adam[lr=1e-3,betas=(0.9,0.99)]"
            ) from error
    return word, fixed


def _find(word: str) -> Any:
    if ":" in word:
        module_name, _, class_name = word.partition(":")
        module = _import(module_name, word)
        target = module
        for part in class_name.split("."):
            if not hasattr(target, part):
                names = [n for n, v in vars(module).items() if isinstance(v, type) or is_solver(v)]
                raise BadInput(
                    f"module {module_name!r} has no {class_name!r}"
                    f"{check.did_you_mean(class_name, names)}"
                )
            target = getattr(target, part)
        return _can_race(word, target)
    try:
        return catalogue.find(word, [*entries(), *solvers()]).target
    except ValueError as error:
        raise BadInput(str(error)) from error


def _can_race(word: str, target: Any) -> Any:
    """`target`, if it can race: modules and estimators of the catalogue cannot."""
    steps = isinstance(target, type) and callable(getattr(target, "step", None))
    if not steps and not is_solver(target):
        raise BadInput(
            f"{word!r} must be an optimizer class with a method step(), or a solver "
            f"method(problem, *, callback=None, ...) -> Result; got {target!r}"
        )
    return target


def is_solver(target: Any) -> bool:
    """Whether it is a function that says which problems it solves, or lets itself be watched."""
    return inspect.isfunction(target) and (
        hasattr(target, "problems") or "callback" in inspect.signature(target).parameters
    )


def _import(name: str, word: str) -> Any:
    # A console script does not have the working directory on its path; `python -m` does.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name + ".").startswith(error.name + "."):
            raise BadInput(
                f"cannot import {error.name!r} for method {word!r}: no such module here "
                "(is it installed in this environment?)"
            ) from error
        raise BadInput(
            f"cannot import {word!r}: {one_line(error)}", own_traceback(error)
        ) from error
    except Exception as error:
        raise BadInput(
            f"cannot import {word!r}: {one_line(error)}", own_traceback(error)
        ) from error


@functools.cache
def entries() -> tuple[catalogue.Entry, ...]:
    """The catalogue of optimizers."""
    try:
        optim = importlib.import_module("thalweg.optim")
    except ModuleNotFoundError as error:
        if error.name != "thalweg.optim":
            raise
        return ()
    return tuple(catalogue.collect(optim)) if hasattr(optim, "__all__") else ()


@functools.cache
def solvers() -> tuple[catalogue.Entry, ...]:
    """The catalogue of solvers."""
    import thalweg.solve.recovery

    return tuple(catalogue.collect(thalweg.solve.recovery))


def _default_methods() -> list[str]:
    known = {entry.name.lower() for entry in entries()}
    wanted = [*DEFAULT_METHODS, *_SPARE_METHODS]
    found = [spec for spec in wanted if spec.partition("[")[0] in known]
    spare = [
        e.name for e in entries() if e.name.lower() not in {s.partition("[")[0] for s in found}
    ]
    return (found + spare)[: len(DEFAULT_METHODS)]


def _distinct(contenders: list[Contender]) -> list[Contender]:
    taken: set[str] = set()
    unique = []
    for contender in contenders:
        name, count = contender.name, 1
        while name in taken:
            count += 1
            name = f"{contender.name} #{count}"
        taken.add(name)
        unique.append(replace(contender, name=name))
    return unique


# -------------------------------------------------------------------------------------- spaces


def search_space(target: Any) -> dict[str, Axis]:
    """The axes `target` is tuned over: what it declares, else what its signature suggests.

    A foreign class of the name of one of ours gets our space, so that the two race fairly.
    """
    declared = getattr(target, "search_space", None)
    if isinstance(declared, Mapping) and (
        not isinstance(target, type) or _ours(target) or _declares_itself(target)
    ):
        return dict(declared)
    if target.__name__ in _PARAMETER_FREE or not isinstance(target, type):
        return {}
    signature = _signature_defaults(target)
    twin = next((e for e in entries() if e.name.lower() == target.__name__.lower()), None)
    if twin is None and "betas" in signature:
        twin = next((e for e in entries() if e.name == "AdamW"), None)
    if twin is not None:
        space = {n: a for n, a in twin.search_space.items() if _element(n)[0] in signature}
        if space:
            return space
    if "lr" not in signature:
        return {}
    if "betas" in signature:
        return {"lr": LogUniform(1e-4, 1e-1)}
    if "momentum" in signature:
        return {"lr": LogUniform(1e-4, 1.0), "momentum": OneMinusLogUniform(1e-2, 1.0)}
    return {"lr": LogUniform(1e-4, 1.0)}


def _declares_itself(target: type) -> bool:
    """Whether its space is its own, and not the empty one it has from our base class."""
    return any("search_space" in vars(c) for c in target.__mro__ if not _ours(c))


def describe_axis(name: str, axis: Axis) -> dict[str, Any]:
    """The axis as it stands in summary.json."""
    kinds = {LogUniform: "log", Uniform: "linear", OneMinusLogUniform: "one_minus_log"}
    if isinstance(axis, Choice):
        return {"name": name, "kind": "choice", "low": None, "high": None, "values": [*axis.values]}
    low, high = sorted((float(axis.at(0.0)), float(axis.at(1.0))))
    kind = kinds.get(type(axis), "linear")
    return {"name": name, "kind": kind, "low": low, "high": high, "values": None}


# ---------------------------------------------------------------------------------- signatures


def parameters_of(target: Any) -> Mapping[str, inspect.Parameter]:
    """The arguments of the constructor without self and the parameters; without the problem."""
    if not isinstance(target, type):
        return dict(list(inspect.signature(target).parameters.items())[1:])
    names = list(inspect.signature(target.__init__).parameters.items())[2:]  # type: ignore[misc]
    return dict(names)


@functools.cache
def _signature_defaults(target: Any) -> dict[str, Any]:
    """Argument to default; None where there is no default."""
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: None if p.default is p.empty else p.default
        for name, p in parameters_of(target).items()
        if p.kind not in variadic
    }


def _check_fixed(spec: str, target: Any, fixed: Mapping[str, Any]) -> None:
    known = _signature_defaults(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters_of(target).values())
    for name in fixed:
        if name not in known and not open_ended:
            raise BadInput(
                f"{target.__name__} has no argument {name!r}{check.did_you_mean(name, known)} "
                f"(in {spec!r}); it takes {', '.join(known)}"
            )


def _check_values(contender: Contender) -> None:
    """Let the class itself say whether it takes the fixed values, next to tuned ones."""
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    middle = {name: axis.at(0.5) for name, axis in contender.space.items()}
    try:
        contender.target([parameter], **contender.arguments(middle))
    except Exception as error:
        try:
            contender.target([parameter])
        except Exception:  # it needs more than a small matrix: its runs will tell
            return
        raise BadInput(f"{contender.spec}: {one_line(error)}") from error


def _element(name: str) -> tuple[str, int | None]:
    """``"betas[0]"`` -> ``("betas", 0)``; ``"lr"`` -> ``("lr", None)``."""
    match = re.fullmatch(r"(\w+)\[(\d+)\]", name)
    return (match.group(1), int(match.group(2))) if match else (name, None)


def _plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_plain(part) for part in value)
    return isinstance(value, bool | int | float | str)


def _ours(target: Any) -> bool:
    return target.__module__.split(".", 1)[0] == "thalweg"


def _first_line(target: Any) -> str:
    return (inspect.getdoc(target) or "").split("\n", 1)[0].rstrip(".")


@functools.cache
def _version(target: Any) -> str:
    package = target.__module__.split(".", 1)[0]
    try:
        version = importlib.metadata.version(package.replace("_", "-"))
    except Exception:  # not a distribution of that name: its source has to do
        version = str(getattr(sys.modules.get(package), "__version__", ""))
    try:
        source = hashlib.sha256(inspect.getsource(target).encode()).hexdigest()[:12]
    except (OSError, TypeError):
        source = ""
    return f"{version}+{source}"
