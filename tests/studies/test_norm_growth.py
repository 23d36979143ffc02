"""The rule of the study of growing norms, on rows made by hand."""

from __future__ import annotations

import pytest

from thalweg.studies import norm_growth as study
from thalweg.studies.study import Row, Word


def rows(sgd: float, momentum: float, sgdp: float, *, exception: bool = False) -> list[Row]:
    made: list[Row] = []
    for s in range(8):
        values = {"SGD": sgd, "momentum": momentum, "SGDP": sgdp}
        if exception and s == 0:  # one seed the other way round
            values |= {"SGD": momentum, "momentum": sgd}
        for method, growth in values.items():
            grown = growth + 0.001 * s
            made.append(
                {"lr": 0.1, "seed": s, "method": method, "growth": grown, "test_accuracy": 0.97}
            )
    # another learning rate says nothing about the claim
    return made + [{**r, "lr": 0.03, "growth": 1.0} for r in made]


@pytest.mark.parametrize(
    ("growths", "exception", "word"),
    [
        ((1.3, 1.4, 1.1), False, Word.HOLDS),
        ((1.4, 1.3, 1.1), False, Word.FAILS),
        ((1.3, 1.4, 1.5), False, Word.FAILS),
        ((1.3, 1.4, 1.1), True, Word.INCONCLUSIVE),
    ],
)
def test_the_word_follows_the_order_on_every_seed(
    growths: tuple[float, float, float], exception: bool, word: Word
) -> None:
    assert study.verdict(rows(*growths, exception=exception)).word is word


def test_the_output_does_not_feel_the_length_of_the_weights() -> None:
    import torch

    model = study.network()
    x = torch.rand(16, 64, generator=torch.Generator().manual_seed(0))
    before = model(x)
    with torch.no_grad():
        for w in study.scale_invariant(model):
            w.mul_(10.0)
    assert torch.allclose(model(x), before, atol=1e-2)
    assert len(study.scale_invariant(model)) == 3


def test_smoke() -> None:
    found = [row() if callable(row) else row for row in study.run("smoke", 0)]
    assert len(found) == 3 * 2
    assert all(r["growth_0"] == 1 for r in found)
    growth = {r["method"]: r["growth"] for r in found if r["seed"] == 0}
    assert growth["SGDP"] < growth["momentum"]  # a wide margin at any scale
    assert study.verdict(found).parts
    assert study.figure(found).axes
