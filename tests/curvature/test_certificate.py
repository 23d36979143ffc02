"""Certificates: the points of the card, dense verdicts, honesty about what is not known."""

from __future__ import annotations

import itertools
import json
import math
import random

import numpy
import pytest
import torch
from torch import Tensor, nn

import thalweg
from thalweg.core.problem import Training
from thalweg.curvature import Certificate, Objective, Verdict, certify, hessian
from thalweg.curvature.ends import settling_steps
from thalweg.curvature.gradient_noise import measured_gradient
from thalweg.curvature.kinks import kink_distance
from thalweg.curvature.pooling_kinks import pooling_margins
from thalweg.data import load


def function(f, *start: float) -> Training:  # type: ignore[no-untyped-def]
    return Training.from_function(f, torch.tensor(start, dtype=torch.float64))


def rotated(values: Tensor, generator: torch.Generator) -> Tensor:
    n = len(values)
    Q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    A = Q @ torch.diag(values.double()) @ Q.T
    return (A + A.T) / 2


def quadratic(A: Tensor, start: Tensor | None = None) -> Training:
    x = torch.zeros(len(A), dtype=A.dtype) if start is None else start
    return Training.from_function(lambda x: x @ (A @ x) / 2, x)


def digits_mlp(sizes: tuple[int, ...], rows: int, steps: int = 40, newton: int = 30) -> Training:
    """tanh, trained by Adam, then L-BFGS; in float64."""
    data = load("digits")
    x = torch.as_tensor(data.inputs[:rows], dtype=torch.float64)[:, : sizes[0]]
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    y = torch.as_tensor(data.targets[:rows])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.Tanh()]
        model = nn.Sequential(*layers[:-1]).double()
    loss = nn.functional.cross_entropy
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        adam.zero_grad()
        loss(model(x), y).backward()
        adam.step()
    lbfgs = torch.optim.LBFGS(model.parameters(), max_iter=newton, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        lbfgs.zero_grad()
        f = loss(model(x), y)
        f.backward()
        return f

    lbfgs.step(closure)
    lbfgs.zero_grad(set_to_none=True)
    return Training(model, loss, [(x, y)])


# -- the points of the card --------------------------------------------------------------------


def test_a_saddle_and_its_direction() -> None:
    f = lambda x: x[0] ** 2 - x[1] ** 2  # noqa: E731
    certificate = certify(function(f, 0.0, 0.0))
    assert certificate.verdict is Verdict.STRICT_SADDLE
    assert certificate.direction is not None
    assert certificate.direction.abs().tolist() == pytest.approx([0.0, 1.0], abs=1e-12)
    assert certificate.curvature == pytest.approx(-2.0)
    assert certificate.decrease == pytest.approx(certificate.step**2)
    slope = certify(function(f, 0.5, 0.0))
    assert slope.verdict is Verdict.NOT_STATIONARY
    assert slope.direction is not None and slope.direction.tolist() == [-1.0, 0.0]
    # f falls from 1/4 to 0 at the step 1/L, L = 2, along -g = -(1, 0)
    assert slope.decrease == pytest.approx(0.25) and slope.step == pytest.approx(0.5)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("name", ["monkey saddle", "quartic", "constant"])
def test_singular_points_are_no_minima(name: str, dense: bool) -> None:
    f = {
        "monkey saddle": lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2,
        "quartic": lambda x: (x**4).sum(),
        "constant": lambda x: 0 * x.sum(),
    }[name]
    certificate = certify(function(f, 0.0, 0.0), dense=dense)
    assert certificate.verdict in (Verdict.INCONCLUSIVE, Verdict.SECOND_ORDER_STATIONARY)


def test_a_maximum_is_a_candidate() -> None:
    certificate = certify(function(lambda x: -(x**2).sum(), 0.0, 0.0, 0.0))
    assert certificate.verdict is Verdict.LOCAL_MAX_CANDIDATE and certificate.decrease > 0


M = torch.diag(torch.tensor([3.0, 1.0, 0.5, 0.2], dtype=torch.float64))


def factorization(U: Tensor) -> Training:
    return Training.from_function(lambda U: ((U @ U.T - M) ** 2).sum() / 2, U)


def test_matrix_factorization_at_zero_and_at_its_optimum() -> None:
    zero = certify(factorization(torch.zeros(4, 2, dtype=torch.float64)))
    # every eigenvalue is negative (-6, -2, -1, -0.4, twice each)
    assert zero.verdict is Verdict.LOCAL_MAX_CANDIDATE
    assert zero.lambda_min is not None and zero.lambda_min.upper == pytest.approx(-6, abs=1e-12)
    U = torch.zeros(4, 2, dtype=torch.float64)
    U[0, 0], U[1, 1] = math.sqrt(3), 1
    plain = certify(factorization(U))
    assert plain.verdict is Verdict.SECOND_ORDER_STATIONARY
    assert plain.nullity is not None and plain.nullity.value == pytest.approx(1)
    rotation = U @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    for dense in (True, False):
        modulo = certify(factorization(U), symmetries=[rotation.flatten()], dense=dense)
        assert modulo.verdict is Verdict.MINIMUM_MODULO_SYMMETRY
        assert modulo.alpha is not None and 0.99 < modulo.alpha <= 1
        assert modulo.lambda_max is not None
        assert modulo.lambda_max.upper == pytest.approx(12, rel=1e-6)
    with pytest.raises(ValueError, match="not a symmetry here"):
        certify(factorization(U), symmetries=[U.flatten()])
    named = certify(factorization(U), symmetries=[{"x.0": rotation}])
    assert named.verdict is Verdict.MINIMUM_MODULO_SYMMETRY


def test_ridge_logistic_regression_has_its_minimum() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    y = (X[:, 0] + torch.randn(60, generator=generator, dtype=torch.float64) > 0).double()
    lam = 0.1

    def f(w: Tensor) -> Tensor:
        logistic = nn.functional.binary_cross_entropy_with_logits(X @ w, y)
        return logistic + lam / 2 * (w**2).sum()

    w = torch.zeros(5, dtype=torch.float64)
    for _ in range(20):
        H, g = torch.func.hessian(f)(w), torch.func.grad(f)(w)
        w = w - torch.linalg.solve(H, g)
    certificate = certify(Training.from_function(f, w))
    assert certificate.verdict is Verdict.LOCAL_MINIMUM
    rho, R = certificate.hessian_lipschitz, certificate.delta
    assert rho is not None and R is not None and certificate.alpha is not None
    assert certificate.alpha >= lam - certificate.hessian_noise - 3 * rho * R
    assert any("not a proof" in sentence for sentence in certificate.assumptions)
    given = certify(Training.from_function(f, w), hessian_lipschitz=1.0)
    assert any("certified given" in sentence for sentence in given.assumptions)


@pytest.mark.parametrize(
    "h, verdict",
    [
        (0.27, Verdict.LOCAL_MINIMUM),
        (0.29, Verdict.SECOND_ORDER_STATIONARY),
        (0.51, Verdict.SECOND_ORDER_STATIONARY),
    ],
)
def test_the_minimum_test_is_newton_kantorovich(h: float, verdict: Verdict) -> None:
    # f = x^2 at x: |g| = 2 x, mu = 2, so h = rho x / 2
    certificate = certify(
        function(lambda x: (x**2).sum(), 1e-5),
        hessian_lipschitz=2 * h / 1e-5,
        curvature_tolerance=0.1,
    )
    assert certificate.verdict is verdict
    if verdict is Verdict.LOCAL_MINIMUM:
        R = 1e-5 / h * (1 - math.sqrt(1 - 2 * h))
        assert certificate.delta == pytest.approx(R)
        assert certificate.delta is not None and certificate.delta >= 1e-5  # x* = 0 is within
        assert certificate.alpha == pytest.approx(2 - 6 * h * R / 1e-5)
    else:
        within = any("lies within" in sentence for sentence in certificate.reasons)
        assert within == (h < 0.5)


# -- many quadratics ---------------------------------------------------------------------------


def wrong_verdicts(number: int, dense: bool | str) -> tuple[int, int]:
    """d = 100, beta = 5e-3, lambda_min in {-1e-2, 0, 1e-2}: wrong, and inconclusive."""
    generator = torch.Generator().manual_seed(1)
    wrong, inconclusive = 0, 0
    for i in range(number):
        low = (-1e-2, 0.0, 1e-2)[i % 3]
        values = low + torch.rand(100, generator=generator, dtype=torch.float64)
        values[0] = low
        training = quadratic(rotated(values, generator))
        verdict = certify(
            training, curvature_tolerance=5e-3, budget=100, dense=dense, seed=i
        ).verdict
        right = {
            -1e-2: {Verdict.STRICT_SADDLE},
            0.0: {Verdict.SECOND_ORDER_STATIONARY},
            1e-2: {Verdict.SECOND_ORDER_STATIONARY, Verdict.LOCAL_MINIMUM},
        }[low]
        inconclusive += verdict is Verdict.INCONCLUSIVE
        wrong += verdict not in right and verdict is not Verdict.INCONCLUSIVE
    return wrong, inconclusive


@pytest.mark.parametrize("dense", ["auto", False])
def test_no_verdict_on_a_quadratic_is_wrong(dense: bool | str) -> None:
    wrong, inconclusive = wrong_verdicts(15, dense)
    assert wrong == 0 and inconclusive == 0


@pytest.mark.slow
@pytest.mark.parametrize("dense", ["auto", False])
def test_no_verdict_on_500_quadratics_is_wrong(dense: bool | str) -> None:
    wrong, inconclusive = wrong_verdicts(500, dense)
    assert wrong == 0 and inconclusive < 25


# -- networks ----------------------------------------------------------------------------------


def dense_verdict(training: Training, eps: float, beta: float) -> set[Verdict]:
    H = hessian(training)
    lowest = float(torch.linalg.eigvalsh(H.dense())[0])
    if float(H.gradient().norm()) > eps:
        return {Verdict.NOT_STATIONARY}
    if lowest < -beta:
        return {Verdict.STRICT_SADDLE}
    return {Verdict.SECOND_ORDER_STATIONARY, Verdict.LOCAL_MINIMUM}


def test_verdicts_on_a_network_are_those_of_its_dense_hessian() -> None:
    training = digits_mlp((16, 8, 10), rows=120)
    d = hessian(training).shape[0]
    lowest = abs(float(torch.linalg.eigvalsh(hessian(training).dense())[0]))
    seen = set()
    for eps, beta in ((1e-9, 1e-2), (1.0, 0.3 * lowest), (1.0, 3 * lowest)):
        for dense in (True, False):
            certificate = certify(
                training, gradient_tolerance=eps, curvature_tolerance=beta, dense=dense, budget=d
            )
            assert certificate.verdict in dense_verdict(training, eps, beta)
            seen.add(certificate.verdict)
    assert len(seen) == 3  # the three cases were there


@pytest.mark.slow
def test_the_verdict_on_the_network_of_the_card_is_that_of_its_dense_hessian() -> None:
    training = digits_mlp((64, 16, 10), rows=1797, steps=60, newton=20)
    norm = float(Objective(training).gradient().norm())
    lowest = abs(float(torch.linalg.eigvalsh(hessian(training).dense())[0]))
    seen = set()
    for eps, beta in ((norm / 2, lowest), (2 * norm, 0.5 * lowest), (2 * norm, 5 * lowest)):
        certificate = certify(
            training, gradient_tolerance=eps, curvature_tolerance=beta, budget=1000
        )
        assert certificate.verdict in dense_verdict(training, eps, beta)
        seen.add(certificate.verdict)
    assert len(seen) == 3


def test_a_direction_of_a_network_goes_down_by_what_was_said() -> None:
    training = digits_mlp((16, 8, 10), rows=120)
    certificate = certify(training, gradient_tolerance=1.0, curvature_tolerance=1e-5)
    assert certificate.verdict is Verdict.STRICT_SADDLE and certificate.direction is not None
    objective = Objective(training)
    x, y = objective.start, certificate.direction
    assert objective.value(x + certificate.step * y) == certificate.loss - certificate.decrease
    assert float(y @ objective.gradient()) <= 0
    parts = certificate.unflattened()
    assert [part.shape for part in parts.values()] == [p.shape for p in training.model.parameters()]
    assert torch.equal(objective.flatten(parts), y)


def test_a_certificate_leaves_everything_as_it_was_and_repeats_itself() -> None:
    training = digits_mlp((16, 8, 10), rows=60, steps=10, newton=5)
    model = training.model.train()
    before = [p.detach().clone() for p in model.parameters()]
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    states = torch.get_rng_state(), numpy.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    options = {"gradient_tolerance": 1.0, "curvature_tolerance": 1e-4, "dense": False}
    first = certify(training, seed=3, **options)  # type: ignore[arg-type]
    assert all(map(torch.equal, before, model.parameters()))
    assert model.training and all(module.training for module in model.modules())
    grads = [p.grad for p in model.parameters()]
    assert grads[0] is not None and bool((grads[0] == 1).all()) and grads[1:] == [None] * 3
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == numpy.random.get_state()[1]).all()  # noqa: NPY002
    assert states[2] == random.getstate()
    torch.manual_seed(99)
    again = certify(training, seed=3, **options)  # type: ignore[arg-type]
    assert first.to_dict() == again.to_dict() and str(first) == str(again)
    assert first.direction is not None and again.direction is not None
    assert torch.equal(first.direction, again.direction)


