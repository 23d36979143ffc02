from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import NotConvergedError, Reason, Result, Stop, iterate


class Walk(NamedTuple):
    x: torch.Tensor
    name: str = "not a tensor"


def halve(x: torch.Tensor) -> torch.Tensor:
    return x / 2


def size(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"size": x.abs().max()}


ONE = torch.tensor([1.0])


def script(values: list[float], **options: object) -> Result:
    """Step k stands at point k, where the measure is values[k]."""
    return iterate(
        lambda k: k + 1, 0, measure=lambda k: {"value": values[k]}, **{"max_steps": 100, **options}
    )


def test_tolerance_is_reached_at_equality() -> None:
    result = iterate(halve, ONE, measure=size, tol=0.25)
    assert result.reason is Reason.TOLERANCE and result.converged
    assert result.value == 0.25 and result.x.item() == 0.25
    assert result.trace["step"].tolist() == [0, 1, 2]
    assert result.trace["size"].tolist() == [1, 0.5, 0.25]


def test_exact_zero_stops_without_tolerance() -> None:
    result = script([3, 0, 5])
    assert (result.reason, result.x, result.value) == (Reason.EXACT, 1, 0.0)
    assert result.converged


def test_no_tolerance_means_never() -> None:
    result = iterate(halve, ONE, measure=size, max_steps=7)
    assert result.reason is Reason.MAX_STEPS and not result.converged
    with pytest.raises(NotConvergedError, match="max_steps"):
        result.raise_if_failed()


def test_zero_steps_measure_the_start() -> None:
    result = iterate(halve, ONE, measure=size, max_steps=0)
    assert result.reason is Reason.MAX_STEPS
    assert result.x is ONE and result.value == 1 and len(result.trace["size"]) == 1


def test_step_limit_returns_the_last_point_even_if_worse() -> None:
    result = script([1, 5, 7], max_steps=2)
    assert (result.x, result.value) == (2, 7)


def test_max_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    result = iterate(halve, ONE, measure=size, max_seconds=10, measure_every=1000)
    assert result.reason is Reason.MAX_SECONDS
    steps = result.trace["step"]
    assert steps[0] == 0 and 0 < steps[-1] < 10, "the last point is measured although 1000 is far"
    assert result.value == result.x.item() == 0.5 ** steps[-1]


@given(
    values=st.lists(st.floats(0.1, 10), min_size=2, max_size=30),
    every=st.integers(1, 7),
)
def test_the_value_belongs_to_the_point_and_the_trace_has_one_length(
    values: list[float], every: int
) -> None:
    result = script(values, max_steps=len(values) - 1, measure_every=every)
    assert result.value == values[result.x] == result.trace["value"][-1]
    last = len(values) - 1
    assert result.trace["step"].tolist() == sorted({*range(0, last, every), last})
    assert len({len(column) for column in result.trace.values()}) == 1
    assert result.trace["value"].tolist() == [values[int(k)] for k in result.trace["step"]]
    assert (result.trace["seconds"][1:] >= result.trace["seconds"][:-1]).all()


@given(st.lists(st.floats(-5, 5).filter(lambda v: v != 0), min_size=1, max_size=30))
def test_a_non_finite_value_returns_the_best_finite_point(values: list[float]) -> None:
    for broken in (math.nan, math.inf, -math.inf):
        result = script([*values, broken])
        assert result.reason is Reason.NONFINITE
        assert result.value == min(values) == values[result.x]
        assert len(result.trace["value"]) == len(values) + 1


def test_a_non_finite_state_behind_a_finite_measure_is_seen() -> None:
    def step(walk: Walk) -> Walk:
        return Walk(walk.x / 0 if walk.x[0] < 0.3 else walk.x / 2)

    result = iterate(
        step, Walk(ONE), measure=lambda w: {"bounded": torch.tanh(w.x).sum()}, max_steps=9
    )
    assert result.reason is Reason.NONFINITE
    assert result.x.x.item() == 0.25
    assert "best finite point" in str(result)


def test_non_finite_at_the_start_says_so() -> None:
    result = script([math.nan])
    assert result.reason is Reason.NONFINITE and math.isnan(result.value) and result.x == 0


def test_integer_and_complex_states_pass() -> None:
    state = (torch.arange(3), torch.tensor([1 + 1j]))
    result = iterate(lambda s: s, state, measure=lambda s: {"one": 1.0}, max_steps=2)
    assert result.reason is Reason.MAX_STEPS


@pytest.mark.parametrize("every", [1, 2])
def test_ctrl_c_returns_the_best_so_far(every: int) -> None:
    values = [5.0, 1.0, 2.0, 3.0, 4.0, 4.5]

    def step(k: int) -> int:
        if k == 4:
            raise KeyboardInterrupt
        return k + 1

    result = iterate(step, 0, measure=lambda k: {"value": values[k]}, measure_every=every)
    best = min(range(0, 5, every), key=lambda k: values[k])
    assert result.reason is Reason.INTERRUPTED
    assert (result.x, result.value) == (best, values[best])


def test_ctrl_c_during_a_measurement_keeps_the_trace_rectangular() -> None:
    class Slow:
        def __float__(self) -> float:
            raise KeyboardInterrupt

    result = iterate(
        lambda k: k + 1, 0, measure=lambda k: {"a": 1.0, "b": Slow() if k == 2 else 2.0}
    )
    assert result.reason is Reason.INTERRUPTED
    assert {len(column) for column in result.trace.values()} == {2}


