"""``thalweg solve``, as a shell sees it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from typer.testing import CliRunner, Result

from thalweg.cli.app import app
from thalweg.solve.files import read_arrays
from thalweg.solve.recovery import BlindDeconvolution, MatrixCompletion, PhaseRetrieval, RobustPCA
from thalweg.solve.tasks import completion


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["solve", *arguments])


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("thalweg: ") and result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def ratings(path: str = "ratings.csv", header: str = "user,item,value") -> MatrixCompletion:
    problem = MatrixCompletion.random((40, 30), 2, 0.6, 2.0, generator=seeded())
    entries = zip(
        problem.rows.tolist(), problem.cols.tolist(), problem.values.tolist(), strict=True
    )
    lines = [f"u{i},film {j},{value:.17g}" for i, j, value in entries]
    Path(path).write_text("\n".join([header, *lines]) + "\n")
    return problem


def predictions(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------------------- completion


def test_completion_predicts_the_pairs_of_a_file() -> None:
    problem = ratings()
    truth = problem.truth.dense()  # type: ignore[union-attr]
    Path("pairs.csv").write_text("item,user\nfilm 3,u7\nfilm 0,u39\n")
    result = run(
        "completion", "ratings.csv", "--rank", "2", "--predict", "pairs.csv", "-o", "p.csv"
    )
    assert result.exit_code == 0, result.output
    assert "alternating_minimization reached a relative residual of" in result.stdout
    assert "Answer: p.csv\nPage: solve-completion-ratings/index.html" in result.stdout
    first, second = predictions("p.csv")
    assert (first["user"], first["item"], second["user"]) == ("u7", "film 3", "u39")
    assert float(first["value"]) == pytest.approx(truth[7, 3].item(), rel=1e-4)
    assert float(second["value"]) == pytest.approx(truth[39, 0].item(), rel=1e-4)
    assert not Path("solve-completion-ratings/point.safetensors").exists()  # it has converged


def test_completion_judges_by_what_is_held_out() -> None:
    ratings("films.csv", "userId,movieId,rating")
    result = run(
        "completion", "films.csv", "--rank", "2", "--hold-out", "0.1", "-o", "p.csv", "--json",
        "--method", "scaled_gradient", "--columns", "userId,movieId,rating",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["method"] == "scaled_gradient" and found["converged"] is True
    numbers = found["numbers"]
    assert numbers["RMSE on what was held out"] < 1e-3 * numbers["RMSE of the mean"]
    seen = Path("films.csv").read_text().count("\n") - 1
    assert len(predictions("p.csv")) == pytest.approx(0.1 * seen, abs=1)
    assert len(found["spectrum"]) == 2 and Path(found["report"]).exists()


def test_no_row_or_column_loses_its_last_entries_to_the_held_out() -> None:
    """Where a row holds `rank` entries or fewer, none of them is taken."""
    problem = ratings()
    task = completion(Path("ratings.csv"), rank=2, hold_out=0.75)
    for kept, whole in (
        (task.problem.rows, problem.rows), (task.problem.cols, problem.cols)
    ):  # fmt: skip
        assert len(torch.bincount(kept)) == len(torch.bincount(whole))
        assert torch.bincount(kept).min() >= 2
    assert task.held_out is not None
    assert len(task.held_out[2]) + len(task.problem.values) == len(problem.values)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("user,item,value\na,b,1\na,c,five\n", "line 3, column 'value': must be a finite number"),
        ("user,item,value\na,b,1\na,c,nan\n", "line 3, column 'value': must be a finite number"),
        ("user,item,value\na,b,1\na,b,2\n", "line 3: user 'a' and item 'b' come twice"),
        ("user,item,value\na,b,1\n,c,2\n", "line 3, column 'user': must not be empty"),
        ("user,item,value\na,b,1\na,c\n", "line 3: must have 3 cells"),
        ("user,item,value\n", "must have lines below its header"),
        ("", "must have a header"),
        ("1,2,3\n", "line 1: must be a header"),
        ("user,item\na,b\n", "must have 3 different columns"),
    ],
)
def test_a_csv_error_names_file_line_and_column(text: str, told: str) -> None:
    Path("bad.csv").write_text(text)
    refused(run("completion", "bad.csv", "--rank", "1"), "bad.csv", told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["complete", "r.csv"], "did you mean 'completion'"),
        (["completion", "r.csv"], "needs --rank"),
        (["completion", "nowhere.csv", "--rank", "2"], "nowhere.csv does not exist"),
        (["completion", "r.csv", "--rank", "2", "-o", "p.csv"], "give --predict FILE"),
        (["completion", "r.csv", "--rank", "2", "-o", "p.npy"], "must end in .csv"),
        (["completion", "r.csv", "--rank", "99"], "in [1, 30], got 99"),
        (["completion", "r.csv", "--rank", "2", "--alpha", "0.2"], "--alpha is for robust-pca"),
        (["completion", "r.csv", "--rank", "2", "--columns", "user,film,value"], "no column 'film"),
        (["completion", "r.csv", "--rank", "2", "--method", "adamw"], "optimizer of networks"),
        (["completion", "r.csv", "--rank", "2", "--tol", "-1"], "tol must be >= 0, got -1"),
        (["phase-retrieval", "r.csv"], "r.csv must end in .npz"),
        (["phase-retrieval", "r.csv", "--rank", "2"], "--rank is for completion and robust-pca"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], told: str) -> None:
    ratings("r.csv")
    refused(run(*arguments), told)


def test_an_unknown_name_to_predict_is_told_before_the_run() -> None:
    ratings()
    Path("pairs.csv").write_text("user,item\nu7,film 33\n")
    result = run(
        "completion", "ratings.csv", "--rank", "2", "--predict", "pairs.csv", "-o", "p.csv"
    )
    refused(result, "pairs.csv, line 2, column 'item': nothing was seen of 'film 33'")
    assert not Path("solve-completion-ratings").exists()


# ------------------------------------------------------------------------------ other families


def test_robust_pca() -> None:
    problem = RobustPCA.random((50, 40), 2, 0.05, generator=seeded())
    numpy.save("matrix.npy", problem.Y.numpy())
    assert run("robust-pca", "matrix.npy", "--rank", "2", "-o", "parts.npz").exit_code == 0
    parts = read_arrays("parts.npz")
    truth = problem.truth.dense()  # type: ignore[union-attr]
    assert (parts["low_rank"] - truth).norm() < 1e-6 * truth.norm()
    assert torch.allclose(parts["low_rank"] + parts["sparse"], problem.Y, atol=1e-6)
    page = Path("solve-robust-pca-matrix/index.html").read_text()
    assert page.count("data:image/png;base64,") == 3


def test_a_picture() -> None:
    import matplotlib.image

    picture = numpy.outer(numpy.linspace(0.2, 0.8, 24), numpy.linspace(0.3, 1.0, 20))
    picture[3, 5], picture[17, 11] = 1.0, 0.0
    matplotlib.image.imsave("picture.png", picture, cmap="gray", vmin=0, vmax=1)
    result = run(
        "robust-pca", "picture.png", "--rank", "1", "--alpha", "0.06", "-o", "clean.png",
        "--max-steps", "200",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert matplotlib.image.imread("clean.png").shape[:2] == (24, 20)


def test_phase_retrieval() -> None:
    problem = PhaseRetrieval.random_coded((8, 8), 8, generator=seeded())
    arrays = {"masks": problem.operator.masks, "y": problem.y, "truth": problem.truth}  # type: ignore[attr-defined]
    numpy.savez("m.npz", **{name: array.numpy() for name, array in arrays.items()})
    result = run("phase-retrieval", "m.npz", "-o", "signal.npy", "--json")
    found = json.loads(result.stdout)
    assert found["numbers"]["relative error"] < 1e-8
    signal = torch.from_numpy(numpy.load("signal.npy"))
    assert problem.error(signal).item() < 1e-8


def test_deconvolution() -> None:
    problem = BlindDeconvolution.random(1, 100, 8, 6, generator=seeded())
    assert isinstance(problem.A, torch.Tensor)
    numpy.savez("d.npz", y=problem.y.numpy(), A=problem.A.numpy(), K=8)
    assert run("deconvolution", "d.npz", "-o", "parts.npz").exit_code == 0
    parts = read_arrays("parts.npz")
    found = torch.outer(parts["kernel"], parts["signal"].conj())
    truth = problem.truth.dense()[0]  # type: ignore[union-attr]
    assert (found - truth).norm() < 1e-6 * truth.norm()


def test_pickles_are_refused() -> None:
    numpy.save("objects.npy", numpy.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(run("robust-pca", "objects.npy", "--rank", "1"), "objects.npy", "array of numbers")


def test_an_entry_that_is_not_finite_is_named() -> None:
    matrix = numpy.ones((4, 5))
    matrix[2, 3] = numpy.inf
    numpy.save("matrix.npy", matrix)
    refused(run("robust-pca", "matrix.npy", "--rank", "1"), "matrix.npy must be finite", "[2, 3]")


# ------------------------------------------------------------------------------------ resuming

SLOW: tuple[str, ...] = ("--method", "gradient_descent[step_size=0.05]", "--tol", "0", "--json")


def test_a_run_cut_short_goes_on() -> None:
    """Two runs of 20 iterations are one of 40, and a changed file begins anew."""
    ratings()
    base = ("completion", "ratings.csv", "--rank", "2", *SLOW)

    def found(*more: str) -> dict[str, Any]:
        result = run(*base, *more)
        assert result.exit_code == 0, result.output
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    first = found("--max-steps", "20")
    assert first["cut_short"] and "max_steps" in first["reason"] and first["steps"] == 20
    second = found("--max-steps", "40")
    assert second["resumed"] == 20 and second["steps"] == 40
    whole = found("--max-steps", "40", "--directory", "whole")
    a, b = (f["numbers"]["relative residual"] for f in (second, whole))
    assert a < first["numbers"]["relative residual"]
    # the step is scaled by the start, which a resumed run takes anew: nearly, not bitwise
    assert a == pytest.approx(b, rel=0.2)
    again = found("--max-steps", "40")
    assert again["steps"] == 40 and again["numbers"] == second["numbers"]
    lines = Path("ratings.csv").read_text().splitlines()
    Path("ratings.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert found("--max-steps", "10")["resumed"] == 0