def test_the_certificate_in_single_precision_and_over_batches() -> None:
    training = digits_mlp((16, 8, 10), rows=120)
    (x, y) = training.data[0]  # type: ignore[index]
    half = Training(training.model.float(), training.loss, [(x[:50].float(), y[:50]),
                                                            (x[50:].float(), y[50:])])  # fmt: skip
    certificate = certify(half, gradient_tolerance=1.0, curvature_tolerance=1e-3)
    assert certificate.verdict is Verdict.STRICT_SADDLE
    assert 0 < certificate.gradient_noise < 1e-6
    assert 1e-7 < certificate.hessian_noise < 1e-4


def test_gradient_noise_is_the_difference_of_two_groupings() -> None:
    training = digits_mlp((16, 8, 10), rows=119, steps=10, newton=5)
    model = training.model.float()
    (x, y) = training.data[0]  # type: ignore[index]
    x = x.float()
    measured = measured_gradient(Objective(Training(model, training.loss, [(x, y)])))

    def gradient(part: slice) -> Tensor:
        grads = torch.autograd.grad(training.loss(model(x[part]), y[part]), model.parameters())
        return torch.cat([g.flatten() for g in grads]).double()

    halved = (59 * gradient(slice(0, 59)) + 60 * gradient(slice(59, None))) / 119
    apart = float((gradient(slice(None)) - halved).norm())
    assert measured.noise == pytest.approx(apart) and apart > 0
    # a sum over rows is no mean: the halves say nothing, and rounding is what is left
    total = nn.CrossEntropyLoss(reduction="sum")
    summed = measured_gradient(Objective(Training(model, total, [(x, y)])))
    assert summed.noise == pytest.approx(torch.finfo(torch.float32).eps * summed.mean_batch_norm)


