"""Constraints of the adaptive methods: what is refused, what is projected, in which metric."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from thalweg.numeric import Box, Halfspace, L1Ball, L2Ball, Simplex
from thalweg.optim import AcceleGrad, AdaGrad, AMSGrad, RMSProp
from thalweg.optim.engine.batches import SMALL

DOUBLE = torch.float64
Make = Callable[..., torch.optim.Optimizer]

METHODS: dict[str, Make] = {
    "AdaGrad": lambda params, **o: AdaGrad(params, lr=0.3, **o),
    "RMSProp": lambda params, **o: RMSProp(params, lr=0.03, **o),
    "RMSProp centered, momentum": lambda params, **o: RMSProp(
        params, lr=0.03, centered=True, momentum=0.5, **o
    ),
    "AMSGrad": lambda params, **o: AMSGrad(params, lr=0.3, **o),
    "AcceleGrad": lambda params, **o: AcceleGrad(params, diameter=4.0, **o),
}
PROJECTING = [name for name in METHODS if name != "AcceleGrad"]  # it projects z, not x

SETS = {
    "Box": lambda d: Box(-0.2, 0.3),
    "L2Ball": lambda d: L2Ball(radius=0.5),
    "L1Ball": lambda d: L1Ball(radius=0.5),
    "Simplex": lambda d: Simplex(total=1.0),
    "Halfspace": lambda d: Halfspace(torch.arange(1.0, d + 1, dtype=DOUBLE), 0.5),
}


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", METHODS)
def test_bad_input_a_constraint_without_project(name: str) -> None:
    class NotASet:
        pass

    x = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(
        TypeError, match=r"^constraint must be a set with a method project.*NotASet"
    ):
        METHODS[name]([x], constraint=NotASet())
    NotASet.project = 1.0  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"^constraint must be a set"):
        METHODS[name]([x], constraint=NotASet())


@pytest.mark.parametrize("name", METHODS)
def test_a_start_outside_is_projected_with_a_warning_that_names_it(name: str) -> None:
    x = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=DOUBLE))
    with pytest.warns(UserWarning, match=r"parameter 'w' \(shape \(2,\)\) starts outside L2Ball"):
        METHODS[name]([("w", x)], constraint=L2Ball(radius=1.0))
    assert x.tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("name", METHODS)
def test_the_warning_points_at_the_caller(name: str) -> None:
    x = torch.nn.Parameter(torch.tensor([3.0], dtype=DOUBLE))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        METHODS[name]([x], constraint=Box(-1, 1))
    assert [w.filename for w in caught] == [__file__]


@pytest.mark.parametrize("name", METHODS)
def test_a_start_inside_is_left_alone_without_a_warning(name: str) -> None:
    start = torch.tensor([0.6, 0.8, -0.0], dtype=DOUBLE)
    x = torch.nn.Parameter(start.clone())
    METHODS[name]([x], constraint=L2Ball(radius=1.0))
    assert torch.equal(x.detach(), start)


@pytest.mark.parametrize("name", METHODS)
def test_a_later_group_is_projected_too(name: str) -> None:
    optimizer = METHODS[name]([torch.nn.Parameter(torch.zeros(2))], constraint=Box(-1, 1))
    late = torch.nn.Parameter(torch.tensor([3.0, 0.5]))
    with pytest.warns(UserWarning, match="starts outside Box"):
        optimizer.add_param_group({"params": [late]})
    assert late.tolist() == [1.0, 0.5]


@pytest.mark.parametrize("name", PROJECTING)
@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("d", [5, SMALL + 1], ids=["packed", "large"])
def test_every_iterate_is_in_the_set(name: str, kind: str, d: int) -> None:
    constraint = SETS[kind](d)
    x = torch.nn.Parameter(constraint.project(gaussian(d)))
    optimizer = METHODS[name]([x], constraint=constraint)
    moved = 0.0
    for k in range(8):
        before = x.detach().clone()
        x.grad = gaussian(d, seed=k) + 1.0
        optimizer.step()
        assert constraint.contains(x.detach(), tol=1e-12)
        moved += float((x.detach() - before).norm())
    assert moved > 0.01


@pytest.mark.parametrize("name", PROJECTING)
def test_each_parameter_is_projected_by_itself(name: str) -> None:
    xs = [torch.nn.Parameter(torch.zeros(2, dtype=DOUBLE)) for _ in range(3)]
    optimizer = METHODS[name](xs, constraint=L2Ball(radius=0.1))
    for _ in range(20):
        for i, x in enumerate(xs):
            x.grad = torch.tensor([1.0, 2.0 + i], dtype=DOUBLE)
        optimizer.step()
    assert [float(x.detach().norm()) for x in xs] == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("name", PROJECTING)
def test_without_a_gradient_nothing_is_projected(name: str) -> None:
    x, y = (torch.nn.Parameter(torch.zeros(2, dtype=DOUBLE)) for _ in range(2))
    optimizer = METHODS[name]([x, y], constraint=Box(-1, 1))
    y.data.fill_(5.0)  # by the user, outside
    x.grad = torch.ones(2, dtype=DOUBLE)
    optimizer.step()
    assert y.tolist() == [5.0, 5.0]


def metric(name: str, state: dict[str, Tensor], eps: float) -> Tensor:
    if name == "AdaGrad":
        return state["sum"].sqrt() + eps
    if name == "AMSGrad":
        return state["max_exp_avg_sq"].sqrt() + eps
    variance = state["square_avg"]
    if "centered" in name:
        variance = (variance - state["grad_avg"] ** 2).clamp_min(0)
    return variance.sqrt() + eps


@pytest.mark.parametrize("name", PROJECTING)
@pytest.mark.parametrize("kind", ["L2Ball", "L1Ball", "Simplex", "Halfspace"])
def test_the_projection_is_in_the_metric_h_of_the_step(name: str, kind: str) -> None:
    """Against the same method without the set, projected by hand after one step."""
    constraint = SETS[kind](4)
    start = constraint.project(gaussian(4))
    x, y = (torch.nn.Parameter(start.clone()) for _ in range(2))
    scale = torch.tensor([1e-2, 1.0, 30.0, 5.0], dtype=DOUBLE)
    constrained = METHODS[name]([x], constraint=constraint, eps=1e-3)
    free = METHODS[name]([y], eps=1e-3)
    differ = False
    for k in range(6):
        x.grad = y.grad = -scale * (gaussian(4, seed=k).abs() + 0.1)
        y.data.copy_(x.data)
        constrained.step()
        free.step()
        h = metric(name, free.state[y], 1e-3)
        expected = constraint.project(y.detach(), h)
        torch.testing.assert_close(x.detach(), expected, rtol=0, atol=1e-12)
        differ |= float((constraint.project(y.detach()) - expected).abs().max()) > 1e-3
    assert differ, "the Euclidean projection gave the same points"


@pytest.mark.parametrize("name", PROJECTING)
def test_the_limit_is_the_constrained_minimizer(name: str) -> None:
    """min <c, x> + ||x||^2 / 2 on the unit ball: x = -c / ||c||."""
    c = torch.tensor([3.0, -1.0, 0.5], dtype=DOUBLE)
    x = torch.nn.Parameter(torch.zeros(3, dtype=DOUBLE))
    optimizer = METHODS[name]([x], constraint=L2Ball(radius=1.0))
    for k in range(400):
        if k == 200:
            optimizer.param_groups[0]["lr"] *= 0.1
        x.grad = c + x.detach()
        optimizer.step()
    torch.testing.assert_close(x.detach(), -c / c.norm(), rtol=0, atol=1e-3)


NEVER_SEEN: dict[str, Make] = {
    "AdaGrad": lambda params, **o: AdaGrad(params, eps=0.0, **o),
    "RMSProp": lambda params, **o: RMSProp(params, eps=0.0, **o),
    "RMSProp centered": lambda params, **o: RMSProp(params, eps=0.0, centered=True, **o),
}


@pytest.mark.parametrize("name", NEVER_SEEN)
@pytest.mark.parametrize("kind", ["Box", "L2Ball", "L1Ball", "Simplex"])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_bad_input_h_with_zeros_a_coordinate_never_seen_pays_for_the_others(
    name: str, kind: str, dtype: torch.dtype
) -> None:
    constraint: Any = SETS[kind](3)
    x = torch.nn.Parameter(constraint.project(torch.tensor([0.3, 0.2, 0.1], dtype=dtype)))
    optimizer = NEVER_SEEN[name]([x], lr=0.3, constraint=constraint)
    for _ in range(4):
        x.grad = torch.tensor([-1.0, 0.0, 2.0], dtype=dtype)
        optimizer.step()
        assert constraint.contains(x.detach(), tol=1e-6)
    x.grad = torch.zeros(3, dtype=dtype)
    optimizer.step()
    assert x.isfinite().all()


def test_all_coordinates_never_seen_is_the_euclidean_projection() -> None:
    x = torch.nn.Parameter(torch.tensor([0.6, 0.8], dtype=DOUBLE))
    optimizer = AdaGrad([x], eps=0.0, constraint=L2Ball(radius=1.0))
    x.data.mul_(5)
    x.grad = torch.zeros(2, dtype=DOUBLE)
    optimizer.step()
    assert x.tolist() == pytest.approx([0.6, 0.8])


def test_an_empty_parameter_is_no_obstacle() -> None:
    empty, x = torch.nn.Parameter(torch.zeros(0)), torch.nn.Parameter(torch.zeros(2))
    optimizer = AdaGrad([empty, x], lr=1.0, constraint=Box(-0.5, 0.5))
    empty.grad, x.grad = torch.zeros(0), torch.ones(2)
    optimizer.step()
    assert x.tolist() == [-0.5, -0.5]


def test_what_a_projection_takes_away_does_not_come_back_through_the_compensation() -> None:
    x = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    optimizer = AdaGrad([x], lr=0.01, constraint=Box(-1, 1), rounding="compensated")
    for _ in range(5):
        x.grad = torch.full_like(x, -1.0)
        optimizer.step()
    assert x.tolist() == [1.0, 1.0]
    assert optimizer.state[x]["compensation"].tolist() == [0.0, 0.0]
