"""``thalweg inspect``: what is printed where, and one sentence for every bad input."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from thalweg.cli.app import app
from thalweg.data.problems import builtin

PROBLEM = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from thalweg import Training


def problem(seed):
    x = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, shuffle=True)
    return Training(nn.Linear(3, 1), nn.functional.mse_loss, data, name="line")


def noisy(seed):
    training = problem(seed)
    return Training(training.model, lambda o, t: ((o - t + torch.randn(1)) ** 2).mean(),
                    [(torch.ones(4, 3), torch.ones(4, 1))])


def half(seed):
    return Training(nn.Linear(3, 1).half(), nn.functional.mse_loss,
                    [(torch.ones(4, 3).half(), torch.ones(4, 1).half())])


def infinite(seed):
    return Training(nn.Linear(3, 1), lambda o, t: (o / 0).sum(), [(torch.ones(4, 3), None)])


def empty(seed):
    return Training(nn.Linear(3, 1), nn.functional.mse_loss, [])


def many(seed):
    return Training(nn.Linear(3, 1), lambda o, t: o - t, [(torch.ones(4, 3), torch.ones(4, 1))])


def raises(seed):
    def loss(o, t):
        raise KeyError("my own")
    return Training(nn.Linear(3, 1), loss, [(torch.ones(4, 3), torch.ones(4, 1))])


def shapes(seed):
    return Training(nn.Linear(2, 1), nn.functional.mse_loss, [(torch.ones(4, 3), torch.ones(4, 1))])
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(PROBLEM)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["inspect", *arguments], catch_exceptions=False)


def refused(result: Result, *said: str, lines: int = 1) -> None:
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == lines
    for words in said:
        assert words in result.stderr


def test_a_verdict_and_a_page() -> None:
    result = run("my.py", "--budget", "60", "--quiet")
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.startswith("This is not a stationary point: the loss still falls.")
    assert "NOT_STATIONARY" in result.stdout and "Spent: " in result.stdout
    assert result.stdout.rstrip().endswith("Page: inspect-my/index.html")
    assert sorted(os.listdir("inspect-my")) == ["index.html", "inspection.json", "plotly.min.js"]
    page = Path("inspect-my/index.html").read_text()
    assert "the loader shuffles its rows; they were read in order" in page


def test_each_measurement_is_a_line_on_stderr_where_there_is_no_terminal() -> None:
    result = run("my.py", "--budget", "60", "--json")
    record = json.loads(result.stdout)  # stdout is kept clean
    lines = result.stderr.splitlines()
    assert [line.partition("] ")[2].partition(":")[0] for line in lines] == [
        row["name"] for row in record["cost"]
    ]
    assert lines[0].startswith(f"[{record['cost'][0]['products']:2}/60] Certificate: ")
    assert lines[-1].startswith(f"[{sum(row['products'] for row in record['cost'])}/60] Slice")


def test_an_interruption_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("thalweg.inspect.measure.both_ends", stopped)
    result = run("my.py", "--budget", "60")
    assert result.exit_code == 130 and result.stdout == ""
    assert result.stderr.splitlines()[-1] == "thalweg: interrupted; nothing was written"
    assert not Path("inspect-my").exists()


def test_a_checkpoint_changes_the_verdict() -> None:
    torch.save({"model": {"weight": torch.ones(1, 3), "bias": torch.zeros(1)}}, "done.pt")
    result = run("my.py", "--checkpoint", "done.pt", "--budget", "60", "--out", "page")
    assert result.stdout.startswith("This is a local minimum, and a strict one.")
    record = json.loads(Path("page/inspection.json").read_text())
    assert record["certificate"]["verdict"] == "LOCAL_MINIMUM"
    assert record["certificate"]["loss"] == pytest.approx(0, abs=1e-12)


def test_json_alone_writes_nothing_else() -> None:
    result = run("my.py", "--budget", "60", "--json")
    record: dict[str, Any] = json.loads(result.stdout)
    assert record["schema"] == "thalweg.inspection/1" and record["name"] == "line"
    assert not Path("inspect-my").exists()
    result = run("my.py", "--budget", "60", "--json", "--out", "page", "--single-file")
    assert json.loads(result.stdout)["seed"] == 0
    assert sorted(os.listdir("page")) == ["index.html", "inspection.json"]


def test_built_in_problems_and_the_seed() -> None:
    first, second = (json.loads(run("wine-mlp", "--budget", "40", "--json", "--seed", s).stdout)
                     for s in "12")  # fmt: skip
    assert first["certificate"]["loss"] != second["certificate"]["loss"]
    model = builtin()["wine-mlp"](1).model
    assert first["certificate"]["d"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "unknown problem 'nothing'"),
        (["my.py:nothing"], "has no function 'nothing'"),
        (
            ["completion-200"],
            "completion-200 is a MatrixCompletion, a problem for solvers; what is "
            "accepted here is a problem that returns a thalweg.Training",
        ),
        (["my.py", "--budget", "39"], "--budget must be an integer >= 40, got 39"),
        (["my.py", "--eps", "0"], "--eps must be > 0"),
        (["my.py", "--beta", "-1"], "--beta must be > 0"),
        (["my.py", "--seed", "-1"], "seed must be an integer >= 0"),
        (["my.py:noisy"], "the loss must be deterministic"),
        (["my.py:half"], "convert the model with model.float()"),
        (["my.py:infinite"], "the loss must be finite, got"),
        (["my.py:empty"], "data must hold at least one batch"),
        (["my.py:many"], "loss must return a scalar tensor"),
        (["my.py", "--checkpoint", "none.pt"], "checkpoint must be a file, got 'none.pt'"),
        (["my.py", "--out", "my.py"], "--out must be a folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_sentence(arguments: list[str], said: str) -> None:
    refused(run(*arguments), said)
    assert not Path("inspect-my").exists()


def test_checkpoints_that_cannot_be_used() -> None:
    torch.save({"weight": torch.ones(1, 3), "basis": torch.zeros(1)}, "other.pt")
    refused(run("my.py", "--checkpoint", "other.pt"), "it lacks bias", "it has basis")
    torch.save(torch.nn.Linear(3, 1), "pickled.pt")
    refused(run("my.py", "--checkpoint", "pickled.pt"), "got pickled objects", "are refused")


@pytest.mark.parametrize("name", ["raises", "shapes"])
def test_the_users_own_error_keeps_its_traceback(name: str) -> None:
    result = run(f"my.py:{name}", "--budget", "60")
    assert result.exit_code == 2 and result.stdout == ""
    assert "Traceback" in result.stderr
    last = result.stderr.rstrip().splitlines()[-1]
    assert last.startswith("thalweg: the loss of ") and ("KeyError" in last or "shapes" in last)
    assert "thalweg/curvature" not in result.stderr


def test_a_tolerance_below_the_resolution_warns() -> None:
    Path("bowl.py").write_text(
        "import torch\nfrom thalweg import Training\n"
        "def problem(seed):\n"
        "    c = torch.linspace(1e-6, 1, 1000, dtype=torch.float64)\n"
        "    return Training.from_function(lambda x: (c * x**2).sum(), torch.zeros_like(c))\n"
    )
    result = run("bowl.py", "--budget", "40", "--beta", "1e-4", "--quiet")
    assert result.exit_code == 0
    assert result.stderr.startswith("thalweg: warning: --beta must be above the resolution")
    assert result.stderr.count("\n") == 1
