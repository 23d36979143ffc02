from __future__ import annotations

import hashlib
import platform
import sys
import warnings

import pytest
import torch

from thalweg.data import ChangedDataError, Dataset, load, pydoc_text


def load_quietly(name: str) -> Dataset:
    """Without the warning that the help text of this Python version was never checked."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pydoc-text: the help text")
        return load(name)


def test_the_text_is_the_pinned_one() -> None:
    from pydoc_data.topics import topics

    data = load_quietly("pydoc-text")
    text = "".join(data.class_names[code] for code in data.inputs.tolist())
    text += data.class_names[data.targets[-1]]
    assert len(text) == 400_000
    assert text == "".join(topics[topic] for topic in sorted(topics))[:400_000]
    assert hashlib.sha256(text.encode()).hexdigest() == data.sha256
    assert torch.equal(data.inputs[1:], data.targets[:-1])
    assert list(data.class_names) == sorted(set(text))
    assert data.source == f"Python=={platform.python_version()}"


def test_text_of_an_unknown_python_version_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydoc_text, "KNOWN_TEXTS", {"3.11.0": "0" * 64})
    with pytest.warns(UserWarning, match=r"Python==.*not one of those checked \(Python 3\.11\.0\)"):
        assert load("pydoc-text").kind == "text"


def test_text_of_a_known_python_version_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydoc_text, "KNOWN_TEXTS", {platform.python_version(): "0" * 64})
    with pytest.raises(ChangedDataError, match=f"Python=={platform.python_version()}"):
        load("pydoc-text")


def test_a_known_text_under_another_version_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    known = load_quietly("pydoc-text").sha256
    monkeypatch.setattr(pydoc_text, "KNOWN_TEXTS", {"3.11.0": known})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load("pydoc-text")
    assert [str(warning.message) for warning in told] == []


def test_a_python_without_its_help_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ModuleNotFoundError, match="standard library"):
        load("pydoc-text")
