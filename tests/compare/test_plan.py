from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.compare import BadInput, tune
from thalweg.compare.methods import resolve
from thalweg.compare.plan import (
    Budget,
    Plan,
    default_directory,
    job,
    what_is_asked,
    write_atomically,
)
from thalweg.compare.problems import Problem, load
from thalweg.core.catalogue import Choice, LogUniform, OneMinusLogUniform, Uniform


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("300steps", 300, "steps"),
        (300, 300, "steps"),
        ("1 step", 1, "steps"),
        ("20epochs", 20, "epochs"),
        ("0.5epochs", 0.5, "epochs"),
        ("30s", 30, "s"),
        ("1e3steps", 1000, "steps"),
    ],
)
def test_budgets(text: Any, amount: float, unit: str) -> None:
    budget = Budget.parse(text)
    assert (budget.amount, budget.unit) == (amount, unit)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text", ["", "steps", "-3steps", "0", "1.5steps", "3parsecs", "1e999s", None]
)
def test_bad_budgets(text: Any) -> None:
    with pytest.raises(BadInput, match="budget must be a number > 0 of steps, epochs or seconds"):
        Budget.parse(text)


SPACES = [
    {"lr": LogUniform(1e-4, 1.0)},
    {"lr": LogUniform(1e-4, 1.0), "momentum": OneMinusLogUniform(1e-3, 1.0)},
    {"lr": LogUniform(1e-4, 1.0), "a": Uniform(0.0, 1.0), "b": Choice((1, 2)), "c": Uniform(1, 2)},
]


def test_every_method_gets_the_same_number_of_points() -> None:
    free, fixed = resolve(["torch.optim:SGD", "torch.optim:SGD[lr=0.1,momentum=0.9]"])
    for trials in (1, 2, 7, 12, 33):
        points = tune.table(free, trials)
        assert len(points) == trials
        assert points == tune.table(free, trials)
        assert points == tune.table(free, 64)[:trials]
        assert len({u for u, _ in points}) == trials
    assert tune.table(fixed, 12) == [] and tune.table(free, 0) == []


@pytest.mark.parametrize("space", SPACES)
def test_points_lie_in_the_space(space: dict[str, Any]) -> None:
    for x in (0.0, 0.5, 1 - 1e-9):
        values = tune.values_at(space, [x] * len(space))
        assert 1e-4 <= values["lr"] <= 1.0
        assert 0 <= values.get("momentum", 0) <= 0.999
        assert values.get("b", 1) in (1, 2)


@given(st.lists(st.one_of(st.none(), st.floats(-10, 10)), max_size=12))
def test_best_trial(values: list[float | None]) -> None:
    finished = [v for v in values if v is not None]
    best = tune.best_trial(values, "min")
    if not finished:
        assert best is None
    else:
        assert best is not None and values[best] == min(finished)
        assert best == values.index(min(finished))
        highest = tune.best_trial(values, "max")
        assert highest is not None and values[highest] == max(finished)


def test_edges_are_told_in_the_direction_of_the_value() -> None:
    space = {"lr": LogUniform(1e-4, 1.0), "momentum": OneMinusLogUniform(1e-2, 1.0)}
    points = [(0.1, 0.1), (0.5, 0.9), (0.9, 0.5)]
    assert tune.edges(space, points, 0) == [
        {"axis": "lr", "side": "low", "value": pytest.approx(10**-3.6, rel=1e-3)},
        {"axis": "momentum", "side": "high", "value": pytest.approx(1 - 10**-1.8, rel=1e-3)},
    ]
    assert [e["side"] for e in tune.edges(space, points, 1)] == ["low"]
    assert [e["side"] for e in tune.edges(space, points, 2)] == ["high"]
    assert tune.edges({"c": Choice((1, 2))}, [(0.1,), (0.2,), (0.3,)], 0) == []


# ---------------------------------------------------------------------------------- the ids


@pytest.fixture(scope="module")
def bowl() -> Problem:
    return load("rosenbrock")


def test_an_id_depends_on_all_a_result_depends_on(bowl: Problem) -> None:
    first, second = resolve(["torch.optim:SGD", "torch.optim:Adam"])
    told: dict[str, Any] = {
        "problem": bowl, "contender": first, "stage": "tune", "seed": 0,
        "budget": Budget.parse(30), "points": 10, "values": {"lr": 0.1},
    }  # fmt: skip
    base = job(**told).id
    assert job(**told).id == base and len(base) == 16
    other_problem = Problem("b", function=bowl.function, hash="another")
    for field, value in {
        "problem": other_problem,
        "contender": second,
        "stage": "measure",
        "seed": 1,
        "budget": Budget.parse(31),
        "points": 11,
        "values": {"lr": 0.2},
    }.items():
        assert job(**{**told, field: value}).id != base, field
    assert job(**told, trial=3, at=(0.5,)).id == base


