"""The command line as a user meets it: what is printed where, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from thalweg import __version__
from thalweg.cli.app import app

SMALL = ["--budget", "20steps", "--trials", "2", "--seeds", "2"]
TWO = ["rosenbrock", "torch.optim:SGD", "torch.optim:Adam"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "thalweg.cli", *arguments]


def process(*arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=120, check=False, **how
    )


def refused(result: Result, *said: str) -> None:
    """Exit code 2, one sentence on stderr, nothing on stdout."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    for words in said:
        assert words in result.stderr


# ------------------------------------------------------------------------------- help, version


def test_version() -> None:
    assert run("--version").stdout == f"thalweg {__version__}\n"


@pytest.mark.parametrize("name", ["compare", "methods", "report", "check-optimizer"])
def test_help_has_examples(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert f"thalweg {name}" in result.stdout


def test_help_does_not_load_torch() -> None:
    code = (
        "import sys; sys.argv = ['thalweg', 'compare', '--help']\n"
        "from thalweg.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False False\n")


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digts-mlp"], "did you mean 'digits-mlp'"),
        (["rosenbrock", "adammw"], "did you mean 'AdamW'"),
        (["rosenbrock", "torch.optim:Adamm"], "no 'Adamm'"),
        (["rosenbrock", "torch.optim:SGD[lrr=1]"], "no argument 'lrr'"),
        (["rosenbrock", "torch.optim:SGD[lr=]"], "cannot read"),
        (["not_there.py"], "not_there.py"),
        ([*TWO, "--budget", "3parsecs"], "got '3parsecs'"),
        ([*TWO, "--budget", "0steps"], "budget must"),
        ([*TWO, "--trials", "-1"], "trials must"),
        ([*TWO, "--seeds", "0"], "seeds must"),
        ([*TWO, "--margin", "-1"], "margin must"),
        ([*TWO, "--jobs", "0"], "jobs must"),
        ([*TWO, "--backend", "dusk"], "did you mean 'dask'"),
        ([*TWO, "--reference", "lion"], "reference must"),
        ([*TWO, "--scheduler", "tcp://x:1"], "--scheduler needs --backend"),
        (["--data", "sklearn:wyne"], "--data must be one of"),
        (["--data", "not_there.csv", "--target", "y"], "does not exist"),
        (["--data", "sklearn:wine", "--model", "mpl:3"], "--model must be"),
        (["--data", "sklearn:wine", "--target", "y"], "--target must be"),
        (["my.py", "--data", "sklearn:wine"], "not both"),
        (["--model", "linear"], "--model needs --data"),
        (["--target", "y"], "--target needs --data"),
        (["--init", "--check"], "cannot be given together"),
        (["--init", "a.py", "b.py"], "--init takes one path"),
        (["--init", "problem.txt"], "ends in .py"),
        (["--init", "no/such/folder.py"], "cannot write"),
        (["--check", "digts-mlp"], "did you mean 'digits-mlp'"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], said: str) -> None:
    refused(run("compare", *arguments), said)


def test_a_missing_column_is_named() -> None:
    Path("table.csv").write_text("size,price\n" + "\n".join(f"{i},{i * i}.5" for i in range(40)))
    refused(run("compare", "--data", "table.csv", "--target", "prise"), "did you mean 'price'")
    refused(run("compare", "--data", "table.csv"), "--target must be one of the columns")


def test_an_error_in_the_users_file_shows_its_own_traceback() -> None:
    Path("mine.py").write_text("def problem(seed):\n    return 1 / 0\n")
    result = run("compare", "mine.py", "torch.optim:SGD")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "mine.py" in result.stderr
    assert "return 1 / 0" in result.stderr
    assert "ZeroDivisionError" in result.stderr.splitlines()[-1]
    assert f"{os.sep}thalweg{os.sep}" not in result.stderr


# ------------------------------------------------------------------------------- init and check


