from __future__ import annotations

import csv
import dataclasses
import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from thalweg import Training
from thalweg.cli.app import app
from thalweg.compare import BadInput, Race, adaptive, compare, tune
from thalweg.compare import race as module
from thalweg.compare.contender import Contender
from thalweg.compare.methods import resolve
from thalweg.compare.plan import Budget, default_directory
from thalweg.core.catalogue import Choice, LogUniform, Uniform

METHODS = ["torch.optim:SGD", "torch.optim:Adam"]
TRIALS = 7
ALL = TRIALS * 2 + 2 * 2 + 2 * 2  # trials, measured, at the defaults


@pytest.fixture
def race(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Race]:
    monkeypatch.setattr(module, "BASELINE_BUDGET", Budget.parse("5steps"))

    def run(methods: Any = METHODS, **how: Any) -> Race:
        told = {
            "budget": 10, "trials": TRIALS, "seeds": 2, "points": 2, "inspect": False,
            "adaptive": "optuna", "problem": line, "directory": tmp_path / "race", **how,
        }  # fmt: skip
        return compare(told.pop("problem"), methods, **told)

    return run


def tuning(found: Race, method: str) -> list[dict[str, Any]]:
    """The trials of a method as they stand in plan.json."""
    plan = json.loads((found.directory / "plan.json").read_text())
    return [j for j in plan["jobs"] if j["stage"] == "tune" and j["method"] == method]


# ------------------------------------------------------------------------------- next_trial


def one_axis(axis: Any = None) -> Contender:
    space = {"x": axis or Uniform(0.0, 1.0)}
    return Contender("method", "method", torch.optim.SGD, "here:method", space=space)


def search(contender: Contender, value: Callable[[tuple[float, ...]], float | None], trials: int):  # type: ignore[no-untyped-def]
    """All points and results of a search, the way a race makes it."""
    points = [u for u, _ in tune.table(contender, trials)[: adaptive.first_trials(trials)]]
    results = [value(u) for u in points]
    while len(points) < trials:
        u, _ = adaptive.next_trial(contender, points, tune.ranks(results, "min"))
        points.append(u)
        results.append(value(u))
    return points, results


@pytest.mark.parametrize("place", [0.12, 0.5, 0.83])
def test_later_trials_go_to_where_the_minimum_is(place: float) -> None:
    points, _ = search(one_axis(), lambda u: (u[0] - place) ** 2, 48)
    start = adaptive.first_trials(48)
    distance = [abs(u[0] - place) for u in points]
    # Points that know nothing are as far as the first ones, on average.
    assert np.mean(distance[start:]) < 0.6 * np.mean(distance[:start])


def test_trials_keep_away_from_where_they_diverge() -> None:
    points, results = search(one_axis(), lambda u: u[0] if u[0] > 0.6 else None, 16)
    start = adaptive.first_trials(16)
    assert sum(v is None for v in results[:start]) >= 2
    assert np.mean([u[0] for u in points[start:]]) > 0.6


def test_the_next_point_depends_on_method_number_and_trials_alone() -> None:
    first = resolve("torch.optim:SGD")[0]
    second = dataclasses.replace(first, place="elsewhere:SGD")
    points, ranks = [(0.2, 0.3), (0.7, 0.9)], [0, 1]
    told = adaptive.next_trial(first, points, ranks)
    np.random.seed(3)  # noqa: NPY002 (the global state is what must not matter)
    torch.manual_seed(3)
    assert adaptive.next_trial(first, points, ranks) == told
    assert told[1] == tune.values_at(first.space, told[0])
    assert adaptive.next_trial(second, points, ranks)[0] != told[0]
    assert adaptive.next_trial(first, points, [1, 0])[0] != told[0]
    assert adaptive.next_trial(first, [*points, (0.5, 0.5)], [0, 1, 2])[0] != told[0]


@given(
    results=st.lists(st.none() | st.integers(-50, 50), min_size=2, max_size=6),
    power=st.sampled_from([1.0, 3.0]),
)
@settings(max_examples=15, deadline=None)
def test_only_the_order_of_the_results_counts(results: list[int | None], power: float) -> None:
    points = [(u,) for u in np.linspace(0.1, 0.9, len(results))]
    shifted = [None if v is None else math.copysign(abs(v) ** power, v) * 2 for v in results]
    mirrored = [None if v is None else -v for v in shifted]
    asked = [
        adaptive.next_trial(one_axis(), points, tune.ranks(values, goal))
        for values, goal in ((results, "min"), (shifted, "min"), (mirrored, "max"))
    ]
    assert asked[0] == asked[1] == asked[2]


