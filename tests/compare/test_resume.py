from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thalweg.compare import BadInput, Race, compare
from thalweg.compare import race as module
from thalweg.compare.plan import Budget

METHODS = ["torch.optim:SGD", "torch.optim:Adam"]


@pytest.fixture
def race(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Race]:
    monkeypatch.setattr(module, "BASELINE_BUDGET", Budget.parse("5steps"))

    def run(**how: Any) -> Race:
        told: dict[str, Any] = {"budget": 20, "trials": 2, "seeds": 2, "points": 6, **how}
        return compare(line, METHODS, **{"directory": tmp_path / "race", **told})

    return run


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
    (whole.directory / "runs" / "0123456789abcdef.jsonl.part-1").write_text("{")
    (whole.directory / "summary.json").unlink()
    assert timeless(race().summary) == timeless(whole.summary)
    assert sorted((whole.directory / "runs").iterdir()) == runs


def test_a_damaged_plan_loses_no_run(race: Callable[..., Race]) -> None:
    whole = race()
    times = {p: p.stat().st_mtime_ns for p in (whole.directory / "runs").iterdir()}
    (whole.directory / "plan.json").write_text("{")
    with pytest.raises(BadInput, match="is damaged"):
        race()
    (whole.directory / "plan.json").unlink()
    race()
    assert {p: p.stat().st_mtime_ns for p in (whole.directory / "runs").iterdir()} == times


def test_added_seeds_keep_what_is_computed_and_count_a_look(race: Callable[..., Race]) -> None:
    few = race(seeds=6)
    assert few.summary["protocol"]["look"] == 1 and few.summary["protocol"]["alpha"] == 0.04
    times = {p: p.stat().st_mtime_ns for p in (few.directory / "runs").iterdir()}
    more = race(seeds=8)
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert more.summary["protocol"]["look"] == 2
    assert more.summary["protocol"]["alpha"] == pytest.approx(0.008)
    for a, b in zip(few.summary["methods"], more.summary["methods"], strict=True):
        assert a["tuned"] == b["tuned"] and a["runs"] == b["runs"][:6] and len(b["runs"]) == 8
    # The same command again is the same look.
    assert race(seeds=8).summary["protocol"]["look"] == 2
    with pytest.raises(BadInput, match="not taken away"):
        race(seeds=6)


def test_a_look_that_could_not_tell_is_free(race: Callable[..., Race]) -> None:
    race(seeds=2)
    assert race(seeds=6).summary["protocol"]["look"] == 1


def test_another_protocol_is_refused(race: Callable[..., Race]) -> None:
    race()
    with pytest.raises(BadInput, match="budget is 20steps there, not 21steps"):
        race(budget=21)


def test_an_edited_problem_is_refused(race: Callable[..., Race], line: str) -> None:
    race()
    Path(line).write_text(Path(line).read_text().replace("0.3", "0.4"))
    with pytest.raises(BadInput, match="as it was before"):
        race()


def test_the_default_directory_is_found_again(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BASELINE_BUDGET", Budget.parse("5steps"))
    monkeypatch.chdir(tmp_path)
    told: dict[str, Any] = {"budget": 10, "trials": 1, "points": 2}
    first = compare(line, METHODS, seeds=1, **told)
    second = compare(line, METHODS, seeds=2, **told)
    assert first.directory == second.directory
    assert first.directory.name.startswith("race-line-")
    assert compare(line, METHODS[:1], seeds=1, **told).directory != first.directory


def test_a_full_disk_is_told_and_loses_nothing(
    race: Callable[..., Race], monkeypatch: pytest.MonkeyPatch
) -> None:
    from thalweg.compare import workers

    store, count = workers.store, 0

    def full(directory: Path, job_id: str, text: str) -> None:
        nonlocal count
        count += 1
        if count > 3:
            raise OSError(28, "No space left on device")
        store(directory, job_id, text)

    monkeypatch.setattr(workers, "store", full)
    with pytest.raises(BadInput, match="No space left on device; what is finished is kept"):
        race()
    monkeypatch.setattr(workers, "store", store)
    assert race().summary["progress"]["done"] == 4 + 4 + 4


def test_a_run_is_repeated_from_the_command_line(race: Callable[..., Race]) -> None:
    whole = race()
    run = whole.summary["methods"][0]["runs"][0]
    command = [sys.executable, "-m", "thalweg.compare.repeat", str(whole.directory), run["id"]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["final"] == run["final"]
    command[-1] = "nothing"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "has no job 'nothing'" in done.stderr


@pytest.mark.slow
def test_workers_run_a_module_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """A second race in one process must not meet what its workers imported for the first."""
    import importlib

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    source = tmp_path / "edited_task.py"
    told: dict[str, Any] = {"budget": 5, "trials": 0, "seeds": 2, "points": 2}
    results = []
    for k, noise in enumerate(("0.3", "0.4")):
        source.write_text(Path(line).read_text().replace("0.3", noise))
        if k:
            importlib.reload(sys.modules["edited_task"])
        here, there = (
            compare(
                "edited_task:problem",
                METHODS[:1],
                directory=tmp_path / f"{k}{jobs}",
                jobs=jobs,
                **told,
            )
            for jobs in (1, 2)
        )
        results.append([r["final"] for r in here.summary["methods"][0]["runs"]])
        assert results[-1] == [r["final"] for r in there.summary["methods"][0]["runs"]]
    assert results[0] != results[1]