# -- budgets and words -------------------------------------------------------------------------


def wide_spectrum(low: float) -> Training:
    values = torch.linspace(0, 50, 2000, dtype=torch.float64)
    values[0] = low
    return Training.from_function(lambda x: (values * x**2).sum() / 2, torch.zeros(2000).double())


def test_an_inconclusive_certificate_names_the_budget_that_settles_it() -> None:
    training = wide_spectrum(0.0)
    with pytest.warns(UserWarning, match="curvature_tolerance must be above the resolution"):
        short = certify(training, curvature_tolerance=5e-2, budget=60)
    assert short.verdict is Verdict.INCONCLUSIVE
    assert short.settling_budget is not None and 60 < short.settling_budget < 400
    assert f"raise budget to {short.settling_budget}" in str(short)
    settled = certify(training, curvature_tolerance=5e-2, budget=short.settling_budget)
    assert settled.verdict is Verdict.SECOND_ORDER_STATIONARY
    assert settled.confidence == 1 - 1e-3 and settled.lambda_min is not None
    assert settled.lambda_min.lower <= 0 <= settled.lambda_min.upper


def test_the_budget_of_the_card() -> None:
    assert settling_steps(10**6, 50.0, 0.01, 1e-3) == 532


def test_a_default_tolerance_is_raised_to_what_can_be_decided() -> None:
    certificate = certify(wide_spectrum(1e-3), budget=100)
    assert certificate.verdict is not Verdict.INCONCLUSIVE
    assert any("raised from 0 to" in sentence for sentence in certificate.assumptions)
    # for H(x) = 6 x along the coordinate, rho = 6: beta = sqrt(6 eps)
    cubic = certify(function(lambda x: x**3 + x**2, 0.0), gradient_tolerance=1e-4)
    assert cubic.curvature_tolerance == pytest.approx(math.sqrt(6e-4), rel=1e-6)


