from __future__ import annotations

import csv
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from thalweg import Training
from thalweg.compare import BadInput, Race, compare
from thalweg.compare.plan import Budget
from thalweg.compare.record import read

METHODS = ["torch.optim:SGD", "torch.optim:Adam"]
SMALL: dict[str, Any] = {"budget": "20steps", "trials": 3, "seeds": 2, "points": 6}


@pytest.fixture
def race(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Race]:
    from thalweg.compare import race as module

    monkeypatch.setattr(module, "BASELINE_BUDGET", Budget.parse("5steps"))

    def run(methods: Any = METHODS, **how: Any) -> Race:
        where = how.pop("directory", tmp_path / "race")
        # Whether an inspection is worth its time depends on the clock; test_ending.py has them.
        problem = how.pop("problem", line)
        return compare(problem, methods, directory=where, **{**SMALL, "inspect": False, **how})

    return run


def test_a_race(race: Callable[..., Race], line: str) -> None:
    events: list[dict[str, Any]] = []
    found = race(on_event=events.append)
    summary = found.summary
    assert found.exit_code == 0 and not summary["progress"]["interrupted"]
    assert summary["schema"] == "thalweg.race/1"
    assert json.loads((found.directory / "summary.json").read_text()) == summary
    assert summary["progress"] == {
        "done": 14, "total": 14, "failed": 0, "diverged": 0, "interrupted": False,
    }  # fmt: skip
    assert summary["problem"]["name"] == "line" and summary["problem"]["source"] == line
    assert "test loss" in summary["question"] and "20 steps" in summary["question"]
    assert [m["name"] for m in summary["methods"]] == METHODS
    for method in summary["methods"]:
        assert len(method["trials"]) == 3
        best = min(method["trials"], key=lambda t: t["validation"])
        assert method["tuned"] == best["values"]
        assert method["tuning_curve"]["k"] == [1, 2, 3]
        assert method["tuning_curve"]["median"][-1] == best["validation"]
        assert [r["seed"] for r in method["runs"]] == [1, 2]
        assert len({len(column) for column in method["runs"][0]["curve"].values()}) == 1
        assert len(method["default_runs"]) == 2
        assert method["cost"]["gradient_evaluations"] == 20
        assert method["cost"]["ratio_to_fused_adamw"] > 0
    (verdict,) = summary["verdicts"]
    assert verdict["word"] != "better"  # two seeds are too few to say so
    assert verdict["sentence"]
    assert summary["protocol"]["fewest_seeds"] == 6
    assert summary["reproduce"]["tuning_seeds"] == [0]
    assert summary["reproduce"]["command"].startswith("thalweg.compare(")  # points are not 30
    stages = [e["stage"] for e in events if e["kind"] == "stage"]
    assert stages == ["tune", "measure", "default"]
    jobs = [e for e in events if e["kind"] == "job"]
    assert [e["done"] for e in jobs] == list(range(1, 15)) and {e["total"] for e in jobs} == {14}
    rows = list(csv.DictReader((found.directory / "results.csv").read_text().splitlines()))
    assert len(rows) == 14 and {row["stage"] for row in rows} == {"tune", "measure", "default"}


def test_the_verdict_is_on_the_test_metric(race: Callable[..., Race]) -> None:
    found = race(seeds=3)
    (verdict,) = found.verdicts
    first, second = found.summary["methods"]
    ratios = [
        math.log(a["test"]["loss"] / b["test"]["loss"])
        for a, b in zip(first["runs"], second["runs"], strict=True)
    ]
    assert verdict["mean"] == pytest.approx(sum(ratios) / 3, rel=1e-9)
    medians = {m["name"]: sorted(r["test"]["loss"] for r in m["runs"])[1] for m in (first, second)}
    assert {r["name"]: r["median_final"] for r in found.summary["ranking"]} == medians
    assert found.summary["ranking"][0]["median_final"] == min(medians.values())


def test_one_call_more_computes_nothing(race: Callable[..., Race]) -> None:
    before = race()
    times = {path: path.stat().st_mtime_ns for path in (before.directory / "runs").iterdir()}
    again = race()
    assert {p: p.stat().st_mtime_ns for p in (again.directory / "runs").iterdir()} == times
    assert again.summary == before.summary


