"""Python's own help text, character by character."""

from __future__ import annotations

import hashlib
import platform
import warnings

import torch

from thalweg.data.dataset import Dataset
from thalweg.data.shipped import ChangedDataError, checked

_CHARACTERS = 400_000


# The text changes even between patch releases: SHA-256 by the version of Python.
KNOWN_TEXTS = {
    "3.11.2": "9018d48d39b53a75366eb9f794a1240e322ff2c5f1c7bced26848131e4901e12",
    "3.11.7": "98a5bf0349e0b7e750364b05a550b9a71418a46e0ddb90aa9f145c03d86b2c7c",
    "3.12.1": "43fc7a9cb96d6a3870e870ee9dae9c67dd80293a41baf9db237d9ae90f9d330f",
    "3.13.0": "05dcc7b0dfcb5008fd1997860bec02e4bc87b401ef0b57a07f1c745e67b712df",
}


def pydoc_text() -> Dataset:
    """The first 400 000 characters of all help topics, in alphabetical order of their names."""
    try:
        from pydoc_data.topics import topics
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "pydoc-text ships with Python's standard library (pydoc_data.topics), "
            "which this Python lacks; install the full standard library",
            name="pydoc_data",
        ) from None
    text = "".join(topics[topic] for topic in sorted(topics))[:_CHARACTERS]
    version = platform.python_version()
    source = f"Python=={version}"
    if len(text) < _CHARACTERS:
        raise ChangedDataError(
            f"pydoc-text: the help text of {source} has {len(text)} characters, "
            f"expected at least {_CHARACTERS}"
        )
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if version in KNOWN_TEXTS:
        checked("pydoc-text", source, sha256, KNOWN_TEXTS[version])
    elif sha256 not in KNOWN_TEXTS.values():
        warnings.warn(
            f"pydoc-text: the help text of {source} (SHA-256 {sha256[:12]}...) is not one of those "
            f"checked (Python {', '.join(KNOWN_TEXTS)}); compare results on it only between "
            "machines with the same sha256",
            stacklevel=3,
        )
    vocabulary = tuple(sorted(set(text)))
    code = {character: number for number, character in enumerate(vocabulary)}
    codes = torch.tensor([code[character] for character in text], dtype=torch.int64)
    return Dataset(
        name="pydoc-text",
        inputs=codes[:-1],
        targets=codes[1:],
        feature_names=("character",),
        class_names=vocabulary,
        kind="text",
        description="Python's help topics, English prose and code, the first 400 000 characters",
        source=source,
        sha256=sha256,
    )
