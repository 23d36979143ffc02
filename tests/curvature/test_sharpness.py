"""Sharpness: closed forms on quadratics, invariance under rescaling, and what is left untouched."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thalweg.core.problem import Training
from thalweg.curvature import Objective, hessian
from thalweg.curvature.sharpness import average_case, keskar, worst_case


def seed(n: int) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def quadratic(A: Tensor, start: Tensor | None = None, b: Tensor | None = None) -> Training:
    d = len(A)
    b = torch.zeros(d, dtype=A.dtype) if b is None else b
    start = torch.zeros(d, dtype=A.dtype) if start is None else start
    return Training.from_function(lambda x: 0.5 * x @ A @ x + b @ x, start)


def positive(d: int, n: int) -> Tensor:
    A = torch.randn(d, d, dtype=torch.float64, generator=seed(n))
    return A @ A.T / d


def relu_network(scale: float = 1.0, neurons: Tensor | None = None) -> Training:
    """A two-layer ReLU network without biases, rescaled without changing its function."""
    model = nn.Sequential(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False))
    model = model.double()
    generator = seed(0)
    c = torch.ones(7).double() * scale if neurons is None else neurons
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) / 2)
        model[0].weight.mul_(c[:, None])
        model[2].weight.div_(c)
    X = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (30,), generator=generator)
    return Training(model, nn.functional.cross_entropy, [(X, y)])


@given(st.integers(0, 10**6), st.floats(1e-3, 10.0))
@settings(max_examples=10, deadline=None)
def test_at_the_minimum_of_a_quadratic_the_worst_case_is_the_largest_eigenvalue(
    n: int, rho: float
) -> None:
    A = positive(8, n)
    found = worst_case(quadratic(A), rho)
    expected = 0.5 * rho**2 * float(torch.linalg.eigvalsh(A)[-1])
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert found.second_order == pytest.approx(expected, rel=1e-9)
    assert float(found.perturbation.norm()) == pytest.approx(rho)


def test_a_linear_function_rises_by_rho_times_the_gradient() -> None:
    g = torch.tensor([3.0, -4.0], dtype=torch.float64)
    found = worst_case(Training.from_function(lambda x: g @ x, torch.ones(2).double()), 0.1)
    assert found.value == pytest.approx(0.5) and found.first_order == pytest.approx(0.5)
    assert torch.allclose(found.perturbation, 0.1 * g / 5)


def test_an_adaptive_ball_is_an_ellipsoid() -> None:
    g = torch.tensor([3.0, -4.0], dtype=torch.float64)
    x = torch.tensor([-2.0, 0.5], dtype=torch.float64)
    found = worst_case(Training.from_function(lambda x: g @ x, x), 0.1, adaptive=True)
    Tg = x.abs() * g
    assert found.value == pytest.approx(0.1 * float(Tg.norm()))
    assert torch.allclose(found.perturbation, 0.1 * x**2 * g / Tg.norm())
    assert float((found.perturbation / x).norm()) == pytest.approx(0.1)


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_the_worst_case_of_a_quadratic_off_its_minimum(n: int) -> None:
    # the trust-region problem, solved by its secular equation
    A = positive(6, n)
    b = torch.randn(6, generator=seed(n + 1), dtype=torch.float64)
    found = worst_case(quadratic(A, b=b), 0.7, steps=100)
    values, V = torch.linalg.eigh(A)
    low, high = float(values[-1]), float(values[-1]) + 1e3
    for _ in range(200):  # max: (mu I - A) u = b with ||u|| = rho, mu > lambda_max
        mu = (low + high) / 2
        norm = float(((V.T @ b) / (mu - values)).norm())
        low, high = (mu, high) if norm > 0.7 else (low, mu)
    u = V @ ((V.T @ b) / (mu - values))
    assert found.value == pytest.approx(float(0.5 * u @ A @ u + b @ u), rel=1e-6)


def test_it_does_not_decrease_with_the_radius() -> None:
    found = worst_case(relu_network(), [0.01, 0.1, 0.5, 1.0, 1.2], steps=5)
    values = [s.value for s in found]
    assert values == sorted(values) and values[0] > 0
    for s in found:
        assert float(s.perturbation.norm()) <= s.radius * (1 + 1e-9)
        assert s.evaluations > 0


def test_a_larger_ball_keeps_what_a_smaller_one_found() -> None:
    # a narrow hill at 0.3 in a wide bowl: from the rim of the larger ball, where the bowl is
    # highest, no ascent finds the hill
    def hill(x: Tensor) -> Tensor:
        return (torch.exp(-(((x.abs() - 0.3) / 0.02) ** 2)) + 0.1 * x**2).sum()

    small, large = worst_case(Training.from_function(hill, torch.zeros(1).double()), [0.3, 1.0])
    assert small.value > 0.98 and large.value >= small.value


def test_the_value_is_the_rise_at_the_perturbation() -> None:
    objective = Objective(relu_network())
    for found in (worst_case(objective, 0.3), worst_case(objective, 0.3, adaptive=True)):
        rise = objective.value(objective.start + found.perturbation) - objective.value()
        assert found.value == pytest.approx(rise, rel=1e-12)
    phi = keskar(objective)
    rise = objective.value(objective.start + phi.perturbation) - objective.value()
    assert phi.value == pytest.approx(100 * rise / (1 + objective.value()), rel=1e-9)


neurons = st.lists(st.floats(0.1, 10.0), min_size=7, max_size=7)


@given(neurons)
@settings(max_examples=10, deadline=None)
def test_the_adaptive_measure_is_invariant_to_rescaling_neurons(c: list[float]) -> None:
    plain = worst_case(relu_network(), 0.1, adaptive=True)
    scaled = worst_case(
        relu_network(neurons=torch.tensor(c, dtype=torch.float64)), 0.1, adaptive=True
    )
    assert scaled.first_order == pytest.approx(plain.first_order, rel=1e-12)
    assert scaled.second_order == pytest.approx(plain.second_order, rel=1e-9)
    assert scaled.value == pytest.approx(plain.value, rel=1e-6)


def test_the_others_are_not() -> None:
    plain, scaled = relu_network(), relu_network(10.0)
    assert Objective(scaled).value() == pytest.approx(Objective(plain).value(), rel=1e-12)
    for measure in (
        lambda t: worst_case(t, 0.1).value,
        lambda t: keskar(t).value,
        lambda t: float(torch.linalg.eigvalsh(hessian(t).dense())[-1]),
        lambda t: average_case(t, 0.1).value,
    ):
        assert abs(measure(scaled) / measure(plain) - 1) > 0.5


@pytest.mark.parametrize("eps", [1e-3, 5e-4])
def test_keskar_of_a_separable_quadratic_is_a_corner(eps: float) -> None:
    x, a = torch.tensor([0.5, -2.0, 0.0]).double(), torch.tensor([1.0, 3.0, 2.0]).double()
    training = Training.from_function(lambda z: 0.5 * a @ (z - x) ** 2, x)  # a minimum at x
    expected = 100 * 0.5 * float(a @ (eps * (x.abs() + 1)) ** 2)
    assert keskar(training, eps).value == pytest.approx(expected, rel=1e-9)


def test_keskar_in_a_subspace() -> None:
    d, eps = 30, 1e-2
    c = torch.randn(d, generator=seed(3), dtype=torch.float64)
    x = torch.randn(d, generator=seed(4), dtype=torch.float64)
    training = Training.from_function(lambda z: c @ (z - x), x)  # linear: the maximum is a corner
    found = keskar(training, eps, subspace=4, generator=seed(7))
    A = torch.randn(d, 4, generator=seed(7), dtype=torch.float64) / math.sqrt(d)
    bound = eps * ((torch.linalg.pinv(A) @ x).abs() + 1)
    assert found.value == pytest.approx(100 * float((A.T @ c).abs() @ bound), rel=1e-9)
    y = torch.linalg.lstsq(A, found.perturbation[:, None]).solution[:, 0]
    assert torch.allclose(A @ y, found.perturbation) and bool((y.abs() <= bound * 1.0001).all())


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_average_case_is_half_the_trace(adaptive: bool) -> None:
    A, sigma = positive(20, 0), 0.3
    x = torch.linspace(-2, 3, 20, dtype=torch.float64)
    T = torch.diag(x.abs()) if adaptive else torch.eye(20, dtype=torch.float64)
    truth = 0.5 * sigma**2 * float((T @ A @ T).trace())
    covered = 0
    for n in range(60):
        found = average_case(quadratic(A, x), sigma, pairs=10, adaptive=adaptive, generator=seed(n))
        covered += found.interval().low <= truth <= found.interval().high
    assert covered >= 51  # of 57 expected


def test_the_gradient_adds_no_noise_to_the_average_case() -> None:
    g = torch.ones(5).double()
    found = average_case(Training.from_function(lambda x: g @ x, torch.ones(5).double()), 0.5)
    assert abs(found.value) < 1e-12 and found.stderr < 1e-12


@pytest.fixture
def measured() -> Iterator[Training]:
    """Whatever was measured, nothing of the user's has changed."""
    training = relu_network()
    model = training.model
    model.train()
    for p in model.parameters():
        p.grad = torch.full_like(p, 3.0)
    before = [p.detach().clone() for p in model.parameters()]
    state = torch.get_rng_state()
    yield training
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))
    assert all(bool((p.grad == 3).all()) for p in model.parameters())
    assert model.training and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "measure",
    [
        keskar,
        lambda t: keskar(t, subspace=3),
        lambda t: worst_case(t, 0.1),
        lambda t: worst_case(t, [0.1, 0.2], adaptive=True),
        lambda t: average_case(t, 0.1, pairs=2),
    ],
)
def test_nothing_of_the_users_changes(
    measured: Training, measure: Callable[[Training], object]
) -> None:
    first, second = measure(measured), measure(measured)
    assert str(first) == str(second)  # and the same seed gives the same


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: worst_case(t, 0.0), "rho must be > 0, got 0"),
        (lambda t: worst_case(t, [0.2, 0.1]), "rho must increase, got 0.1 after 0.2"),
        (lambda t: worst_case(t, 0.1, steps=0), "steps must be an integer >= 1, got 0"),
        (lambda t: worst_case(t, 0.1, restarts=-1), "restarts must be an integer >= 0, got -1"),
        (lambda t: keskar(t, eps=-1), "eps must be > 0, got -1"),
        (lambda t: keskar(t, subspace=1000), "subspace must be an integer in"),
        (lambda t: average_case(t, sigma=0), "sigma must be > 0, got 0"),
        (lambda t: average_case(t, 0.1, pairs=1), "pairs must be an integer >= 2, got 1"),
    ],
)
def test_refused(call: Callable[[Training], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(relu_network())


def test_a_loss_at_or_below_minus_one_has_no_keskar_measure() -> None:
    training = Training.from_function(lambda x: (x**2).sum() - 1, torch.zeros(2))
    with pytest.raises(ValueError, match=r"the loss must be > -1 for Keskar's measure, got -1"):
        keskar(training)


def test_a_stochastic_loss_is_refused() -> None:
    training = Training.from_function(lambda x: (x * torch.rand(3)).sum(), torch.ones(3))
    with pytest.raises(ValueError, match="two passes"):
        worst_case(training, 0.1)