def test_the_same_method_twice_is_never_better(race: Callable[..., Race]) -> None:
    found = race(["torch.optim:SGD", "torch.optim:SGD"], seeds=6)
    assert found.verdicts[0]["word"] == "same"
    assert found.verdicts[0]["mean"] == 0
    first, second = found.summary["methods"]
    assert first["name"] != second["name"] and first["runs"] == second["runs"]
    assert found.summary["progress"]["total"] == 3 + 6 + 3  # every run once


def test_a_better_method_is_found(race: Callable[..., Race]) -> None:
    found = race(
        ["torch.optim:SGD[lr=0.1,momentum=0]", "torch.optim:SGD[lr=1e-4,momentum=0]"], seeds=6
    )
    (verdict,) = found.verdicts
    assert verdict["word"] == "better" and verdict["winner"] == "torch.optim:SGD[lr=0.1,momentum=0]"
    assert verdict["winner"] in found.answer
    assert verdict["p"] == 2 / 2**6


def test_a_method_without_axes_is_not_tuned(race: Callable[..., Race], odd_methods: str) -> None:
    found = race(["torch.optim:SGD", f"{odd_methods}:AutoTuned"])
    free = found.summary["methods"][1]
    assert free["parameter_free"] and free["trials"] == [] and free["tuned"] == {}
    assert len(free["runs"]) == 2 and free["default_runs"] == free["runs"]
    assert not found.summary["methods"][0]["parameter_free"]
    assert found.summary["progress"]["total"] == 3 + 2 + 2 + 2


def test_no_trials_measures_the_defaults(race: Callable[..., Race]) -> None:
    found = race(trials=0)
    assert found.summary["methods"][1]["tuned"] == found.summary["methods"][1]["defaults"]
    assert found.summary["progress"]["total"] == 4


def test_a_method_that_diverges_loses(race: Callable[..., Race], odd_methods: str) -> None:
    found = race([f"{odd_methods}:Plain[lr=0.1]", f"{odd_methods}:Ascends"], seeds=6)
    assert found.exit_code == 0
    assert found.summary["progress"]["diverged"] == 6
    (verdict,) = found.verdicts
    assert verdict["word"] == "better" and verdict["winner"].startswith("odd_methods:Plain")
    assert verdict["mean"] is None
    last = found.summary["ranking"][-1]
    assert last["name"] == "odd_methods:Ascends"
    assert last["success"] == 0 and last["median_final"] is None
    assert all(f["status"] == "diverged" for f in found.summary["failures"])


def test_a_method_that_raises_does_not_kill_the_race(
    race: Callable[..., Race], odd_methods: str
) -> None:
    found = race(["torch.optim:SGD", f"{odd_methods}:Raises"])
    assert found.exit_code == 3 and found.summary["progress"]["failed"] == 2
    failure = found.summary["failures"][0]
    assert failure["reason"] == "RuntimeError: no way down" and failure["stage"] == "measure"
    assert failure["command"].startswith("python -m thalweg.compare.repeat ")
    assert [r["status"] for r in found.summary["methods"][0]["runs"]] == ["done", "done"]

    from thalweg.compare.repeat import repeat

    end = repeat(found.directory, failure["id"])
    assert end["reason"] == failure["reason"] and "odd_methods.py" in end["traceback"]


def test_nobody_finishes(race: Callable[..., Race], odd_methods: str) -> None:
    found = race([f"{odd_methods}:Raises", f"{odd_methods}:Ascends"])
    assert found.verdicts == [] and "No method finished" in found.answer
    assert found.exit_code == 3


def test_one_method_races_alone(race: Callable[..., Race]) -> None:
    found = race("torch.optim:SGD")
    assert found.verdicts == [] and "raced alone" in found.answer


