"""The stacked saddles, and the rule of their study on rows made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from thalweg.studies import saddle_escape as study
from thalweg.studies.study import Row, Word


def rows(
    *, gd: str = "exponential", pgd: str = "power", ratio: float = 30.0, spread: float = 0.0,
    exact: bool = True, arrived: bool = True,
) -> list[Row]:  # fmt: skip
    grows = {"exponential": lambda d: 3.0 * 4**d, "power": lambda d: 10.0 * d**1.5}
    made: list[Row] = []
    for s in range(10):
        for d in range(1, 7):
            for method, kind in (("GD", gd), ("PGD", pgd)):
                steps = grows[kind](d) * (1 + 0.01 * s)
                made.append({"L": 1.0, "d": d, "method": method, "seed": s, "steps": steps,
                             "exact": True, "arrived": True})  # fmt: skip
        for method, steps in (("GD", 200.0 * ratio * math.exp(spread * (s - 4.5))), ("PGD", 200.0)):
            made.append({"L": 3.0, "d": 5, "method": method, "seed": s, "steps": steps,
                         "exact": exact or method == "PGD", "arrived": arrived})  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(spread=0.01), Word.HOLDS),
        (rows(spread=0.01, exact=False), Word.HOLDS),
        (rows(gd="power"), Word.FAILS),
        (rows(pgd="exponential"), Word.FAILS),
        (rows(ratio=10.0, spread=0.01), Word.FAILS),
        (rows(ratio=10.0, spread=0.01, exact=False), Word.INCONCLUSIVE),  # at least 10 times
        (rows(ratio=21.0, spread=0.3), Word.INCONCLUSIVE),
        (rows(arrived=False), Word.INCONCLUSIVE),
    ],
)
def test_the_words(made: list[Row], word: Word) -> None:
    assert study.verdict(made).word is word


@pytest.mark.parametrize("L", [1.0, 3.0])
@pytest.mark.parametrize("edge", [study.TAU, 2 * study.TAU])
def test_the_parts_join_with_two_derivatives(L: float, edge: float) -> None:
    def derivatives(y: float) -> list[float]:
        x = torch.tensor([4 * study.TAU, y, 0.3, 0.2], dtype=torch.float64, requires_grad=True)
        f = study.stacked_saddles(x, L)
        (g,) = torch.autograd.grad(f, x, create_graph=True)
        (h,) = torch.autograd.grad(g[1], x)
        return [float(f.detach()), *g.tolist(), *h.tolist()]

    assert derivatives(edge - 1e-7) == pytest.approx(derivatives(edge + 1e-7), abs=1e-4)


def test_each_part_ends_below_the_one_before() -> None:
    tau = study.TAU
    wells = [torch.tensor([4 * tau] * i + [0.0] * (4 - i), dtype=torch.float64) for i in range(5)]
    values = [float(study.stacked_saddles(x, 2.0)) for x in wells]
    assert values == pytest.approx([-i * study.drop(2.0) for i in range(5)])
    assert study.drop(2.0) > 0
    minimum = wells[-1].requires_grad_()
    H = torch.autograd.functional.hessian(lambda x: study.stacked_saddles(x, 2.0), minimum)
    assert torch.allclose(H, 4 * torch.eye(4, dtype=torch.float64))


def test_what_is_left_of_a_vanished_coordinate_is_a_lower_bound() -> None:
    starts = torch.tensor([[1e-299], [1e-301]], dtype=torch.float64)
    (counted, exact), (bound, bounded_exact) = study.gradient_descent(starts, 1.0)
    assert exact and not bounded_exact
    assert bound - 20 < counted < bound  # one grows from just above, the other from just below


def test_smoke() -> None:
    found = [row() if callable(row) else row for row in study.run("smoke", 0)]
    assert len(found) == 2 * 2 * 4
    ratio = [r["steps"] for r in found if r["L"] == study.COMPARED]
    assert min(ratio[:2]) > 5 * max(ratio[2:])  # a wide margin at any scale
    assert study.verdict(found).parts
    assert study.figure(found).axes
