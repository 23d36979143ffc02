"""``thalweg solve`` as a process: killed and resumed, and its page in a real headless Chromium."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from thalweg.solve.recovery import MatrixCompletion


def write_ratings(path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    problem = MatrixCompletion.random((60, 50), 2, 0.5, 20.0, generator=generator)
    entries = zip(
        problem.rows.tolist(), problem.cols.tolist(), problem.values.tolist(), strict=True
    )
    lines = [f"{i},{j},{value:.17g}" for i, j, value in entries]
    path.write_text("\n".join(["user,item,value", *lines]) + "\n")


def test_killed_and_resumed(tmp_path: Path) -> None:
    """Kill -9 while it runs: the same command goes on from the point that was saved."""
    write_ratings(tmp_path / "ratings.csv")
    command = [
        sys.executable, "-m", "thalweg.cli", "solve", "completion", "ratings.csv", "--rank", "2",
        "--method", "gradient_descent[step_size=0.02]", "--tol", "0", "--save-every", "0.05",
        "--json", "--max-steps",
    ]  # fmt: skip
    saved = tmp_path / "solve-completion-ratings/point.safetensors"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, "1000000"], cwd=tmp_path, env=environment, **quiet) as running:
        deadline = time.monotonic() + 60
        while not saved.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(running.pid, signal.SIGKILL)
    assert saved.exists()
    assert not (tmp_path / "solve-completion-ratings/index.html").exists()
    # as many steps as were saved at least: nothing is left to do but to tell what there is
    resumed = subprocess.run(
        [*command, "1"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(resumed.stdout)
    assert found["resumed"] > 0 and found["steps"] == found["resumed"]
    assert f"goes on from iteration {found['resumed']:,}" in resumed.stderr
    more = subprocess.run(
        [*command, str(found["steps"] + 30)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    longer = json.loads(more.stdout)
    assert longer["steps"] == found["steps"] + 30
    assert longer["numbers"]["relative residual"] < found["numbers"]["relative residual"]
    assert not list((tmp_path / "solve-completion-ratings").glob("*.part-*.part-*"))


# ------------------------------------------------------------------------------------ the page


def _browser_module() -> ModuleType:
    place = Path(__file__).with_name("test_report_in_browser.py")
    spec = importlib.util.spec_from_file_location("in_browser", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.browser
def test_the_page_opens_with_the_network_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    in_browser = _browser_module()
    if in_browser.CHROMIUM is None or in_browser.DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    import numpy
    from typer.testing import CliRunner

    from thalweg.cli.app import app
    from thalweg.solve.recovery import RobustPCA

    monkeypatch.chdir(tmp_path)
    hostile = "<img src=x onerror=alert(1)>.npy"
    problem = RobustPCA.random((40, 30), 2, 0.05, generator=torch.Generator().manual_seed(0))
    numpy.save(hostile, problem.Y.numpy())
    result = CliRunner().invoke(
        app, ["solve", "robust-pca", hostile, "--rank", "2", "--directory", "page"]
    )
    assert result.exit_code == 0, result.output
    options = webdriver.ChromeOptions()
    options.binary_location = str(in_browser.CHROMIUM)
    for argument in (*in_browser.ARGUMENTS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=in_browser.DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.get((tmp_path / "page/index.html").as_uri())
        driver.set_script_timeout(60)
        drawn = driver.execute_async_script(
            "const done = arguments[0]; const look = () => window.thalweg "
            "? (window.thalweg.drawAll(), done(['convergence-chart', 'spectrum-chart'].map("
            "id => document.getElementById(id).data.map(t => t.name)))) "
            ": setTimeout(look, 100); look();"
        )
        assert drawn == [["residual"], ["singular values"]]
        seconds = driver.execute_script(
            "document.querySelector('input[name=axis][value=seconds]').click(); "
            "window.thalweg.drawAll(); "
            "return document.getElementById('convergence-chart').layout.xaxis.title.text;"
        )
        assert seconds == "seconds"
        pictures = driver.execute_script(
            "return Array.from(document.images).map(i => [i.alt, i.naturalWidth > 0]);"
        )
        assert pictures == [["data", True], ["low rank", True], ["sparse", True]]
        assert driver.get_log("browser") == []
        wide = driver.execute_script("return document.documentElement.scrollWidth;")
        assert wide <= driver.execute_script("return window.innerWidth;")
    finally:
        driver.quit()
