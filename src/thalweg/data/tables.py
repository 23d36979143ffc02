"""`table`: a CSV file, an array or a data set's name, with a network preset, as a problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from torch import Tensor, nn

from thalweg.core import Training, check
from thalweg.data import datasets
from thalweg.data.csv_file import read_csv
from thalweg.data.models import convolutional, mlp
from thalweg.data.shipped import content_hash
from thalweg.data.splits import split, standardize
from thalweg.data.supervised import Pair, cross_entropy, squared_error, supervised

Kind = Literal["classification", "regression"]

MOST_CLASSES = 20
"""A numeric target is a class when it has at most this many values, all of them integers."""
MOST_WORDS = 100
"""A string column with more different values is refused: it is a name, not a category."""


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """A table as numbers: what `table` trains on. Called with a seed, it gives the `Training`.

    Parameters
    ----------
    name
        How reports call the problem.
    inputs
        float32 of shape (n, features), raw; strings are already one-hot.
    targets
        int64 class numbers or float32 values, of shape (n,).
    scaled
        Which columns of `inputs` are numeric, hence standardized; bool of shape (features,).
    classes
        Names of the classes; empty for regression.
    preset
        The network: ``"linear"``, ``"mlp:64,64"`` or ``"conv"``.
    feature_names
        One name per column of `inputs`.
    """

    name: str
    inputs: Tensor
    targets: Tensor
    scaled: Tensor
    classes: tuple[str, ...]
    preset: str
    feature_names: tuple[str, ...]
    _cache: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """``"classification"`` or ``"regression"``."""
        return "classification" if self.classes else "regression"

    def __call__(self, seed: int) -> Training:
        """The `Training` of one seed; rows are divided 60/20/20, the same for every seed."""
        if not self._cache:
            self._cache["parts"], self._cache["scale"] = self._prepare()
        train = self._cache["parts"][0]
        outputs = len(self.classes) or 1
        return supervised(
            self.name,
            partial(network, self.preset, self.inputs.shape[1], outputs),
            self._cache["parts"],
            seed,
            batch_size=min(64, max(1, len(train[0]) // 4)),
            loss=cross_entropy if self.classes else squared_error,
            scale=self._cache["scale"],
        )

    def _prepare(self) -> tuple[tuple[Pair, Pair, Pair], float | None]:
        train, validation, test = split(
            (self.inputs, self.targets), stratify=self.targets if self.classes else None
        )
        columns = [part[0] for part in (train, validation, test)]
        if self.preset == "conv":
            inputs = standardize(*columns, dim=(0, 1))
        else:
            standardized = standardize(*columns)
            inputs = tuple(
                torch.where(self.scaled, new, old)
                for new, old in zip(standardized, columns, strict=True)
            )
        targets: tuple[Tensor, ...] = (train[1], validation[1], test[1])
        scale = None
        if not self.classes:
            scale = float(train[1].double().std(correction=0))
            targets = standardize(*targets)
        first, second, third = zip(inputs, targets, strict=True)
        return (first, second, third), scale

    @property
    def sha256(self) -> str:
        """Hash of the numbers trained on, so that a race notices when its file has changed."""
        return content_hash(self.inputs.numpy(), self.targets.numpy())

    def __repr__(self) -> str:
        rows, columns = self.inputs.shape
        task = f"{len(self.classes)} classes" if self.classes else "regression"
        return f"Table({self.name}: {rows}x{columns}, {task}; sha256={self.sha256})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}


def table(
    source: str | Path | numpy.ndarray | Tensor,
    target: str | int | None = None,
    preset: str = "mlp:64,64",
    *,
    kind: Kind | None = None,
) -> Table:
    """A table and a network preset as a problem: a picklable callable ``problem(seed)``.

    Numeric columns are standardized with training statistics, string columns become one-hot.
    The target decides the task: strings, or at most 20 different integers, are classes; other
    numbers are regression (the target is standardized; the loss is in units of its variance).

    Parameters
    ----------
    source
        ``"sklearn:wine"`` or the name of a data set of `load`; a CSV file (comma, semicolon or
        tab; the first line names the columns unless all of it is numbers); or an array of
        numbers of shape (n, columns).
    target
        Name of the target column, or its number (negative counts from the end). Required for
        files; default the last column for arrays; not accepted for data sets, which know theirs.
    preset
        ``"linear"``, ``"mlp:64,64"`` (sizes of the hidden layers) or ``"conv"`` (the columns are
        the pixels of a square image). Default ``"mlp:64,64"``.
    kind
        ``"classification"`` or ``"regression"``, to override what the target looks like.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For missing or infinite values, unknown columns, ragged rows, a constant target, a preset
        that does not fit; the message names the column.

    Examples
    --------
    >>> problem = table("sklearn:wine", preset="mlp:16")
    >>> problem.kind, problem(0).batch_loss(next(iter(problem(0).data))).shape
    ('classification', torch.Size([]))
    """
    if kind is not None:
        check.choice("kind", kind, ("classification", "regression"))
    if isinstance(source, numpy.ndarray | Tensor):
        array = numpy.asarray(source)
        if array.ndim != 2 or array.dtype.kind not in "iuf":
            raise ValueError(
                "source must be an array of numbers of shape (n, columns), "
                f"got {array.dtype} of shape {array.shape}"
            )
        header = [f"column {number}" for number in range(array.shape[1])]
        made = _from_columns(
            "table", header, list(array.T.astype(float)), -1 if target is None else target, kind
        )
    elif str(source).startswith("sklearn:") or str(source) in datasets.names():
        made = _from_dataset(str(source), target, kind)
    else:
        path = Path(source)
        header, columns = read_csv(path)
        if target is None:
            raise ValueError(f"target must be one of the columns {_listed(header)}, got None")
        made = _from_columns(path.name, header, columns, target, kind)
    name, inputs, targets, scaled, classes, features = made
    problem = Table(f"{name} {preset}", inputs, targets, scaled, classes, preset, features)
    problem(0)  # what does not fit together shows here rather than in a worker
    return problem


def network(preset: str, features: int, outputs: int) -> nn.Module:
    """The network of a preset: ``"linear"``, ``"mlp:64,64"`` or ``"conv"``.

    Examples
    --------
    >>> network("mlp:64", features=13, outputs=3)(torch.zeros(2, 13)).shape
    torch.Size([2, 3])
    """
    accepted = "preset must be 'linear', 'mlp:64,64' (any hidden sizes) or 'conv'"
    word, _, sizes = preset.partition(":")
    if word == "linear" and not sizes:
        return mlp((features, outputs))
    if word == "mlp":
        hidden = [int(size) if size.strip().isdigit() else 0 for size in sizes.split(",")]
        if min(hidden) < 1:
            raise ValueError(f"{accepted}, got {preset!r}")
        return mlp((features, *hidden, outputs))
    if word == "conv" and not sizes:
        side = math.isqrt(features)
        if side * side != features or side < 4:
            raise ValueError(
                "preset 'conv' needs the pixels of a square image of at least 4x4, "
                f"got {features} columns"
            )
        return convolutional(side, outputs)
    raise ValueError(
        f"{accepted}, got {preset!r}{check.did_you_mean(word, ('linear', 'mlp', 'conv'))}"
    )


# --------------------------------------------------------------------------------- the sources

_Made = tuple[str, Tensor, Tensor, Tensor, tuple[str, ...], tuple[str, ...]]


def _from_dataset(source: str, target: str | int | None, kind: Kind | None) -> _Made:
    name = source.removeprefix("sklearn:")
    accepted = [each for each in datasets.names() if each not in ("pydoc-text", "movielens")]
    if source.startswith("sklearn:"):
        accepted.remove("mnist5k")
    check.choice("source", name, accepted)
    if target is not None:
        raise ValueError(f"target must be None for the data set {name}, got {target!r}")
    data = datasets.load(name)
    if kind is not None and kind != data.kind:
        raise ValueError(f"kind must be {data.kind!r} for the data set {name}, got {kind!r}")
    scaled = torch.ones(data.inputs.shape[1], dtype=torch.bool)
    return name, data.inputs, data.targets, scaled, data.class_names, data.feature_names


def _from_columns(
    name: str,
    header: Sequence[str],
    columns: Sequence[numpy.ndarray],
    target: str | int,
    kind: Kind | None,
) -> _Made:
    chosen = _position(target, header)
    if len(columns) < 2:
        raise ValueError(f"source must have a target and at least one more column, got {header}")
    blocks: list[Tensor] = []
    scaled: list[bool] = []
    names: list[str] = []
    for number, (title, column) in enumerate(zip(header, columns, strict=True)):
        if column.dtype.kind == "f" and not numpy.isfinite(column).all():
            row = int(numpy.flatnonzero(~numpy.isfinite(column))[0])
            raise ValueError(
                f"column {title!r} must be finite, got {column[row]} in row {row}; "
                "fill in or drop such rows before the race"
            )
        if number == chosen:
            continue
        if column.dtype.kind == "f":
            blocks.append(torch.tensor(column, dtype=torch.float32)[:, None])
            scaled.append(True)
            names.append(title)
        else:
            words, codes = numpy.unique(column, return_inverse=True)
            if len(words) > MOST_WORDS:
                raise ValueError(
                    f"column {title!r} must have at most {MOST_WORDS} different strings, "
                    f"got {len(words)}; drop it if it is a name or an identifier"
                )
            blocks.append(torch.eye(len(words))[torch.tensor(codes)])
            scaled += [False] * len(words)
            names += [f"{title}={word}" for word in words]
    targets, classes = _targets(header[chosen], columns[chosen], kind)
    return name, torch.cat(blocks, 1), targets, torch.tensor(scaled), classes, tuple(names)


def _targets(
    title: str, column: numpy.ndarray, kind: Kind | None
) -> tuple[Tensor, tuple[str, ...]]:
    values, codes = numpy.unique(column, return_inverse=True)
    if len(values) < 2:
        raise ValueError(f"target {title!r} must have at least two values, got only {values[0]!r}")
    strings = column.dtype.kind != "f"
    if kind is None:
        kind = "classification" if strings or _few_integers(values, column) else "regression"
    if kind == "regression":
        if strings:
            raise ValueError(f"target {title!r} must be numeric for regression, got strings")
        return torch.tensor(column, dtype=torch.float32), ()
    if len(values) > len(column) // 2:
        raise ValueError(
            f"target {title!r} must have classes with at least two rows on average, "
            f"got {len(values)} classes in {len(column)} rows"
        )
    labels = tuple(str(value) if strings else f"{value:g}" for value in values)
    return torch.tensor(codes, dtype=torch.int64), labels


def _few_integers(values: numpy.ndarray, column: numpy.ndarray) -> bool:
    return len(values) <= min(MOST_CLASSES, len(column) // 2) and bool((values % 1 == 0).all())


def _position(target: str | int, header: Sequence[str]) -> int:
    if isinstance(target, str):
        if target not in header:
            raise ValueError(
                f"target must be one of the columns {_listed(header)}, "
                f"got {target!r}{check.did_you_mean(target, header)}"
            )
        return list(header).index(target)
    check.number("target", target, ge=-len(header), lt=len(header), integer=True)
    return int(target) % len(header)


def _listed(header: Sequence[str]) -> str:
    shown = ", ".join(repr(title) for title in header[:12])
    return shown if len(header) <= 12 else f"{shown}, ... ({len(header)} in all)"
