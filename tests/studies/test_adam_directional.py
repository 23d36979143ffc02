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


@pytest.mark.parametrize("model", ["transformer", "MLP"])
def test_what_is_measured_is_that_of_the_batch(model: str) -> None:
    run = study.Trajectory(model, 2, seed=3)
    v = [torch.randn_like(p) for p in run.params]
    (along,) = run.along(1, [v])
    # the fast kernels of attention have no second derivative
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        g = torch.autograd.grad(run.loss(1), run.params, create_graph=True)
    slope = torch.stack([(a * b).sum() for a, b in zip(g, v, strict=True)]).sum()
    hv, slope = torch.autograd.grad(slope, run.params), slope.detach()
    square = float(sum((a * a).sum() for a in v))
    curvature = float(sum((a * b).sum() for a, b in zip(v, hv, strict=True)))
    assert along.slope / along.norm == pytest.approx(float(slope) / square**0.5, rel=1e-4)
    assert along.sharpness == pytest.approx(curvature / square, rel=1e-4)


def test_both_trajectories_start_alike_and_see_the_same_batches() -> None:
    one, two = (study.Trajectory("transformer", 3, seed=5) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(one.params, two.params, strict=True))
    assert torch.equal(one.loss(2).detach(), two.loss(2).detach())


def test_smoke() -> None:
    found = [row() for row in study.run("smoke", 0)]
    assert len(found) == 2 * 2 * 3 * 3
    assert study.verdict(found).parts
    assert study.figure(found).axes
