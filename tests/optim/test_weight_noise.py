"""Noise on the weights: exact restoration, what it smooths, and its persistent form."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thalweg.optim import SGLD, NoisyStep, weight_noise

DOUBLE = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=seeded(seed))


class Point(nn.Module):
    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(x.clone())


def mean_over_noise(model: Point, f: Any, std: float, draws: int) -> tuple[Tensor, Tensor]:
    """Mean gradient and mean value of f over noise on a model whose draws are independent."""
    generator = seeded(1)
    gradients, values = [], []
    for _ in range(draws):
        model.zero_grad()
        with weight_noise(model, std, generator=generator):
            value = f(model.x)
            value.sum().backward()
        gradients.append(model.x.grad.clone())
        values.append(value.detach())
    return torch.stack(gradients).mean(0), torch.stack(values).mean(0)


# ---- the card's items ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_1_weights_are_restored_bitwise(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Conv1d(1, 2, 3)).to(dtype)
    before = copy.deepcopy(model.state_dict())
    with weight_noise(model, 0.3, generator=seeded()):
        assert not torch.equal(model[0].weight, before["0.weight"])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(KeyError), weight_noise(model, 0.3, generator=seeded()):
        raise KeyError("in the loss")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_2_a_linear_model_with_squared_loss_gains_a_constant_only() -> None:
    """E grad f(x + xi) = grad f(x), E f(x + xi) = f(x) + (s^2/2) tr(X^T X / n)."""
    n, std, draws = 40, 0.3, 4000
    data, y = gaussian(n, 3, seed=2), gaussian(n, seed=3)

    def f(x: Tensor) -> Tensor:
        return (data @ x - y).square().mean() / 2

    model = Point(gaussian(3))
    f(model.x).backward()
    exact, value = model.x.grad.clone(), f(model.x).item()
    hessian = data.T @ data / n
    gradient, noisy = mean_over_noise(model, f, std, draws)
    error = std * hessian.square().sum(1).sqrt() / math.sqrt(draws)  # its standard error
    assert bool(((gradient - exact).abs() < 4 * error).all())
    assert noisy.item() - value == pytest.approx(std**2 / 2 * float(hessian.trace()), rel=0.1)


def test_3_a_quadratic_keeps_its_gradient_and_rises_by_half_the_trace() -> None:
    a = gaussian(4, 4, seed=5)
    a = a + a.T  # indefinite
    std, draws = 0.5, 4000
    model = Point(gaussian(4))
    gradient, value = mean_over_noise(model, lambda x: x @ a @ x / 2, std, draws)
    x = model.x.detach()
    error = std * a.square().sum(1).sqrt() / math.sqrt(draws)
    assert bool(((gradient - a @ x).abs() < 4 * error).all())
    # Var f = s^2 |A x|^2 + (s^4/2) tr A^2
    spread = std * float((a @ x).norm()) + std**2 * float(a.norm())
    rise = float(value - x @ a @ x / 2)
    assert abs(rise - std**2 / 2 * float(a.trace())) < 4 * spread / math.sqrt(draws)


def test_4_a_quartic_is_smoothed() -> None:
    """The gradient of E (x + xi)^4 is 4 x^3 + 12 s^2 x, within 1 % by Monte Carlo."""
    std = 0.5
    model = Point(torch.ones(200_000, dtype=DOUBLE))  # as many draws
    gradient, _ = mean_over_noise(model, lambda x: x**4, std, draws=5)
    assert float(gradient.mean()) == pytest.approx(4 + 12 * std**2, rel=0.01)


def test_5_persistent_noise_on_sgd_is_langevin_dynamics() -> None:
    lr, temperature = 0.05, 0.3
    start = [gaussian(3), gaussian(2, 2, seed=1)]
    xs = [nn.Parameter(v.clone()) for v in start]
    ys = [nn.Parameter(v.clone()) for v in start]
    langevin = SGLD(xs, lr=lr, temperature=temperature, generator=seeded(7))
    noisy = NoisyStep(
        torch.optim.SGD(ys, lr=lr), std=math.sqrt(2 * lr * temperature), generator=seeded(7)
    )
    for _ in range(20):
        for p in (*xs, *ys):
            p.grad = 2 * p.detach()
        langevin.step()
        noisy.step()
    assert all(torch.allclose(x, y, rtol=1e-12) for x, y in zip(xs, ys, strict=True))


def test_6_std_0_is_the_identity() -> None:
    model = Point(gaussian(5))
    before = model.x.detach().clone()
    with weight_noise(model, 0.0):
        assert torch.equal(model.x, before)
    optimizer = NoisyStep(torch.optim.SGD(model.parameters(), lr=0.1), std=0.0)
    model.x.grad = torch.ones_like(model.x)
    optimizer.step()
    assert torch.equal(model.x, before - 0.1)


# ---- what is drawn ----


def test_sizes_and_shapes_of_the_noise() -> None:
    model = Point(3 * torch.ones(100_000, dtype=DOUBLE))

    def shift(**options: Any) -> Tensor:
        with weight_noise(model, 0.1, generator=seeded(), **options):
            return model.x.detach() - 3

    assert float(shift().std()) == pytest.approx(0.1, rel=0.02)
    assert float(shift(mode="relative").std()) == pytest.approx(0.3, rel=0.02)
    uniform = shift(distribution="uniform")
    assert float(uniform.std()) == pytest.approx(0.1, rel=0.02)
    assert float(uniform.abs().max()) == pytest.approx(0.1 * math.sqrt(3), rel=1e-3)
    assert float(shift().abs().max()) > 0.3  # normal noise has tails


def test_generator_decides_and_frozen_parameters_and_buffers_stay() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    bias, mean = model[0].bias.clone(), model[1].running_mean.clone()
    seen = []
    for seed in (0, 0, 1):
        with weight_noise(model, 0.1, generator=seeded(seed)):
            seen.append(model[0].weight.detach().clone())
            assert torch.equal(model[0].bias, bias) and torch.equal(model[1].running_mean, mean)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_tied_parameters_are_shifted_once() -> None:
    model = nn.Sequential(nn.Linear(300, 300, bias=False), nn.Linear(300, 300, bias=False))
    model[1].weight = model[0].weight
    before = model[0].weight.detach().clone()
    with weight_noise(model, 0.1, generator=seeded()):
        shift = model[0].weight.detach() - before
    assert float(shift.std()) == pytest.approx(0.1, rel=0.02)  # twice would be 0.14
    assert torch.equal(model[1].weight, before)


# ---- the persistent form ----


def test_noise_comes_after_every_few_steps() -> None:
    x = nn.Parameter(torch.zeros(3))
    optimizer = NoisyStep(torch.optim.SGD([x], lr=1.0), std=1.0, every=3)
    moved = []
    for _ in range(6):
        before = x.detach().clone()
        x.grad = torch.zeros(3)
        optimizer.step()
        moved.append(not torch.equal(x, before))
    assert moved == [False, False, True, False, False, True]


def test_anticorrelated_noise_does_not_accumulate() -> None:
    spread = {}
    for anticorrelated in (False, True):
        x = nn.Parameter(torch.zeros(20_000))
        optimizer = NoisyStep(
            torch.optim.SGD([x], lr=1.0), std=1.0, anticorrelated=anticorrelated, generator=seeded()
        )
        for _ in range(9):
            x.grad = torch.zeros_like(x)
            optimizer.step()
        spread[anticorrelated] = float(x.detach().std())
    assert spread[False] == pytest.approx(3.0, rel=0.05)
    assert spread[True] == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("anticorrelated", [False, True])
def test_checkpoint_continues_bitwise(anticorrelated: bool) -> None:
    def build(seed: int) -> tuple[nn.Parameter, NoisyStep]:
        x = nn.Parameter(torch.ones(4))
        base = torch.optim.SGD([x], lr=0.1, momentum=0.9)
        return x, NoisyStep(
            base, 0.1, every=2, anticorrelated=anticorrelated, generator=seeded(seed)
        )

    def train(x: nn.Parameter, optimizer: NoisyStep, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            (x**2).sum().backward()
            optimizer.step()

    expected, optimizer = build(3)
    train(expected, optimizer, 10)
    x, optimizer = build(3)
    train(x, optimizer, 5)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    y, other = build(4)
    y.data.copy_(x.data)
    other.load_state_dict(torch.load(file, weights_only=True))
    train(y, other, 5)
    assert torch.equal(y, expected)


@pytest.mark.parametrize("anticorrelated", [False, True])
def test_parameters_without_gradient_get_no_noise(anticorrelated: bool) -> None:
    x, y = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    x.grad = torch.zeros(2)
    base = torch.optim.SGD([x, y], lr=0.1)
    NoisyStep(base, std=1.0, anticorrelated=anticorrelated).step()
    assert bool((x != 0).all()) and bool((y == 0).all())


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"std": -0.1}, "std must be >= 0, got -0.1"),
        ({"std": math.nan}, "std must be >= 0, got nan"),
        ({"std": 1.0, "mode": "relativ"}, "did you mean 'relative'"),
        ({"std": 1.0, "distribution": "cauchy"}, "distribution must be one of"),
    ],
)
def test_bad_input(arguments: dict[str, Any], words: str) -> None:
    model = Point(torch.ones(2))
    with pytest.raises(ValueError, match=words), weight_noise(model, **arguments):
        pass
    with pytest.raises(ValueError, match=words):
        NoisyStep(torch.optim.SGD(model.parameters(), lr=0.1), **arguments)


def test_wrong_kinds() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got Tensor"):
        weight_noise(torch.ones(2), 0.1).__enter__()  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="optimizer must be a torch"):
        NoisyStep(nn.Linear(2, 2), 0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every must be an integer >= 1, got 0"):
        NoisyStep(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), 0.1, every=0)