def test_gradient_noise_is_not_decided_but_a_saddle_is() -> None:
    # |g| = 1e-4 to rounding: within its noise of the tolerance
    def f(x: Tensor) -> Tensor:
        return (x**2).sum() / 2

    certificate = certify(Training.from_function(f, torch.tensor([0.01])), gradient_tolerance=0.01)
    assert certificate.verdict is Verdict.INCONCLUSIVE
    assert "gradient noise" in certificate.reasons[-1]
    saddle = certify(
        Training.from_function(lambda x: (x[0] ** 2 - x[1] ** 2) / 2, torch.tensor([0.01, 0.0])),
        gradient_tolerance=0.01,
    )
    assert saddle.verdict is Verdict.STRICT_SADDLE


def test_words_and_json() -> None:
    certificate = certify(function(lambda x: x[0] ** 2 - x[1] ** 2, 0.0, 0.0))
    assert str(certificate).startswith("STRICT_SADDLE: a strict saddle")
    found = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
    assert found["verdict"] == "STRICT_SADDLE" and found["lambda_min"] == pytest.approx([-2, -2])
    bowl = certify(function(lambda x: (x**2).sum(), 0.0))
    with pytest.raises(ValueError, match="must have a direction, got LOCAL_MINIMUM"):
        bowl.unflattened()
    assert isinstance(bowl, Certificate) and thalweg.certify is certify


