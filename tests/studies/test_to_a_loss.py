"""Networks of different batches and steps are stopped at one loss."""

from __future__ import annotations

import torch
from torch.nn import functional

from thalweg.studies.networks import digits
from thalweg.studies.to_a_loss import trained_to


def test_training_stops_at_the_loss_of_each_seed() -> None:
    x, y = digits().train
    for model, steps in trained_to(2.0, (16, 16), steps=60, seeds=[0, 1], batch=32, lr=0.3):
        assert steps > 0
        with torch.no_grad():
            assert float(functional.cross_entropy(model(x), y)) <= 2.0 + 1e-5


def test_a_network_that_does_not_get_there_comes_with_no_steps() -> None:
    ((_, steps),) = trained_to(1e-3, (16, 16), steps=5, seeds=[0], batch=32, lr=0.3)
    assert steps == 0
