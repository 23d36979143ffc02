"""The rule of the study of shifted labels, on rows made by hand."""

from __future__ import annotations

import pytest
import torch

from thalweg.studies import shifted_digits as study
from thalweg.studies.study import Row, Word


def rows(ratio: float, *, edge: str = "", censored: int = 0) -> list[Row]:
    """Ten seeds on which EGDD takes about `ratio` times the steps of constant SGD."""
    made: list[Row] = []
    for s in range(10):
        for method in study.METHODS:
            steps = 100.0 * (1 + 0.02 * (s - 4.5))
            if method == "EGDD":
                steps = 100.0 * ratio
            made.append(
                {
                    "method": method, "seed": s, "lr": 0.03, "edge": method == edge,
                    "steps": steps, "censored": method == "constant" and s < censored,
                }
            )  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(0.8), Word.HOLDS),
        (rows(1.25), Word.FAILS),
        (rows(1.0), Word.INCONCLUSIVE),
        (rows(0.8, edge="EGDD"), Word.INCONCLUSIVE),
        (rows(0.8, edge="cosine"), Word.HOLDS),  # cosine decay is reported only
        (rows(0.8, censored=5), Word.HOLDS),
        (rows(0.8, censored=6), Word.INCONCLUSIVE),
    ],
)
def test_the_word_follows_the_ratio_of_steps(made: list[Row], word: Word) -> None:
    assert study.verdict(made).word is word


def test_each_seed_permutes_the_labels_in_its_own_way() -> None:
    targets = torch.arange(10).repeat(3)
    found = study._permuted(targets, [0, 1])
    assert not torch.equal(found[0], found[1])
    for own in found:
        assert sorted(own[:10].tolist()) == list(range(10))
        assert torch.equal(own[:10], own[10:20])


def test_smoke() -> None:
    found = list(study.run("smoke", 0))
    assert len(found) == 3 * 2
    for r in found:  # the shift is felt: what was learned is wrong then
        assert r["accuracy_0"] < 0.5 < r["before"]
    assert study.verdict(found).parts
    assert study.figure(found).axes
