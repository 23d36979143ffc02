from __future__ import annotations

import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import check


@pytest.mark.parametrize(
    "value", [1, 1.5, numpy.float32(2), numpy.int64(3), torch.tensor(0.5), torch.tensor([2])]
)
def test_numbers_of_every_make_are_returned_as_they_are(value: object) -> None:
    assert check.number("lr", value, gt=0) is value


@pytest.mark.parametrize(
    "value", [None, "0.1", True, [1.0], 1 + 2j, torch.ones(2), torch.tensor(1j), numpy.ones(1)]
)
def test_what_is_no_number_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match=r"lr must be > 0, got .* of type"):
        check.number("lr", value, gt=0)


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (-0.1, {"gt": 0}, "lr must be > 0, got -0.1"),
        (0, {"gt": 0}, "lr must be > 0, got 0"),
        (-1, {"ge": 0}, "lr must be >= 0, got -1"),
        (2, {"le": 1}, "lr must be <= 1, got 2"),
        (1, {"lt": 1}, "lr must be < 1, got 1"),
        (1, {"ge": 0, "lt": 1}, r"lr must be in \[0, 1\), got 1"),
        (0, {"gt": 0, "le": 1}, r"lr must be in \(0, 1\], got 0"),
        (1.5, {"ge": 1, "integer": True}, "lr must be an integer >= 1, got 1.5"),
        (1.5, {"integer": True}, "lr must be an integer, got 1.5"),
        (math.nan, {}, "lr must be a finite number, got nan"),
        (math.inf, {"gt": 0}, "lr must be > 0, got inf"),
        (math.inf, {"integer": True, "finite": False}, "lr must be an integer, got inf"),
        (math.nan, {"finite": False}, "got nan"),
    ],
)
def test_the_error_names_argument_value_and_range(
    value: float, bounds: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check.number("lr", value, **bounds)


@given(st.floats(), st.floats(-10, 10), st.floats(-10, 10))
def test_accepted_exactly_when_inside(value: float, low: float, high: float) -> None:
    inside = low <= value < high and math.isfinite(value)
    try:
        check.number("x", value, ge=low, lt=high)
        accepted = True
    except ValueError:
        accepted = False
    assert accepted == inside


def test_infinity_where_it_is_allowed() -> None:
    assert check.number("tol", math.inf, ge=0, finite=False) == math.inf


def test_choice() -> None:
    assert check.choice("goal", "min", ("min", "max")) == "min"
    with pytest.raises(ValueError, match=r"'min', 'max', got 'mni' \(did you mean 'min'\?\)"):
        check.choice("goal", "mni", ("min", "max"))
    with pytest.raises(ValueError, match=r"got 'zzz'$"):
        check.choice("goal", "zzz", ("min", "max"))
    with pytest.raises(ValueError, match="got None"):
        check.choice("goal", None, ("min", "max"))


def test_did_you_mean_ignores_capitals_and_keeps_the_spelling() -> None:
    assert check.did_you_mean("adamW", ["AdamW", "Lion"]) == " (did you mean 'AdamW'?)"
    assert check.did_you_mean("qqqq", ["AdamW", "Lion"]) == ""


def test_floating() -> None:
    tensor = torch.ones(2, dtype=torch.bfloat16)
    assert check.floating("start", tensor) is tensor
    for wrong in (torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.complex64)):
        with pytest.raises(TypeError, match=r"start must be a real floating-point .*shape \(2,\)"):
            check.floating("start", wrong)
    with pytest.raises(TypeError, match="start must be a tensor, got list"):
        check.floating("start", [1.0])
