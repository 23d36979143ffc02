from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from thalweg import Training
from thalweg.compare import BadInput, check_problem
from thalweg.compare.problems import load

HEAD = """
import torch
from torch import nn
from thalweg import Training
mse = nn.functional.mse_loss
x, y = torch.ones(4, 2), torch.zeros(4, 1)
"""


def bowl(seed: int) -> Training:
    return Training.from_function(lambda x: (x**2).sum(), torch.randn(3), name="bowl")


def test_the_package_is_the_verb() -> None:
    """Whichever way it was imported first, `thalweg.compare(...)` races."""
    code = """
import importlib, inspect, sys
import torch
for first in ("thalweg", "thalweg.compare", "thalweg.compare.statistics"):
    for name in [name for name in sys.modules if name.split(".")[0] == "thalweg"]:
        del sys.modules[name]
    importlib.import_module(first)
    import thalweg
    for _ in range(2):
        assert "budget" in inspect.signature(thalweg.compare).parameters
        try:
            thalweg.compare("no", ["no"])
            raise SystemExit("no error")
        except ValueError as error:
            assert str(error).startswith("unknown method 'no'")
    from thalweg import compare
    import thalweg.compare
    assert callable(compare) and callable(thalweg.compare)
    assert issubclass(thalweg.compare.BadInput, ValueError)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_import_is_cheap() -> None:
    code = (
        "import sys, thalweg.compare; "
        "print([m for m in ('plotly', 'scipy', 'joblib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_function() -> None:
    loaded = load(bowl)
    assert loaded.name == "bowl" and loaded.source is None
    assert loaded.facts["parameters"] == 3 and loaded.facts["metric"] == "loss"
    assert not loaded.facts["has_test"]


def test_a_builtin_and_the_default() -> None:
    pytest.importorskip("thalweg.data.problems")
    assert load("rosenbrock").facts["parameters"] == 2
    assert load(None, inspect_it=False).name == "digits-mlp"


def test_a_file(line: str) -> None:
    loaded = load(line)
    assert loaded.name == "line" and loaded.source == line
    assert loaded.facts["has_test"] and loaded.facts["title"] == "line"
    assert load(f"{line}:problem").hash == loaded.hash


def test_the_hash_follows_the_text(line: str) -> None:
    before = load(line).hash
    assert load(line).hash == before
    Path(line).write_text(Path(line).read_text().replace("0.3", "0.4"))
    assert load(line).hash != before


def test_the_hash_follows_what_a_closure_holds() -> None:
    def make(scale: float) -> Callable[[int], Training]:
        def scaled(seed: int) -> Training:
            return Training.from_function(lambda x: scale * (x**2).sum(), torch.randn(3))

        return scaled

    assert load(make(1.0)).hash == load(make(1.0)).hash
    assert load(make(1.0)).hash != load(make(2.0)).hash


def test_a_file_imports_from_its_folder(write_problem: Callable[..., str]) -> None:
    write_problem("WIDTH = 5", "sizes_beside.py")
    path = write_problem(
        HEAD + "import sizes_beside\ndef problem(seed):\n"
        "    return Training(nn.Linear(2, 1), mse, [(x, y)] * sizes_beside.WIDTH)"
    )
    assert len(load(path)(0).data) == 5  # type: ignore[arg-type]


def test_a_module(
    write_problem: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_problem(
        HEAD + "def task(seed):\n    return Training(nn.Linear(2, 1), mse, [(x, y)])", "tasks.py"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load("tasks:task").name == "task"
    with pytest.raises(BadInput, match="did you mean 'task'"):
        load("tasks:tusk")
    with pytest.raises(BadInput, match="cannot import the problem") as caught:
        load("no_such_module_here:task")
    assert caught.value.traceback is None


BROKEN = {
    "no function": ("def train(seed): ...", "has no function 'problem'.*it defines train"),
    "syntax": ("def problem(seed:", "raised SyntaxError"),
    "raises on import": ("1 / 0", "raised ZeroDivisionError"),
    "raises": ("def problem(seed):\n    return [][seed]", r"problem\(0\)|line\(0\).*IndexError"),
    "not a training": (
        "def problem(seed):\n    return 3",
        "must return a thalweg.Training.*got int",
    ),
    "not finite": (
        "def problem(seed):\n"
        "    return Training(nn.Linear(2, 1), lambda o, t: mse(o, t) / 0, [(x, y)])",
        "loss of the first batch is inf",
    ),
    "loss raises": (
        "def problem(seed):\n    return Training(nn.Linear(3, 1), mse, [(x, y)])",
        "loss of the first batch raised RuntimeError",
    ),
    "no gradient": (
        "def problem(seed):\n"
        "    return Training(nn.Linear(2, 1), lambda o, t: mse(o.detach(), t), [(x, y)])",
        "depends on the parameters",
    ),
    "no data": (
        "def problem(seed):\n    return Training(nn.Linear(2, 1), mse, [])",
        "at least one batch",
    ),
    "unseeded": (
        "import os\ndef problem(seed):\n"
        "    torch.manual_seed(int.from_bytes(os.urandom(4), 'little'))\n"
        "    return Training(nn.Linear(2, 1), mse, [(x, y)])",
        "two calls with one seed",
    ),
    "evaluate raises": (
        "def problem(seed):\n"
        "    return Training(nn.Linear(2, 1), mse, [(x, y)], evaluate=lambda m, s: {'a': 1 / 0})",
        r"evaluate\(model, 'validation'\) raised ZeroDivisionError",
    ),
    "metric unknown": (
        "def problem(seed):\n"
        "    return Training(nn.Linear(2, 1), mse, [(x, y)], lambda m, s: {'a': 1.0}, metric='b')",
        "metric must be one of",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_errors_in_the_users_file(case: str, write_problem: Callable[..., str]) -> None:
    text, told = BROKEN[case]
    with pytest.raises(BadInput, match=told) as caught:
        load(write_problem(HEAD + text))
    assert "\n" not in str(caught.value)
    trace = caught.value.traceback
    if "raises" in case:
        assert (
            trace is not None and "/thalweg/compare/" not in trace and "/thalweg/core/" not in trace
        )
    if case in ("raises", "raises on import", "evaluate raises"):
        assert trace is not None and "line.py" in trace


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        ("no-such-problem", "unknown problem 'no-such-problem'"),
        ("digit-mlp", "did you mean 'digits-mlp'"),
        ("no/such/file.py", "cannot read the problem file"),
        (3, "got 3"),
    ],
)
def test_not_a_problem(problem: object, told: str) -> None:
    if "did you mean" in told:
        pytest.importorskip("thalweg.data.problems")
    with pytest.raises(BadInput, match=told):
        load(problem)  # type: ignore[arg-type]


def test_one_training_is_not_a_problem() -> None:
    with pytest.raises(BadInput, match="got one Training"):
        load(bowl(0))  # type: ignore[arg-type]


def test_check_problem(line: str) -> None:
    found = check_problem(line)
    assert len(found["losses"]) == 3 and found["test"]["loss"] > 0
    assert found["race_seconds"] > 0
    assert torch.rand(1).numel() == 1


def test_check_problem_leaves_the_random_generators_alone(line: str) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_problem(line)
    assert torch.equal(torch.rand(2), expected)


GUILTY = {
    "writes a parameter": ("model.weight.data.mul_(0.5)", "evaluate changes the model"),
    "leaves train mode": ("model.train()", None),  # Training.measure puts the mode back
    "advances the batches": ("next(iter(data))", "losses of three steps change"),
}


@pytest.mark.parametrize("case", GUILTY)
def test_check_problem_finds_an_evaluation_that_changes_something(
    case: str, write_problem: Callable[..., str]
) -> None:
    deed, told = GUILTY[case]
    path = write_problem(
        HEAD
        + f"""
class Shuffled:
    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
    def __iter__(self):
        for row in torch.randperm(4, generator=self.generator):
            yield torch.full((1, 2), float(row)), y[:1]

def problem(seed):
    data = Shuffled(seed)
    def evaluate(model, split):
        {deed}
        return {{"loss": 1.0}}
    return Training(nn.Linear(2, 1), mse, data, evaluate)
"""
    )
    if told is None:
        check_problem(path)
    else:
        with pytest.raises(BadInput, match=told):
            check_problem(path)
