"""kill -9 at any moment, then the same command: the same table, times excepted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

PROBLEM = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from thalweg import Training


def problem(seed):
    rows = torch.Generator().manual_seed(7)
    x = torch.randn(64, 3, generator=rows)
    y = x.sum(1, keepdim=True) + 0.3 * torch.randn(64, 1, generator=rows)
    data = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    evaluate = lambda model, split: {"loss": nn.functional.mse_loss(model(x), y).item()}
    return Training(nn.Linear(3, 1), nn.functional.mse_loss, data, evaluate, name="line")
"""

# One process loads torch and forks a race after the other: a kill costs no second start.
DRIVER = """
import json, math, os, random, signal, sys, time, traceback
import torch, scipy.stats.qmc
from thalweg.compare import compare
import thalweg.compare.report, thalweg.compare.statistics
from thalweg.compare import race as module
from thalweg.compare.plan import Budget

module.BASELINE_BUDGET = Budget(5, "steps")
place, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)

def race(directory):
    compare("problem.py", ["torch.optim:SGD", "torch.optim:Adam", "torch.optim:RMSprop"],
            budget=60, trials=6, seeds=6, points=8, directory=directory,
            inspect=False)

def finished(directory):
    runs = directory + "/runs"
    return sum(n.endswith(".jsonl") for n in os.listdir(runs)) if os.path.isdir(runs) else 0

def forked(directory, more=None, delay=0.0):
    "Whether the race came to its end before it was killed: `delay` after `more` runs."
    child = os.fork()
    if child == 0:
        try:
            race(directory)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    goal = finished(directory) + more if more is not None else math.inf
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, status
            return True
        if finished(directory) >= goal:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.001)

assert forked(place + "/undisturbed")
count, k, found = 0, 0, []
while count < kills:
    directory = f"{place}/killed-{k}"
    while count < kills:
        # The moment: some runs later (before the first, and after the last, included).
        if forked(directory, draw.choice([0, 1, 2, 5, 9, 14]), draw.uniform(0, 0.1)):
            break
        count += 1
        found.append(finished(directory))
    k += 1
for i in range(k):
    assert forked(f"{place}/killed-{i}")
print(json.dumps({"races": k, "runs at the kills": found}))
"""

TIMES = {
    "seconds", "compile_seconds", "job_seconds", "ms_per_step", "ratio_to_fused_adamw", "created",
    "command",
}  # fmt: skip


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def summary(directory: Path) -> Any:
    return timeless(json.loads((directory / "summary.json").read_text()))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "problem.py").write_text(PROBLEM)
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    return tmp_path


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_moments_change_nothing(place: Path, kills: int) -> None:
    command = [sys.executable, "driver.py", str(place), str(kills), "20261125"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    total = summary(place / "undisturbed")["progress"]["total"]
    assert any(0 < runs < total for runs in told["runs at the kills"])
    for k in range(told["races"]):
        assert summary(place / f"killed-{k}") == summary(place / "undisturbed")
        left = [p.name for p in (place / f"killed-{k}" / "runs").iterdir()]
        assert sum(name.endswith(".jsonl") for name in left) == total


RACE = """
import sys
from thalweg.compare import compare
race = compare("problem.py", ["torch.optim:SGD", "torch.optim:Adam"], budget=int(sys.argv[2]),
               trials=4, seeds=3, points=8, directory=sys.argv[1], jobs=2, inspect=False,
               on_event=lambda event: print(event["done"], flush=True))
print(race.answer)
sys.exit(race.exit_code)
"""


def start(place: Path, name: str, budget: int) -> subprocess.Popen[str]:
    """A race with two workers, in a process group of its own, as from a terminal."""
    (place / "race.py").write_text(RACE)
    command = [sys.executable, "race.py", name, str(budget)]
    return subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.slow
def test_a_kill_of_a_race_with_workers(place: Path) -> None:
    process = start(place, "killed", 400)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "3":
        pass
    process.kill()
    with process:  # waits, and closes its output
        pass
    finished = len(list((place / "killed" / "runs").glob("*.jsonl")))
    assert 3 <= finished < 20
    for name in ("killed", "undisturbed"):
        process = start(place, name, 400)
        process.communicate()
        assert process.returncode == 0
    assert summary(place / "killed") == summary(place / "undisturbed")


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_the_workers_too(place: Path) -> None:
    process = start(place, "interrupted", 2000)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "3":
        pass
    os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 130, out
    assert "No verdict yet" in out
    told = summary(place / "interrupted")["progress"]
    assert told["interrupted"] and 3 <= told["done"] < told["total"] and told["failed"] == 0
    assert time.monotonic() - began < 100
