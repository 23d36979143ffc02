"""Hyper-parameters as they are written on the command line; the table of all optimizers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from thalweg.cli.app import app
from thalweg.cli.check_optimizer import parsed
from thalweg.cli.contract_table import LEGEND, show
from thalweg.compare import BadInput
from thalweg.testing import CLAUSES, Finding, Outcome, peers, table
from thalweg.testing.peers import Job, Library
from thalweg.testing.table import Row, clauses_of


def test_values() -> None:
    assert parsed(["lr=1e-3", "betas=(0.9, 0.99)", "foreach=None", "rounding=stochastic"]) == {
        "lr": 1e-3,
        "betas": (0.9, 0.99),
        "foreach": None,
        "rounding": "stochastic",
    }


@pytest.mark.parametrize("value", ["lr", "=3", "2lr=1", "", "a b=1"])
def test_not_a_pair(value: str) -> None:
    with pytest.raises(BadInput, match="NAME=VALUE"):
        parsed([value])


def test_nothing_is_executed() -> None:
    assert parsed(["lr=__import__('os').getpid()"]) == {"lr": "__import__('os').getpid()"}


# The table. Which optimizers are asked is set here; that all of ours hold is tests/contract's.
CHOSEN = [clause for clause in CLAUSES if clause.name in ("trains", "gradients untouched")]
HALVES = """
import time, torch
class Halves(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.mul_(0.5)
        return super().step(closure)
class Hangs(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)
        if self.steps > 2: time.sleep(1000)
        self.steps += 1
    steps = 0
"""


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command over the given optimizers as if they were all of ours."""
    (tmp_path / "ours_today.py").write_text(HALVES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(table, "clauses_of", lambda **_: CHOSEN)

    def run(*arguments: str, places: tuple[str, ...] = ("torch.optim:SGD",)) -> Any:
        monkeypatch.setattr(peers, "ours", lambda: [Job("thalweg", place) for place in places])
        return CliRunner().invoke(
            app, ["check-optimizer", "--all", *arguments], env={"COLUMNS": "100"}
        )

    return run


def test_a_green_table(ask: Any, tmp_path: Path) -> None:
    file = tmp_path / "contract.json"
    result = ask("-j", "2", "--json", str(file))
    assert result.exit_code == 0, result.output
    assert "1 optimizers of thalweg, 2 clauses: nothing is broken" in result.stdout
    assert "SGD" in result.stdout and "✓" in result.stdout
    read = json.loads(file.read_text())
    assert [row["findings"]["trains"][0] for row in read["rows"]] == ["pass"]
    assert read["command"] == "thalweg check-optimizer --all"
    assert read["versions"].keys() == {"python", "torch", "thalweg"}


def test_a_broken_one_of_ours_turns_red(ask: Any) -> None:
    result = ask("--verbose", places=("torch.optim:SGD", "ours_today:Halves"))
    assert result.exit_code == 1
    assert "Halves breaks 'gradients untouched': got the gradient of" in result.stdout
    assert "2 optimizers of thalweg, 2 clauses: 1 of them break it" in result.stdout
    assert "the same object with the same bits" in result.stdout  # of SGD: --verbose


def test_a_hanging_one_is_timed_out(ask: Any) -> None:
    result = ask("--timeout", "2", places=("ours_today:Hangs",))
    assert result.exit_code == 1
    assert "Hangs breaks 'trains': got no answer within 2 s" in result.stdout
    assert "1 of them break it" in result.stdout


def test_ctrl_c_is_no_traceback(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(table, "run", interrupted)
    result = ask()
    assert result.exit_code == 130
    assert result.stderr == "thalweg: interrupted\n"


def test_ours_may_not_be_left_out(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = Row("thalweg", "Odd", "thalweg.optim:Odd", left_out="TypeError: no 'model'")
    monkeypatch.setattr(table, "run", lambda *_, **__: [left_out])
    result = ask()
    assert result.exit_code == 1
    assert "Odd cannot be asked: TypeError: no 'model'" in result.stdout


def test_peers_stand_beside_ours(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = (
        Library("nowhere", "no-such-distribution", "3.2", list),
        Library("unloadable", "torch", "2", list),
        Library("torch.optim", "torch", "2", list, how="as it comes"),
    )
    monkeypatch.setattr(peers, "LIBRARIES", libraries)

    def methods(library: Library, seconds: float) -> list[Job]:
        if library.name == "unloadable":
            raise RuntimeError("unloadable cannot be imported: no module")
        return [
            Job(library.name, place)
            for place in ("torch.optim:SGD", "ours_today:Halves", "torch.optim:SparseAdam")
        ]

    monkeypatch.setattr(table, "methods", methods)
    result = ask("--peers", "--json")
    assert result.exit_code == 0  # a peer may break what it likes
    read = json.loads(result.stdout)
    assert read["notes"] == {
        "nowhere": "not installed: pip install 'no-such-distribution==3.2.*'",
        "unloadable": "unloadable cannot be imported: no module",
        "torch.optim": "as it comes",
    }
    out = io.StringIO()
    rows = table.rows_of(read)
    console = Console(file=out, width=100)
    show(console, rows, CHOSEN, read["versions"], read["notes"])
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["gradients", "untouched", "1/1", "1/2"] in lines
    assert ["left", "out,", "of", "all", "0", "of", "1", "1", "of", "3"] in lines
    assert "nowhere: not installed" in out.getvalue()
    assert "Halves breaks" not in out.getvalue()


def test_the_table_is_legible_at_100_columns() -> None:
    clauses = clauses_of(distributed=True)
    findings = tuple(Finding(clause.name, Outcome.PASS, "") for clause in clauses)
    rows = [Row("thalweg", "AdamW rounding=compensated", "thalweg.optim:AdamW", findings)]
    rows += [Row(library.name, "A", "a:A", findings) for library in peers.LIBRARIES]
    out = io.StringIO()
    console = Console(file=out, width=100)
    show(console, rows, clauses, {library.name: "10.20.30" for library in peers.LIBRARIES}, {})
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    words = " ".join(text.split())
    assert all(clause.name in words for clause in clauses)
    [line] = [line for line in text.splitlines() if "✓" in line and line.strip() not in LEGEND]
    assert line.count("✓") == len(clauses)  # nothing is cut off
    assert "…" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "OPTIMIZER is missing"),
        (["--all", "--json", "no/such/place.json"], "directory that exists"),
        (["torch.optim:SGD", "--peers"], "--peers goes with --all"),
        (["--peers"], "OPTIMIZER is missing"),
    ],
)
def test_bad_input(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["check-optimizer", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr and len(result.stderr.splitlines()) == 1
