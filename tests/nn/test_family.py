"""The docstrings of the layers are complete, though their parts are written once."""

from __future__ import annotations

import inspect

import pytest

import thalweg.nn
from thalweg.core.catalogue import collect
from thalweg.nn.family import SHARED
from thalweg.nn.recurrent import LayerOptions, RecurrentLayer

LAYERS = [e.target for e in collect(thalweg.nn)]


@pytest.mark.parametrize("layer_class", LAYERS)
def test_help_names_every_argument_and_every_section(layer_class: type[RecurrentLayer]) -> None:
    doc = inspect.getdoc(layer_class) or ""
    parameters = doc.split("Parameters\n----------\n")[1].split("\n\n")[0]
    named = [
        name.strip("* ")
        for line in parameters.splitlines()
        if not line.startswith(" ")
        for name in line.split(", ")
    ]
    assert named == list(inspect.signature(layer_class).parameters)
    for option in LayerOptions.__annotations__:
        assert f"`{option}`" in parameters
    for section in (".. math::", "Returns", "The state is (h", "Raises", "Examples", "References"):
        assert section in doc
    assert "%(" not in doc


def test_every_shared_part_is_used() -> None:
    docs = [inspect.getdoc(layer_class) or "" for layer_class in LAYERS]
    for text in SHARED.values():
        assert sum(text.strip() in doc for doc in docs) > 1
