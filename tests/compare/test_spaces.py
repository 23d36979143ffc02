from __future__ import annotations

import pytest
import torch

from thalweg.compare.catalogues import entries
from thalweg.compare.spaces import describe_axis, search_space
from thalweg.core.catalogue import Choice, LogUniform, OneMinusLogUniform


def test_a_foreign_class_of_our_name_gets_our_space() -> None:
    ours = {entry.name: entry.search_space for entry in entries()}
    assert ours["AdamW"]
    assert search_space(torch.optim.AdamW) == ours["AdamW"]


def test_axes_are_described() -> None:
    described = describe_axis("lr", LogUniform(1e-4, 1.0))
    assert described["kind"] == "log" and described["values"] is None
    assert described["low"] == pytest.approx(1e-4) and described["high"] == pytest.approx(1.0)
    momentum = describe_axis("m", OneMinusLogUniform(1e-2, 1.0))
    assert momentum["low"] == pytest.approx(0.0) and momentum["high"] == pytest.approx(0.99)
    assert describe_axis("c", Choice((1, "b")))["values"] == [1, "b"]
