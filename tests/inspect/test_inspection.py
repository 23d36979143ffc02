"""An inspection against what is known of its point: dense Hessians, quadratics, saddles."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import thalweg.inspect
from thalweg import Training
from thalweg.curvature import Objective, hessian
from thalweg.inspect import inspect
from thalweg.inspect.cost import Ledger, Spent
from thalweg.inspect.inspection import read_in_order
from thalweg.inspect.layers import layer_traces, measure_layers


def network(seed: int = 0) -> Training:
    """2 x 41 parameters in float64, smooth."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(40, 4, dtype=torch.float64), torch.randint(0, 3, (40,))
    data = [(x[:20], y[:20]), (x[20:], y[20:])]
    return Training(model, nn.functional.cross_entropy, data, name="small")


def saddle() -> Training:
    start = torch.zeros(2, dtype=torch.float64)
    return Training.from_function(lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4, start, name="saddle")


@pytest.fixture(scope="module")
def found() -> thalweg.inspect.Inspection:
    return inspect(network(), budget=400)


@pytest.fixture(scope="module")
def dense() -> Tensor:
    return hessian(network()).dense()


def test_the_module_is_the_verb() -> None:
    assert thalweg.inspect(saddle(), budget=60).certificate.verdict.name == "STRICT_SADDLE"


def test_numbers_of_a_dense_hessian(found: Any, dense: Tensor) -> None:
    eigenvalues = torch.linalg.eigvalsh(dense)
    assert found.ends.dense and found.trace.interval().low <= float(dense.trace()) + 1e-9
    assert found.ends.lowest == pytest.approx(float(eigenvalues[0]), abs=1e-9)
    assert found.ends.highest == pytest.approx(float(eigenvalues[-1]), abs=1e-9)
    low, high = found.trace.interval()
    assert low - 1e-9 <= float(dense.trace()) <= high + 1e-9
    for key, at in (("top", -1), ("bottom", 0)):
        assert float(found.slices[key].curvature) == pytest.approx(float(eigenvalues[at]), abs=1e-9)


def test_layers_are_the_blocks(found: Any, dense: Tensor) -> None:
    assert [layer.name for layer in found.layers] == ["0", "2"]
    assert [layer.parameters for layer in found.layers] == [30, 21]
    objective = Objective(network())
    gradient = objective.gradient()
    for layer, part in zip(found.layers, (slice(0, 30), slice(30, 51)), strict=True):
        block = dense[part, part]
        assert layer.gradient_norm == pytest.approx(float(gradient[part].norm()))
        low, high = layer.trace.interval(0.999)
        assert low <= float(block.trace()) <= high
        low, high = layer.share.interval(0.999)
        assert low <= float(block.trace() / dense.trace()) <= high
        assert layer.top is not None
        top = float(torch.linalg.eigvalsh(block)[-1])
        assert layer.top[0] - 1e-9 <= top <= layer.top[1] + 1e-9


def test_layer_traces_are_exact_from_d_products_on(dense: Tensor) -> None:
    objective = Objective(network())
    traces, shares = layer_traces(objective, hessian(objective), 51, Spent("layers"))
    assert traces["0"].value == pytest.approx(float(dense[:30, :30].trace()), rel=1e-12)
    assert traces["2"].stderr == 0.0
    assert shares["0"].value + shares["2"].value == pytest.approx(1.0)


@pytest.mark.slow
def test_the_intervals_of_layers_cover() -> None:
    objective = Objective(network())
    H = hessian(objective)
    dense = H.dense()
    block, whole = float(dense[:30, :30].trace()), float(dense.trace())
    hits, ratios, runs = 0, 0, 300
    for seed in range(runs):
        traces, shares = layer_traces(objective, H, 12, Spent("layers"), seed)
        hits += traces["0"].interval().low <= block <= traces["0"].interval().high
        ratios += shares["0"].interval().low <= block / whole <= shares["0"].interval().high
    # 95 % less four standard deviations of a binomial of 300
    assert min(hits, ratios) >= 0.90 * runs


def test_a_budget_too_small_for_every_layer_reaches_the_largest() -> None:
    objective = Objective(network())
    layers = measure_layers(objective, hessian(objective), 9, Spent("layers"))
    assert [layer.top is not None for layer in layers] == [True, False]


def test_the_point_is_left_as_it_was() -> None:
    training = network()
    before = {k: v.clone() for k, v in training.model.state_dict().items()}
    training.model.train()
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    inspect(training, budget=60)
    assert torch.equal(torch.rand(3), expected)
    assert training.model.training and all(p.grad is None for p in training.model.parameters())
    assert all(torch.equal(before[k], v) for k, v in training.model.state_dict().items())


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in record["cost"]]
    return {**record, "created": None, "cost": rows}


