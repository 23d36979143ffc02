"""A data set in memory, as its package ships it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Kind = Literal["classification", "regression", "text", "ratings"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set as its package ships it: raw units, nothing standardized.

    Parameters
    ----------
    name
        The name `load` knows it by.
    inputs
        float32 of shape (n, features); for text, int64 codes of shape (n,); for ratings, int64 of
        shape (n, 2): the row (who) and the column (what) of each.
    targets
        int64 class numbers of shape (n,), or float32 values of shape (n,); for text, the code of
        the character that follows.
    feature_names, class_names
        One name per column of `inputs` and one per class; for text the classes are the characters,
        for regression there are none.
    kind
        ``"classification"``, ``"regression"``, ``"text"`` or ``"ratings"``.
    description
        What it is, in a sentence.
    source
        ``"package==version"`` it was read from.
    sha256
        Hash of the content (of the numbers, or of the characters as UTF-8), measured on loading.
    """

    name: str
    inputs: Tensor
    targets: Tensor
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    kind: Kind
    description: str
    source: str
    sha256: str

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        return f"Dataset({self.name}: {self.description}; {self.source})"
