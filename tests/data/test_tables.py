from __future__ import annotations

import pickle
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn

from thalweg.data import load, split, table
from thalweg.data.tables import network

ROWS = 40


def write(path: Path, columns: dict[str, list[object]], delimiter: str = ",") -> Path:
    lines = [delimiter.join(columns)]
    lines += [delimiter.join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def columns() -> dict[str, list[object]]:
    generator = numpy.random.default_rng(0)
    return {
        "length": [round(value, 3) for value in generator.normal(5, 2, ROWS)],
        "colour": [("red", "green", "blue")[k % 3] for k in range(ROWS)],
        "species": [("cat", "dog")[k % 2] for k in range(ROWS)],
        "grade": [k % 4 + 1 for k in range(ROWS)],
        "price": [round(value, 3) for value in generator.normal(100, 20, ROWS)],
    }


def train_rows(problem: object) -> torch.Tensor:
    return problem(0).data.tensors[0]


def test_a_string_target_is_a_classification(tmp_path: Path, columns: dict) -> None:
    problem = table(write(tmp_path / "pets.csv", columns), "species", "mlp:8")
    assert problem.kind == "classification" and problem.classes == ("cat", "dog")
    assert problem.name == "pets.csv mlp:8"
    assert problem.feature_names == (
        *("length", "colour=blue", "colour=green", "colour=red", "grade", "price"),
    )
    training = problem(0)
    assert list(training.measure("test")) == ["loss", "error"]
    assert training.model(training.evaluate.test[0]).shape == (8, 2)


def test_strings_become_one_hot_and_numbers_are_standardized(tmp_path: Path, columns: dict) -> None:
    problem = table(write(tmp_path / "pets.csv", columns), "species", "linear")
    raw = problem.inputs
    assert torch.equal(raw[:, 0], torch.tensor(columns["length"]).float())
    assert [problem.feature_names[1 + k] for k in raw[:, 1:4].argmax(1).tolist()] == [
        f"colour={colour}" for colour in columns["colour"]
    ]
    train = train_rows(problem)
    assert set(train[:, 1:4].unique().tolist()) == {0.0, 1.0}
    assert (train[:, 1:4].sum(1) == 1).all()
    for k in (0, 4, 5):
        assert train[:, k].mean().abs() < 1e-6
        torch.testing.assert_close(train[:, k].std(correction=0), torch.tensor(1.0))


def test_few_integers_are_classes_unless_told_otherwise(tmp_path: Path, columns: dict) -> None:
    path = write(tmp_path / "t.csv", columns)
    problem = table(path, "grade")
    assert problem.classes == ("1", "2", "3", "4")
    assert problem.targets.tolist() == [grade - 1 for grade in columns["grade"]]
    told = table(path, "grade", kind="regression")
    assert told.kind == "regression" and told.targets.tolist() == columns["grade"]


def test_other_numbers_are_a_regression(tmp_path: Path, columns: dict) -> None:
    problem = table(write(tmp_path / "t.csv", columns), "price", "linear")
    assert problem.kind == "regression" and problem.classes == ()
    training = problem(0)
    target = training.data.tensors[1]
    assert target.mean().abs() < 1e-6
    torch.testing.assert_close(target.std(correction=0), torch.tensor(1.0))
    inputs, answer = training.evaluate.test
    with torch.no_grad():
        error = (training.model(inputs).squeeze(-1) - answer).pow(2).mean().sqrt()
    measured = training.measure("test")
    assert measured["loss"] == pytest.approx(float(error) ** 2, rel=1e-5)
    (train_price,), _, _ = split((problem.targets,))
    unit = float(train_price.std(correction=0))
    assert measured["error"] == pytest.approx(float(error) * unit, rel=1e-5)


def test_many_integers_are_a_regression(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"x": list(range(60)), "y": list(range(60))})
    assert table(path, "y").kind == "regression"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters(tmp_path: Path, columns: dict, delimiter: str) -> None:
    comma = table(write(tmp_path / "a.csv", columns), "species")
    other = table(write(tmp_path / "b.csv", columns, delimiter), "species")
    assert torch.equal(comma.inputs, other.inputs) and torch.equal(comma.targets, other.targets)


