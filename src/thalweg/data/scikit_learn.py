"""The data sets of scikit-learn: digits, tumours, wines and patients."""

from __future__ import annotations

from pathlib import Path

import numpy
import torch

from thalweg.data.dataset import Dataset
from thalweg.data.shipped import SHA256, checked, content_hash, package_file, source_of


def _sklearn_file(name: str, file: str) -> Path:
    return package_file(name, "sklearn", "scikit-learn", "datasets", "data", file)


def _classes(
    name: str,
    numbers: numpy.ndarray,
    feature_names: tuple[str, ...],
    class_names: tuple[str, ...],
    description: str,
) -> Dataset:
    source = source_of("scikit-learn")
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
        sha256=checked(name, source, content_hash(inputs, targets), SHA256[name]),
    )


def digits() -> Dataset:
    """1797 handwritten digits."""
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


def breast_cancer() -> Dataset:
    """569 tumours, benign or malign."""
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


def wine() -> Dataset:
    """178 wines of three cultivars."""
    numbers, class_names = _with_class_names("wine", "wine_data.csv")
    features = (
        *("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols"),
        *("flavanoids", "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue"),
        *("od280/od315_of_diluted_wines", "proline"),
    )
    description = "178 Italian wines, 13 chemical measurements, 3 cultivars"
    return _classes("wine", numbers, features, class_names, description)


def diabetes() -> Dataset:
    """442 patients, in the raw units."""
    inputs = numpy.loadtxt(_sklearn_file("diabetes", "diabetes_data_raw.csv.gz"))
    targets = numpy.loadtxt(_sklearn_file("diabetes", "diabetes_target.csv.gz"))
    source = source_of("scikit-learn")
    return Dataset(
        name="diabetes",
        inputs=torch.tensor(inputs, dtype=torch.float32),
        targets=torch.tensor(targets, dtype=torch.float32),
        feature_names=("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"),
        class_names=(),
        kind="regression",
        description="442 patients, 10 measurements, progression of diabetes after one year",
        source=source,
        sha256=checked("diabetes", source, content_hash(inputs, targets), SHA256["diabetes"]),
    )