def test_a_reference_makes_fewer_pairs(race: Callable[..., Race]) -> None:
    methods = ["torch.optim:SGD", "torch.optim:Adam", "torch.optim:RMSprop"]
    found = race(methods, reference="torch.optim:adam")
    assert [(v["a"], v["b"]) for v in found.verdicts] == [
        ("torch.optim:SGD", "torch.optim:Adam"),
        ("torch.optim:RMSprop", "torch.optim:Adam"),
    ]
    with pytest.raises(BadInput, match="reference must be one of the methods"):
        race(methods, reference="lion", directory=found.directory)


def test_a_function_without_evaluate_is_judged_by_its_loss(race: Callable[..., Race]) -> None:
    def bowl(seed: int) -> Training:
        return Training.from_function(lambda x: (x**2).sum(), torch.randn(3), name="bowl")

    found = race(problem=bowl)
    assert "training loss" in found.summary["question"]
    assert found.summary["methods"][0]["runs"][0]["test"] is None
    assert found.summary["reproduce"]["command"].startswith("thalweg.compare(problem, ")
    assert "def bowl" in found.summary["reproduce"]["problem_source"]


@pytest.mark.parametrize(("metric", "scale"), [("accuracy", "difference"), ("loss", "ratio")])
def test_rates_are_compared_by_difference(
    metric: str, scale: str, race: Callable[..., Race], line: str, write_problem: Callable[..., str]
) -> None:
    text = Path(line).read_text().replace('{"loss":', f'{{"{metric}":')
    found = race(problem=write_problem(text, "rate.py"))
    assert found.summary["problem"]["scale"] == scale
    assert found.summary["protocol"]["margin"] == (0.01 if scale == "ratio" else 0.005)


def test_a_large_metric_can_be_the_goal(
    race: Callable[..., Race], line: str, write_problem: Callable[..., str]
) -> None:
    text = (
        Path(line)
        .read_text()
        .replace('"loss": nn', '"score": -nn')
        .replace('evaluate, name="line"', 'evaluate, goal="max", name="line"')
    )
    high, low = (
        race(problem=write_problem(text, "score.py")),
        race(directory=Path(line).parent / "low"),
    )
    for a, b in zip(high.summary["methods"], low.summary["methods"], strict=True):
        assert a["tuned"] == b["tuned"]
        assert [r["test"]["score"] for r in a["runs"]] == [-r["test"]["loss"] for r in b["runs"]]
    assert [r["name"] for r in high.summary["ranking"]] == [
        r["name"] for r in low.summary["ranking"]
    ]
    assert "highest" in high.summary["question"]