def test_init_check_and_race() -> None:
    result = run("compare", "--init")
    assert result.exit_code == 0
    assert "thalweg compare --check problem.py" in result.stdout
    assert "thalweg compare problem.py" in Path("problem.py").read_text()

    result = run("compare", "--check", "problem.py")
    assert result.exit_code == 0
    assert "loss decides, small is good" in result.stdout
    assert "about" in result.stdout

    result = run("compare", "problem.py", "torch.optim:SGD", *SMALL, "--quiet")
    assert result.exit_code == 0


def test_init_never_overwrites() -> None:
    Path("mine.py").write_text("precious")
    refused(run("compare", "--init", "mine.py"), "mine.py exists")
    assert Path("mine.py").read_text() == "precious"


def test_check_finds_a_problem_that_is_not_repeatable() -> None:
    run("compare", "--init", "mine.py")
    text = Path("mine.py").read_text()
    seeded = "torch.manual_seed(seed)"
    assert seeded in text
    Path("mine.py").write_text(text.replace(seeded, "torch.seed()"))
    refused(run("compare", "--check", "mine.py"), "one seed")


def test_check_as_json() -> None:
    found = json.loads(run("compare", "--check", "rosenbrock", "--json").stdout)
    assert found["parameters"] == 2
    assert len(found["losses"]) == 3


# ---------------------------------------------------------------------------------------- races


def test_a_race_ends_with_the_answer_and_the_report() -> None:
    result = run("compare", *TWO, *SMALL, "-o", "race")
    assert result.exit_code == 0
    *progress, report = result.stdout.splitlines()
    assert report == f"Report: {Path('race/report/index.html')}"
    assert Path("race/report/index.html").is_file()
    assert any("torch.optim:Adam, seed 2:" in line for line in progress)
    summary = json.loads(Path("race/summary.json").read_text())
    assert summary["answer"] in result.stdout


def test_quiet_prints_the_answer_and_the_report_only() -> None:
    result = run("compare", "wine-mlp", "torch.optim:Adam[lr=1e-3]", *SMALL, "-q", "-o", "race")
    answer = json.loads(Path("race/summary.json").read_text())["answer"]
    assert result.stdout == f"{answer}\nReport: {Path('race/report/index.html')}\n"


def test_the_first_word_may_be_a_method() -> None:
    run("compare", "torch.optim:SGD", *SMALL, "-o", "race", "-q")
    summary = json.loads(Path("race/summary.json").read_text())
    assert summary["problem"]["name"] == "digits-mlp"
    assert [method["name"] for method in summary["methods"]] == ["torch.optim:SGD"]


def test_a_table_is_a_problem() -> None:
    rows = [f"{i % 7},{i % 3},{2 * (i % 7) - i % 3}.5" for i in range(60)]
    Path("table.csv").write_text("\n".join(["a,b,price", *rows]))
    result = run(
        "compare", "--data", "table.csv", "--target", "price", "--model", "linear",
        "torch.optim:SGD", *SMALL, "--json",
    )  # fmt: skip
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["problem"]["name"] == "table.csv linear"
    assert summary["problem"]["parameters"] == 3


def test_failed_runs_are_told_by_exit_code_3() -> None:
    Path("mine.py").write_text(
        "import torch\n"
        "class Broken(torch.optim.SGD):\n"
        "    def step(self, closure=None):\n"
        "        raise OSError('disk on fire')\n"
    )
    broken = process("compare", "rosenbrock", "mine:Broken", "torch.optim:Adam", *SMALL)
    assert broken.returncode == 3
    assert "failed" in broken.stdout
    assert "disk on fire" in broken.stdout
    assert "Traceback" not in broken.stderr


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_json_is_alone_on_stdout_whatever_the_problem_prints(jobs: str) -> None:
    run("compare", "--init", "loud.py")
    text = Path("loud.py").read_text()
    loud = "import os\nprint('at import', flush=True)\nos.system('echo from a child')\n"
    text = text.replace("import torch\n", f"import torch\n{loud}", 1)
    seeded = "    torch.manual_seed(seed)\n"
    assert loud in text
    assert seeded in text
    Path("loud.py").write_text(text.replace(seeded, f"    print('in problem')\n{seeded}"))
    done = process("compare", "loud.py", "torch.optim:SGD", *SMALL, "--json", "-j", jobs)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == "thalweg.race/1"
    assert "in problem" in done.stderr
    assert "from a child" in done.stderr


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on() -> None:
    arguments = ["compare", *TWO, "--budget", "1000steps", "--trials", "3", "--seeds", "2"]
    arguments += ["-o", "race"]
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        while "1/" not in started.stdout.readline():
            assert started.poll() is None
            time.sleep(0.01)
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=120)
    assert started.returncode == 130
    assert "Interrupted after" in out
    assert "Traceback" not in err
    assert Path("race/report/index.html").is_file()

    done = process(*arguments)
    assert done.returncode == 0
    assert json.loads(Path("race/summary.json").read_text())["progress"]["interrupted"] is False


