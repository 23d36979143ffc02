"""SSO: what one step equals, majorization, monotone decrease, and the count of expensive calls."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.optim import sso_minimize, sso_step
from thalweg.optim.surrogate import surrogate

DOUBLE = torch.float64


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """f(theta) = X theta."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(start.clone())

    def forward(self, data: Tensor) -> Tensor:
        return data @ self.theta


class Identity(Linear):
    """f(theta) = theta."""

    def forward(self, data: None) -> Tensor:
        return self.theta


def logistic(z: Tensor, y: Tensor) -> Tensor:
    """The sum over examples: L = 1/4."""
    return functional.binary_cross_entropy_with_logits(z, y, reduction="sum")


def half_square(z: Tensor, y: Tensor) -> Tensor:
    return (z - y).square().sum() / 2


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()


INPUTS = gaussian(50, 4)
LABELS = (INPUTS[:, :1] + 0.5 * gaussian(50, 1, seed=1) > 0).double()


def cancer() -> tuple[Tensor, Tensor]:
    """breast_cancer, standardised, with an intercept."""
    from sklearn.datasets import load_breast_cancer

    data, y = load_breast_cancer(return_X_y=True)
    x = torch.tensor(data, dtype=DOUBLE)
    x = (x - x.mean(0)) / x.std(0, unbiased=False)
    return torch.cat([x, torch.ones(len(x), 1, dtype=DOUBLE)], 1), torch.tensor(y, dtype=DOUBLE)


# ---- the card's items ----


def test_1_one_inner_step_is_gradient_descent() -> None:
    model, reference = network(), network()
    for _ in range(20):
        sso_step(model, logistic, (INPUTS, LABELS), eta=4.0, inner_steps=1, inner=0.01)
        gradients = torch.autograd.grad(
            logistic(reference(INPUTS), LABELS), list(reference.parameters())
        )
        with torch.no_grad():
            for p, g in zip(reference.parameters(), gradients, strict=True):
                p.sub_(0.01 * g)
    for p, q in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-12, atol=1e-13)


def test_2_with_free_outputs_the_inner_solution_is_a_gradient_step() -> None:
    start, y = gaussian(6), (gaussian(6, seed=1) > 0).double()
    model = Identity(start)
    # S has curvature 1/eta: one inner step of eta solves it
    sso_step(model, logistic, (None, y), eta=3.0, inner_steps=1, inner=3.0)
    assert torch.allclose(model.theta, start - 3.0 * (torch.sigmoid(start) - y), rtol=1e-12)
    # and gradient descent with a line search gets there
    other = Identity(start)
    sso_step(other, logistic, (None, y), eta=3.0, inner_steps=200)
    assert torch.allclose(other.theta, model.theta, atol=1e-6)


def test_3_linear_model_and_square_loss_are_solved_in_one_step() -> None:
    data, y = gaussian(20, 3), gaussian(20, seed=1)
    solution = torch.linalg.lstsq(data, y.unsqueeze(1)).solution.squeeze(1)
    model = Linear(gaussian(3, seed=2))
    size = 1 / float(torch.linalg.eigvalsh(data.T @ data)[-1])
    sso_step(model, half_square, (data, y), eta=1.0, inner_steps=600, inner=size)
    assert torch.allclose(model.theta, solution, rtol=1e-9)


def test_3_gauss_newton_step_for_a_smaller_eta() -> None:
    data, y, start = gaussian(20, 3), gaussian(20, seed=1), gaussian(3, seed=2)
    model = Linear(start)
    size = 0.25 / float(torch.linalg.eigvalsh(data.T @ data)[-1])
    sso_step(model, half_square, (data, y), eta=0.25, inner_steps=600, inner=size)
    q = data @ start - y
    step = torch.linalg.solve(data.T @ data, data.T @ q)
    assert torch.allclose(model.theta, start - 0.25 * step, rtol=1e-9)