def test_ctrl_c_before_the_first_measurement_is_not_a_result() -> None:
    def measure(k: int) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        iterate(lambda k: k, 0, measure=measure)


def test_stall_counts_measurements_without_a_new_best() -> None:
    result = script([4, 2, 3, 3, 3, 1], patience=3)
    assert (result.reason, result.x, result.value) == (Reason.STALLED, 1, 2)
    assert result.trace["step"][-1] == 4


def test_a_gain_below_1e_12_is_a_stall_but_is_kept() -> None:
    better = 2 * (1 - 1e-15)
    result = script([2, better, better, better], patience=2)
    assert result.reason is Reason.STALLED and result.value == better


def test_stall_with_negative_measures() -> None:
    result = script([-1, -2, -2, -2, -3], patience=2)
    assert (result.reason, result.x) == (Reason.STALLED, 1)


def test_patience_starts_again_after_each_new_best() -> None:
    result = script([5, 6, 4, 6, 3, 6, 2, 9], patience=2, max_steps=7)
    assert result.reason is Reason.MAX_STEPS


def test_callback_sees_each_measurement_and_may_stop() -> None:
    seen: list[tuple[int, float]] = []

    def callback(result: Result) -> None:
        seen.append((result.x, result.value))
        if result.value == 2:
            raise StopIteration

    result = script([3, 1, 2, 0.5], callback=callback)
    assert seen == [(0, 3), (1, 1), (2, 2)]
    assert (result.reason, result.x, result.value) == (Reason.INTERRUPTED, 1, 1)


@pytest.mark.parametrize("where", ["step", "measure"])
def test_stop_iteration_of_the_method_is_an_error_not_an_interruption(where: str) -> None:
    exhausted = iter(())

    def step(k: int) -> int:
        return next(exhausted) if where == "step" else k + 1

    def measure(k: int) -> dict[str, float]:
        return {"value": next(exhausted) if where == "measure" and k else 1.0}

    with pytest.raises(StopIteration):
        iterate(step, 0, measure=measure)


@pytest.mark.parametrize("reason", [Reason.TOLERANCE, Reason.MAX_STEPS])
def test_stop_inside_step_measures_and_returns_where_it_stands(reason: Reason) -> None:
    def step(k: int) -> int:
        if k == 4:
            raise Stop(reason)
        return k + 1

    result = iterate(step, 0, measure=lambda k: {"value": 1.0 + k}, measure_every=3)
    assert (result.reason, result.x, result.value) == (reason, 4, 5.0)
    assert result.trace["step"].tolist() == [0, 3, 4]


def test_stop_for_a_stall_knows_the_newest_point() -> None:
    def step(k: int) -> int:
        if k == 4:
            raise Stop(Reason.STALLED)
        return k + 1

    result = iterate(step, 0, measure=lambda k: {"value": 10.0 - k}, measure_every=3)
    assert (result.x, result.value) == (4, 6.0)


def test_stop_at_a_non_finite_point_is_not_reported_as_converged() -> None:
    def step(k: int) -> int:
        if k == 1:
            raise Stop(Reason.TOLERANCE)
        return k + 1

    result = iterate(step, 0, measure=lambda k: {"value": math.nan if k else 1.0}, measure_every=10)
    assert (result.reason, result.x, result.value) == (Reason.NONFINITE, 0, 1.0)


def test_stop_inside_callback() -> None:
    def callback(result: Result) -> None:
        raise Stop(Reason.STALLED)

    result = script([2.0, 1.0], callback=callback)
    assert (result.reason, result.x) == (Reason.STALLED, 0)
    assert len(result.trace["value"]) == 1


def test_point_is_taken_from_the_state() -> None:
    result = iterate(
        lambda s: (s[0] + 1, s[1]),
        (0, "momentum"),
        measure=lambda s: {"v": 1.0},
        point=lambda s: s[0],
        max_steps=3,
    )
    assert result.x == 3


def test_other_errors_pass_through() -> None:
    def step(k: int) -> int:
        raise ZeroDivisionError("of the method")

    with pytest.raises(ZeroDivisionError, match="of the method"):
        iterate(step, 0, measure=lambda k: {"v": 1.0})


def test_progress_bar_changes_nothing() -> None:
    plain = iterate(halve, ONE, measure=size, tol=0.1)
    shown = iterate(halve, ONE, measure=size, tol=0.1, progress=True)
    assert torch.equal(plain.x, shown.x) and plain.reason is shown.reason


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda k: {}, "at least one name"),
        (lambda k: {"step": 1.0}, "none of them 'step'"),
        (lambda k: {"a": 1.0} if k < 2 else {"a": 1.0, "b": 1.0}, "same names at every step"),
    ],
)
def test_measures_the_trace_could_not_hold_are_refused(measure: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        iterate(lambda k: k + 1, 0, measure=measure)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tol": -1.0}, "tol must be >= 0, got -1.0"),
        ({"max_steps": -1}, "max_steps must be an integer >= 0, got -1"),
        ({"max_steps": 1.5}, "max_steps must be an integer >= 0, got 1.5"),
        ({"measure_every": 0}, "measure_every must be an integer >= 1, got 0"),
        ({"max_seconds": 0}, "max_seconds must be > 0, got 0"),
        ({"patience": 0}, "patience must be an integer >= 1, got 0"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        iterate(halve, ONE, measure=size, **options)
