from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import Choice, LogUniform, OneMinusLogUniform, Uniform, catalogue

unit = st.floats(0, 1, exclude_max=True)


class Second:
    """The second method.

    More about it.
    """

    paper = "A. Author, 2020"
    year = 2020
    family = "adaptive"
    needs = ("closure",)
    memory = "2 per parameter"
    search_space = {"lr": LogUniform(1e-4, 1.0)}


class First(Second):
    """The first method."""

    year = 1951
    search_space = {}


class NoPaper:
    """A base class."""


def make(**members: object) -> ModuleType:
    module = ModuleType("made")
    module.__all__ = list(members)
    module.__dict__.update(members)
    return module


@given(unit, unit)
def test_axes_stay_inside_and_keep_the_order(u: float, v: float) -> None:
    for axis in (LogUniform(1e-4, 1.0), Uniform(-2.0, 3.0)):
        assert axis.low - 1e-12 * abs(axis.low) <= axis.at(u) <= axis.high * (1 + 1e-12)
        assert u > v or axis.at(u) <= axis.at(v)
    beta = OneMinusLogUniform(1e-3, 1e-1).at(u)
    assert 0.9 - 1e-12 <= beta <= 0.999 + 1e-12


def test_axes_at_known_points() -> None:
    assert LogUniform(1e-4, 1e-2).at(0.5) == pytest.approx(1e-3, rel=1e-12)
    assert LogUniform(1e-4, 1e-2).at(0) == pytest.approx(1e-4, rel=1e-12)
    assert Uniform(2.0, 4.0).at(0.25) == 2.5
    assert OneMinusLogUniform(1e-3, 1e-1).at(0.5) == pytest.approx(0.99, rel=1e-12)


@given(st.lists(st.integers(), min_size=1, max_size=9, unique=True))
def test_choice_gives_every_value_an_equal_share(values: list[int]) -> None:
    axis = Choice(tuple(values))
    n = len(values)
    assert [axis.at((i + 0.5) / n) for i in range(n)] == values
    assert axis.at(1.0) == values[-1]


def test_an_entry_is_read_off_the_class() -> None:
    entry = catalogue.entry(Second)
    assert entry.name == "Second" and entry.target is Second
    assert entry.summary == "The second method"
    assert (entry.paper, entry.year, entry.family) == ("A. Author, 2020", 2020, "adaptive")
    assert entry.needs == ("closure",) and entry.memory == "2 per parameter"
    assert dict(entry.search_space) == {"lr": LogUniform(1e-4, 1.0)}


def test_place_is_where_the_user_imports_it_from() -> None:
    class Inner(Second):
        """Deep inside."""

    Inner.__module__ = "thalweg.optim.inner.file"
    assert catalogue.entry(Inner).place == "thalweg.optim.Inner"
    Inner.__module__ = "thalweg.solve.recovery.file"
    assert catalogue.entry(Inner).place == "thalweg.solve.recovery.Inner"


def test_collect_takes_what_declares_a_paper_by_family_and_year() -> None:
    found = catalogue.collect(make(Second=Second, NoPaper=NoPaper), make(First=First, number=3))
    assert [entry.name for entry in found] == ["First", "Second"]


@pytest.mark.parametrize("typed", ["Second", "second", "SECOND", "sec_ond", "sec-ond"])
def test_find_ignores_capitals_and_underscores(typed: str) -> None:
    entries = catalogue.collect(make(Second=Second, First=First))
    assert catalogue.find(typed, entries).target is Second


def test_find_suggests_the_nearest() -> None:
    entries = catalogue.collect(make(Second=Second, First=First))
    with pytest.raises(ValueError, match=r"'secnd' \(did you mean 'Second'\?\).*thalweg methods"):
        catalogue.find("secnd", entries)
    with pytest.raises(ValueError, match="unknown method 'x'"):
        catalogue.find("x", [])
