"""Hyper-parameters as they are written on the command line."""

from __future__ import annotations

import pytest

from thalweg.cli.check_optimizer import parsed
from thalweg.compare import BadInput


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