def test_quotes_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    body = "".join(f'{k}.5, "a, {k % 2}", {k % 2}\r\n' for k in range(20))
    path.write_bytes(b"\xef\xbb\xbf" + f"x,word,y\r\n{body}\r\n".encode())
    problem = table(path, "y")
    assert problem.feature_names == ("x", "word=a, 0", "word=a, 1") and len(problem.inputs) == 20


def test_a_file_without_header_is_addressed_by_number(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("".join(f"{k * 0.5},{k % 2},{k}\n" for k in range(20)))
    problem = table(path, -2)
    assert problem.feature_names == ("column 0", "column 2") and len(problem.inputs) == 20
    assert table(path, 1).feature_names == problem.feature_names


@pytest.mark.parametrize("missing", ["", "NA", "nan", "null", "?", " "])
def test_missing_values_are_refused_with_column_and_line(
    tmp_path: Path, columns: dict, missing: str
) -> None:
    columns["length"][3] = missing
    columns["length"][7] = missing
    path = write(tmp_path / "t.csv", columns)
    with pytest.raises(ValueError, match=r"'length' must have no missing .*got 2 .*line 5\)"):
        table(path, "species")


def test_missing_values_of_the_target_are_refused(tmp_path: Path, columns: dict) -> None:
    columns["species"][0] = ""
    with pytest.raises(ValueError, match="'species' must have no missing values, got 1"):
        table(write(tmp_path / "t.csv", columns), "species")


def test_infinite_values_are_refused(tmp_path: Path, columns: dict) -> None:
    columns["length"][3] = "inf"
    with pytest.raises(ValueError, match="'length' must be finite, got inf in row 3"):
        table(write(tmp_path / "t.csv", columns), "species")
    with pytest.raises(ValueError, match="'column 0' must be finite, got nan in row 0"):
        table(numpy.array([[numpy.nan, 1.0], [1.0, 2.0]]))


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("a,b\n1,2\n3\n", "b", r"line 3 of t.csv must have 2 cells, got 1"),
        ("a,a,b\n1,2,3\n", "b", r"column names must differ, got 'a' twice"),
        ("a,b\n", "b", "rows below its header"),
        ("", "b", "the empty file"),
        ("b\n1\n2\n", "b", "a target and at least one more column"),
        ("a,b\n1,2\n3,2\n", "b", r"target 'b' must have at least two values, got only"),
        ("a,b\n1,x\n3,y\n", "b", r"got 2 classes in 2 rows"),
        ("a,prise\n1,2\n", "price", r"'a', 'prise', got 'price' \(did you mean 'prise'\?\)"),
        ("a,b\n1,2\n", 2, r"target must be an integer in \[-2, 2\), got 2"),
        ("a,b\n1,2\n", None, "target must be one of the columns 'a', 'b', got None"),
    ],
)
def test_bad_files_are_named(
    tmp_path: Path, text: str, target: str | int | None, message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        table(path, target)


@pytest.mark.parametrize("content", [b"a,b\n\xff\xfe,1\n", b"a,b\n" + b"x" * 200_000 + b",1\n"])
def test_what_is_no_csv_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"source must be a CSV file in UTF-8, got .*t\.csv"):
        table(path, "b")


def test_the_text_form_changes_with_any_number(tmp_path: Path, columns: dict) -> None:
    first = table(write(tmp_path / "t.csv", columns), "species")
    again = table(write(tmp_path / "t.csv", columns), "species")
    columns["price"][ROWS // 2] += 0.001
    changed = table(write(tmp_path / "t.csv", columns), "species")
    assert repr(first) == repr(again) != repr(changed)
    assert repr(first) != repr(table(tmp_path / "t.csv", "species", "linear"))
    assert repr(first).startswith("Table(t.csv mlp:64,64: 40x6, 2 classes; sha256=")


def test_identifiers_are_refused(tmp_path: Path) -> None:
    words = [f"name{k}" for k in range(120)]
    path = write(tmp_path / "t.csv", {"id": words, "y": [k % 2 for k in range(120)]})
    with pytest.raises(ValueError, match="'id' must have at most 100 different strings, got 120"):
        table(path, "y")


def test_regression_on_strings_is_refused(tmp_path: Path, columns: dict) -> None:
    with pytest.raises(ValueError, match="'species' must be numeric for regression"):
        table(write(tmp_path / "t.csv", columns), "species", kind="regression")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match=r"got 'wien' \(did you mean 'wine'\?\)"):
        table("wien")