# -- kinks -------------------------------------------------------------------------------------


def test_kinks_near_the_point_are_told() -> None:
    corner = certify(function(lambda x: x[0].relu() + (x**2).sum(), -1e-3, 0.0),
                     gradient_tolerance=1e-2)  # fmt: skip
    assert corner.verdict is Verdict.SECOND_ORDER_STATIONARY and corner.piecewise
    assert corner.kink_distance == pytest.approx(1e-3)
    far = certify(function(lambda x: (x[0] - 1).relu() + (x**2).sum(), 0.0, 0.0))
    assert far.verdict is Verdict.LOCAL_MINIMUM and not far.piecewise
    assert far.kink_distance == pytest.approx(1.0)
    across = certify(function(lambda x: (x[0] - 0.1).relu() + x[1] ** 2 - x[0] ** 2, 0.0, 0.0))
    assert across.verdict is Verdict.STRICT_SADDLE and across.piecewise == (across.step >= 0.1)


def two_layer(W1: float, b1: float, W2: float, b2: float, X: list[float], y: list[float]):  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        for p, value in zip(model.parameters(), (W1, b1, W2, b2)):
            p.fill_(value)
    x, t = (torch.tensor(v, dtype=torch.float64)[:, None] for v in (X, y))
    return Training(model, nn.functional.mse_loss, [(x[:2], t[:2]), (x[2:], t[2:])])


