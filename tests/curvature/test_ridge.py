"""Ridge riding: every well of the small landscapes, followed without a jump."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from thalweg.core.problem import Training
from thalweg.curvature import Objective
from thalweg.curvature.ridge import ridge_riding


def two_wells(x: Tensor) -> Tensor:
    return (x[0] ** 2 - 1) ** 2 + x[1] ** 2


def tree(x: Tensor) -> Tensor:
    return (x[0] ** 2 - 1) ** 2 + (1 + 0.5 * x[0] ** 2) * (x[1] ** 2 - 1) ** 2


def at_zero(f, d: int = 2) -> Training:  # type: ignore[no-untyped-def]
    return Training.from_function(f, torch.zeros(d, dtype=torch.float64))


def signs(points: list[Tensor]) -> set[tuple[int, ...]]:
    return {tuple(round(v) for v in x.tolist()) for x in points}


def test_two_wells_are_exactly_the_two_minima() -> None:
    training = at_zero(two_wells)
    found = ridge_riding(training)
    assert signs([s.x for s in found.solutions]) == {(1, 0), (-1, 0)}
    assert len(found.solutions) == 2 and len(found.rides) == 2 and found.left == 0
    for solution in found.solutions:
        assert float((solution.x.abs() - torch.tensor([1.0, 0.0])).norm()) < 1e-6
        assert solution.converged and solution.loss == pytest.approx(0, abs=1e-12)
    # the curvature 12 x^2 - 4 ends the ride at the inflection
    for ride in found.rides.values():
        assert ride.why == "curvature"
        assert abs(float(ride.x[0])) == pytest.approx(math.sqrt(1 / 3), abs=0.011)
    assert torch.equal(Objective(training).start, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("order", ["breadth-first", "depth-first", "lowest"])
def test_a_tree_of_two_levels_has_all_four_minima(order: str) -> None:
    found = ridge_riding(at_zero(tree), order=order)  # type: ignore[arg-type]
    assert signs([s.x for s in found.solutions]) == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    assert all(s.loss == pytest.approx(0, abs=1e-12) for s in found.solutions)
    assert all(ride.least_overlap >= 0.9 for ride in found.rides.values())
    assert {len(s.fingerprint) for s in found.solutions} == {2}
    assert sum(s.found for s in found.solutions) == 8  # two orders of the two choices


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.5])
def test_the_solutions_do_not_depend_on_the_coordinates(angle: float) -> None:
    c, s = math.cos(angle), math.sin(angle)
    Q = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    found = ridge_riding(at_zero(lambda x: tree(Q @ x)), step=0.05)
    assert signs([Q @ s.x for s in found.solutions]) == {(1, 1), (1, -1), (-1, 1), (-1, -1)}


def test_a_fingerprint_reproduces_its_path_and_depth_bounds_it() -> None:
    first, again = (ridge_riding(at_zero(tree), step=0.02) for _ in range(2))
    assert list(first.rides) == list(again.rides)
    for path, ride in first.rides.items():
        assert torch.equal(ride.x, again.rides[path].x)
    one = ridge_riding(at_zero(tree), depth=1, step=0.05)
    assert {len(path) for path in one.rides} == {1} and len(one.rides) == 4
    few = ridge_riding(at_zero(tree), max_rides=3, step=0.05)
    assert len(few.rides) == 3 and few.left > 0


def test_orbits_of_a_symmetry_are_one_solution() -> None:
    found = ridge_riding(at_zero(tree), canonical=torch.abs, step=0.05)
    assert len(found.solutions) == 1 and found.solutions[0].found == 8


def test_a_tabular_decision_tree_has_one_solution_per_option() -> None:
    """Two players with one policy coordinate on a leaf: a binary tree, four leaves."""

    def f(theta: Tensor) -> Tensor:
        root, left, right = theta.sigmoid()
        leaves = torch.stack(
            [root * left, root * (1 - left), (1 - root) * right, (1 - root) * (1 - right)]
        )
        return -(leaves**2).sum() + 0.002 * (theta**2).sum()

    found = ridge_riding(at_zero(f, 3), branches=1, depth=2, step=0.1)
    chosen = set()
    for solution in found.solutions:
        root, left, right = solution.x.sigmoid().tolist()
        leaves = [root * left, root * (1 - left), (1 - root) * right, (1 - root) * (1 - right)]
        assert max(leaves) > 0.8  # decided
        chosen.add(leaves.index(max(leaves)))
    assert chosen == {0, 1, 2, 3} and len(found.solutions) == 4


def test_large_problems_follow_a_krylov_space() -> None:
    scale = torch.linspace(1, 3, 598, dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        return tree(x[:2]) + (scale * x[2:] ** 2).sum()

    found = ridge_riding(at_zero(f, 600), depth=1, branches=1, step=0.05)
    assert len(found.rides) == 2
    for ride in found.rides.values():
        assert ride.why == "curvature" and ride.least_overlap > 0.9
        assert abs(float(ride.x[1])) == pytest.approx(math.sqrt(1 / 3), abs=0.051)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="must have curvature below -threshold"):
        ridge_riding(at_zero(lambda x: (x**2).sum()))
    with pytest.raises(ValueError, match="step must be > 0, got 0"):
        ridge_riding(at_zero(tree), step=0)
    with pytest.raises(ValueError, match="order must be one of"):
        ridge_riding(at_zero(tree), order="bfs")  # type: ignore[arg-type]
