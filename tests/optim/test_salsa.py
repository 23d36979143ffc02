"""SALSA, SASA and SSLS: agreement with the authors' package, identities, phases, bad input."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thalweg.optim import SALSA, SASA, SSLS, stationarity
from thalweg.optim.stationarity import kept, mean_is_zero, newest, push
from thalweg.optim.step_control import StepControl

DOUBLE = torch.float64


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=DOUBLE))


X = gaussian(256, 6, seed=1)
Y = torch.sin(X[:, :1]) + 0.3 * gaussian(256, 1, seed=2)


class Regression:
    """A two-layer network on 256 points, batches of 16 drawn by step number."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        self.optimizer = make(self.model.parameters())
        self.calls = 0
        self.lrs: list[float] = []

    def loss(self, t: int) -> Tensor:
        i = torch.randint(256, (16,), generator=torch.Generator().manual_seed(t))
        return (self.model(X[i]) - Y[i]).square().mean()

    def run(self, steps: range) -> Regression:
        for t in steps:

            def evaluate(eval_mode: bool = True, t: int = t) -> Tensor:
                self.calls += 1
                with torch.no_grad():
                    return self.loss(t)

            self.optimizer.zero_grad()
            self.loss(t).backward()
            self.optimizer.step(evaluate)
            self.lrs.append(self.optimizer.param_groups[0]["lr"])
        return self

    @property
    def point(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


def quick(**hyper: Any) -> Callable[[Any], SALSA]:
    """The smallest queues the class accepts: the switch at step 200, drops at 250 and 550."""
    settings = {"lr": 1e-2, "gamma": 0.3, "nu": 0.7}
    settings |= {"min_samples": 100, "test_every": 50, "leak": 2, **hyper}
    return lambda params: SALSA(params, **settings)


# ---- the card's items ----


def follows_statopt(var: Any, nu: float, steps: int) -> int:
    """Compare the paths of lr; the number of drops."""
    statopt = pytest.importorskip("statopt")
    hyper: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-3, "gamma": 0.1}
    ours = Regression(
        lambda p: SALSA(p, nu=nu, var=var, min_samples=100, test_every=100, **hyper)
    ).run(range(steps))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls torch in ways of torch 1
        theirs = Regression(
            lambda p: statopt.SALSA(
                p, qhm_nu=nu, var_mode=var, minN_stats=100, testfreq=100, **hyper
            )
        ).run(range(steps))
    assert ours.lrs == pytest.approx(theirs.lrs, rel=1e-9)
    assert torch.allclose(ours.point, theirs.point, rtol=1e-6, atol=1e-9)
    return sum(event.dropped for event in ours.optimizer.history)


@pytest.mark.parametrize(("var", "nu"), [("iid", 0.7), ("olbm", 1.0)])
def test_1_same_lr_path_as_statopt(var: Any, nu: float) -> None:
    assert follows_statopt(var, nu, steps=1000) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("var", ["iid", "olbm"])
@pytest.mark.parametrize("nu", [1.0, 0.7])
def test_1_same_lr_path_as_statopt_in_full(var: Any, nu: float) -> None:
    assert follows_statopt(var, nu, steps=4000) >= 2