@pytest.mark.parametrize("kind", ["fixed", "adaptive", "function"])
def test_nearly_equal_maxima_in_a_window_are_a_kink(kind: str) -> None:
    pool = {
        "fixed": nn.MaxPool1d(2), "adaptive": nn.AdaptiveMaxPool1d(1),
        "function": lambda x: torch.max_pool1d(x, 2),
    }[kind]  # fmt: skip
    f = function(lambda x: pool(x[None])[0, 0] ** 2 + x @ x, 1.0, 0.98)
    # the lead is z = x_1 - x_2, of slope sqrt 2
    nearest, along = kink_distance(Objective(f), torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert nearest == pytest.approx(0.02 / math.sqrt(2)) and along == pytest.approx(0.02)
    assert kink_distance(Objective(function(lambda x: pool(x[None]).sum(), 1.0, 1.0)))[0] == 0.0


def test_windows_of_units_that_are_off_or_of_constant_inputs_are_no_kink() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2)
    ).double()
    x = torch.randn(6, 1, 4, 4, dtype=torch.float64)
    x[3:] = 1.0
    data = [(x, torch.randint(0, 2, (6,)))]
    objective = Objective(Training(model, nn.functional.cross_entropy, data))
    nearest, _ = kink_distance(objective)
    assert 1e-9 < nearest < 1.0
    with torch.no_grad():
        model[0].bias -= 100.0  # all off: neither a ReLU nor a window is near a corner
    assert kink_distance(objective)[0] > 10.0


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_margins_of_pools_are_those_of_their_windows(dims: int) -> None:
    """An entry belongs to a window if the pooled value follows it upwards."""
    draw = random.Random(dims)
    for case in range(20):
        shape = [draw.randint(3, 7 if dims < 3 else 4) for _ in range(dims)]
        x = torch.randn(1, 1, *shape, dtype=torch.float64)
        size = draw.randint(1, 3)
        if case % 4 == 0:
            function = getattr(nn.functional, f"adaptive_max_pool{dims}d")
            arguments, how = ([draw.randint(1, n) for n in shape],), {}
        else:
            function = getattr(nn.functional, f"max_pool{dims}d")
            arguments = (size,)
            how = {
                "stride": draw.choice([None, 1, 2]), "padding": draw.randint(0, size // 2),
                "dilation": draw.randint(1, 2) if size == 2 else 1, "ceil_mode": case % 2 == 0,
            }  # fmt: skip
        pooled = function(x, *arguments, **how).flatten()
        raised = x + 1e3 * torch.eye(x.numel(), dtype=x.dtype).view(-1, 1, *shape)
        members = function(raised, *arguments, **how).flatten(1) > 500
        leads = (pooled - x.flatten()[:, None])[members]
        margins = pooling_margins(function, (x, *arguments), how)
        assert margins is not None
        assert torch.allclose(margins.sort().values, leads[leads > 0].sort().values)


def test_two_layer_networks_on_their_kinks_go_to_the_exact_test() -> None:
    minimum = certify(two_layer(1, 0, 1, 0, [-1, 0, 1, 2], [1, -2, 3, 1]))
    assert minimum.verdict is Verdict.MINIMUM_MODULO_SYMMETRY and minimum.bound == "sosp-check"
    flat = certify(two_layer(1, 0, 1, 0, [-1, 0, 1, 2], [1, -1, 1, 2]))
    assert flat.bound == "sosp-check"
    falls = two_layer(1, 0, 1, 0, [-1, 0, 1, 1], [-1, 1, 1, 1])
    certificate = certify(falls)
    assert certificate.bound == "sosp-check" and certificate.verdict.goes_down
    objective = Objective(falls)
    assert certificate.direction is not None
    after = objective.value(objective.start + certificate.step * certificate.direction)
    assert after == pytest.approx(certificate.loss - certificate.decrease, abs=1e-15)
    assert certificate.decrease > 0
    off = certify(two_layer(1, 0.5, 1, 0, [-1, 0, 1, 2], [1, -2, 3, 1]))
    assert off.bound != "sosp-check"


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gradient_tolerance": 0}, "gradient_tolerance must be > 0, got 0"),
        ({"curvature_tolerance": -1.0}, "curvature_tolerance must be > 0, got -1.0"),
        ({"budget": 0}, "budget must be an integer >= 1, got 0"),
        ({"failure": 1.0}, r"failure must be in \(0, 1\), got 1.0"),
        ({"hessian_lipschitz": -1.0}, "hessian_lipschitz must be >= 0, got -1.0"),
        ({"dense": "yes"}, "dense must be one of"),
        ({"symmetries": torch.ones(3, 1)}, r"symmetries must be of shape \(2, s\)"),
        ({"symmetries": [torch.zeros(2)]}, "symmetries must be finite and not zero"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        certify(function(lambda x: (x**2).sum(), 0.0, 0.0), **options)  # type: ignore[arg-type]


def test_stochastic_losses_half_precision_and_infinities_are_refused() -> None:
    x, y = torch.ones(4, 2), torch.zeros(4, 1)
    loader = torch.utils.data.DataLoader([(x, y)], shuffle=True)
    with pytest.raises(ValueError, match="shuffle=True"):
        certify(Training(nn.Linear(2, 1), nn.functional.mse_loss, loader))
    noisy = Training.from_function(lambda x: (x * torch.rand(2)).sum(), torch.ones(2))
    with pytest.raises(ValueError, match="deterministic"):
        certify(noisy)
    with pytest.raises(TypeError, match=r"convert the model with model.float\(\)"):
        certify(Training(nn.Linear(2, 1).half(), nn.functional.mse_loss, [(x, y)]))
    with pytest.raises(ValueError, match="the loss must be finite"):
        certify(function(lambda x: x.log().sum(), -1.0))
    with pytest.raises(ValueError, match="at least one batch"):
        certify(Training(nn.Linear(2, 1), nn.functional.mse_loss, []))
    with pytest.raises(ValueError, match="scalar"):
        certify(Training(nn.Linear(2, 1), lambda z, y: z - y, [(x, y)]))


@pytest.mark.parametrize("sure", [3.0, 6.0])
def test_a_network_that_is_sure_is_certified_in_single_precision(sure: float) -> None:
    """Its Hessian, of order 1e-7 or 1e-14, is known to some per cent in float32, and said so."""
    torch.manual_seed(0)
    x, y = torch.randn(100, 20), torch.arange(100) % 5
    x[:, :5] += 6.0 * nn.functional.one_hot(y, 5)
    model = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        for p in model[2].parameters():
            p.mul_(sure)
    training = Training(model, nn.functional.cross_entropy, [(x, y)])
    found = certify(training, budget=60)
    assert found.verdict.name in ("SECOND_ORDER_STATIONARY", "INCONCLUSIVE")
    assert 0 < found.hessian_noise < 1e-6
    double = Training(model.double(), nn.functional.cross_entropy, [(x.double(), y)])
    exact = torch.linalg.eigvalsh(hessian(double).dense())
    assert found.lambda_min.lower <= float(exact[0]) and float(exact[-1]) <= found.lambda_max.upper