@pytest.mark.parametrize("worst", [None, math.nan, math.inf])
def test_what_did_not_finish_is_last_for_either_goal(worst: float | None) -> None:
    assert tune.ranks([worst, 1.0, worst, 2.0], "min", [9, 3, 5, 3]) == [2, 0, 2, 1]
    assert tune.ranks([worst, 1.0, worst, 2.0], "max") == [2, 1, 2, 0]
    assert tune.ranks([worst, worst], "min") == [0, 0]


def test_all_diverged_is_no_reason_to_stop() -> None:
    points, _ = search(one_axis(), lambda u: None, 9)
    assert len(set(points)) == 9 and all(0 <= u[0] <= 1 for u in points)


@pytest.mark.parametrize("axis", [LogUniform(1e-4, 1.0), Choice(("a", "b", "c"))])
def test_axes_map_the_cube_to_values(axis: Any) -> None:
    u, values = adaptive.next_trial(one_axis(axis), [(0.1,), (0.8,)], [0, 1])
    assert values == tune.values_at({"x": axis}, u)


def test_the_outermost_of_a_few_points_in_the_middle_is_no_edge() -> None:
    space = {"x": Uniform(0.0, 1.0)}
    inside = [(0.3,), (0.4,), (0.5,), (0.6,)]
    assert tune.edges(space, inside, 0) == tune.edges(space, inside, 3) == []
    outside = [(0.2,), (0.4,), (0.5,), (0.8,)]
    sides = [[e["side"] for e in tune.edges(space, outside, best)] for best in (0, 1, 3)]
    assert sides == [["low"], [], ["high"]]


@pytest.mark.parametrize("trials", [3, 4, 7, 12, 16, 33, 100])
def test_the_outermost_sobol_point_is_always_an_edge(trials: int) -> None:
    contender = resolve("torch.optim:Adam")[0]
    points = np.array([u for u, _ in tune.table(contender, trials)])
    for i, name in enumerate(contender.space):
        for best in (int(points[:, i].argmin()), int(points[:, i].argmax())):
            assert name in [e["axis"] for e in tune.edges(contender.space, points, best)]


def test_optuna_says_nothing_and_keeps_the_users_verbosity() -> None:
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    before = optuna.logging.get_verbosity()
    logging.getLogger("optuna").addHandler(handler)
    try:
        optuna.logging.set_verbosity(optuna.logging.INFO)
        adaptive.next_trial(one_axis(), [(0.1,)], [0])
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
        assert said == []
        optuna.create_study()  # which does say something
        assert said != []
    finally:
        logging.getLogger("optuna").removeHandler(handler)
        optuna.logging.set_verbosity(before)


# ------------------------------------------------------------------------------------ a race


def test_an_adaptive_race_begins_as_the_default_one(race: Callable[..., Race], tmp_path: Path):  # type: ignore[no-untyped-def]
    events: list[dict[str, Any]] = []
    found = race(on_event=events.append)
    fixed = race(adaptive=None, directory=tmp_path / "fixed")
    assert found.exit_code == 0
    start = adaptive.first_trials(TRIALS)
    for name in METHODS:
        mine, theirs = tuning(found, name), tuning(fixed, name)
        assert mine[:start] == theirs[:start]
        assert not {j["id"] for j in mine[start:]} & {j["id"] for j in theirs}
        assert [j["trial"] for j in mine] == list(range(TRIALS))
    for method in found.summary["methods"]:
        assert len(method["trials"]) == TRIALS
        best = min(method["trials"], key=lambda t: t["validation"])
        assert method["tuned"] == best["values"]
        # One search: the best so far, in the order in which the trials were made.
        finals = [t["validation"] for t in method["trials"]]
        assert method["tuning_curve"]["median"] == np.minimum.accumulate(finals).tolist()
        assert method["tuning_curve"]["expected"] == []
    jobs = [e for e in events if e["kind"] == "job"]
    assert [e["done"] for e in jobs] == list(range(1, ALL + 1)) and {e["total"] for e in jobs} == {
        ALL
    }
    assert found.summary["progress"]["total"] == ALL
    rows = list(csv.DictReader((found.directory / "results.csv").read_text().splitlines()))
    assert sum(row["stage"] == "tune" for row in rows) == 2 * TRIALS


