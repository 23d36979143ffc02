"""Who races: from what the user typed to a `Contender`."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from thalweg.compare.catalogues import default_methods, entries, is_ours, solvers
from thalweg.compare.contender import Contender
from thalweg.compare.errors import BadInput, one_line, own_traceback
from thalweg.compare.signatures import defaults_of, element, is_plain, parameters_of
from thalweg.compare.spaces import search_space
from thalweg.core import catalogue, check

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
        methods = default_methods()
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
    signature = defaults_of(target)
    _check_fixed(spec, target, fixed)
    space = search_space(target)
    kept = {name: axis for name, axis in space.items() if element(name)[0] not in fixed}
    ours = is_ours(target)
    shown = target.__name__ if ours else word
    if fixed:
        shown += "[" + ",".join(f"{name}={value!r}" for name, value in fixed.items()) + "]"
    defaults = {name: signature[name] for name in signature if signature[name] is not None}
    for name in space:
        whole, index = element(name)
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
        defaults={n: v for n, v in defaults.items() if n in space or is_plain(v)},
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


def _check_fixed(spec: str, target: Any, fixed: Mapping[str, Any]) -> None:
    known = defaults_of(target)
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