def test_4_the_surrogate_majorizes_the_loss() -> None:
    z_t = gaussian(30)
    y = (gaussian(30, seed=1) > 0).double()
    q = torch.sigmoid(z_t) - y
    value = logistic(z_t, y)
    gaps, too_large = [], []
    for seed in range(1000):
        z = z_t + 3 * gaussian(30, seed=seed)
        gaps.append(float(surrogate(z, z_t, q, value, eta=4.0) - logistic(z, y)))
        too_large.append(float(surrogate(z, z_t, q, value, eta=400.0) - logistic(z, y)))
    assert min(gaps) >= 0 and min(too_large) < 0
    assert float(surrogate(z_t, z_t, q, value, eta=4.0)) == float(value)


@pytest.mark.parametrize("inner_steps", [1, 3, 20])
@pytest.mark.parametrize("inner", ["armijo", 0.005])
def test_5_full_batch_loss_never_rises(inner_steps: int, inner: Any) -> None:
    model = network()
    steps = [
        sso_step(model, logistic, (INPUTS, LABELS), eta=4.0, inner_steps=inner_steps, inner=inner)
        for _ in range(20)
    ]
    losses = [step.loss for step in steps]
    assert all(b <= a for a, b in pairwise(losses)) and losses[-1] < 0.9 * losses[0]
    # the surrogate bounds the next loss
    assert all(a.surrogate >= b.loss for a, b in pairwise(steps))


@pytest.mark.parametrize("inner_steps", [1, 25])
def test_6_one_call_of_the_loss_for_each_outer_step(inner_steps: int) -> None:
    calls = 0

    def counted(z: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return logistic(z, y)

    sso_step(network(), counted, (INPUTS, LABELS), eta=4.0, inner_steps=inner_steps)
    assert calls == 1
    result = sso_minimize(
        network(), counted, [(INPUTS, LABELS)], eta=4.0, inner_steps=inner_steps, max_steps=7
    )
    assert calls == 8
    assert result.trace["loss_calls"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.slow
def test_full_batch_logistic_regression_at_equal_calls() -> None:
    """The card's measured table: 50 loss gradients on breast_cancer, inner GD with its 1/L."""
    x, y = cancer()
    size = 4.0 / float(torch.linalg.eigvalsh(x.T @ x)[-1])  # 1/L of S for eta = 4
    finals = {}
    for m, expected in ((1, 0.0906), (10, 0.0750), (100, 0.0689), (1000, 0.0663)):
        model = Linear(torch.zeros(x.shape[1], dtype=DOUBLE))
        losses = [
            sso_step(model, logistic, (x, y), eta=4.0, inner_steps=m, inner=size).loss
            for _ in range(50)
        ]
        finals[m] = float(logistic(model(x), y).detach()) / len(y)
        assert all(b <= a for a, b in pairwise(losses))
        assert finals[m] == pytest.approx(expected, abs=2e-4)


# ---- options ----


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("const", [2.0, 2.0, 2.0, 2.0]),
        ("sqrt", [2.0, 2 / 2**0.5, 2 / 3**0.5, 1.0]),
        ("exp", [2 * 4**-0.25, 2 * 4**-0.5, 2 * 4**-0.75, 0.5]),
    ],
)
def test_schedules_move_free_outputs_by_eta_t(schedule: Any, expected: list[float]) -> None:
    """With f(theta) = theta and l linear, each step moves by exactly eta_t."""
    model = Identity(torch.zeros(1, dtype=DOUBLE))
    positions: list[float] = [0.0]

    def linear(z: Tensor, _: Any) -> Tensor:
        return 100 - z.sum()

    sso_minimize(
        model, linear, [(None, None)], eta=2.0, schedule=schedule, max_steps=4, inner_steps=300,
        inner=lambda params: torch.optim.SGD(params, lr=0.4),
        callback=lambda result: positions.append(float(result.x["theta"])),
    )  # fmt: skip
    moves = [b - a for a, b in pairwise(positions[1:])]
    assert moves == pytest.approx(expected, rel=1e-6)