# ------------------------------------------------------------------------------- other commands


def test_methods_lists_the_catalogue() -> None:
    import thalweg.learn
    import thalweg.nn
    import thalweg.optim
    import thalweg.solve.recovery

    listed = json.loads(run("methods", "--json").stdout)
    names = {method["name"] for method in listed}
    places = (thalweg.optim, thalweg.nn, thalweg.learn, thalweg.solve.recovery)
    assert names <= {name for place in places for name in place.__all__}
    assert {"Adam", "MomentumLSTM", "NormalizedLogisticRegression", "scaled_gradient"} <= names
    solves = {method["name"]: method["problems"] for method in listed}
    assert solves["alternating_minimization"] == ["MatrixCompletion"]
    assert "MatrixSensing" in solves["scaled_gradient"] and solves["Adam"] == []
    table = run("methods").stdout
    for name in names:
        assert name in table
    family = listed[0]["family"]
    some = run("methods", "--family", family.upper()).stdout
    for method in listed:
        assert (f"\n{method['name']} " in some) == (method["family"] == family)


def test_methods_of_an_unknown_family() -> None:
    family = json.loads(run("methods", "--json").stdout)[0]["family"]
    result = run("methods", "--family", f"{family}s")
    refused(result, "--family must be one of", f"did you mean '{family}'")


def test_report_is_built_again() -> None:
    run("compare", *TWO, *SMALL, "-o", "race", "-q")
    page = Path("race/report/index.html")
    before = page.read_text()
    page.unlink()
    assert run("report", "race").stdout == f"{page}\n"
    assert page.read_text() == before
    run("report", "race", "--single-file")
    assert len(page.read_text()) > len(before) + 1_000_000


def test_report_of_what_is_no_race() -> None:
    refused(run("report", "race"), "DIRECTORY must be a run directory")
    Path("race").mkdir()
    refused(run("report", "race"), "no summary.json")
    Path("race/summary.json").write_text('{"schema": "other/1"}')
    refused(run("report", "race"), "thalweg.race/1")


def test_check_optimizer() -> None:
    result = run("check-optimizer", "torch.optim:SGD", "lr=0.1", "momentum=0.9")
    assert result.exit_code == 0
    assert "nothing is broken" in result.stdout


def test_check_optimizer_names_what_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_of_mine.py").write_text(
        "import torch\n"
        "class Broken(torch.optim.SGD):\n"
        "    def step(self, closure=None):\n"
        "        for group in self.param_groups:\n"
        "            for p in group['params']:\n"
        "                if p.grad is not None:\n"
        "                    p.grad.mul_(0.5)\n"
        "        return super().step(closure)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = run("check-optimizer", "broken_of_mine:Broken", "lr=0.1", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert not report["ok"]
    outcome = {finding["clause"]: finding["outcome"] for finding in report["findings"]}
    assert outcome["gradients untouched"] == "fail"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuchmethod"], "unknown method"),
        (["torch.optim:SGD", "lr"], "NAME=VALUE"),
        (["torch.optim:SGD", "lrr=1"], "no argument 'lrr'"),
    ],
)
def test_check_optimizer_bad_input(arguments: list[str], said: str) -> None:
    refused(run("check-optimizer", *arguments), said)
