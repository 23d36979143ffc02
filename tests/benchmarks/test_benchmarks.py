"""Every row of `make bench` runs and yields a ratio; how large it is, is no test's business."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = Path(__file__).parents[2] / "benchmarks" / "run.py"
QUICK = ("one step", "10^6 floats", "state:", "peak of a step", "layer:", "peak:", "sent:")


def run(*arguments: str) -> str:
    command = [sys.executable, "-W", "ignore", str(RUN), "--threads", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{r['suite']}: {r['work']}: {r['ours_name']} / {r['peer_name']}" for r in rows]


def only(parts: tuple[str, ...]) -> list[str]:
    return [word for part in parts for word in ("--only", part)]


def check(rows: list[dict[str, Any]], listed: list[str]) -> None:
    assert texts(rows) == listed
    for row in rows:
        # A step may hold no memory and a race of two jobs may look busier than its workers.
        assert math.isfinite(row["ratio"])
        assert row["met"] is (None if row["bar"] is None else row["ratio"] <= row["bar"])


def test_rows_in_this_process() -> None:
    rows = json.loads(run("--tiny", "--json", *only(QUICK)))["rows"]
    check(rows, run("--list", *only(QUICK)).splitlines())
    assert all(row["ratio"] > 0 for row in rows if row["unit"] == "ms")
    assert all(row["ratio"] <= 1 for row in rows if row["work"] == "state")


def test_every_card_of_an_optimizer_has_a_row() -> None:
    listed = run("--list", "--all")
    names = ("Adam", "AdamW", "AMSGrad", "RMSProp", "AdaGrad", "AdaGradNorm", "AdaGradFull")
    names = (*names, "Lion", "LionK", "AdamP", "SGDP", "NovoGrad", "EGDD", "SASA", "MomentumLSTM")
    for name in (*names, "SGD", "PerturbedSGD", "SGLD", "AcceleGrad", "Simplex.project"):
        assert f": {name} / " in listed
    for heavy in ("time to the first row", "200 runs"):
        assert heavy in listed and heavy not in run("--list")


def test_sections_have_processes_of_their_own() -> None:
    part = "linear algebra and projections"
    listed = run("--list", "--only", part).splitlines()
    assert listed
    rows = json.loads(run("--json", "--rounds", "2", "--only", part))["rows"]
    check(rows, listed)


def test_a_substring_that_fits_nothing_is_refused() -> None:
    command = [sys.executable, str(RUN), "--only", "no such row"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "no such row fits no row" in done.stderr


@pytest.mark.slow
@pytest.mark.compile
@pytest.mark.parametrize("part", ["import, on top", "seconds to compile", "compilations over"])
def test_rows_in_fresh_processes(part: str) -> None:
    rows = json.loads(run("--tiny", "--json", "--only", part))["rows"]
    check(rows, run("--list", "--only", part).splitlines())
    assert all(row["ratio"] > 0 for row in rows if row["unit"] != "s")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["thalweg compare", "report of"])
def test_heavy_rows(part: str) -> None:
    listed = run("--list", "--all", "--only", part).splitlines()
    if not listed:
        pytest.skip("chromium, chromedriver or selenium is not installed")
    check(json.loads(run("--tiny", "--json", "--all", "--only", part))["rows"], listed)
