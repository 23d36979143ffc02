from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from thalweg import Training
from thalweg.compare.methods import resolve
from thalweg.compare.plan import Budget, job
from thalweg.compare.problems import Problem, load
from thalweg.compare.record import read, store
from thalweg.compare.run import needs_closure, run_job
from thalweg.compare.schedule import batches, marks, spread


def run(problem: Problem, method: Any, budget: Any = 30, **how: Any) -> list[dict[str, Any]]:
    (contender,) = resolve(method)
    told = {"stage": "measure", "seed": 1, "points": 10, "values": {}, **how}
    text = run_job(job(problem, contender, budget=Budget.parse(budget), **told), contender, problem)
    return [json.loads(line) for line in text.splitlines()]


def test_lines(line: str) -> None:
    *points, end = run(load(line), "torch.optim:SGD")
    assert [p["kind"] for p in points] == ["point"] * len(points) and end["kind"] == "end"
    steps = [p["step"] for p in points]
    assert steps[0] == 0 and steps[-1] == 30 and steps == sorted(set(steps))
    assert 5 <= len(points) <= 11
    assert points[-1]["epoch"] == 10.0  # 24 rows in batches of 8
    assert points[-1]["evaluations"] == end["evaluations"] == end["steps"] == 30
    assert [p["seconds"] for p in points] == sorted(p["seconds"] for p in points)
    assert end["status"] == "done" and end["reason"] is None
    assert end["final"] == points[-1]["validation"]
    assert end["best"]["loss"] == min(p["validation"]["loss"] for p in points)
    assert end["test"]["loss"] != end["final"]["loss"]
    assert end["parameters"] == 4


def test_the_first_point_is_the_start(line: str) -> None:
    problem = load(line)
    points = run(problem, "torch.optim:SGD")
    start = problem(1)
    assert points[0]["validation"] == start.measure("validation")
    _, batch = next(batches(problem(1).data, 1))
    assert points[0]["train"] == start.batch_loss(batch).item()


def test_a_job_is_a_function_of_its_seed(line: str) -> None:
    problem = load(line)

    def numbers(seed: int) -> list[Any]:
        return [
            (p["train"], p["validation"]) for p in run(problem, "torch.optim:Adam", seed=seed)[:-1]
        ]

    assert numbers(1) == numbers(1) != numbers(2)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    numbers(1)
    assert torch.equal(torch.rand(1), expected)


def test_tuning_does_not_read_the_test_metric(line: str) -> None:
    assert run(load(line), "torch.optim:SGD", stage="tune")[-1]["test"] is None
    assert run(load(line), "torch.optim:SGD", stage="default")[-1]["test"] is not None


def test_values_reach_the_method(line: str) -> None:
    problem = load(line)
    given = run(problem, "torch.optim:SGD", values={"lr": 0.01})
    fixed = run(problem, "torch.optim:SGD[lr=0.01]")
    default = run(problem, "torch.optim:SGD")
    assert given[-1]["final"] == fixed[-1]["final"] != default[-1]["final"]


def test_the_loop_is_the_users_own(line: str) -> None:
    """The same numbers as the loop anybody would write."""
    problem = load(line)
    training = problem(1)
    optimizer = torch.optim.SGD(training.model.parameters(), lr=0.05)
    stream = batches(training.data, 1)
    for _ in range(30):
        _, (x, y) = next(stream)
        optimizer.zero_grad()
        training.loss(training.model(x), y).backward()
        optimizer.step()
    end = run(problem, "torch.optim:SGD[lr=0.05]")[-1]
    assert end["final"] == training.measure("validation")
    assert end["test"] == training.measure("test")


# ---------------------------------------------------------------------------------- budgets


def test_epochs(line: str) -> None:
    assert run(load(line), "torch.optim:SGD", "4epochs")[-1]["steps"] == 12
    assert run(load(line), "torch.optim:SGD", "0.5epochs")[-1]["steps"] == 2


class WithoutLength:
    def __iter__(self) -> Any:
        return iter([(torch.ones(2, 1), torch.zeros(2, 1))] * 5)


def test_epochs_of_data_without_a_length() -> None:
    problem = load(lambda seed: Training(nn.Linear(1, 1), nn.functional.mse_loss, WithoutLength()))
    *points, end = run(problem, "torch.optim:SGD", "3epochs")
    assert end["steps"] == 15
    assert points[0]["step"] == 0 and points[-1]["step"] == 15


def test_seconds(line: str) -> None:
    *points, end = run(load(line), "torch.optim:SGD", "0.05s")
    assert 0.05 <= end["seconds"] < 5 and end["steps"] > 1
    assert points[-1]["step"] == end["steps"]


@pytest.mark.parametrize("total", [1, 2, 10, 300, 10**6])
@pytest.mark.parametrize("points", [2, 10, 30])
def test_marks(total: int, points: int) -> None:
    found = marks(total, points)
    assert total in found and min(found) >= 1 and len(found) <= points
    assert max(spread(points)) == 1.0


# ---------------------------------------------------------------- divergence and failures


def test_divergence_stops_a_run(line: str, odd_methods: str) -> None:
    end = run(load(line), f"{odd_methods}:Ascends", 10_000)[-1]
    assert end["status"] == "diverged" and end["steps"] < 100
    assert "the loss rose from" in end["reason"] or "became" in end["reason"]
    assert end["final"] == {"loss": None} and end["test"] is None


def test_a_loss_that_is_not_finite() -> None:
    def cliff(seed: int) -> Training:
        return Training.from_function(
            lambda x: (1 - 0.2 / x).sum() + 0 * x.log().sum(), torch.ones(1)
        )

    end = run(load(cliff), "torch.optim:SGD[lr=3]", 1000)[-1]
    assert end["status"] == "diverged" and "nan" in end["reason"]


