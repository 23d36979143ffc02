"""``thalweg study`` as a user meets it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from thalweg.cli.app import app
from thalweg.studies import discover


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["study", *arguments], catch_exceptions=False)


@pytest.mark.parametrize("arguments", [[], ["--list"]])
def test_the_list(arguments: list[str]) -> None:
    lines = run(*arguments).stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(discover())
    assert any("Tyurin, AAAI 2025" in line for line in lines)


def test_the_list_as_json() -> None:
    claims = json.loads(run("--list", "--json").stdout)
    assert [claim["study"] for claim in claims] == list(discover())
    assert {"title", "paper", "sentence", "expected", "refuted_by"} <= set(claims[0])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lr-perception"], "got 'lr-perception' (did you mean 'lr-perceptron'?)"),
        (["lr-perceptron", "--scale", "laptpo"], "--scale must be one of 'smoke', 'laptop'"),
        (["lr-perceptron", "--seed", "-1"], "--seed must be an integer >= 0, got -1"),
        (["lr-perceptron", "--out", "file"], "--out must be a directory to write in, got 'file'"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(arguments: list[str], sentence: str) -> None:
    Path("file").touch()
    result = run(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.startswith("thalweg: ")
    assert result.stderr.count("\n") == 1


def test_one_study_from_start_to_figure() -> None:
    result = run("lr-perceptron", "--scale", "smoke")
    assert result.exit_code == 0
    out = " ".join(result.stdout.split())
    assert "lr-perceptron: Logistic regression with a large step is the perceptron" in out
    assert "at smoke scale." in out
    assert out.count(" part ") == 5
    assert "power with 6 pairs" in out
    assert "figure studies/lr-perceptron/figure.png" in out
    assert Path("studies/lr-perceptron/figure.png").stat().st_size > 5000
    again = run("lr-perceptron", "--scale", "smoke", "--json")
    (printed,) = json.loads(again.stdout)
    assert printed == json.loads(Path("studies/lr-perceptron/result.json").read_text())
    other = run("lr-perceptron", "--scale", "laptop")
    assert other.exit_code == 2
    assert "studies/lr-perceptron holds a run of another scale" in other.stderr


def test_kill_minus_nine_and_the_same_command_again() -> None:
    command = [sys.executable, "-m", "thalweg.cli", "study", "lr-perceptron"]
    command += ["--scale", "laptop", "--out", "killed"]
    rows = Path("killed/lr-perceptron/rows.jsonl")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not (rows.exists() and rows.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = rows.read_bytes()
    assert not Path("killed/lr-perceptron/figure.png").exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert "lr-perceptron: " in done.stdout
    assert rows.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    result = json.loads(Path("killed/lr-perceptron/result.json").read_text())
    assert result["rows_kept_from_an_earlier_run"] >= 3
    run("lr-perceptron", "--out", "whole")
    assert rows.read_bytes() == Path("whole/lr-perceptron/rows.jsonl").read_bytes()