def test_exclusive_repeats_the_measured_runs(race: Callable[..., Race]) -> None:
    found = race(exclusive=True)
    assert found.summary["progress"]["total"] == 14 + 4 == found.summary["progress"]["done"]
    plan = json.loads((found.directory / "plan.json").read_text())
    for method in found.summary["methods"]:
        mine = [j for j in plan["jobs"] if j["method"] == method["name"]]
        pairs = [[j["id"] for j in mine if j["stage"] == s] for s in ("measure", "exclusive")]
        for measured, again in zip(*pairs, strict=True):
            ends = [read(found.directory, i) for i in (measured, again)]
            assert ends[0] is not None and ends[1] is not None
            assert ends[0][-1]["final"] == ends[1][-1]["final"]
        assert [r["id"] for r in method["runs"]] == pairs[1]


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ({"seeds": 0}, "seeds must be an integer >= 1, got 0"),
        ({"trials": -1}, "trials must be an integer >= 0, got -1"),
        ({"points": 1}, "points must be an integer >= 2, got 1"),
        ({"jobs": 0}, "jobs must be an integer >= 1, got 0"),
        ({"jobs": 1.5}, "jobs must be an integer >= 1, got 1.5"),
        ({"margin": -0.1}, "margin must be >= 0, got -0.1"),
        ({"backend": "slurm"}, "backend must be one of 'loky', 'dask', 'ray', got 'slurm'"),
        ({"budget": "12 parsecs"}, "budget must be"),
    ],
)
def test_bad_arguments(
    argument: dict[str, Any], told: str, race: Callable[..., Race], tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as caught:
        race(**argument)
    assert told in str(caught.value)
    assert not (tmp_path / "race").exists()


# ------------------------------------------------------------------------------- interrupts


def interrupt_at(count: int, times: int = 1) -> Callable[[dict[str, Any]], None]:
    def on_event(event: dict[str, Any]) -> None:
        if event["kind"] == "job" and event["done"] == count:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    return on_event


def test_ctrl_c_writes_the_report_of_what_is_there(
    race: Callable[..., Race], timeless: Callable[[Any], Any], tmp_path: Path
) -> None:
    handler = signal.getsignal(signal.SIGINT)  # a background job of a shell ignores it
    undisturbed = timeless(race().summary)
    for count in (2, 8, 12):
        part = race(on_event=interrupt_at(count), directory=tmp_path / f"after {count}")
        progress = part.summary["progress"]
        assert part.exit_code == 130 and progress["interrupted"]
        assert progress["done"] == count and progress["total"] == 14
        assert (part.directory / "summary.json").exists()
        if count < 10:  # the measured stage is not complete: a verdict would be a look
            assert part.verdicts == [] and f"{count} of 14" in part.answer
            assert json.loads((part.directory / "plan.json").read_text())["looks"] == []
        whole = race(directory=part.directory)
        assert whole.exit_code == 0
        assert timeless(whole.summary) == undisturbed
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_twice_stops(race: Callable[..., Race]) -> None:
    with pytest.raises(KeyboardInterrupt):
        race(on_event=interrupt_at(3, times=2))
    assert race().exit_code == 0


# --------------------------------------------------------------------------------- workers


def test_two_workers_give_the_same_losses_bit_for_bit(
    race: Callable[..., Race], odd_methods: str, tmp_path: Path,
    losses: Callable[[Path], Any], timeless: Callable[[Any], Any],
) -> None:  # fmt: skip
    methods = [*METHODS, f"{odd_methods}:Noisy", f"{odd_methods}:Raises"]
    one = race(methods)

    # Ctrl-C twice stops at once; what is finished is kept.
    with pytest.raises(KeyboardInterrupt):
        race(methods, jobs=2, directory=tmp_path / "two", on_event=interrupt_at(3, times=2))
    assert read_all(tmp_path / "two") >= 3

    two = race(methods, jobs=2, directory=tmp_path / "two")
    assert losses(one.directory) == losses(two.directory)
    assert timeless(one.summary) == timeless(two.summary)


def read_all(directory: Path) -> int:
    return sum(read(directory, path.stem) is not None for path in (directory / "runs").iterdir())


@pytest.mark.slow
def test_ctrl_c_lets_workers_finish(
    race: Callable[..., Race], tmp_path: Path, losses: Callable[[Path], Any]
) -> None:
    part = race(jobs=2, directory=tmp_path / "part", on_event=interrupt_at(3))
    assert part.exit_code == 130 and 3 <= part.summary["progress"]["done"] < 14
    whole = race(jobs=2, directory=tmp_path / "part")
    assert losses(whole.directory) == losses(race().directory)


def test_what_cannot_be_sent_to_workers_is_told(race: Callable[..., Race]) -> None:
    import threading

    lock = threading.Lock()

    def locked(seed: int) -> Training:
        with lock:
            return Training.from_function(lambda x: (x**2).sum(), torch.randn(3))

    with pytest.raises(BadInput, match="cannot be sent to worker processes"):
        race(problem=locked, jobs=2)
    assert race(problem=locked, jobs=1).exit_code == 0


def test_dask(race: Callable[..., Race], tmp_path: Path, losses: Callable[[Path], Any]) -> None:
    distributed = pytest.importorskip("distributed")
    here = race()
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    )
    with cluster:
        there = race(
            directory=tmp_path / "dask", backend="dask", scheduler=cluster.scheduler_address, jobs=2
        )
        with distributed.Client(cluster):
            known = race(directory=tmp_path / "client", backend="dask", jobs=-1)
    assert losses(here.directory) == losses(there.directory) == losses(known.directory)
    with pytest.raises(BadInput, match="backend 'dask' needs the address of a scheduler"):
        race(directory=tmp_path / "none", backend="dask")
