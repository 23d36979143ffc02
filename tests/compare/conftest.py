"""Problems and methods for races that take a blink."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LINE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from thalweg import Training


def problem(seed):
    rows = torch.Generator().manual_seed(7)
    x = torch.randn(32, 3, generator=rows)
    y = x.sum(1, keepdim=True) + 0.3 * torch.randn(32, 1, generator=rows)
    data = DataLoader(TensorDataset(x[:24], y[:24]), batch_size=8, shuffle=True)
    held_out = {"validation": slice(24, 28), "test": slice(28, 32)}

    def evaluate(model, split):
        part = held_out[split]
        return {"loss": nn.functional.mse_loss(model(x[part]), y[part]).item()}

    return Training(nn.Linear(3, 1), nn.functional.mse_loss, data, evaluate, name="line")
"""

METHODS = """
import torch


class Plain(torch.optim.Optimizer):
    \"\"\"Gradient descent.\"\"\"

    def __init__(self, params, lr=0.05):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad


class Ascends(Plain):
    \"\"\"Goes up.\"\"\"

    def __init__(self, params, lr=-10.0):
        super().__init__(params, lr)

    search_space = {}


class Raises(Plain):
    search_space = {}

    def step(self, closure=None):
        raise RuntimeError("no way down\\nsecond line")


class Noisy(Plain):
    search_space = {}

    def __init__(self, params, lr=0.05, generator=None):
        super().__init__(params, lr)
        self.generator = generator

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.grad += 0.1 * torch.randn(p.shape, generator=self.generator)
        torch.rand(3)  # draws from everybody's generator, too
        super().step()


class Averages(Plain):
    \"\"\"Evaluated at the average of its points.\"\"\"

    search_space = {}

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr)
        self.calls = []
        self.training = True

    def train(self):
        assert not self.training or not self.calls
        self.training = True
        self.calls.append("train")

    def eval(self):
        assert self.training
        self.training = False
        self.calls.append("eval")

    def step(self, closure=None):
        assert self.training
        super().step()


class Twice(Plain):
    \"\"\"Evaluates its closure twice a step.\"\"\"

    search_space = {}

    def step(self, closure):
        closure()
        loss = closure()
        super().step()
        return loss


class AutoTuned(Plain):
    search_space = {}
"""


@pytest.fixture
def write_problem(tmp_path: Path) -> Callable[..., str]:
    """Write a problem file; its path."""

    def write(text: str, name: str = "line.py") -> str:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


@pytest.fixture
def line(write_problem: Callable[..., str]) -> str:
    """Path of a small regression with batches in random order, and a test split."""
    return write_problem(LINE)


@pytest.fixture
def odd_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module of methods: good, diverging, raising, noisy, averaging, with closure."""
    import sys

    (tmp_path / "odd_methods.py").write_text(METHODS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "odd_methods", raising=False)
    return "odd_methods"


@pytest.fixture(autouse=True)
def _nothing_is_inspected_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a race is inspected unasked depends on times: a test that wants it says so."""
    monkeypatch.setattr("thalweg.compare.ending.SHARE", 0.0)


TIMES = {
    "seconds", "evaluation_seconds", "compile_seconds", "job_seconds", "ms_per_step",
    "ratio_to_fused_adamw",
    "created", "jobs", "backend", "command",
}  # fmt: skip


@pytest.fixture
def timeless() -> Callable[[Any], Any]:
    """Take out of a summary what may differ between two races that are the same."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in TIMES}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return strip


@pytest.fixture
def losses() -> Callable[[Path], dict[str, Any]]:
    """All numbers of all runs of a race directory, times excepted: id to lines."""

    def read(directory: Path) -> dict[str, Any]:
        return {
            path.name: [
                {k: v for k, v in json.loads(line).items() if k not in TIMES}
                for line in path.read_text().splitlines()
            ]
            for path in sorted((Path(directory) / "runs").iterdir())
        }

    return read