@pytest.mark.parametrize("nu", [1.0, 0.4, 0.0])
def test_2_both_forms_of_the_statistic(nu: float, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    statistic = StepControl._statistic
    monkeypatch.setattr(
        StepControl, "_statistic", lambda self: seen.append(statistic(self)) or seen[-1]
    )
    x = nn.Parameter(gaussian(7))
    optimizer = SASA([x], lr=0.3, momentum=0.8, nu=nu, weight_decay=0.1)
    h = torch.zeros(7, dtype=DOUBLE)
    for k in range(20):
        before, raw = x.detach().clone(), gaussian(7, seed=k + 1)
        x.grad = raw
        optimizer.step()
        g = raw + 0.1 * before
        h = 0.8 * h + 0.2 * g
        d = (1 - nu) * g + nu * h
        assert torch.allclose(x, before - 0.3 * d, rtol=1e-12)
        assert seen[-1] == pytest.approx(float(before @ d - 0.15 * d @ d), abs=1e-10)
        assert seen[-1] == pytest.approx(float(x.detach() @ d + 0.15 * d @ d), abs=1e-10)


def test_3_the_statistic_has_mean_zero_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """f = a x^2/2 with noise: E[x d] = (lr/2) E d^2; 2000 chains at once."""
    seen: list[float] = []
    statistic = StepControl._statistic
    monkeypatch.setattr(
        StepControl, "_statistic", lambda self: seen.append(statistic(self)) or seen[-1]
    )
    x = nn.Parameter(torch.ones(2000, dtype=DOUBLE))
    optimizer = SASA([x], lr=0.5, momentum=0.5)
    squares = []
    for k in range(400):
        x.grad = 0.8 * x.detach() + gaussian(2000, seed=k)
        optimizer.step()
        squares.append(0.25 * float(optimizer.state[x]["momentum_buffer"].square().sum()))
    rest = torch.tensor(seen[100:], dtype=DOUBLE)
    half_square = sum(squares[100:]) / 300  # (lr/2) E d^2, what <x, d> must make up for
    assert abs(float(rest.mean())) < 0.01 * half_square
    assert seen[0] > 2 * half_square  # on the way there it was no rest


def test_4_coverage_of_intervals_on_autoregressive_noise() -> None:
    """Nominal 95 %; 400 runs of AR(1), rho = 0.9, N = 1000."""
    from scipy.signal import lfilter

    noise = gaussian(400, 2000, seed=4).numpy()
    runs = torch.from_numpy(lfilter([1.0], [1.0, -0.9], noise, axis=1)[:, 1000:].copy())

    def coverage(var: Any) -> float:
        tests = [mean_is_zero(run, 0.05, var) for run in runs]
        return sum(t.low < 0 < t.high for t in tests) / len(tests)

    assert 0.85 <= coverage("olbm") <= 0.97
    assert 0.85 <= coverage("bm") <= 0.97
    assert coverage("iid") < 0.5


@pytest.mark.parametrize("smoothness", [0.5, 3.0, 10.0])
@pytest.mark.parametrize("gamma", [0.05, 0.1, 0.3])
def test_5_line_search_finds_the_smoothness(smoothness: float, gamma: float) -> None:
    x = nn.Parameter(gaussian(4))
    optimizer = SSLS([x], lr=1e-3, gamma=gamma, momentum=0.0)
    for _ in range(250):
        if float(x.detach().norm()) < 1e-100:  # a step of 1/L reaches the minimum
            break
        x.grad = smoothness * x.detach()
        optimizer.step(lambda eval_mode: smoothness / 2 * x.detach().square().sum())
        lr = optimizer.param_groups[0]["lr"]
        assert math.isfinite(lr) and bool(x.isfinite().all())
    assert 0.95 / smoothness < lr <= 0.95 * (1 + gamma) / smoothness


def test_6_lr_never_rises_after_the_switch() -> None:
    run = Regression(quick())
    phases = []
    for t in range(300):
        run.run(range(t, t + 1))
        phases.append(run.optimizer.phase)
    switch = phases.index("statistical drops")
    assert "line search" not in phases[switch:]
    after = run.lrs[switch:]
    assert all(b <= a for a, b in pairwise(after))
    assert after[-1] < after[0] / 9
    assert max(run.lrs[:switch]) > 10 * run.lrs[0]  # before, the search raised it


def test_7_the_statistic_depends_on_the_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    statistic = StepControl._statistic
    monkeypatch.setattr(
        StepControl, "_statistic", lambda self: seen.append(statistic(self)) or seen[-1]
    )
    for shift in (0.0, 1.0):
        x = nn.Parameter(gaussian(3) + shift)
        x.grad = gaussian(3, seed=1)
        SASA([x], momentum=0.0).step()
    assert seen[1] - seen[0] == pytest.approx(float(gaussian(3, seed=1).sum()), rel=1e-12)


# ---- the controller ----


def test_rest_needs_both_halves_on_one_side_and_at_first_each_half_near_zero() -> None:
    noise = gaussian(400)
    noise[:200] -= noise[:200].mean()
    noise[200:] -= noise[200:].mean()
    halves = torch.cat([torch.ones(200), -torch.ones(200)]).double()
    width = mean_is_zero(noise, 0.05, "iid").high

    def tested(first: float, second: float, composite: bool) -> bool:
        """Halves with these means, in half widths of the interval."""
        shift = width * ((first + second) / 2 + (first - second) / 2 * halves)
        samples = noise + shift
        # the shift widens the interval by a few per cent only
        return mean_is_zero(samples, 0.05, "iid", composite=composite).stationary

    assert tested(0.5, 0.5, composite=False) and tested(0.5, 0.5, composite=True)
    assert not tested(0.5, -0.4, composite=False) and not tested(0.5, -0.4, composite=True)
    assert tested(1.5, 0.1, composite=False) and not tested(1.5, 0.1, composite=True)
    assert not tested(1.5, 1.5, composite=False)


def test_search_takes_the_first_of_three_step_sizes() -> None:
    """f = (L/2) x^2: a trial passes iff eta <= 1.9/L."""
    for lr, found, evaluations in ((0.5, 2, 2), (1.5, 1, 3), (4.0, 0.5, 3)):
        x = parameter(1.0)
        optimizer = SSLS([x], lr=lr, gamma=1.0, momentum=0.0)
        x.grad = x.detach().clone()
        points: list[float] = []

        def evaluate(eval_mode: bool, x: Tensor = x, points: list[float] = points) -> float:
            assert eval_mode is True
            points.append(x.item())
            return x.item() ** 2 / 2

        optimizer.step(evaluate)
        assert optimizer.param_groups[0]["lr"] == found * lr
        assert points == [1.0, 1 - 2 * lr, 1 - lr][:evaluations]
        assert x.item() == 1 - found * lr


def test_weight_decay_is_part_of_the_searched_function() -> None:
    """L2 makes f = (L + decay)/2 x^2: the same lrs as that quadratic without decay."""
    lrs = []
    for curvature, decay in ((3.0, 0.0), (1.0, 2.0)):
        x = parameter(1.0, -2.0)
        optimizer = SSLS([x], lr=0.05, weight_decay=decay)
        for _ in range(30):
            x.grad = curvature * x.detach()
            optimizer.step(lambda _, x=x, c=curvature: c / 2 * x.detach().square().sum())
        lrs.append(optimizer.param_groups[0]["lr"])
    assert lrs[0] == pytest.approx(lrs[1], rel=1e-12)


def test_zero_gradient_makes_no_trial() -> None:
    x = parameter(1.0)
    optimizer = SALSA([x], lr=0.5)
    x.grad = torch.zeros(1, dtype=DOUBLE)
    calls: list[bool] = []
    optimizer.step(lambda mode: calls.append(mode) or 1.0)
    assert calls == [True] and optimizer.param_groups[0]["lr"] == 0.5
    assert torch.equal(x, parameter(1.0))


def test_a_trial_with_a_loss_that_is_nan_fails() -> None:
    x = parameter(1.0)
    optimizer = SSLS([x], lr=1.0, gamma=1.0)
    x.grad = torch.ones(1, dtype=DOUBLE)
    optimizer.step(lambda mode: 1.0 if x.item() == 1.0 else math.nan)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_phase_2_does_not_call_the_closure_and_needs_none() -> None:
    run = Regression(quick()).run(range(205))
    assert run.optimizer.phase == "statistical drops"
    run.calls = 0
    run.run(range(205, 210))
    assert run.calls == 0
    run.optimizer.step()


def test_a_drop_divides_lr_zeroes_the_momentum_and_empties_the_queue() -> None:
    x = nn.Parameter(torch.zeros(50, dtype=DOUBLE))
    optimizer = SASA([x], lr=0.2, min_samples=100, leak=1, test_every=1, drop=4.0)
    for k in range(1, 1000):
        x.grad = x.detach() + gaussian(50, seed=k)
        optimizer.step()
        if optimizer.history and optimizer.history[-1].dropped:
            break
    event = optimizer.history[-1]
    assert event.dropped and event.low < 0 < event.high and event.lr == 0.2
    assert len(optimizer.history) == k - 100  # tested at every step from 101 samples on
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert not optimizer.state[x]["momentum_buffer"].any()
    assert len(optimizer.samples("statistics")) == 0


def test_groups_share_one_factor() -> None:
    def path(split: bool, second: float) -> tuple[Tensor, list[float]]:
        values = gaussian(4)
        xs = [nn.Parameter(v.clone()) for v in (values.split(2) if split else [values])]
        groups = [{"params": [x], "lr": lr} for x, lr in zip(xs, (0.01, second), strict=False)]
        optimizer = SALSA(groups)
        for _ in range(40):
            for x in xs:
                x.grad = 2 * x.detach()
            optimizer.step(lambda mode: float(sum(x.detach().square().sum() for x in xs)))
        return torch.cat([x.detach() for x in xs]), [g["lr"] for g in optimizer.param_groups]

    whole, (lr,) = path(split=False, second=0.01)
    parts, lrs = path(split=True, second=0.01)
    assert torch.allclose(whole, parts, rtol=1e-10) and lrs == pytest.approx([lr, lr])
    _, (first, second) = path(split=True, second=0.0025)
    assert first / second == pytest.approx(4.0) and first > 0.01


def test_default_constants_follow_the_data_size() -> None:
    optimizer = SALSA([parameter(1.0)], batch_size=25, n=1000)
    assert (optimizer.gamma, optimizer.test_every) == (math.sqrt(25 / 1000), 40)
    assert SALSA([parameter(1.0)], batch_size=1, n=5000).test_every == 1000
    plain = SALSA([parameter(1.0)])
    assert (plain.gamma, plain.test_every) == (0.1, 100)


def test_a_drop_ends_the_line_search_though_losses_still_fall() -> None:
    x = nn.Parameter(torch.zeros(50, dtype=DOUBLE))
    optimizer = SALSA([x], lr=0.2, gamma=1e-3, min_samples=100, leak=1, test_every=1)
    for k in range(1, 1000):
        x.grad = x.detach() + gaussian(50, seed=k)
        optimizer.step(lambda mode, k=k: -float(k))
        if optimizer.history and optimizer.history[-1].dropped:
            break
        assert optimizer.phase == "line search"
    assert optimizer.history[-1].dropped and optimizer.phase == "statistical drops"
    x.grad = x.detach().clone()
    optimizer.step()  # without a closure


def test_the_first_drop_takes_the_composite_test(monkeypatch: pytest.MonkeyPatch) -> None:
    composites: list[bool] = []
    test = stationarity.mean_is_zero

    def seen(*arguments: Any, composite: bool) -> Any:
        composites.append(composite)
        return test(*arguments, composite=composite)

    monkeypatch.setattr(stationarity, "mean_is_zero", seen)
    history = Regression(quick()).run(range(500)).optimizer.history
    drops = [event.dropped for event in history]
    first = drops.index(True)
    assert composites == [i <= first for i in range(len(drops))] and len(drops) > first + 1


# ---- saving and resuming ----


@pytest.mark.parametrize("at", [90, 230, 270])
def test_resumes_bitwise_in_either_phase(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through growing queues, the switch and a drop; from disk with weights_only."""
    monkeypatch.setattr(stationarity, "CAPACITY", 16)
    expected = Regression(quick()).run(range(320))
    source = Regression(quick()).run(range(at))
    file = io.BytesIO()
    torch.save([source.model.state_dict(), source.optimizer.state_dict()], file)
    file.seek(0)
    twin = Regression(quick())
    model, optimizer = torch.load(file, weights_only=True)
    twin.model.load_state_dict(model)
    twin.optimizer.load_state_dict(optimizer)
    assert twin.optimizer.phase == source.optimizer.phase
    source.run(range(at, at + 50))  # the source going on must not disturb the twin
    twin.run(range(at, 320))
    assert twin.lrs == expected.lrs[at:]
    assert torch.equal(twin.point, expected.point)
    assert len(expected.optimizer.samples("losses")) > 0
    assert any(event.dropped for event in expected.optimizer.history)


def test_controller_memory_is_tensors() -> None:
    run = Regression(quick()).run(range(120))
    saved = run.optimizer.state_dict()["state"]
    assert {"steps", "drops", "searching", "losses", "statistics"} <= saved[0].keys()
    assert all(isinstance(v, Tensor) for state in saved.values() for v in state.values())
    assert saved[0]["losses"].dtype is DOUBLE and "losses" not in saved[1]


@pytest.mark.parametrize("leak", [1, 3, 8])
def test_queue_keeps_the_newest_part(leak: int) -> None:
    ring, everything = torch.zeros(2, dtype=DOUBLE), []
    for i in range(200):
        ring = push(ring, i, float(i), leak)
        everything.append(float(i))
        count = math.ceil((i + 1) / leak)
        assert kept(i + 1, leak) == count
        assert newest(ring, i + 1, leak).tolist() == everything[-count:]
    assert len(ring) < 2 * math.ceil(200 / leak) + 2


# ---- closures ----


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_closure_with_backward_takes_the_same_steps(set_to_none: bool) -> None:
    """The closure of torch.optim.LBFGS: its trials must not disturb this step's gradients."""
    expected = Regression(SALSA).run(range(60))
    run = Regression(SALSA)
    for t in range(60):

        def closure(t: int = t) -> Tensor:
            run.optimizer.zero_grad(set_to_none=set_to_none)
            loss = run.loss(t)
            loss.backward()
            return loss

        with torch.no_grad():
            assert run.optimizer.step(closure).item() >= 0
    assert run.optimizer.param_groups[0]["lr"] == expected.lrs[-1]
    assert torch.equal(run.point, expected.point)


def test_parameters_and_gradients_are_restored_after_an_error_in_the_closure() -> None:
    x = parameter(1.0)
    g = x.grad = torch.ones(1, dtype=DOUBLE)

    def closure(eval_mode: bool) -> float:
        if x.item() != 1.0:
            raise KeyError("simulator down")
        return 1.0

    with pytest.raises(KeyError):
        SALSA([x]).step(closure)
    assert x.item() == 1.0 and x.grad is g and g.item() == 1.0


def test_dropout_is_switched_off_by_a_closure_that_honours_eval_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    inputs = torch.randn(16, 3)
    values = []

    def loss(eval_mode: bool) -> Tensor:
        model.train(not eval_mode)
        with torch.no_grad():
            values.append(model(inputs).square().mean())
        model.train()
        return values[-1]

    model(inputs).square().mean().backward()
    returned = SALSA(model.parameters(), lr=0.0).step(loss)
    assert returned == float(loss(True)) * 1.0 and model.training


# ---- bad input ----


@pytest.mark.parametrize("cls", [SALSA, SSLS])
def test_no_closure(cls: Any) -> None:
    x = parameter(1.0)
    x.grad = torch.ones(1, dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"closure is needed .* pass step\(\) either a function"):
        cls([x]).step()
    assert x.item() == 1.0


def test_a_closure_that_calls_backward_though_it_gets_a_mode() -> None:
    x = parameter(1.0)
    g = x.grad = torch.ones(1, dtype=DOUBLE)

    def closure(eval_mode: bool) -> Tensor:
        with torch.enable_grad():
            loss = x.square().sum()
            loss.backward()
        return loss.detach()

    with pytest.raises(RuntimeError, match="without calling backward"):
        SALSA([x]).step(closure)
    assert x.item() == 1.0 and x.grad is g and g.item() == 1.0


@pytest.mark.parametrize(
    ("hyper", "words"),
    [
        ({"min_samples": 99}, "min_samples must be an integer >= 100, got 99"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"nu": 1.5}, r"nu must be in \[0, 1\], got 1.5"),
        ({"gamma": 0.0}, r"gamma must be in \(0, 1\], got 0.0"),
        ({"drop": 1.0}, "drop must be > 1, got 1.0"),
        ({"significance": 0.0}, r"significance must be in \(0, 1\), got 0.0"),
        ({"leak": 0}, "leak must be an integer >= 1, got 0"),
        ({"var": "mb"}, "var must be one of 'olbm', 'bm', 'iid', got 'mb'"),
        ({"batch_size": 5}, "batch_size and n must be given together"),
        ({"batch_size": 5, "n": 4}, "n must be an integer >= 5, got 4"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0, got -1.0"),
    ],
)
def test_bad_hyper_parameters(hyper: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SALSA([parameter(1.0)], **hyper)


def test_maximize_must_be_one_direction() -> None:
    x, y = parameter(1.0), parameter(1.0)
    x.grad = y.grad = torch.ones(1, dtype=DOUBLE)
    optimizer = SALSA([{"params": [x], "maximize": True}, {"params": [y]}])
    with pytest.raises(ValueError, match="maximize must be the same in all groups"):
        optimizer.step(lambda mode: 1.0)


def test_maximize_climbs() -> None:
    x, y = parameter(1.0), parameter(1.0)
    up, down = SALSA([x], maximize=True), SALSA([y])
    for _ in range(30):
        x.grad, y.grad = -2 * x.detach(), 2 * y.detach()
        up.step(lambda mode: -(x.item() ** 2))
        down.step(lambda mode: y.item() ** 2)
    assert torch.equal(x, y) and up.param_groups[0]["lr"] == down.param_groups[0]["lr"] > 1e-3