def test_a_metric_that_is_not_finite_at_the_end() -> None:
    def problem(seed: int) -> Training:
        steps: list[int] = []

        def evaluate(model: nn.Module, split: str) -> dict[str, float]:
            moved = model.weight.item() != 1.0  # type: ignore[operator, union-attr]
            return {"perplexity": math.inf if moved else 1.0, "other": float(len(steps))}

        model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(model.weight)
        data = [(torch.ones(1, 1), torch.zeros(1, 1))]
        return Training(model, nn.functional.mse_loss, data, evaluate)

    *points, end = run(load(problem), "torch.optim:SGD", 3)
    assert end["status"] == "diverged"
    assert end["reason"] == "validation perplexity is not finite after 3 steps"
    assert points[-1]["validation"]["perplexity"] is None


def test_an_exception_is_a_failure_with_its_reason(line: str, odd_methods: str) -> None:
    end = run(load(line), f"{odd_methods}:Raises")[-1]
    assert end["status"] == "failed" and end["reason"] == "RuntimeError: no way down"
    assert "odd_methods.py" in end["traceback"] and "thalweg/compare" not in end["traceback"]
    # The machinery of a race is kept in the dark about what failed: every field is there.
    good = run(load(line), "torch.optim:SGD")[-1]
    assert set(good) == set(end) - {"traceback"}


def test_a_problem_that_fails_on_one_seed(write_problem: Callable[..., str], line: str) -> None:
    text = (
        Path(line)
        .read_text()
        .replace("    rows = ", "    if seed == 3:\n        raise OSError('no row 3')\n    rows = ")
    )
    problem = load(write_problem(text, "third.py"))
    assert run(problem, "torch.optim:SGD", seed=3)[-1]["reason"] == "OSError: no row 3"
    assert run(problem, "torch.optim:SGD", seed=2)[-1]["status"] == "done"


# --------------------------------------------------------------------- kinds of methods


def test_closures_are_given_and_counted(line: str, odd_methods: str) -> None:
    assert needs_closure(resolve("torch.optim:LBFGS")[0])
    assert not needs_closure(resolve("torch.optim:Adam")[0])
    end = run(load(line), f"{odd_methods}:Twice")[-1]
    assert end["steps"] == 30 and end["evaluations"] == 60
    # The gradient of the second call is the one that is used.
    assert end["final"] == run(load(line), f"{odd_methods}:Plain")[-1]["final"]
    end = run(load(line), "torch.optim:LBFGS[max_iter=4]")[-1]
    assert end["status"] == "done" and end["evaluations"] > 30


def test_a_stochastic_method_draws_from_its_own_generator(line: str, odd_methods: str) -> None:
    problem = load(line)
    first = run(problem, f"{odd_methods}:Noisy")
    assert first[-1]["final"] == run(problem, f"{odd_methods}:Noisy")[-1]["final"]
    assert first[-1]["final"] != run(problem, f"{odd_methods}:Plain")[-1]["final"]


def test_all_methods_see_the_same_batches(odd_methods: str) -> None:
    """Whatever a method draws from the global generator, the order of the batches stays."""
    seen: list[list[float]] = []

    def problem(seed: int) -> Training:
        data = DataLoader(
            TensorDataset(torch.arange(8.0)[:, None], torch.zeros(8, 1)), batch_size=2, shuffle=True
        )
        model = nn.Linear(1, 1)

        def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return nn.functional.mse_loss(output, target)

        model.register_forward_pre_hook(lambda _, x: seen[-1].extend(x[0].flatten().tolist()))
        training = Training(model, loss, data, lambda m, s: {"loss": 0.0})
        seen.append([])
        return training

    loaded = load(problem)
    for method in ("Plain", "Noisy"):
        assert run(loaded, f"{odd_methods}:{method}", 12)[-1]["status"] == "done"
    assert seen[-1] == seen[-2] and len(seen[-1]) == 24
    assert seen[-1][:8] != seen[-1][8:16]  # each pass has its own order
    assert sorted(seen[-1][:8]) == list(range(8))


def test_averaging_methods_are_evaluated_at_their_average(line: str, odd_methods: str) -> None:
    assert run(load(line), f"{odd_methods}:Averages")[-1]["status"] == "done"


def test_state_bytes_are_counted(line: str) -> None:
    problem = load(line)
    # AdamW: two float32 per parameter, and a float32 step for each of the two tensors.
    assert run(problem, "torch.optim:AdamW")[-1]["state_bytes"] == 4 * (2 * 4 + 2)
    assert run(problem, "torch.optim:SGD")[-1]["state_bytes"] == 0


def test_evaluation_is_not_training_time(line: str, write_problem: Callable[..., str]) -> None:
    slow = (
        Path(line)
        .read_text()
        .replace("        part = ", "        import time; time.sleep(0.05)\n        part = ")
    )
    end = run(load(write_problem(slow, "slow.py")), "torch.optim:SGD", 3)[-1]
    assert end["evaluation_seconds"] >= 0.2  # start, three steps, test: at least 0.05 each
    assert end["seconds"] + end["evaluation_seconds"] < 60


# ------------------------------------------------------------------------------- run files


def test_an_incomplete_file_is_no_run(line: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    text = "".join(json.dumps(entry) + "\n" for entry in run(load(line), "torch.optim:SGD"))
    store(tmp_path, "a", text)
    lines = read(tmp_path, "a")
    assert lines is not None and lines[-1]["kind"] == "end"
    assert read(tmp_path, "b") is None
    for cut in range(0, len(text), 7):
        (tmp_path / "runs" / "c.jsonl").write_text(text[:cut])
        assert read(tmp_path, "c") is None
    assert [path.name for path in (tmp_path / "runs").iterdir() if "part" in path.name] == []
