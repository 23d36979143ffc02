"""The worked example of "Write a solver in twenty minutes" works as it stands there."""

from __future__ import annotations

import doctest
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from thalweg.core import Result
from thalweg.core.catalogue import entry
from thalweg.solve.recovery import MatrixCompletion

TEXT = (Path(__file__).parents[2] / "docs" / "tutorials" / "write-a-solver.md").read_text()


@pytest.fixture(scope="module")
def blocks():
    return re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture(scope="module")
def example(blocks, tmp_path_factory):
    file = tmp_path_factory.mktemp("example") / "steepest.py"
    file.write_text(blocks[0])
    spec = importlib.util.spec_from_file_location("steepest", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["steepest"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["steepest"]


def test_the_docstring_of_the_example_is_true(example):
    assert doctest.testmod(example).attempted > 0
    assert doctest.testmod(example).failed == 0


def test_the_tests_of_the_example_pass(example, blocks):
    names = dict(vars(example))
    exec(blocks[1], names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_example_declares_itself_and_solves(example):
    assert entry(example.alternating_steepest_descent).year == 2016
    problem = MatrixCompletion.random(
        (60, 50), 2, 0.6, 2.0, generator=torch.Generator().manual_seed(3)
    )
    result = example.alternating_steepest_descent(problem, tol=1e-11)
    assert isinstance(result, Result)
    assert result.converged
    assert problem.error(result.x) < 1e-9
