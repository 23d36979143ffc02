"""`accelerate.Accelerator`: prepare, accumulate, clip, save_state and load_state.

SALSA's line search takes a closure, and the prepared optimizer passes it on: either the function
``closure(eval_mode)`` of the loss alone after ``accelerator.backward``, or one without arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from thalweg import optim

accelerate = pytest.importorskip("accelerate")

BATCHES = 12
HALF = 6


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.LayerNorm(12), nn.Linear(12, 2))


def data() -> DataLoader[tuple[Tensor, ...]]:
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(4 * BATCHES, 6, generator=draw)
    return DataLoader(TensorDataset(x, torch.sin(x[:, :2])), batch_size=4)


def prepared(build: Any, **how: Any) -> tuple[Any, nn.Module, Any, Any, Any]:
    accelerator = accelerate.Accelerator(cpu=True, **how)
    model = network()
    optimizer = build(model.parameters())
    scheduler = LambdaLR(optimizer, lambda t: 0.9**t)
    return (accelerator, *accelerator.prepare(model, optimizer, data(), scheduler))


def train(
    accelerator: Any, model: nn.Module, optimizer: Any, batches: Iterable[Any], scheduler: Any
) -> None:
    for x, y in batches:
        with accelerator.accumulate(model):
            accelerator.backward(nn.functional.mse_loss(model(x), y))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()


def by_hand(build: Any, accumulate: int) -> nn.Module:
    """The same in plain torch."""
    model = network()
    optimizer = build(model.parameters())
    scheduler = LambdaLR(optimizer, lambda t: 0.9**t)
    for t, (x, y) in enumerate(data(), 1):
        (nn.functional.mse_loss(model(x), y) / accumulate).backward()
        if t % accumulate == 0:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return model


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(map(torch.equal, a.parameters(), b.parameters()))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_prepared_optimizer_takes_the_steps_of_the_bare_one(build: Any, accumulate: int) -> None:
    run = prepared(build, gradient_accumulation_steps=accumulate)
    train(*run)
    assert equal(run[1], by_hand(build, accumulate))
    assert not equal(run[1], network())


def test_a_loaded_state_continues_the_uninterrupted_run(
    build: Any, tmp_path: Path, same_state: Any
) -> None:
    def halves(run: Any) -> tuple[list[Any], list[Any]]:
        batches = list(run[3])
        return batches[:HALF], batches[HALF:]

    def on(run: Any, batches: list[Any]) -> None:
        train(*run[:3], batches, run[4])

    whole = prepared(build)
    first, second = halves(whole)
    on(whole, first)
    whole[0].save_state(str(tmp_path))
    on(whole, second)
    resumed = prepared(build)
    on(resumed, second[:2])  # whatever it held before
    resumed[0].load_state(str(tmp_path))
    on(resumed, second)
    assert equal(whole[1], resumed[1])
    assert same_state(whole[2].optimizer, resumed[2].optimizer)


def test_accelegrad_saved_at_its_output_goes_on_from_where_it_was(tmp_path: Path) -> None:
    def build(params: Any) -> Any:
        return optim.AcceleGrad(params, diameter=10.0)

    whole, resumed = prepared(build), prepared(build)
    train(*whole)
    whole[2].eval()  # accelerate passes train() and eval() on
    whole[0].save_state(str(tmp_path))
    resumed[0].load_state(str(tmp_path))
    assert equal(whole[1], resumed[1])
    for run in (whole, resumed):
        run[2].train()
        train(*run)
    assert equal(whole[1], resumed[1])


def salsa(with_backward: bool) -> tuple[nn.Module, float]:
    accelerator, model, optimizer, batches, _ = prepared(lambda ps: optim.SALSA(ps, lr=1e-4))

    def evaluated(x: Tensor, y: Tensor) -> Callable[..., Tensor]:
        def loss(eval_mode: bool) -> Tensor:
            model.train(not eval_mode)
            value = nn.functional.mse_loss(model(x), y)
            model.train()
            return value

        def backward() -> Tensor:
            optimizer.zero_grad()
            value = nn.functional.mse_loss(model(x), y)
            accelerator.backward(value)
            return value

        return backward if with_backward else loss

    for x, y in batches:
        closure = evaluated(x, y)
        if not with_backward:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.mse_loss(model(x), y))
        optimizer.step(closure)
    return model, optimizer.param_groups[0]["lr"]


def test_salsa_searches_with_either_closure() -> None:
    (one, lr), (other, same_lr) = salsa(False), salsa(True)
    assert equal(one, other) and lr == same_lr
    assert lr > 2e-4  # a line search that doubles, smoothed by 1/10, each step
