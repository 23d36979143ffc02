"""Which of the words after ``thalweg compare`` is the problem: the first, unless it is a method."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress

from thalweg.compare import BadInput


def split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The problem, or None if all words are methods, and the methods.

    Raises
    ------
    BadInput
        If the first word is neither.

    Examples
    --------
    >>> split(["wine-mlp", "torch.optim:SGD"])
    ('wine-mlp', ['torch.optim:SGD'])
    >>> split(["torch.optim:SGD", "torch.optim:Adam"])
    (None, ['torch.optim:SGD', 'torch.optim:Adam'])
    """
    if words and _is_problem(words[0]):
        return words[0], list(words[1:])
    return None, list(words)


def _is_problem(word: str) -> bool:
    if is_file(word):
        return True
    if "[" in word:  # only methods take values
        return False
    if ":" in word:
        return not _names_a_method(word)

    from thalweg.compare.catalogues import entries, solvers
    from thalweg.compare.problems import builtin
    from thalweg.core.catalogue import find

    problems = builtin()
    if word in problems:
        return True
    methods = [*entries(), *solvers()]
    try:
        find(word, methods)
    except ValueError:
        raise _unknown(word, list(problems), [entry.name for entry in methods]) from None
    return False


def is_file(word: str) -> bool:
    """Whether it is written like ``path.py`` or ``path.py:name``."""
    return re.fullmatch(r".*\.py(:\w+)?", word) is not None


def _names_a_method(word: str) -> bool:
    """Whether ``module:name`` is a class with steps or a solver; else by its capital."""
    module_name, _, name = word.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception:  # whoever gets the word next tells what is wrong with it
        return name[:1].isupper()
    if isinstance(found, type):
        return callable(getattr(found, "step", None))

    from thalweg.compare.methods import is_solver

    return is_solver(found)


def _unknown(word: str, problems: Sequence[str], methods: Sequence[str]) -> BadInput:
    from thalweg.cli.methods import catalogue
    from thalweg.core import check
    from thalweg.core.catalogue import find

    if os.path.splitext(word)[1].lower() in (".csv", ".tsv", ".txt"):
        return BadInput(
            f"{word!r} is neither a problem nor a method; for a table write "
            f"--data {word} --target COLUMN"
        )
    with suppress(ValueError):
        found = find(word, catalogue())
        return BadInput(f"{word!r} is {found.place}, which is not an optimizer: it cannot race")
    near = check.did_you_mean(word, [*problems, *methods])
    return BadInput(
        f"{word!r} is neither a problem nor a method{near}; problems are {', '.join(problems)} "
        "and your own as path.py or package.module:name; `thalweg methods` lists the methods, and "
        "module:Class names one from elsewhere"
    )
