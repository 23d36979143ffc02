"""PyTorch Lightning: a LightningModule that returns our optimizer and a scheduler.

Lightning gives every optimizer a closure without arguments that runs the training step, so SALSA
needs nothing else. A method with ``train`` and ``eval`` (AcceleGrad) is switched by the module's
hooks around validation, as below.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from thalweg import optim

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about its own dependencies
    L = pytest.importorskip("lightning")

EPOCHS, BATCHES = 2, 6

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning.*"),  # few workers, no logger...
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # it uses an older torch's name
]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.LayerNorm(12), nn.Linear(12, 2))


def data() -> DataLoader[tuple[Tensor, ...]]:
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(4 * BATCHES, 6, generator=draw)
    return DataLoader(TensorDataset(x, torch.sin(x[:, :2])), batch_size=4)


class Regression(L.LightningModule):  # type: ignore[misc, name-defined]
    """Automatic optimization: Lightning calls ``optimizer.step(closure)``."""

    def __init__(self, build: Any) -> None:
        super().__init__()
        self.network = network()
        self.build = build

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return nn.functional.mse_loss(self.network(x), y)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("validation", self.loss(batch))

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        optimizer = self.build(self.network.parameters())
        scheduler = LambdaLR(optimizer, lambda t: 0.9**t)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class ByHand(Regression):
    """Manual optimization: the module makes the closure itself, as for LBFGS."""

    def __init__(self, build: Any) -> None:
        super().__init__(build)
        self.automatic_optimization = False

    def training_step(self, batch: Any, _: int) -> None:
        optimizer = self.optimizers()

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(batch)
            self.manual_backward(loss)
            self.clip_gradients(optimizer, 0.1, "norm")
            return loss

        optimizer.step(closure=closure)
        self.lr_schedulers().step()


class Switched(Regression):
    """Validated, and saved, at the output of a method that trains at another point."""

    def on_validation_start(self) -> None:
        self.optimizers().optimizer.eval()

    def on_validation_end(self) -> None:
        self.optimizers().optimizer.train()


def trainer(folder: Path, epochs: int = EPOCHS, **more: Any) -> Any:
    return L.Trainer(
        default_root_dir=str(folder), max_epochs=epochs, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, **more,
    )  # fmt: skip


def fitted(module: Any, folder: Path, epochs: int = EPOCHS, **how: Any) -> tuple[Any, Any]:
    more = {} if isinstance(module, ByHand) else {"gradient_clip_val": 0.1}
    run = trainer(folder, epochs, **more)
    validated = [data()] if isinstance(module, Switched) else []
    run.fit(module, data(), *validated, **how)
    return run, module


def parameters(module: Any) -> list[Tensor]:
    return [p.detach() for p in module.network.parameters()]


def equal(a: Any, b: Any) -> bool:
    return all(map(torch.equal, parameters(a), parameters(b)))


def bare(build: Any, epochs: int = EPOCHS) -> list[Tensor]:
    """The same in plain torch."""
    model = network()
    optimizer = build(model.parameters())
    scheduler = LambdaLR(optimizer, lambda t: 0.9**t)
    for x, y in [batch for _ in range(epochs) for batch in data()]:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("kind", [Regression, ByHand])
def test_a_resumed_run_continues_the_uninterrupted_one(
    kind: Any, build: Any, tmp_path: Path, same_state: Any
) -> None:
    whole_run, whole = fitted(kind(build), tmp_path)
    assert all(map(torch.equal, parameters(whole), bare(build)))
    checkpoint = tmp_path / "half.ckpt"
    half, _ = fitted(kind(build), tmp_path, epochs=1)
    half.save_checkpoint(checkpoint)
    resumed_run, resumed = fitted(kind(build), tmp_path, ckpt_path=str(checkpoint))
    assert resumed_run.global_step == EPOCHS * BATCHES
    assert equal(whole, resumed)
    assert same_state(whole_run.optimizers[0], resumed_run.optimizers[0])


def test_gradients_are_accumulated(build: Any, tmp_path: Path) -> None:
    run = trainer(tmp_path, accumulate_grad_batches=2)
    module = Regression(build)
    run.fit(module, data())
    assert run.global_step == EPOCHS * BATCHES // 2
    assert {float(state["step"]) for state in run.optimizers[0].state.values()} == {6.0}


def test_accelegrad_is_validated_at_its_output(tmp_path: Path) -> None:
    def build(params: Any) -> Optimizer:
        return optim.AcceleGrad(params, diameter=10.0)

    whole_run, whole = fitted(Switched(build), tmp_path)
    _, plain = fitted(Regression(build), tmp_path)
    assert equal(whole, plain)  # looking at the output does not change the path
    reported = float(whole_run.callback_metrics["validation"])
    whole_run.optimizers[0].eval()
    at_output = torch.stack([whole.loss(batch).detach() for batch in data()]).mean()
    assert reported == pytest.approx(float(at_output), rel=1e-6)
    whole_run.optimizers[0].train()


@pytest.mark.parametrize("kind", [Regression, ByHand])
def test_salsa_searches_with_the_closure_of_lightning(kind: Any, tmp_path: Path) -> None:
    class Searching(kind):  # type: ignore[misc]
        def configure_optimizers(self) -> Optimizer:
            return optim.SALSA(self.network.parameters(), lr=1e-4)

        def lr_schedulers(self) -> Any:
            return type("None", (), {"step": lambda self: None})()

    whole_run, whole = fitted(Searching(None), tmp_path)
    assert whole_run.optimizers[0].param_groups[0]["lr"] > 2e-4
    half, _ = fitted(Searching(None), tmp_path, epochs=1)
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = fitted(Searching(None), tmp_path, ckpt_path=str(tmp_path / "half.ckpt"))
    assert equal(whole, resumed)
