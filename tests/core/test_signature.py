"""Keywords that are passed on are shown where they may be given."""

from __future__ import annotations

import inspect

import pytest

from thalweg.core.signature import with_keywords_of


def receiver(problem: object, schedule: object = None, /, *, tol: float = 1e-3, steps: int) -> None:
    """Its keywords are what others pass on."""


def test_only_keywords_are_shown_with_their_defaults_and_annotations() -> None:
    @with_keywords_of(receiver)
    def sender(problem: object, *, lr: float = 0.1, **how: object) -> int:
        return 0

    assert str(inspect.signature(sender)) == (
        "(problem: 'object', *, lr: 'float' = 0.1, tol: 'float' = 0.001, steps: 'int') -> 'int'"
    )


def test_a_name_that_both_have_is_refused() -> None:
    with pytest.raises(ValueError, match="duplicate parameter name: 'tol'"):

        @with_keywords_of(receiver)
        def sender(problem: object, *, tol: float, **how: object) -> None: ...


def test_a_function_that_passes_nothing_on_is_refused() -> None:
    with pytest.raises(TypeError, match=r"sender must end in \*\*keywords, got \(problem"):

        @with_keywords_of(receiver)
        def sender(problem: object) -> None: ...