@pytest.mark.parametrize("source", ["sklearn:wine", "wine"])
def test_a_data_set_knows_its_target(source: str) -> None:
    problem = table(source, preset="mlp:16")
    data = load("wine")
    assert torch.equal(problem.inputs, data.inputs) and problem.classes == data.class_names
    assert problem(0).batch_loss(next(iter(problem(0).data))).item() > 0
    with pytest.raises(ValueError, match="target must be None for the data set wine, got 'x'"):
        table(source, "x")
    with pytest.raises(ValueError, match="kind must be 'classification' for the data set wine"):
        table(source, kind="regression")


def test_unknown_data_sets() -> None:
    with pytest.raises(ValueError, match=r"'breast_cancer'.*did you mean 'wine'"):
        table("sklearn:wien")
    with pytest.raises(ValueError, match="got 'mnist5k'"):
        table("sklearn:mnist5k")
    with pytest.raises(ValueError, match="got 'pydoc-text'"):
        table("pydoc-text")


def test_arrays() -> None:
    generator = numpy.random.default_rng(1)
    array = generator.normal(size=(30, 4))
    problem = table(array)
    assert problem.kind == "regression" and problem.inputs.shape == (30, 3)
    assert torch.equal(table(torch.tensor(array), 3).inputs, problem.inputs)
    assert torch.equal(table(array, 0).inputs[:, 0], torch.tensor(array[:, 1]).float())
    with pytest.raises(ValueError, match=r"got float64 of shape \(30,\)"):
        table(array[:, 0])


@pytest.mark.parametrize(
    ("preset", "linear"), [("linear", [(16, 3)]), ("mlp:8,5", [(16, 8), (8, 5), (5, 3)])]
)
def test_presets(preset: str, linear: list[tuple[int, int]]) -> None:
    layers = [m for m in network(preset, 16, 3).modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == linear


@pytest.mark.parametrize("side", [4, 8, 28])
def test_the_conv_preset(side: int) -> None:
    assert network("conv", side * side, 3)(torch.zeros(2, side * side)).shape == (2, 3)


def test_conv_on_digits_standardizes_the_image_as_a_whole() -> None:
    problem = table("digits", preset="conv")
    train = train_rows(problem)
    assert train.mean().abs() < 1e-5 and train.std(0).min() == 0


@pytest.mark.parametrize("preset", ["mpl:64", "mlp", "mlp:", "mlp:64,0", "mlp:a", "linear:3", ""])
def test_bad_presets_are_named(preset: str) -> None:
    with pytest.raises(ValueError, match=f"preset must be 'linear', 'mlp:64,64'.*got '{preset}'"):
        table("wine", preset=preset)


def test_conv_needs_a_square() -> None:
    with pytest.raises(ValueError, match="square image of at least 4x4, got 13 columns"):
        table("wine", preset="conv")


def test_one_seed_one_run_and_the_same_split_for_all() -> None:
    problem = table("wine", preset="mlp:8")
    copy = pickle.loads(pickle.dumps(problem))
    before = torch.get_rng_state()
    first, again, other = problem(1), copy(1), problem(2)
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for (a, _), (b, _) in zip(first.data, again.data, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.model[0].weight, other.model[0].weight)
    assert torch.equal(first.data.tensors[0], other.data.tensors[0])
    assert torch.equal(first.evaluate.test[1], other.evaluate.test[1])


def test_a_tiny_table_still_has_three_parts() -> None:
    with pytest.raises(ValueError, match="no part empty"):
        table(numpy.array([[0.5, 1.5], [1.0, 2.25]]))
