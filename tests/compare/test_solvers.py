"""Solvers race on a problem of theirs, with no adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import thalweg
from thalweg.compare import BadInput, solved, tune
from thalweg.compare.entrants import budget_of, entrants
from thalweg.compare.methods import resolve
from thalweg.compare.plan import Budget, job
from thalweg.compare.problems import load
from thalweg.compare.record import read
from thalweg.compare.solving import run_job
from thalweg.core import Reason, Result, iterate
from thalweg.core.catalogue import method
from thalweg.solve.recovery import (
    LowRank,
    MatrixCompletion,
    MatrixSensing,
    alternating_minimization,
    gradient_descent,
    scaled_gradient,
)

SMALL = {"trials": 2, "seeds": 6, "budget": "150steps"}


def small(seed: int) -> MatrixCompletion:
    generator = torch.Generator().manual_seed(seed)
    return MatrixCompletion.random((40, 30), 1, 0.6, 2.0, generator=generator)


def noisy(seed: int) -> MatrixCompletion:
    exact = small(seed)
    noise = torch.randn(len(exact.values), generator=torch.Generator().manual_seed(seed))
    values = exact.values + 0.01 * exact.values.std() * noise
    return MatrixCompletion(exact.rows, exact.cols, values, exact.shape, 1, truth=exact.truth)


def without_truth(seed: int) -> MatrixCompletion:
    known = noisy(seed)
    return MatrixCompletion(known.rows, known.cols, known.values, known.shape, 1)


def always_the_same(seed: int) -> MatrixCompletion:
    return small(0)


@method(paper="none", year=2000, family="tests", problems=(MatrixCompletion,))
def explodes(problem: MatrixCompletion, *, callback: Any = None) -> Result[Any]:
    """Doubles, and is stopped by the loop when it overflows."""
    return iterate(
        lambda x: LowRank(x.U * 1e30, x.V * 1e30),
        problem.start(),
        measure=lambda x: {"residual": problem.residual(x)},
        callback=callback,
    )


@method(paper="none", year=2000, family="tests", problems=(MatrixCompletion,))
def refuses(problem: MatrixCompletion, *, callback: Any = None) -> Result[Any]:
    """Raises."""
    raise ValueError("not today")


# ------------------------------------------------------------------------------------- one run


def one(function: Any, solver: Any, budget: str = "100steps", **values: Any) -> list[Any]:
    loaded, (contender,) = entrants(function, [solver])
    asked = job(loaded, contender, "measure", 1, Budget.parse(budget), 30, values)
    return [json.loads(line) for line in run_job(asked, contender, loaded).splitlines()]


def test_a_run_ends_when_it_is_solved_and_counts_as_no_better() -> None:
    *points, end = one(small, scaled_gradient)
    assert end["status"] == "done" and end["final"] == {"error": 1e-8}
    assert 0 < end["steps"] < 100
    last = points[-1]
    assert last["step"] == end["steps"] and last["validation"]["error"] <= 1e-8
    assert all(point["validation"]["error"] > 1e-8 for point in points[:-1])
    assert points[0]["step"] == 0 and points[0]["seconds"] > 0  # the start takes time
    seconds = [point["seconds"] for point in points]
    assert seconds == sorted(seconds) and end["seconds"] >= seconds[-1]


def test_a_run_is_as_long_as_its_budget() -> None:
    *points, end = one(noisy, scaled_gradient, "7steps")
    assert end["status"] == "done" and end["steps"] == 7
    assert [point["step"] for point in points] == list(range(8))
    assert end["final"]["error"] == pytest.approx(points[-1]["validation"]["error"])
    assert points[-1]["train"] < points[0]["train"]  # the residual


def test_one_run_depends_on_its_seed_alone() -> None:
    def told(lines: list[Any]) -> list[Any]:
        return [(p["step"], p["train"], p["validation"]) for p in lines[:-1]]

    assert told(one(noisy, gradient_descent)) == told(one(noisy, gradient_descent))


def test_restarts_of_a_method_count() -> None:
    """A step far too long diverges and is halved: the steps before are spent all the same."""
    *points, end = one(small, gradient_descent, "150steps", step_size=6.0)
    alone = gradient_descent(small(1), step_size=6.0, max_steps=150)
    assert alone.info["step_size"] < 6.0
    steps = [point["step"] for point in points]
    assert steps == sorted(set(steps)) and end["steps"] > int(alone.trace["step"][-1])


def test_divergence_and_failure_end_the_run_only() -> None:
    end = one(small, explodes)[-1]
    assert end["status"] == "diverged" and str(Reason.NONFINITE) in end["reason"]
    assert end["final"] == {"error": None}
    end = one(small, refuses)[-1]
    assert end["status"] == "failed" and "not today" in end["reason"]


def test_long_runs_keep_few_points() -> None:
    loaded, (contender,) = entrants(noisy, [gradient_descent])
    asked = job(loaded, contender, "measure", 1, Budget.parse("400steps"), 10, {"step_size": 0.05})
    *points, end = map(json.loads, run_job(asked, contender, loaded).splitlines())
    assert end["steps"] == 400 and points[-1]["step"] == 400 and points[0]["step"] == 0
    assert 20 <= len(points) <= 42


# ---------------------------------------------------------------------------------- who races


def test_names_of_the_catalogue() -> None:
    (contender,) = resolve("Scaled-Gradient[step_size=0.3]")
    assert contender.target is scaled_gradient and contender.solves
    assert contender.name == "scaled_gradient[step_size=0.3]" and not contender.space
    (contender,) = resolve("thalweg.solve.recovery:scaled_gradient")
    assert list(contender.space) == ["step_size"]
    with pytest.raises(BadInput, match="did you mean 'scaled_gradient'"):
        resolve("scaled_gradint")


def test_without_methods_all_that_solve_it_race() -> None:
    _, contenders = entrants("completion-200", None)
    names = {contender.name for contender in contenders}
    assert {"alternating_minimization", "gradient_descent", "scaled_gradient"} <= names
    assert "amplitude_flow" not in names


def test_without_a_problem_they_get_one_of_theirs() -> None:
    assert entrants(None, ["alternating_minimization"])[0].name == "completion-200"
    assert entrants(None, ["amplitude_flow"])[0].name == "phase-retrieval-100"


@pytest.mark.parametrize(
    ("problem", "methods", "told"),
    [
        (small, ["adamw", "scaled_gradient"], "AdamW and scaled_gradient cannot race on one"),
        (small, ["adamw"], "small is a MatrixCompletion to solve, and AdamW is an optimizer"),
        (small, ["amplitude_flow"], "amplitude_flow solves PhaseRetrieval, and small is a Matrix"),
        ("quadratic-saddle", [scaled_gradient], "is a network to train.* completion-200 and sens"),
        (small, ["scaled_gradient[step_size=-1]"], "step_size must be > 0, got -1"),
        (small(0), None, "function of the seed that returns a MatrixCompletion, got one"),
        (lambda seed: 3, None, "or a problem for solvers.* got int"),
    ],
)
def test_who_cannot_race(problem: Any, methods: Any, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        entrants(problem, methods)


def test_a_problem_that_its_seed_does_not_decide() -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(BadInput, match="two calls with one seed give two problems"):
        load(lambda seed: MatrixSensing.random((5, 5), 1, 30, generator=generator))


def test_the_budget_of_a_kind() -> None:
    loaded, _ = entrants(small, None)
    assert str(budget_of(None, loaded)) == "500steps"
    assert str(budget_of(None, load("quadratic-saddle"))) == "420steps"
    with pytest.raises(BadInput, match="no epochs, got '3epochs'"):
        budget_of("3epochs", loaded)


@pytest.mark.parametrize(
    ("problem", "metric", "tolerance", "same"),
    [
        (small, "error", 1e-8, False),
        (without_truth, "residual", 1e-8, False),
        (always_the_same, "error", 1e-8, True),
        (
            lambda seed: MatrixSensing.random((5, 5), 1, 30, dtype=torch.float32),
            "error",
            1000 * torch.finfo(torch.float32).eps,
            False,
        ),
    ],
)
def test_what_decides(problem: Any, metric: str, tolerance: float, same: bool) -> None:
    facts = load(problem).facts
    assert (facts["metric"], facts["solved"]) == (metric, tolerance)
    assert facts["same_every_seed"] is same


# ------------------------------------------------------------------------------------- a race


def test_of_equally_good_trials_the_quickest_is_best() -> None:
    assert tune.best_trial([1e-8, 1e-8, 2e-8, None], "min", [9, 4, 1, 0]) == 1
    assert tune.best_trial([0.1, 0.1], "min", [9, 4]) == 1
    assert tune.best_trial([0.1, 0.1], "min") == 0


def test_where_all_solve_it_the_time_decides(tmp_path: Path) -> None:
    methods = [scaled_gradient, alternating_minimization]
    race = thalweg.compare(small, methods, directory=tmp_path / "race", **SMALL)
    assert race.exit_code == 0
    problem = race.summary["problem"]
    assert problem["decided_by"] == "time to an error of 1e-08" and problem["scale"] == "ratio"
    assert "Median time to an error of 1e-08: " in race.answer and " steps)" in race.answer
    (verdict,) = race.verdicts
    assert "its time to an error of 1e-08" in verdict["sentence"] or "same" in verdict["word"]
    # the mean log ratio is that of the times of the runs, seed by seed
    first, second = (
        torch.tensor([run["arrival"] for run in m["runs"]]) for m in race.summary["methods"]
    )
    assert verdict["mean"] == pytest.approx((first / second).log().mean().item(), rel=1e-4)
    assert all(m["certificate"] is None for m in race.summary["methods"])
    page = (tmp_path / "race/report/index.html").read_text()
    for word in ("epoch", "AdamW", "Gradient evaluations", "bytes per", 'id="ending"', "minibatch"):
        assert word not in page.split("<script")[0], word
    assert "ms per iteration" in page and "750" not in race.answer
    # finished runs are kept: the same call gives the same race
    again = thalweg.compare(small, methods, directory=tmp_path / "race", **SMALL)
    assert again.answer == race.answer


def test_where_noise_keeps_it_unsolved_the_error_decides(tmp_path: Path) -> None:
    methods = ["scaled_gradient", "gradient_descent[step_size=0.01]"]
    race = thalweg.compare(noisy, methods, directory=tmp_path, trials=0, seeds=6, budget="40steps")
    assert race.summary["problem"]["decided_by"] is None
    (verdict,) = race.verdicts
    assert verdict["word"] == "better" and verdict["winner"] == "scaled_gradient"
    assert "its error is" in race.answer


def test_misses_are_never_dropped(tmp_path: Path) -> None:
    race = thalweg.compare(
        small, [scaled_gradient, explodes], directory=tmp_path, trials=0, seeds=2, budget="150steps"
    )
    assert race.summary["problem"]["decided_by"] is None
    assert race.summary["progress"]["diverged"] == 2
    assert [row["success"] for row in race.summary["ranking"]] == [1.0, 0.0]
    assert "explodes did not get there" in race.answer
    for planned in json.loads((tmp_path / "plan.json").read_text())["jobs"]:
        assert read(tmp_path, planned["id"])


def test_one_problem_for_all_seeds_is_said(tmp_path: Path) -> None:
    race = thalweg.compare(
        always_the_same,
        [scaled_gradient, alternating_minimization],
        directory=tmp_path,
        trials=0,
        seeds=2,
        budget="60steps",
    )
    assert "The problem is the same for every seed" in race.answer


def test_inspecting_is_for_networks(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="inspect is for networks, and small is a Matrix"):
        thalweg.compare(small, [scaled_gradient], directory=tmp_path, inspect=True)


def test_check_tells_of_every_solver() -> None:
    from thalweg.cli.checked import sentences
    from thalweg.compare import check_problem

    found = check_problem(noisy)
    rows = {row["name"]: row for row in found["solvers"]}
    assert rows["scaled_gradient"]["status"] == "done"
    assert len(rows["scaled_gradient"]["values"]) == 4
    assert found["race_seconds"] > 0
    told = "\n".join(sentences(found))
    assert "noisy: a MatrixCompletion with 70 unknowns; error decides" in told
    assert "alternating_minimization" in told and "ms a step" in told


def test_arrivals() -> None:
    curve = {"validation": [1.0, None, 1e-9], "seconds": [0.1, 0.2, 0.3], "step": [0, 5, 10]}
    never = {"validation": [1.0], "seconds": [0.1], "step": [0]}
    assert solved.median([{"curve": curve}] * 3, 1e-8) == (0.3, 10)
    assert solved.median([{"curve": curve}, {"curve": never}], 1e-8) == (float("inf"),) * 2
