"""The rule of the study of directional sharpness, its curvature, and rows made by hand."""

from __future__ import annotations

import itertools

import pytest
import torch

from thalweg.studies import adam_directional as study
from thalweg.studies.study import Row, Word


def rows(
    adam: float, clipped: float, *, negative: int = 0, edge: bool = False, worst: float = 1.0
) -> list[Row]:
    """Ten seeds; ratios of sharpness about as given, times `worst` in one cell."""
    made: list[Row] = []
    for path, step, s in itertools.product(study.PATHS, (10, 100, 300), range(10)):
        scatter = 1 + 0.02 * (s - 4.5)
        one = worst if (path, step) == ("SGD", 300) else 1.0
        sharpness = {
            "gradient": 2.0 * scatter,
            "Adam": -1.0 if s < negative or step == 10 else 2.0 / (adam * one),
            "clipped": 2.0 / clipped,
        }
        for direction, value in sharpness.items():
            made.append(
                {
                    "model": "transformer", "path": path, "lr": 0.1, "edge": edge, "seed": s,
                    "step": step, "early": step == 10, "direction": direction,
                    "sharpness": value, "slope": 0.1, "last_loss": 2.0,
                }
            )  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(4.0, 1.5), Word.HOLDS),
        (rows(4.0, 1.5, worst=0.25), Word.FAILS),  # one cell below 2 refutes
        (rows(4.0, 0.8), Word.FAILS),  # clipping sharpens
        (rows(2.0, 1.5), Word.INCONCLUSIVE),
        (rows(4.0, 1.5, negative=1), Word.HOLDS),
        (rows(4.0, 1.5, negative=2), Word.INCONCLUSIVE),  # no logarithm on two seeds
        (rows(4.0, 1.5, edge=True), Word.INCONCLUSIVE),
    ],
)
def test_the_word_follows_the_cells(made: list[Row], word: Word) -> None:
    assert study.verdict(made).word is word


def test_sharpness_and_slope_of_a_quadratic() -> None:
    h = torch.tensor([1000.0] + [1.0] * 99, dtype=torch.float64)
    x = torch.ones(100, dtype=torch.float64, requires_grad=True)
    gradient, sign = study.directional_sharpness(
        lambda: 0.5 * (h * x * x).sum(), [x], [[h.clone()], [h.sign()]]
    )
    assert gradient.sharpness == pytest.approx(999.9, abs=0.01)
    assert sign.sharpness == pytest.approx(10.99, abs=1e-9)
    assert sign.slope == pytest.approx(1099 / 10)
    assert sign.slope**2 / (2 * sign.sharpness) == pytest.approx(549.5)


def test_the_corpus_follows_its_chain() -> None:
    tokens = study.corpus(400, seed=1)
    assert tokens.shape == (400, study.LENGTH + 1)
    assert torch.equal(tokens, study.corpus(400, seed=1))
    chain = study._chain()
    assert torch.allclose(chain.sum(1), torch.ones(study.TOKENS))
    taken = chain[tokens[:, :-1], tokens[:, 1:]].log().mean()
    uniform = chain.log().mean()
    assert taken > uniform + 1.0


def test_both_trajectories_start_alike_and_see_the_same_batches() -> None:
    one, two = (study.Trajectory("transformer", 3, seed=5) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(one.params, two.params, strict=True))
    assert torch.equal(one.loss(2).detach(), two.loss(2).detach())


def test_smoke() -> None:
    found = [row() for row in study.run("smoke", 0)]
    assert len(found) == 2 * 2 * 3 * 3
    assert study.verdict(found).parts
    assert study.figure(found).axes
