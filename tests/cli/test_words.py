"""Which word is the problem."""

from __future__ import annotations

from pathlib import Path

import pytest

from thalweg.cli.words import split
from thalweg.compare import BadInput


@pytest.mark.parametrize(
    ("words", "problem", "methods"),
    [
        ([], None, []),
        (["wine-mlp"], "wine-mlp", []),
        (["wine-mlp", "adamw", "torch.optim:SGD"], "wine-mlp", ["adamw", "torch.optim:SGD"]),
        (["adamw", "adam"], None, ["adamw", "adam"]),
        (["AdamW"], None, ["AdamW"]),
        (["adamw[lr=1e-3]"], None, ["adamw[lr=1e-3]"]),
        (["torch.optim:SGD[lr=1]", "adam"], None, ["torch.optim:SGD[lr=1]", "adam"]),
        (["my.py", "adam"], "my.py", ["adam"]),
        (["dir/my.py:harder"], "dir/my.py:harder", []),
        (["torch.optim:SGD", "adam"], None, ["torch.optim:SGD", "adam"]),
        (["thalweg.data.problems:wine_mlp", "adam"], "thalweg.data.problems:wine_mlp", ["adam"]),
        (["not_there:problem"], "not_there:problem", []),
        (["not_there:MyOptimizer"], None, ["not_there:MyOptimizer"]),
    ],
)
def test_split(words: list[str], problem: str | None, methods: list[str]) -> None:
    assert split(words) == (problem, methods)


def test_a_class_without_steps_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "classes_of_mine.py").write_text(
        "class Problem:\n    def __call__(self, seed): ...\n"
        "class optimizer:\n    def step(self): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert split(["classes_of_mine:Problem"]) == ("classes_of_mine:Problem", [])
    assert split(["classes_of_mine:optimizer"]) == (None, ["classes_of_mine:optimizer"])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("digts-mlp", r"did you mean 'digits-mlp'"),
        ("adammw", r"did you mean 'AdamW'"),
        ("table.csv", r"--data table\.csv --target COLUMN"),
        ("momentumlstm", r"thalweg.nn.MomentumLSTM, which is not an optimizer: it cannot race"),
        ("", r"'' is neither a problem nor a method"),
    ],
)
def test_neither(word: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        split([word])
