"""Directional sharpness, and the step an optimizer would take."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thalweg.core.problem import Training
from thalweg.curvature import Objective
from thalweg.curvature.directional import DirectionalSharpness, directional, optimizer_step
from thalweg.optim import SGD, Adam

finite = st.floats(-10, 10)


def problem() -> Training:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    X = torch.randn(25, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (25,), generator=generator)
    return Training(model, nn.functional.cross_entropy, [(X, y)])


@given(st.lists(finite, min_size=3, max_size=3).filter(lambda v: max(map(abs, v)) > 1e-6))
@settings(max_examples=30, deadline=None)
def test_both_numbers_on_a_quadratic(v: list[float]) -> None:
    A = torch.tensor([[2.0, 1.0, 0.0], [1.0, -3.0, 0.0], [0.0, 0.0, 0.5]], dtype=torch.float64)
    x = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    training = Training.from_function(lambda x: 0.5 * x @ A @ x, x)
    direction = torch.tensor(v, dtype=torch.float64)
    along = directional(training, direction)
    assert along.slope == pytest.approx(float(x @ A @ direction), abs=1e-9)
    assert along.curvature == pytest.approx(float(direction @ A @ direction), abs=1e-9)
    moved = x - 0.3 * direction
    change = float(0.5 * moved @ A @ moved - 0.5 * x @ A @ x)
    assert along.predicted(0.3) == pytest.approx(change, abs=1e-9)
    if abs(change) > 1e-9:
        assert along.decreases(0.3) == (change < 0) or not along.descent


def test_an_eigenvector_has_its_eigenvalue() -> None:
    A = torch.randn(9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    A = A + A.T
    values, V = torch.linalg.eigh(A)
    training = Training.from_function(lambda x: 0.5 * x @ A @ x, torch.ones(9).double())
    for i in range(9):
        assert directional(training, 1e-9 * V[:, i]).sharpness == pytest.approx(float(values[i]))


def test_both_signs() -> None:
    # a direction that is not one of descent may still lead down far away: that is another claim
    assert not DirectionalSharpness(-1.0, -8.0, 1.0).decreases(1.0)
    assert DirectionalSharpness(-1.0, -8.0, 1.0).largest_lr == 0
    assert DirectionalSharpness(1.0, -8.0, 1.0).largest_lr == math.inf
    assert DirectionalSharpness(1.0, -8.0, 1.0).decreases(1e6)
    assert DirectionalSharpness(0.0, 1.0, 1.0).largest_lr == 0


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_model_falls_exactly_below_the_largest_lr(
    slope: float, curvature: float, lr: float
) -> None:
    along = DirectionalSharpness(slope, curvature, 1.0)
    if abs(lr / along.largest_lr - 1) > 1e-9:
        assert along.decreases(lr) == (along.predicted(lr) < 0) == (lr < along.largest_lr)
    assert along.predicted(along.best_lr) <= along.predicted(lr) + 1e-12 * abs(along.predicted(lr))


def clipped(p: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(p, lr=0.3, momentum=0.9, weight_decay=0.01)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1),
        clipped,
        lambda p: torch.optim.AdamW(p, lr=0.05, amsgrad=True),
        lambda p: Adam(p, lr=0.05),
        lambda p: SGD(p, lr=0.05),
    ],
)
def test_the_step_is_the_one_the_optimizer_then_takes(make: object) -> None:
    training = problem()
    model = training.model
    optimizer = make(list(model.parameters()))
    for turn in range(3):  # with state, from the second turn on
        model.zero_grad()
        training.batch_loss(training.data[0]).backward()
        state = copy.deepcopy(optimizer.state_dict())
        before = [(p.detach().clone(), p.grad.clone()) for p in model.parameters()]
        rng = torch.get_rng_state()
        v = optimizer_step(training, optimizer)
        assert torch.equal(torch.get_rng_state(), rng)
        for p, (value, grad) in zip(model.parameters(), before):
            assert torch.equal(p, value) and torch.equal(p.grad, grad)
        assert equal(optimizer.state_dict(), state), turn
        x = Objective(training).start
        optimizer.step()
        assert torch.allclose(x - Objective(training).start, v, rtol=1e-9, atol=1e-14)


def equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_a_gradient_of_ones_own() -> None:
    training = problem()
    optimizer = torch.optim.SGD(training.model.parameters(), lr=0.5)
    g = torch.linspace(-1, 1, Objective(training).d, dtype=torch.float64)
    assert torch.allclose(optimizer_step(training, optimizer, g), 0.5 * g)


def test_parameters_the_optimizer_does_not_have_do_not_move() -> None:
    training = problem()
    optimizer = torch.optim.SGD(training.model[2].parameters(), lr=0.5)
    v = Objective(training).unflatten(optimizer_step(training, optimizer))
    assert bool((v["0.weight"] == 0).all()) and bool((v["2.weight"] != 0).any())


def test_a_small_step_of_gradient_descent_is_predicted() -> None:
    training = problem()
    objective = Objective(training)
    v = optimizer_step(training, torch.optim.SGD(training.model.parameters(), lr=1e-3))
    along = directional(objective, v)
    change = objective.value(objective.start - v) - objective.value()
    assert along.decreases() and change == pytest.approx(along.predicted(), rel=1e-4)


def test_refused() -> None:
    training = problem()
    d = Objective(training).d
    with pytest.raises(ValueError, match=rf"direction must be of shape \({d},\), got \(3,\)"):
        directional(training, torch.ones(3))
    with pytest.raises(ValueError, match="direction must be finite and not zero, got norm 0"):
        directional(training, torch.zeros(d))
    with pytest.raises(ValueError, match="direction must be finite and not zero, got norm nan"):
        directional(training, torch.full((d,), math.nan))
    with pytest.raises(ValueError, match="lr must be > 0, got -1"):
        directional(training, torch.ones(d)).decreases(-1)
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer, got str"):
        optimizer_step(training, "adam")
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="optimizer must hold parameters of the model, got none"):
        optimizer_step(training, other)
    with pytest.raises(ValueError, match=r"gradient must be of shape"):
        optimizer_step(training, other, torch.ones(2))
    closure = torch.optim.LBFGS(training.model.parameters())
    with pytest.raises(TypeError, match="optimizer must step without a closure, got LBFGS"):
        optimizer_step(training, closure)