# ----------------------------------------------------------------------------- directories


def asked(problem: Problem, **changes: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "contenders": resolve(["torch.optim:SGD", "torch.optim:Adam"]),
        "budget": Budget.parse(30), "trials": 2, "points": 10, "reference": None, "margin": None,
    }  # fmt: skip
    return what_is_asked(problem, **{**told, **changes})


def test_a_new_directory_and_the_same_again(bowl: Problem, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "race"
    Plan(place, asked(bowl), 3).open()
    saved = json.loads((place / "plan.json").read_text())
    assert saved["schema"] == "thalweg.plan/1" and saved["seeds"] == 3 and saved["looks"] == []
    again = Plan(place, asked(bowl), 3).open()
    assert again.created == saved["created"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"budget": Budget.parse(31)}, "budget is 30steps there, not 31steps"),
        ({"trials": 3}, "trials is 2 there, not 3"),
        ({"margin": 0.1}, "margin is None there, not 0.1"),
        ({"reference": "Adam"}, "reference is None there, not Adam"),
        (
            {"contenders": resolve(["torch.optim:SGD"])},
            "methods is torch.optim:SGD, torch.optim:Adam there, not torch.optim:SGD",
        ),
    ],
)
def test_another_race_in_the_directory(
    changes: dict[str, Any], told: str, bowl: Problem, tmp_path: Path
) -> None:
    Plan(tmp_path / "race", asked(bowl), 3).open()
    before = (tmp_path / "race" / "plan.json").read_bytes()
    with pytest.raises(BadInput) as caught:
        Plan(tmp_path / "race", asked(bowl, **changes), 3).open()
    assert told in str(caught.value) and "give another directory" in str(caught.value)
    assert (tmp_path / "race" / "plan.json").read_bytes() == before


def test_another_problem_or_schema_in_the_directory(bowl: Problem, tmp_path: Path) -> None:
    place = tmp_path / "race"
    Plan(place, asked(bowl), 3).open()
    with pytest.raises(BadInput, match="problem is rosenbrock there, not saddle"):
        Plan(place, asked(Problem("saddle", hash="x")), 3).open()
    with pytest.raises(BadInput, match="as it was before"):
        Plan(place, asked(Problem(bowl.name, hash="x")), 3).open()
    (place / "plan.json").write_text('{"schema": "thalweg.plan/0"}')
    with pytest.raises(BadInput, match=r"has schema 'thalweg\.plan/0'"):
        Plan(place, asked(bowl), 3).open()
    (place / "plan.json").write_text('{"schema": ')
    with pytest.raises(BadInput, match="is damaged"):
        Plan(place, asked(bowl), 3).open()


def test_a_directory_with_something_else_is_left_alone(bowl: Problem, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(BadInput, match=r"is not a race directory.*'thesis.tex'"):
        Plan(tmp_path, asked(bowl), 3).open()
    file = tmp_path / "thesis.tex"
    with pytest.raises(BadInput, match="cannot write"):
        Plan(file, asked(bowl), 3).open()


def test_a_read_only_directory(bowl: Problem, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(BadInput, match="cannot write to"):
        Plan(tmp_path / "race", asked(bowl), 3).open()


def test_seeds_can_be_added_and_each_look_counts_once(bowl: Problem, tmp_path: Path) -> None:
    plan = Plan(tmp_path / "race", asked(bowl), 4).open()
    assert plan.next_look() == 1
    plan.look(counts=False)  # too few seeds to say "better": spends nothing
    plan = Plan(tmp_path / "race", asked(bowl), 6).open()
    assert plan.next_look() == 1
    plan.look(counts=True)
    plan.look(counts=True)
    plan = Plan(tmp_path / "race", asked(bowl), 6).open()
    assert plan.next_look() == 1 and len(plan.looks) == 2
    plan = Plan(tmp_path / "race", asked(bowl), 9).open()
    assert plan.next_look() == 2
    with pytest.raises(BadInput, match="seeds can be added, not taken away"):
        Plan(tmp_path / "race", asked(bowl), 6).open()


def test_the_default_directory_is_that_of_the_same_command(bowl: Problem) -> None:
    name = str(default_directory(asked(bowl)))
    assert name.startswith("race-rosenbrock-") and name == str(default_directory(asked(bowl)))
    assert name != str(default_directory(asked(bowl, trials=3)))


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