def test_equal_seeds_give_equal_inspections(found: Any) -> None:
    again = inspect(network(), budget=400)
    assert untimed(again.to_dict()) == untimed(found.to_dict())


def test_products_stay_within_the_budget() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 60), nn.Tanh(), nn.Linear(60, 3)).double()
    x, y = torch.randn(30, 8, dtype=torch.float64), torch.randint(0, 3, (30,))
    training = Training(model, nn.functional.cross_entropy, [(x, y)])
    for budget in (40, 150):
        found = inspect(training, budget=budget)
        spent = sum(row.products for row in found.cost)
        assert spent <= budget + 45  # checks around the certificate, and the slices
        assert not found.skipped


def test_the_verdict_says_what_to_do() -> None:
    found = inspect(saddle(), budget=60)
    assert found.headline.startswith("This is a strict saddle")
    assert "thalweg.escape(training, certificate)" in found.next_step
    bowl = Training.from_function(lambda x: (x**2).sum(), torch.zeros(3, dtype=torch.float64))
    assert inspect(bowl, budget=60).headline == "This is a local minimum, and a strict one."
    flat = Training.from_function(lambda x: (x**2).sum(), torch.ones(3, dtype=torch.float64))
    moving = inspect(flat, budget=60)
    assert moving.next_step.startswith("Train on.")
    assert moving.descent is not None and moving.descent.largest_lr == pytest.approx(1.0)


def test_a_shuffling_loader_is_read_in_order() -> None:
    x, y = torch.randn(30, 4), torch.randint(0, 3, (30,))
    model = nn.Linear(4, 3)
    rows = TensorDataset(x, y)
    shuffled = DataLoader(rows, batch_size=8, shuffle=True, drop_last=True)
    training = Training(model, nn.functional.cross_entropy, shuffled)
    ordered, notes = read_in_order(training)
    assert [b[0].shape[0] for b in ordered.data] == [8, 8, 8, 6] and notes
    whole = nn.functional.cross_entropy(model(x), y).item()
    assert Objective(ordered).value() == pytest.approx(whole)
    plain = DataLoader(rows, batch_size=8)
    assert read_in_order(Training(model, nn.functional.cross_entropy, plain))[1] == ()


def test_a_loss_infinite_nearby_skips_and_says_so() -> None:
    wall = Training.from_function(
        lambda x: torch.where(x.abs().max() > 1e-7, math.inf, 1.0) * (1 + (x**2).sum()),
        torch.zeros(3, dtype=torch.float64),
        name="wall",
    )
    found = inspect(wall, budget=60)
    assert "Slice, plane" in found.skipped and found.slices.get("plane") is None
    assert json.dumps(found.to_dict(), allow_nan=False)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Any:
        return self.w(x) + torch.randn(len(x), 1)


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"budget": 39}, ValueError, "budget must be an integer >= 40"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0"),
        ({"gradient_tolerance": 0.0}, ValueError, "gradient_tolerance must be > 0"),
        ({"curvature_tolerance": -1.0}, ValueError, "curvature_tolerance must be > 0"),
    ],
)
def test_bad_arguments(how: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        inspect(saddle(), **how)


def test_bad_trainings() -> None:
    batch = (torch.ones(4, 2), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="the loss must be deterministic"):
        inspect(Training(Noisy(), nn.functional.mse_loss, [batch]))
    with pytest.raises(TypeError, match="float32 or float64"):
        inspect(Training(nn.Linear(2, 1).half(), nn.functional.mse_loss, [batch]))
    with pytest.raises(TypeError, match="training must be a Training"):
        inspect(nn.Linear(2, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finite"):
        inspect(Training(nn.Linear(2, 1), lambda o, t: (o - t).mean() * math.inf, [batch]))


def test_a_tolerance_below_the_resolution_warns() -> None:
    curvatures = torch.linspace(1e-6, 1, 1000, dtype=torch.float64)
    bowl = Training.from_function(
        lambda x: (curvatures * x**2).sum(), torch.zeros(1000, dtype=torch.float64)
    )
    with pytest.warns(UserWarning, match="curvature_tolerance must be above the resolution"):
        found = inspect(bowl, budget=40, curvature_tolerance=1e-4)
    assert found.headline == "It could not be decided what kind of point this is."
    # the budget that is named is the inspection's, of which the certificate has its share
    settling = found.certificate.settling_budget
    assert settling is not None and f"{math.ceil(settling / 0.4):,} products" in found.next_step


def test_the_ledger_keeps_what_could_not_be_measured() -> None:
    ledger = Ledger()

    def fails(spent: Spent) -> None:
        spent.products += 3
        raise ValueError("the loss must be finite")

    assert ledger.measured("trace", fails) is None
    assert ledger.skipped == {"trace": "the loss must be finite"} and ledger.products == 3
