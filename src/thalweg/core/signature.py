"""Signatures of functions that pass keywords on: what ``**how`` stands for is shown."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def with_keywords_of(receiver: Callable[..., Any]) -> Callable[[F], F]:
    """Show ``**how`` in a function's signature as the keywords of the one it is passed on to.

    The function itself does not change; `help`, `inspect.signature` and what reads them (the
    command line, `compare`) see names and defaults that are written once, at the receiver.

    Parameters
    ----------
    receiver
        The function that ``**how`` is passed on to; its keyword-only arguments are shown.

    Raises
    ------
    TypeError
        If the function takes no ``**how``.

    Examples
    --------
    >>> def descend(step, *, tol=1e-10, max_steps=2000): ...
    >>> @with_keywords_of(descend)
    ... def gradient_descent(problem, *, lr, **how):
    ...     return descend(lambda x: x - lr * problem.gradient(x), **how)
    >>> inspect.signature(gradient_descent)
    <Signature (problem, *, lr, tol=1e-10, max_steps=2000)>
    """

    def declare(function: F) -> F:
        signature = inspect.signature(function)
        *own, last = signature.parameters.values()
        if last.kind is not last.VAR_KEYWORD:
            raise TypeError(f"{function.__name__} must end in **keywords, got {signature}")
        passed_on = [
            p for p in inspect.signature(receiver).parameters.values() if p.kind is p.KEYWORD_ONLY
        ]
        declared: Any = function
        declared.__signature__ = signature.replace(parameters=[*own, *passed_on])
        return function

    return declare
