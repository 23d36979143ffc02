from __future__ import annotations

import numpy
import pytest

from thalweg.data.shipped import ChangedDataError, content_hash, package_file


def test_one_changed_number_changes_the_hash() -> None:
    numbers = numpy.arange(6.0).reshape(2, 3)
    changed = numbers.copy()
    changed[1, 2] = numpy.nextafter(5.0, 6.0)
    hashes = [content_hash(each) for each in (numbers, changed, numbers.reshape(3, 2))]
    assert len(set(hashes)) == 3
    assert content_hash(numbers.astype(numpy.uint8)) == hashes[0]


def test_a_package_without_the_file_is_an_error() -> None:
    with pytest.raises(ChangedDataError, match=r"sklearn has no file datasets/gone\.csv"):
        package_file("gone", "sklearn", "scikit-learn", "datasets", "gone.csv")
