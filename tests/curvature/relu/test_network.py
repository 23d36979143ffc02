"""The network's data: reading a module, moving, refusing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.curvature.relu import Direction, TwoLayerReLU
from thalweg.curvature.relu.expansion import Coordinates, KinkedPoint, quadratic_form
from thalweg.curvature.relu.losses import Loss

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(7, 3, generator=GENERATOR, dtype=torch.float64)
TARGETS: dict[str, torch.Tensor] = {
    "mse": torch.randn(7, 2, generator=GENERATOR, dtype=torch.float64),
    "bce": torch.tensor([0, 1, 1, 0, 1, 0, 1]),
    "ce": torch.tensor([0, 1, 2, 0, 1, 2, 2]),
}
OUTPUTS = {"mse": 2, "bce": 1, "ce": 3}


def torch_loss(loss: Loss, Y: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if loss == "mse":
        return 0.5 * (Y - y).square().sum()
    if loss == "bce":
        target = y[:, None].to(Y)
        return nn.functional.binary_cross_entropy_with_logits(Y, target, reduction="sum")
    return nn.functional.cross_entropy(Y, y, reduction="sum")


def model_for(loss: Loss, *, first: bool, second: bool, leak: float) -> nn.Sequential:
    torch.manual_seed(1)
    activation: nn.Module = nn.LeakyReLU(leak) if leak else nn.ReLU()
    layers = (nn.Linear(3, 4, bias=first), activation, nn.Linear(4, OUTPUTS[loss], bias=second))
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("loss", ["mse", "bce", "ce"])
@pytest.mark.parametrize(("first", "second", "leak"), [(True, True, 0.0), (False, False, 0.1)])
def test_module_gives_the_same_risk_gradient_and_hessian(
    loss: Loss, first: bool, second: bool, leak: float
) -> None:
    model = model_for(loss, first=first, second=second, leak=leak)
    network = TwoLayerReLU.from_module(model, X, TARGETS[loss], loss)
    parameters = list(model.parameters())
    value = torch_loss(loss, model(X), TARGETS[loss])
    assert network.risk() == pytest.approx(value.item(), rel=1e-12)
    gradients = torch.autograd.grad(value, parameters, create_graph=True)
    point = KinkedPoint(network, np.zeros((7, 4), dtype=bool))
    for ours, theirs in zip(network.tensors(point.first_order()), gradients, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-10, atol=1e-12)
    coordinates = Coordinates(network, (0, 1, 2, 3))
    Q = quadratic_form(point, point.J, coordinates)
    for _ in range(5):
        direction = [torch.randn(p.shape, dtype=p.dtype, generator=GENERATOR) for p in parameters]
        products = torch.autograd.grad(gradients, parameters, direction, retain_graph=True)
        curvature = sum((d * h).sum() for d, h in zip(direction, products))
        parts = [d.numpy() for d in direction]
        v = np.c_[parts[0], parts[1]] if first else parts[0]
        delta2 = parts[-1] if second else np.zeros(OUTPUTS[loss])
        eta = coordinates.vector(Direction(v, parts[2 if first else 1], delta2))
        assert eta @ Q @ eta == pytest.approx(float(curvature) / 2, rel=1e-9)


def test_half_precision_is_read_exactly() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).to(torch.bfloat16)
    network = TwoLayerReLU.from_module(model, X, torch.zeros(7), "mse")
    assert network.W1.dtype == np.float64
    np.testing.assert_array_equal(network.W1, model[0].weight.detach().double().numpy())


def test_coordinates_and_directions_are_inverse() -> None:
    network = TwoLayerReLU.from_module(
        model_for("mse", first=True, second=True, leak=0.0), X, TARGETS["mse"], "mse"
    )
    coordinates = Coordinates(network, (1, 3))
    eta = np.random.default_rng(0).standard_normal(coordinates.p)
    direction = coordinates.direction(eta)
    np.testing.assert_array_equal(coordinates.vector(direction), eta)
    assert not direction.v[[0, 2]].any() and not direction.u[:, [0, 2]].any()


def test_writing_back_gives_the_moved_network() -> None:
    model = model_for("mse", first=True, second=True, leak=0.0)
    network = TwoLayerReLU.from_module(model, X, TARGETS["mse"], "mse")
    eta = Direction(np.ones((4, 4)), np.ones((2, 4)), np.ones(2))
    moved = network.moved(eta, 0.1)
    moved.write_to(model)
    value = torch_loss("mse", model(X), TARGETS["mse"]).item()
    assert moved.risk() == pytest.approx(value, rel=1e-12)
    assert moved.difference(network).norm == pytest.approx(0.1 * eta.norm)


def test_losses_of_saturated_outputs_keep_their_digits() -> None:
    for y, logit in ((0.0, -50.0), (1.0, 50.0)):
        network = TwoLayerReLU([[1.0]], [0.0], [[0.0]], [logit], [[1.0]], [y], "bce")
        gl = KinkedPoint(network, np.array([[False]])).gl
        assert abs(gl.item()) == pytest.approx(np.exp(-50), rel=1e-12)
    ce = TwoLayerReLU([[1.0]], [0.0], [[0.0], [0.0]], [50.0, 0.0], [[1.0]], [0], "ce")
    gl = KinkedPoint(ce, np.array([[False]])).gl
    np.testing.assert_allclose(gl, [[-np.exp(-50), np.exp(-50)]], rtol=1e-12)


GOOD: dict[str, Any] = {
    "W1": np.ones((2, 3)),
    "b1": np.ones(2),
    "W2": np.ones((1, 2)),
    "b2": np.ones(1),
    "X": np.ones((4, 3)),
    "y": np.zeros(4),
    "loss": "mse",
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"W1": np.ones(3)}, r"W1 must have shape \(\*, \*\), none of it 0, got \(3,\)"),
        ({"b1": np.ones(3)}, r"b1 must have shape \(2\)"),
        ({"W2": np.ones((1, 3))}, r"W2 must have shape \(\*, 2\)"),
        ({"X": np.ones((4, 2))}, r"X must have shape \(\*, 3\)"),
        ({"X": np.ones((0, 3))}, r"X must have shape .* got \(0, 3\)"),
        ({"X": np.full((4, 3), np.nan)}, "X must be finite"),
        ({"y": np.zeros(3)}, r"y must have shape \(4, 1\), got \(3,\)"),
        ({"y": np.full(4, np.inf)}, "y must be finite"),
        ({"loss": "hinge"}, "loss must be one of 'mse', 'bce', 'ce', got 'hinge'"),
        ({"loss": "bce", "y": 2 * np.ones(4)}, r"y must lie in \[0, 1\]"),
        ({"loss": "bce", "W2": np.ones((2, 2)), "b2": None}, "W2 must have 1 row"),
        ({"loss": "ce"}, "y must hold 4 class indices"),
        ({"loss": "ce", "y": np.zeros(4, int)}, "W2 must have >= 2 rows"),
        (
            {"loss": "ce", "y": np.full(4, 2), "W2": np.ones((2, 2)), "b2": None},
            r"class indices in \[0, 1\], got 2",
        ),
        ({"slopes": (0.0, 1.0)}, r"s\+ \(slopes\[0\]\) must be > 0"),
        ({"slopes": (1.0, -0.1)}, r"s- \(slopes\[1\]\) must be >= 0"),
        ({"slopes": (1.0, 1.0)}, "slopes must differ"),
    ],
)
def test_refusals(wrong: dict[str, Any], message: str) -> None:
    TwoLayerReLU(**GOOD)
    with pytest.raises(ValueError, match=message):
        TwoLayerReLU(**{**GOOD, **wrong})


def tied() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    return model


def frozen() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[0].bias.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.Linear(3, 3), "got Linear$"),
        (nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)), "got Linear, Tanh, Linear"),
        (nn.Sequential(nn.Linear(3, 3), nn.ReLU()), "got Linear, ReLU$"),
        (tied(), "share their weights"),
        (frozen(), "frozen"),
    ],
)
def test_other_models_are_refused(model: nn.Module, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        TwoLayerReLU.from_module(model, torch.ones(2, 3), torch.ones(2, 3), "mse")
