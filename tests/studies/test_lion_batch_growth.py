"""The rule of the study of Lion's gain, on rows made by hand."""

from __future__ import annotations

import math

import pytest

from thalweg.studies import lion_batch_growth as study
from thalweg.studies.study import Row, Word


def rows(slope: float, scatter: float, *, edge: bool = False) -> list[Row]:
    """Ten seeds whose slopes per doubling are `slope` plus or minus `scatter`."""
    made: list[Row] = []
    for s in range(10):
        own = slope + (scatter if s % 2 else -scatter)
        for exponent in (4, 6, 8):
            for method in study.METHODS:
                gain = math.exp(own * exponent)
                made.append(
                    {
                        "batch": 2**exponent,
                        "method": method,
                        "seed": s,
                        "lr": 0.01,
                        "edge": edge and method == "Lion",
                        "test_loss": 0.1 * (gain if method == "AdamW" else 1.0),
                    }
                )
    return made


@pytest.mark.parametrize(
    ("slope", "scatter", "word"),
    [
        (0.1, 0.02, Word.HOLDS),
        (0.01, 0.005, Word.HOLDS),  # clear, though tiny
        (-0.1, 0.02, Word.FAILS),
        (0.0, 0.005, Word.FAILS),  # no more than 2 % per doubling
        (0.02, 0.2, Word.INCONCLUSIVE),
    ],
)
def test_the_word_follows_the_interval_of_the_slope(
    slope: float, scatter: float, word: Word
) -> None:
    found = study.verdict(rows(slope, scatter))
    assert found.word is word
    assert found.parts[0].effect == pytest.approx(slope, abs=1e-9)


def test_a_learning_rate_at_the_edge_is_inconclusive() -> None:
    assert study.verdict(rows(0.1, 0.02, edge=True)).word is Word.INCONCLUSIVE


def test_smoke() -> None:
    found = list(study.run("smoke", 0))
    assert len(found) == 2 * 2 * 3
    assert study.verdict(found).parts[0].interval is not None
    assert study.figure(found).axes
