"""The worked example of CONTRIBUTING.md works as it stands there."""

from __future__ import annotations

import doctest
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from thalweg.testing import check_optimizer

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture(scope="module")
def signum(blocks, tmp_path_factory) -> Iterator[ModuleType]:
    file = tmp_path_factory.mktemp("example") / "signum.py"
    file.write_text(blocks[0])
    spec = importlib.util.spec_from_file_location("signum", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["signum"] = module  # where pickle looks for the class
    spec.loader.exec_module(module)
    yield module
    del sys.modules["signum"]


def test_the_example_meets_the_contract(signum):
    check_optimizer(signum.Signum, lr=1e-2).raise_if_failed()


def test_the_docstring_of_the_example_is_true(signum):
    assert doctest.testmod(signum).attempted > 0
    assert doctest.testmod(signum).failed == 0


def test_the_tests_of_the_example_pass(signum, blocks):
    names = {"Signum": signum.Signum}
    exec(blocks[1], names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()
