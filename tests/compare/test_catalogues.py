from __future__ import annotations

from thalweg.compare.catalogues import DEFAULT_METHODS, default_methods, entries, is_ours, solvers
from thalweg.compare.methods import resolve


def test_default_methods_are_six_of_the_catalogue() -> None:
    assert default_methods() == list(DEFAULT_METHODS)
    assert len({contender.name for contender in resolve(None)}) == 6


def test_optimizers_are_classes_and_solvers_are_functions() -> None:
    assert all(isinstance(entry.target, type) and is_ours(entry.target) for entry in entries())
    assert all(entry.problems and is_ours(entry.target) for entry in solvers())
    assert not {entry.name for entry in entries()} & {entry.name for entry in solvers()}
