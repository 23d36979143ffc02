"""The rule of the study of Lion's gain, on rows made by hand."""

from __future__ import annotations

import itertools
import math

import pytest

from thalweg.studies import lion_batch_growth as study
from thalweg.studies.study import Row, Word


def rows(
    slope: float, scatter: float, *, transformer: float | None = None, edge: bool = False
) -> list[Row]:
    """Ten seeds whose slopes per doubling are `slope` plus or minus `scatter`."""
    made: list[Row] = []
    slopes = {"MLP": slope, "transformer": slope if transformer is None else transformer}
    for s, exponent, (model, mean), method in itertools.product(
        range(10), (4, 6, 8), slopes.items(), study.METHODS
    ):
        own = mean + (scatter if s % 2 else -scatter)
        gain = math.exp(own * exponent)
        made.append(
            {
                "model": model,
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
    assert [part.effect for part in found.parts[:2]] == pytest.approx([slope, slope], abs=1e-9)


@pytest.mark.parametrize(
    ("transformer", "word"), [(0.1, Word.HOLDS), (0.0, Word.FAILS), (-0.1, Word.FAILS)]
)
def test_both_models_must_show_it(transformer: float, word: Word) -> None:
    assert study.verdict(rows(0.1, 0.005, transformer=transformer)).word is word


def test_a_learning_rate_at_the_edge_is_inconclusive() -> None:
    assert study.verdict(rows(0.1, 0.02, edge=True)).word is Word.INCONCLUSIVE


def test_a_transformer_is_trained_towards_the_loss_of_the_chain() -> None:
    start, end = (
        study._transformer_losses("AdamW", 0.01, 16, examples, [0], "test")[0]
        for examples in (16, 512)
    )
    assert 0 < end < start - 0.1 < math.log(study.TOKENS)


def test_the_order_of_sequences_is_of_the_seed_alone() -> None:
    alone = study._transformer_losses("Lion", 0.01, 16, 64, [1], "test")
    together = study._transformer_losses("Lion", 0.01, 16, 64, [0, 1], "test")
    assert together[1:] == alone
    assert together[0] != alone[0]


def test_smoke() -> None:
    found = list(study.run("smoke", 0))
    assert len(found) == 2 * 2 * 2 * 3
    parts = study.verdict(found).parts
    assert all(part.interval is not None for part in parts if not part.control)
    assert len(study.figure(found).axes) == 4
