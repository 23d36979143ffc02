"""Which trainings the exact test recognises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thalweg.core import Training
from thalweg.curvature.relu.training import two_layer_relu

X = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))


def model(outputs: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, outputs))


def batches(y: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(X[:4], y[:4]), (X[4:], y[4:])]


@pytest.mark.parametrize(
    ("loss", "y", "outputs", "factor"),
    [
        (nn.MSELoss(reduction="sum"), torch.ones(9, 2), 2, 0.5),
        (F.mse_loss, torch.ones(9, 2), 2, 9.0),  # the mean over 18 entries, halved
        (nn.BCEWithLogitsLoss(), torch.ones(9, 1), 1, 9.0),
        (F.cross_entropy, torch.arange(9) % 3, 3, 9.0),
        (nn.CrossEntropyLoss(reduction="sum"), torch.arange(9) % 3, 3, 1.0),
    ],
)
def test_recognised(loss: Any, y: torch.Tensor, outputs: int, factor: float) -> None:
    training = Training(model(outputs), loss, batches(y))
    network = two_layer_relu(training)
    assert network is not None
    value = loss(training.model(X), y).item()
    assert network.risk() == pytest.approx(factor * value, rel=1e-5)


@pytest.mark.parametrize(
    ("net", "loss", "y"),
    [
        (nn.Linear(3, 1), nn.MSELoss(), torch.ones(9, 1)),
        (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), F.mse_loss, torch.ones(9, 1)),
        (model(1), F.l1_loss, torch.ones(9, 1)),
        (model(1), lambda a, b: F.mse_loss(a, b), torch.ones(9, 1)),
        (model(1), nn.MSELoss(reduction="none"), torch.ones(9, 1)),
        (model(1), nn.MSELoss(), torch.ones(9)),  # torch would broadcast to (9, 9)
        (model(1), nn.BCEWithLogitsLoss(pos_weight=torch.ones(1)), torch.ones(9, 1)),
        (model(3), nn.CrossEntropyLoss(weight=torch.ones(3)), torch.arange(9) % 3),
        (model(3), nn.CrossEntropyLoss(label_smoothing=0.1), torch.arange(9) % 3),
        (model(3), nn.CrossEntropyLoss(), torch.full((9, 3), 1 / 3)),
        (model(3), nn.CrossEntropyLoss(), torch.tensor([-100] * 9)),  # ignored
    ],
)
def test_not_recognised(net: nn.Module, loss: Any, y: torch.Tensor) -> None:
    assert two_layer_relu(Training(net, loss, batches(y))) is None


def test_batches_of_another_form_are_not_recognised() -> None:
    assert two_layer_relu(Training(model(1), nn.MSELoss(), [{"x": X}])) is None
    assert two_layer_relu(Training(model(1), nn.MSELoss(), [])) is None
