"""check_optimizer as a function: it disturbs nothing, selects clauses, reports clearly."""

from __future__ import annotations

import io
import random
import warnings

import numpy
import pytest
import torch
from rich.console import Console

from thalweg.testing import CLAUSES, check_optimizer


class Loud(torch.optim.SGD):
    """Prints, warns and draws from the global generator."""

    def step(self, closure=None):
        print("step [3/8]")
        warnings.warn("loud", stacklevel=1)
        torch.rand(3)
        return super().step(closure)


class Broken(torch.optim.SGD):
    def step(self, closure=None):
        raise ArithmeticError("[bold]no[/bold] step")


def test_leaves_everything_as_found(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(5)
    random.seed(5)
    numpy.random.seed(5)  # noqa: NPY002
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()

    def draws() -> list[float]:
        return [torch.rand(()).item(), random.random(), numpy.random.rand()]  # noqa: NPY002

    states = torch.get_rng_state(), random.getstate(), numpy.random.get_state()  # noqa: NPY002
    expected = draws()
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    numpy.random.set_state(states[2])  # noqa: NPY002
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert check_optimizer(Loud).ok
        assert not torch.is_grad_enabled()
    assert not caught
    assert draws() == expected
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
    assert capfd.readouterr() == ("", "")


def test_does_not_depend_on_the_default_dtype() -> None:
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert check_optimizer(torch.optim.AdamW).ok
    finally:
        torch.set_default_dtype(before)


def test_clauses_are_selected_by_name_in_the_order_of_the_contract() -> None:
    report = check_optimizer(torch.optim.SGD, checks=("maximize", "closure", "trains"))
    assert [f.clause for f in report] == ["trains", "maximize", "closure"]
    names = [f.clause for f in check_optimizer(torch.optim.SGD)]
    assert names == [clause.name for clause in CLAUSES if clause.when == "always"]
    with pytest.raises(ValueError, match=r"'closur' \(did you mean 'closure'\?\)"):
        check_optimizer(torch.optim.SGD, checks=("closur",))


def test_a_wrong_keyword_is_the_callers_error() -> None:
    with pytest.raises(TypeError, match="momentun"):
        check_optimizer(torch.optim.SGD, momentun=0.9)


def test_a_class_that_cannot_step_fails_once_and_says_why() -> None:
    report = check_optimizer(Broken, lr=0.5)
    assert report.failed == ("trains",)
    assert {f.outcome for f in report if f.clause != "trains"} == {"not applicable"}
    with pytest.raises(AssertionError, match=r"Broken\(lr=0.5\) fails 1 of .*\n  trains: .*no\[/b"):
        report.raise_if_failed()


def test_a_class_that_cannot_be_built_fails_with_its_own_words() -> None:
    report = check_optimizer(torch.optim.SGD, nesterov=True)
    assert report.failed == ("trains",)
    assert "Nesterov momentum requires a momentum" in report["trains"].detail


def test_the_table_shows_every_clause_and_takes_details_literally() -> None:
    console = Console(record=True, width=400, file=io.StringIO())
    report = check_optimizer(Broken)
    console.print(report.table())
    text = console.export_text()
    assert all(clause.name in text for clause in CLAUSES if clause.when == "always")
    assert "[bold]no[/bold] step" in text


def test_an_unknown_clause_of_a_report_is_a_key_error() -> None:
    report = check_optimizer(torch.optim.SGD, checks=("closure",))
    with pytest.raises(KeyError, match="no clause 'memory'"):
        report["memory"]