def test_every_trial_is_what_the_sampler_asks_for_after_those_before(
    race: Callable[..., Race],
) -> None:
    found = race()
    for contender, method in zip(resolve(METHODS), found.summary["methods"], strict=True):
        jobs = tuning(found, contender.name)
        points = [tuple(j["at"]) for j in jobs]
        finals = [t["validation"] for t in method["trials"]]
        for k in range(adaptive.first_trials(TRIALS), TRIALS):
            u, values = adaptive.next_trial(contender, points[:k], tune.ranks(finals[:k], "min"))
            assert (u, values) == (points[k], jobs[k]["values"])


def test_the_default_race_is_as_it_was(race: Callable[..., Race]) -> None:
    found = race(adaptive=None)
    plan = json.loads((found.directory / "plan.json").read_text())
    assert "adaptive" not in plan["asked"]  # so its directory has the name it always had
    assert default_directory(plan["asked"]) != default_directory(
        {**plan["asked"], "adaptive": {"name": "optuna", "version": "5"}}
    )
    assert found.summary["protocol"]["adaptive"] is False
    for contender in resolve(METHODS):
        jobs = tuning(found, contender.name)
        assert [(tuple(j["at"]), j["values"]) for j in jobs] == tune.table(contender, TRIALS)
    assert all(len(m["tuning_curve"]["expected"]) == TRIALS for m in found.summary["methods"])


def test_the_report_says_which_tuning_it_was(race: Callable[..., Race], tmp_path: Path) -> None:
    found, fixed = race(), race(adaptive=None, directory=tmp_path / "fixed")
    assert found.report is not None and fixed.report is not None
    page, other = (" ".join(r.report.read_text().split()) for r in (found, fixed))  # type: ignore[union-attr]
    assert "placed by optuna" in page and "not fixed before the race" in page
    assert "7 adaptive trials" in page and "The best of the first k trials" in page
    assert "placed by optuna" not in other and "adaptive trial" not in other
    assert "fixed before the race as points of a scrambled Sobol sequence" in other
    assert found.summary["reproduce"]["versions"]["optuna"] == optuna.__version__
    assert "adaptive='optuna'" in found.summary["reproduce"]["command"]


def test_the_command_that_reproduces_it_names_the_sampler(race: Callable[..., Race]) -> None:
    found = race("torch.optim:SGD", points=30, trials=1, seeds=1)
    assert "--trials 1 --adaptive optuna --seeds 1" in found.summary["reproduce"]["command"]


def test_diverged_and_failed_trials(
    race: Callable[..., Race], odd_methods: str, tmp_path: Path
) -> None:
    with (tmp_path / "odd_methods.py").open("a") as file:
        file.write(
            "\nfrom thalweg.core.catalogue import LogUniform\n"
            "class Wide(Plain):\n    search_space = {'lr': LogUniform(1e-3, 1e7)}\n"
            "class Fails(Raises):\n    search_space = {'lr': LogUniform(1e-3, 1.0)}\n"
        )
    found = race([f"{odd_methods}:Wide", f"{odd_methods}:Fails"], trials=12)
    wide, fails = found.summary["methods"]
    start = adaptive.first_trials(12)
    ends = [t["status"] for t in wide["trials"]]
    assert "diverged" in ends[:start] and "done" in ends[:start]
    # Diverged trials repel: fewer of the later ones end there.
    share = [np.mean([e == "diverged" for e in part]) for part in (ends[:start], ends[start:])]
    assert share[1] < share[0]
    assert [t["status"] for t in fails["trials"]] == 12 * ["failed"]
    assert fails["tuned"] == fails["defaults"] and found.exit_code == 3


