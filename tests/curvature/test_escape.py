"""Going down from saddles: the decrease promised, Neon's directions, perturbed descent."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import thalweg
from thalweg.core.problem import Training
from thalweg.core.result import Reason
from thalweg.curvature import Objective, certify, escape, hessian
from thalweg.curvature.escape import guaranteed_decrease, signed
from thalweg.curvature.neon import neon, neon2, neon2_online
from thalweg.curvature.perturbed_descent import perturbed_descent, perturbed_descent_constants


def function(f, *start: float) -> Training:  # type: ignore[no-untyped-def]
    return Training.from_function(f, torch.tensor(start, dtype=torch.float64))


def toy(x: Tensor) -> Tensor:  # Hessian-Lipschitz with rho = 1
    return x[0] ** 2 / 2 - x[1] ** 2 / 2 + x[1].abs() ** 3 / 6


def well(x: Tensor) -> Tensor:
    return x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 4


# -- negative-curvature descent ----------------------------------------------------------------


def test_the_decrease_on_the_cubic_is_the_one_promised() -> None:
    training = function(toy, 0.0, 0.0)
    certificate = certify(training)
    found = escape(training, certificate, apply=False)
    assert found.step == 1 and found.decrease == pytest.approx(1 / 3)
    best = escape(training, certificate, hessian_lipschitz=1.0)
    assert best.step == pytest.approx(2) and best.after == pytest.approx(-2 / 3)
    assert best.decrease == pytest.approx(best.guaranteed)  # the toy attains the bound
    assert abs(float(Objective(training).start[1])) == pytest.approx(2)
    assert guaranteed_decrease(-2.0, 2.0 / 3, 3.0) == pytest.approx(2.0**3 / (3 * 3**2))


def test_escape_moves_the_model_only_if_asked() -> None:
    training = function(well, 0.0, 0.0)
    certificate = thalweg.certify(training)
    before = Objective(training).start
    kept = thalweg.escape(training, certificate, apply=False)
    assert torch.equal(Objective(training).start, before) and not kept.applied
    moved = thalweg.escape(training, certificate)
    assert moved.applied and torch.equal(Objective(training).start, moved.x)
    assert Objective(training).value() == moved.after < moved.before
    assert moved.after <= moved.before - abs(certificate.curvature or 0) * moved.step**2 / 4


def test_escape_follows_the_gradient_where_the_point_is_not_stationary() -> None:
    training = function(lambda x: (x**2).sum() / 2, 3.0, 4.0)
    found = escape(training, certify(training))
    assert found.after == pytest.approx(0, abs=1e-20) and found.decrease == pytest.approx(12.5)


def test_certificates_that_do_not_fit_are_refused() -> None:
    bowl = function(lambda x: (x**2).sum(), 0.0)
    with pytest.raises(ValueError, match="must have a direction that goes down, got LOCAL_MINIMUM"):
        escape(bowl, certify(bowl))
    training = function(well, 0.0, 0.0)
    certificate = certify(training)
    escape(training, certificate)
    with pytest.raises(ValueError, match="certificate must be of the point the model holds"):
        escape(training, certificate)
    with pytest.raises(ValueError, match="certificate must be of 1 unknowns, got 2"):
        escape(bowl, certificate)
    again = function(well, 0.0, 0.0)
    with pytest.raises(ValueError, match="hessian_lipschitz must be > 0, got 0"):
        escape(again, certificate, hessian_lipschitz=0)
    with pytest.raises(ValueError, match="hessian_lipschitz may be too small"):
        escape(again, certificate, hessian_lipschitz=0.1)  # a step of 40


def test_the_sign_goes_down_and_is_drawn_without_a_slope() -> None:
    y, generator = torch.tensor([1.0, 0.0]), torch.Generator().manual_seed(0)
    assert float(signed(y, torch.tensor([2.0, 0.0]), generator)[0]) == -1
    assert float(signed(y, torch.tensor([-2.0, 0.0]), generator)[0]) == 1
    drawn = [float(signed(y, torch.zeros(2), generator)[0]) for _ in range(200)]
    assert abs(sum(drawn)) < 4 * math.sqrt(200)


# -- Neon --------------------------------------------------------------------------------------


def spectrum() -> tuple[Training, Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.tensor([-0.1]), torch.linspace(0, 1, 49)]).double()
    Q, _ = torch.linalg.qr(torch.randn(50, 50, generator=generator, dtype=torch.float64))
    A = Q @ torch.diag(values) @ Q.T
    start = torch.zeros(50, dtype=torch.float64)
    return Training.from_function(lambda x: x @ (A @ x) / 2, start), Q[:, 0]


@pytest.mark.parametrize("way", ["neon", "neon2", "neon2_online"])
def test_neon_finds_the_eigenvector(way: str) -> None:
    training, e = spectrum()
    if way == "neon":
        found = neon(training, lr=1.0, steps=200)
    elif way == "neon2":
        found = neon2(training, smoothness=1.0, tolerance=0.1)
    else:
        # long enough to grow by 1.1^t; one batch: nothing random but the start
        found = neon2_online(training, lr=1.0, tolerance=0.1, growth=1e4, samples=1)
    angle = math.degrees(math.acos(min(1.0, abs(float(found.direction @ e)))))
    assert angle < 5
    assert found.curvature == pytest.approx(-0.1, rel=0.05)


def test_neon2_needs_fewer_gradients_than_neon() -> None:
    values = torch.cat([torch.tensor([-0.01]), torch.zeros(100), torch.linspace(0, 1, 99)]).double()
    start = torch.zeros(200, dtype=torch.float64)
    training = Training.from_function(lambda x: (values * x**2).sum() / 2, start)
    fast = neon2(training, smoothness=1.0, tolerance=0.01)
    slow = neon(training, lr=1.0, steps=fast.gradients)
    assert fast.curvature < -0.0075 < slow.curvature


def test_neon2_grows_like_chebyshev_polynomials() -> None:
    # f = -tau x^2 / 2: M = 1 + tau / (4 L), z_t = T_t(M) z_0, from r / 1000 to r
    tau, L = 0.1, 1.0
    found = neon2(function(lambda x: -tau / 2 * (x**2).sum(), 0.0), smoothness=L, tolerance=tau)
    t = math.acosh(1000) / math.acosh(1 + tau / (4 * L))
    # one gradient at x, one for each step, one for the curvature; y_1 is the start
    assert found.gradients == math.ceil(t) + 2


def test_neon_reports_what_is_not_there() -> None:
    training = function(lambda x: (x**2).sum() / 2 + x[0] ** 2, 0.1, -0.2)
    for found in (
        neon(training, lr=0.3),
        neon2(training, smoothness=3.0, tolerance=0.5),
        neon2_online(training, lr=0.3, tolerance=0.5, samples=3),
    ):
        assert found.curvature >= -1e-6


def test_online_neon_on_a_network_agrees_with_the_hessian() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (64,), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    training = Training(model, nn.functional.cross_entropy, [(x[:32], y[:32]), (x[32:], y[32:])])
    H = hessian(training).dense()
    lowest = float(torch.linalg.eigvalsh(H)[0])
    found = neon2_online(training, lr=0.5, tolerance=abs(lowest) / 2, steps=600, samples=200)
    v = found.direction
    assert found.curvature <= 0.375 * lowest
    assert found.curvature == pytest.approx(float(v @ H @ v), abs=0.2 * abs(lowest))


# -- perturbed gradient descent ----------------------------------------------------------------


def saddle(x: Tensor) -> Tensor:
    return x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 4


def test_perturbed_descent_leaves_the_axis_and_gradient_descent_does_not() -> None:
    training = function(saddle, 1.0, 0.0)
    options = {"lr": 0.1, "gradient_threshold": 1e-2, "wait": 100}
    left = 0
    for seed in range(20):
        steps = 0
        result = perturbed_descent(
            training,
            radius=1e-2,
            seed=seed,
            max_steps=0,
            apply=False,
            **options,  # type: ignore[arg-type]
        )
        # the first kick comes where the norm has fallen below the threshold: 2 * 0.8^t <= 0.01
        steps = math.ceil(math.log(0.01 / 2) / math.log(0.8))
        result = perturbed_descent(
            training,
            radius=1e-2,
            seed=seed,
            max_steps=steps + 100,
            apply=False,
            **options,  # type: ignore[arg-type]
        )
        assert result.trace["perturbed"][-1] == steps
        left += abs(float(result.x[1])) > 1
    assert left == 20
    still = perturbed_descent(training, radius=0.0, max_steps=150, apply=False, **options)  # type: ignore[arg-type]
    assert float(still.x[1]) == 0


def test_without_noise_it_is_gradient_descent() -> None:
    training = function(saddle, 1.0, 0.3)
    result = perturbed_descent(
        training, lr=0.1, gradient_threshold=1e-2, radius=0.0, wait=10, max_steps=15, apply=False
    )
    x = torch.tensor([1.0, 0.3], dtype=torch.float64)
    for _ in range(15):
        x = x - 0.1 * torch.func.grad(saddle)(x)
    assert torch.equal(result.x, x)


def test_it_returns_the_point_before_a_kick_in_vain() -> None:
    training = function(lambda x: (x**2).sum() / 2, 1e-3, 0.0)
    result = perturbed_descent(
        training, lr=0.5, gradient_threshold=1e-2, radius=1e-2, wait=20, decrease_threshold=1e-5
    )
    assert result.reason is Reason.TOLERANCE and result.x.tolist() == [1e-3, 0.0]
    assert torch.equal(Objective(training).start, result.x)


def test_kicks_are_uniform_in_the_ball() -> None:
    training = function(lambda x: 0 * x.sum(), 0.0, 0.0)
    sizes = []
    for seed in range(200):
        result = perturbed_descent(
            training, lr=1.0, gradient_threshold=1.0, radius=2.0, wait=5, max_steps=1, seed=seed,
            apply=False,
        )  # fmt: skip
        sizes.append(float(result.x.norm()))
    assert max(sizes) <= 2
    inner = sum(size <= 1 for size in sizes) / 200  # a quarter of the area
    assert abs(inner - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 200)


def test_theory_mode_asks_for_its_constants() -> None:
    with pytest.raises(TypeError, match="hessian_lipschitz"):
        perturbed_descent_constants(smoothness=1.0, gap=1.0, d=2, tolerance=1e-2, c=0.5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="smoothness must be > 0, got 0"):
        perturbed_descent_constants(
            smoothness=0, hessian_lipschitz=1.0, gap=1.0, d=2, tolerance=1e-2, c=0.5
        )
    found = perturbed_descent_constants(
        smoothness=3.0, hessian_lipschitz=2.0, gap=1.0, d=2, tolerance=0.5, c=1.0, failure=0.5
    )
    chi = 12.0  # 3 ln(6 / 0.125) < 12
    assert found.gradient_threshold == pytest.approx(0.5 / chi**2)
    assert found.radius == pytest.approx(0.5 / chi**2 / 3)
    assert found.wait == math.ceil(chi * 3)
    assert found.decrease_threshold == pytest.approx(math.sqrt(0.5**3 / 2) / chi**3)
    training = function(saddle, 1.0, 0.0)
    result = perturbed_descent(training, max_steps=3, **found._asdict())
    assert result.reason is Reason.MAX_STEPS


@pytest.mark.parametrize("name", ["lr", "gradient_threshold", "radius", "wait"])
def test_arguments_out_of_range_are_refused(name: str) -> None:
    options = {"lr": 0.1, "gradient_threshold": 0.1, "radius": 0.1, "wait": 5, name: -1}
    with pytest.raises(ValueError, match=name):
        perturbed_descent(function(saddle, 0.0, 0.0), **options)  # type: ignore[arg-type]
