"""Where the methods ended: the end points are those of the runs, and are computed once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.compare import Race, compare
from thalweg.compare import race as module
from thalweg.compare.end_points import TRACE_PRODUCTS
from thalweg.compare.ending import ASKED, MOST, SHARE, Endings, barrier
from thalweg.compare.plan import Budget, Job, Plan
from thalweg.compare.price import CHECKS, FRESH, Price
from thalweg.compare.problems import Problem, load
from thalweg.compare.record import read
from thalweg.curvature import Objective
from thalweg.inspect import load_checkpoint
from thalweg.inspect.inspection import read_in_order

METHODS = ["torch.optim:SGD", "torch.optim:Adam"]


@pytest.fixture
def race(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Race]:
    monkeypatch.setattr(module, "BASELINE_BUDGET", Budget.parse("5steps"))

    def run(methods: Any = METHODS, **how: Any) -> Race:
        told: dict[str, Any] = {"budget": 20, "trials": 2, "seeds": 2, "points": 4, **how}
        return compare(line, methods, **{"directory": tmp_path / "race", **told})

    return run


def certificates(race: Race) -> dict[str, Any]:
    return {m["name"]: m["certificate"] for m in race.summary["methods"]}


def at(race: Race, line: str, name: str) -> Any:
    """The problem's training at the kept end point of a method."""
    training = load(line)(1)
    load_checkpoint(training.model, race.directory / certificates(race)[name]["checkpoint"])
    return training


def test_the_end_point_is_that_of_the_run(race: Callable[..., Race], line: str) -> None:
    found = race(inspect=True)
    for method in found.summary["methods"]:
        kept = method["certificate"]
        training = at(found, line, method["name"])
        (run,) = [run for run in method["runs"] if run["seed"] == kept["seed_of_run"] == 1]
        assert training.measure("validation") == run["final"]  # to the last bit
        objective = Objective(read_in_order(training)[0])
        assert kept["loss"] == objective.value()
        assert kept["gradient_norm"] == pytest.approx(float(objective.gradient().norm()), rel=1e-4)
        # a line's loss is quadratic: its Hessian is known
        x = torch.cat([b[0] for b in read_in_order(training)[0].data])
        x1 = torch.cat([x, torch.ones(len(x), 1)], 1).double()
        eigenvalues = torch.linalg.eigvalsh(2 * x1.T @ x1 / len(x1))
        low, high = kept["lambda_min"]
        assert low - 1e-4 <= float(eigenvalues[0]) <= high + 1e-4
        assert kept["trace"]["value"] == pytest.approx(float(eigenvalues.sum()), rel=1e-4)


def test_a_budget_of_seconds_ends_at_the_same_point(race: Callable[..., Race], line: str) -> None:
    found = race(["torch.optim:SGD"], budget="0.02s", inspect=True)
    (method,) = found.summary["methods"]
    (run,) = [run for run in method["runs"] if run["seed"] == 1]
    assert at(found, line, method["name"]).measure("validation") == run["final"]


def test_an_average_is_inspected_where_it_is_judged(
    race: Callable[..., Race], odd_methods: str
) -> None:
    found = race([f"{odd_methods}:Averages", "torch.optim:SGD"], inspect=True)
    assert all("verdict" in kept for kept in certificates(found).values())


def test_what_is_there_is_not_computed_again(
    race: Callable[..., Race], timeless: Callable[[Any], Any]
) -> None:
    first = race(inspect=True)
    files = {p: p.stat().st_mtime_ns for p in (first.directory / "ends").iterdir()}
    assert len(files) == 2 * len(METHODS) + 1
    again = race()  # goes on as it was decided
    assert {p: p.stat().st_mtime_ns for p in (first.directory / "ends").iterdir()} == files
    assert timeless(again.summary) == timeless(first.summary)
    for path in files:
        path.unlink()
    assert timeless(race().summary) == timeless(first.summary)  # a function of the runs


def test_lines_join_the_end_points(race: Callable[..., Race]) -> None:
    found = race(inspect=True)
    (line,) = found.summary["ending"]["lines"]
    ends = certificates(found)
    assert line["values"][0] == pytest.approx(ends[line["a"]]["loss"], rel=1e-6)
    assert line["values"][-1] == pytest.approx(ends[line["b"]]["loss"], rel=1e-6)
    assert line["barrier"] == pytest.approx(0, abs=1e-6)  # convex: there is none


def test_a_short_race_is_not_inspected_unless_asked(race: Callable[..., Race]) -> None:
    first = race()
    assert first.summary["ending"]["inspected"] is False
    assert set(certificates(first).values()) == {None}
    assert not (first.directory / "ends").exists()
    runs = {p: p.stat().st_mtime_ns for p in (first.directory / "runs").iterdir()}
    asked = race(inspect=True)
    assert None not in certificates(asked).values()
    assert {p: p.stat().st_mtime_ns for p in (first.directory / "runs").iterdir()} == runs
    assert set(certificates(race(inspect=False)).values()) == {None}