def test_points_that_were_tried_are_not_run_again(
    race: Callable[..., Race], odd_methods: str, tmp_path: Path
) -> None:
    with (tmp_path / "odd_methods.py").open("a") as file:
        file.write(
            "\nfrom thalweg.core.catalogue import Choice\n"
            "class Two(Plain):\n    search_space = {'lr': Choice((0.01, 0.1))}\n"
        )
    events: list[dict[str, Any]] = []
    found = race([f"{odd_methods}:Two", "torch.optim:SGD"], on_event=events.append)
    assert len(found.summary["methods"][0]["trials"]) == TRIALS
    assert found.summary["progress"]["total"] == 2 + TRIALS + 4 + 4
    assert found.summary["progress"]["done"] == found.summary["progress"]["total"]
    jobs = [e for e in events if e["kind"] == "job"]
    assert [e["done"] for e in jobs] == list(range(1, len(jobs) + 1))
    assert jobs[-1]["total"] == len(jobs) == found.summary["progress"]["total"]


def test_a_method_that_is_entered_twice_shares_its_runs(race: Callable[..., Race]) -> None:
    found = race(["torch.optim:SGD", "torch.optim:SGD"])
    first, second = found.summary["methods"]
    assert first["trials"] == second["trials"] and first["runs"] == second["runs"]
    assert found.summary["progress"]["total"] == TRIALS + 2 + 2


def test_methods_with_nothing_to_tune(race: Callable[..., Race], odd_methods: str) -> None:
    found = race(["torch.optim:SGD", f"{odd_methods}:AutoTuned"])
    assert found.summary["methods"][1]["trials"] == []
    assert found.summary["progress"]["total"] == TRIALS + 4 + 2
    assert race(trials=0, directory=found.directory.parent / "none").exit_code == 0


# --------------------------------------------------------------- order, kills, directories


def test_two_workers_give_the_same_race(
    race: Callable[..., Race], tmp_path: Path,
    losses: Callable[[Path], Any], timeless: Callable[[Any], Any],
) -> None:  # fmt: skip
    one, two = race(), race(jobs=2, directory=tmp_path / "two")
    assert losses(one.directory) == losses(two.directory)
    assert timeless(one.summary) == timeless(two.summary)


def test_the_other_methods_and_their_order_change_nothing(
    race: Callable[..., Race], tmp_path: Path
) -> None:
    one = race()
    other = race(["torch.optim:RMSprop", *reversed(METHODS)], directory=tmp_path / "other")
    for name in METHODS:
        assert tuning(one, name) == tuning(other, name)


def test_ctrl_c_at_any_trial_and_on(
    race: Callable[..., Race], tmp_path: Path, timeless: Callable[[Any], Any]
) -> None:
    whole = timeless(race().summary)
    # Among the Sobol points, after them, within a round, measured; the trials known by then.
    for count, known in ((3, 6), (6, 6), (11, 12), (16, 14)):

        def on_event(event: dict[str, Any], count: int = count) -> None:
            if event["kind"] == "job" and event["done"] == count:
                os.kill(os.getpid(), signal.SIGINT)

        part = race(on_event=on_event, directory=tmp_path / f"after {count}")
        assert part.exit_code == 130
        progress = part.summary["progress"]
        assert progress["done"] == count and progress["total"] == ALL
        assert sum(len(tuning(part, name)) for name in METHODS) == known
        curves = [m["tuning_curve"]["k"] for m in part.summary["methods"]]
        assert all(bool(k) == (count >= 2 * TRIALS) for k in curves)
        assert timeless(race(directory=part.directory).summary) == whole


KILLED = """
import os, signal, sys
from thalweg.compare import compare
from thalweg.compare import race as module
from thalweg.compare.plan import Budget

module.BASELINE_BUDGET = Budget.parse("5steps")
line, directory, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

def on_event(event):
    if event["kind"] == "job" and event["done"] == count:
        os.kill(os.getpid(), signal.SIGKILL)

compare(line, {methods!r}, budget=10, trials={trials}, seeds=2, points=2, inspect=False,
        adaptive="optuna", directory=directory, on_event=on_event)
"""


def test_a_killed_race_goes_on_to_the_same_table(
    race: Callable[..., Race], line: str, tmp_path: Path,
    losses: Callable[[Path], Any], timeless: Callable[[Any], Any],
) -> None:  # fmt: skip
    whole = race()
    code = KILLED.format(methods=METHODS, trials=TRIALS)
    killed = subprocess.run(
        [sys.executable, "-c", code, line, str(tmp_path / "killed"), "10"],
        env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list((tmp_path / "killed" / "runs").glob("*.jsonl"))) == 10
    again = race(directory=tmp_path / "killed")
    assert losses(whole.directory) == losses(again.directory)
    assert timeless(whole.summary) == timeless(again.summary)