def test_searched_eta_decreases_the_loss_enough() -> None:
    """l = (L/2) z^2 with c = 1/2: accepted iff eta <= 1/L."""
    model = Identity(gaussian(3))
    done = sso_step(
        model, lambda z, _: 5 * z.square().sum() / 2, (None, None), eta=1.0, eta_search=True
    )
    assert 0.9 / 5 < done.eta <= 1 / 5
    assert done.loss_calls == 1 + 17  # 0.9^16 = 0.185 is the first below 0.2


def test_inner_optimizer_and_gradients_left_alone() -> None:
    model = network()
    kept = [torch.ones_like(p) for p in model.parameters()]
    for p, g in zip(model.parameters(), kept, strict=True):
        p.grad = g
    before = float(logistic(model(INPUTS), LABELS).detach())
    for _ in range(5):
        sso_step(
            model, logistic, (INPUTS, LABELS), eta=4.0, inner_steps=20,
            inner=lambda params: torch.optim.Adam(params, lr=0.01),
        )  # fmt: skip
    assert float(logistic(model(INPUTS), LABELS).detach()) < 0.8 * before
    for p, g in zip(model.parameters(), kept, strict=True):
        assert p.grad is g and bool((g == 1).all())


def test_armijo_stops_at_a_stationary_point() -> None:
    data = gaussian(10, 2)
    model = Linear(torch.zeros(2, dtype=DOUBLE))
    done = sso_step(model, half_square, (data, torch.zeros(10, dtype=DOUBLE)), eta=1.0)
    assert done.inner_steps == 0 and done.loss == 0.0


def test_batches_are_passed_over_again_and_the_result_is_in_the_model() -> None:
    data, y = gaussian(20, 3), gaussian(20, seed=1)
    seen: list[int] = []

    def loss(z: Tensor, y: Tensor) -> Tensor:
        seen.append(len(y))
        return half_square(z, y)

    model = Linear(torch.zeros(3, dtype=DOUBLE))
    batches = [(data[:12], y[:12]), (data[12:], y[12:])]
    result = sso_minimize(model, loss, batches, eta=0.5, schedule="sqrt", max_steps=5)
    assert seen == [12, 8, 12, 8, 12]
    assert torch.equal(result.x["theta"], model.theta)


# ---- bad input ----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eta": 0.0}, "eta must be > 0, got 0.0"),
        ({"eta": 1.0, "inner_steps": 0}, "inner_steps must be an integer >= 1, got 0"),
        ({"eta": 1.0, "inner": "armjo"}, "did you mean 'armijo'"),
        ({"eta": 1.0, "inner": -1.0}, "inner must be > 0, got -1.0"),
    ],
)
def test_bad_input(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sso_step(network(), logistic, (INPUTS, LABELS), **options)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(4)])
def test_models_that_change_between_calls_are_refused(layer: nn.Module) -> None:
    model = nn.Sequential(layer, nn.Linear(4, 1)).double()
    with pytest.raises(ValueError, match=r"model must be the same function .* call its eval\(\)"):
        sso_step(model, logistic, (INPUTS, LABELS), eta=1.0)
    sso_step(model.eval(), logistic, (INPUTS, LABELS), eta=1.0)


def test_loss_that_is_no_scalar() -> None:
    with pytest.raises(ValueError, match=r"loss must return a scalar tensor, got \(50, 1\)"):
        sso_step(network(), lambda z, y: (z - y).square(), (INPUTS, LABELS), eta=1.0)


def test_other_wrong_kinds() -> None:
    with pytest.raises(ValueError, match="schedule must be one of"):
        sso_minimize(network(), logistic, [(INPUTS, LABELS)], eta=1.0, schedule="cos")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batches must hold at least one batch"):
        sso_minimize(network(), logistic, [], eta=1.0)
    with pytest.raises(TypeError, match="model must be a torch"):
        sso_step(lambda x: x, logistic, (INPUTS, LABELS), eta=1.0)  # type: ignore[arg-type]