def test_a_method_that_diverged_has_no_end_point(
    race: Callable[..., Race], odd_methods: str
) -> None:
    found = race([f"{odd_methods}:Ascends", "torch.optim:SGD"], budget=60, inspect=True)
    kept = certificates(found)
    assert kept["torch.optim:SGD"]["verdict"]
    (other,) = set(kept) - {"torch.optim:SGD"}
    assert kept[other] is None and found.summary["ending"]["lines"] == []


def test_a_cheap_inspection_is_made_unasked(
    race: Callable[..., Race], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thalweg.compare.ending.SHARE", 1e6)
    found = race()
    assert found.summary["ending"]["inspected"] is True
    lines = read(found.directory, found.summary["methods"][0]["runs"][0]["id"])
    assert lines is not None and None not in certificates(found).values()


def test_the_products_of_a_certificate_are_decided_once(race: Callable[..., Race]) -> None:
    asked = race(inspect=True)
    budget = asked.summary["ending"]["budget"]
    assert budget == ASKED  # nothing was affordable
    assert {kept["budget"] for kept in certificates(asked).values()} == {budget}
    plan = json.loads((asked.directory / "plan.json").read_text())
    assert plan["products"] == budget and plan["inspects"] is True
    assert race(inspect=True).summary["ending"]["budget"] == budget


def test_the_limit_is_a_share_of_the_race(
    race: Callable[..., Race], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a race as it is on disk, with prices that are given: nothing here is timed."""
    found = race()
    plan = Plan(found.directory, {}, seeds=2)
    saved = json.loads((found.directory / "plan.json").read_text())
    plan.jobs = [Job(**job) for job in saved["jobs"]]
    endings = Endings(plan, load(line), {})
    monkeypatch.setattr("thalweg.compare.ending.SHARE", SHARE)
    monkeypatch.setattr("thalweg.compare.ending.measured_price", lambda _: price)
    price = Price(product=0.0, fresh=0.0, gradient=0.0)
    assert endings._affordable(1, elapsed=3600.0) == MOST
    assert SHARE == 0.2
    # 0.2 x 1000 s for two certificates on two workers: a product of 1 s leaves 200 and what is
    # made around them
    price = Price(product=1.0, fresh=0.0, gradient=0.0)
    found_products = endings._affordable(2, elapsed=1000.0)
    around = TRACE_PRODUCTS + CHECKS - FRESH
    assert found_products == pytest.approx(200 - around, abs=2)
    assert endings._affordable(1, elapsed=1000.0) == pytest.approx(100 - around, abs=2)
    price = Price(product=1e3, fresh=0.0, gradient=0.0)
    assert endings._affordable(2, elapsed=1000.0) is None


def test_workers_find_the_same(
    race: Callable[..., Race], timeless: Callable[[Any], Any], tmp_path: Path
) -> None:
    alone = race(inspect=True, directory=tmp_path / "one")
    plan = json.loads((alone.directory / "plan.json").read_text())
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "ends")
    together = race(directory=tmp_path / "two", jobs=2)
    assert together.summary["ending"]["budget"] == plan["products"]
    assert timeless(certificates(together)) == timeless(certificates(alone))
    lines = [found.summary["ending"]["lines"] for found in (alone, together)]
    assert lines[0] == lines[1] and len(lines[0]) == 1
    for path in (tmp_path / "one" / "ends").glob("*.safetensors"):
        assert (tmp_path / "two" / "ends" / path.name).read_bytes() == path.read_bytes()


def test_what_solvers_find_is_not_inspected(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "race", {}, seeds=2)
    endings = Endings(plan, Problem("completion", facts={"kind": "solver"}), {})
    assert not endings.wanted(True, 1) and plan.inspects is None
    assert endings.found()["networks"] is False and endings.found()["certificates"] == {}


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=9), st.floats(-5, 5), st.floats(-5, 5))
def test_the_barrier_does_not_see_a_slope(values: list[float], slope: float, shift: float) -> None:
    positions = [i / (len(values) - 1) for i in range(len(values))]
    tilted = [v + slope * t + shift for t, v in zip(positions, values, strict=True)]
    assert barrier(positions, tilted) == pytest.approx(barrier(positions, values), abs=1e-9)  # type: ignore[arg-type]


def test_barriers() -> None:
    assert barrier([0.0, 0.5, 1.0], [1.0, 5.0, 3.0]) == 3.0
    assert barrier([0.0, 0.5, 1.0], [1.0, -5.0, 3.0]) == 0.0
    assert barrier([0.0, 0.5, 1.0], [1.0, None, 3.0]) is None