def test_any_subset_of_the_runs_gives_the_same_race(
    race: Callable[..., Race], timeless: Callable[[Any], Any]
) -> None:
    whole = race()
    runs = sorted((whole.directory / "runs").iterdir())
    for k, path in enumerate(runs):
        if k % 3 == 0:
            path.unlink()
        elif k % 3 == 1:
            path.write_text(path.read_text()[: 40 * (k + 1)])  # cut anywhere
    (whole.directory / "plan.json").unlink()
    assert timeless(race().summary) == timeless(whole.summary)
    assert sorted((whole.directory / "runs").iterdir()) == runs


def test_one_call_more_computes_nothing(race: Callable[..., Race]) -> None:
    before = race()
    times = {path: path.stat().st_mtime_ns for path in (before.directory / "runs").iterdir()}
    assert race().summary == before.summary
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_a_race_that_was_tuned_otherwise_is_refused(
    race: Callable[..., Race], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small: dict[str, Any] = {"trials": 1, "seeds": 1}
    found = race(**small)
    sobol = "by points of a Sobol sequence"
    by_optuna = f"adaptively by optuna {optuna.__version__}"
    with pytest.raises(BadInput) as caught:
        race(**small, adaptive=None)
    assert str(caught.value) == (
        f"{found.directory} holds another race: it is tuned {by_optuna} there, not {sobol}; "
        "give another directory, or ask for the same again"
    )
    race(**small, adaptive=None, directory=tmp_path / "fixed")
    with pytest.raises(BadInput, match=f"tuned {sobol} there, not {by_optuna}; give another"):
        race(**small, directory=tmp_path / "fixed")
    monkeypatch.setattr(optuna, "__version__", "77.1")  # its trials may be others
    with pytest.raises(BadInput, match=f"tuned {by_optuna} there, not adaptively by optuna 77.1"):
        race(**small)


# --------------------------------------------------------------------------- what goes wrong


def test_without_optuna(
    race: Callable[..., Race], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(BadInput) as caught:
        race()
    assert str(caught.value) == "adaptive 'optuna' needs `pip install optuna`"
    assert not (tmp_path / "race").exists()
    told = CliRunner().invoke(app, ["compare", line, *METHODS, "--adaptive", "optuna"])
    assert told.exit_code == 2
    assert "adaptive 'optuna' needs `pip install optuna`" in told.output
    assert race(adaptive=None, trials=1, seeds=1).exit_code == 0


def test_another_sampler_is_refused(line: str, tmp_path: Path) -> None:
    where = ["-o", str(tmp_path / "race")]
    told = CliRunner().invoke(app, ["compare", line, *METHODS, "--adaptive", "foo", *where])
    assert told.exit_code == 2 and len(told.output.strip().splitlines()) == 1
    assert "adaptive must be 'optuna', or left out for points of a Sobol" in told.output
    assert "got 'foo'" in told.output and not (tmp_path / "race").exists()


def test_from_the_command_line(line: str, tmp_path: Path) -> None:
    words = ["compare", line, "torch.optim:SGD", "--adaptive", "optuna", "--trials", "4"]
    more = ["--budget", "5steps", "--seeds", "1", "--json", "-o", str(tmp_path / "race")]
    told = CliRunner().invoke(app, [*words, *more])
    assert told.exit_code == 0, told.output
    summary = json.loads(told.stdout)
    assert summary["protocol"]["adaptive"] is True
    assert len(summary["methods"][0]["trials"]) == 4


def test_a_better_point_than_in_the_first_third(race: Callable[..., Race]) -> None:
    """A bowl with curvatures 1 and 100: the learning rate has to be found."""

    def bowl(seed: int) -> Training:
        scale = torch.tensor([1.0, 100.0])
        return Training.from_function(lambda x: (scale * x**2).sum(), torch.ones(2), name="bowl")

    found = race("torch.optim:SGD", problem=bowl, trials=16, budget=20)
    (method,) = found.summary["methods"]
    finals = [math.inf if t["validation"] is None else t["validation"] for t in method["trials"]]
    start = adaptive.first_trials(16)
    assert min(finals[start:]) < min(finals[:start])
