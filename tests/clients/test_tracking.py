"""A `Tracker` inside Lightning and transformers: their loops, our measurements."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from thalweg.inspect import Tracker, lightning_callback, transformers_callback

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


def rows(n: int = 24) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(n, 4, generator=draw)
    return x, torch.sin(x[:, :1])


def test_lightning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        L = pytest.importorskip("lightning")

    class Regression(L.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))

        def training_step(self, batch: Any, _: int) -> Tensor:
            return nn.functional.mse_loss(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = Regression()
    tracker = Tracker(
        module.network, nn.functional.mse_loss, rows(), every=2, path=tmp_path / "t.jsonl"
    )
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        accumulate_grad_batches=2,
        callbacks=[lightning_callback(tracker, tmp_path / "page", budget=40)],
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(*rows()), batch_size=4))
    # 6 batches an epoch, two a step
    assert tracker.steps == 6 and [row["step"] for row in tracker.rows] == [2, 4, 6]
    assert tracker.rows[-1]["loss"] < tracker.rows[0]["loss"]
    assert tracker.rows[-1]["directional_sharpness"] is not None
    assert "On the way" in (tmp_path / "page" / "index.html").read_text()


class Regression(nn.Module):
    """The loss inside the model, as transformers want it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        output = self.network(x)
        return {"loss": nn.functional.mse_loss(output, labels), "output": output}


def test_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    x, y = rows()
    data = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]
    model = Regression()
    tracker = Tracker(
        model, lambda output, _: output["loss"], {"x": x, "labels": y}, every=3,
        path=tmp_path / "t.jsonl",
    )  # fmt: skip
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=6, per_device_train_batch_size=8, learning_rate=0.05,
        report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True, logging_steps=100,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=data,
        callbacks=[transformers_callback(tracker, tmp_path / "page", budget=40)],
    )  # fmt: skip
    trainer.train()
    assert [row["step"] for row in tracker.rows] == [3, 6]
    assert tracker.rows[-1]["loss"] < tracker.rows[0]["loss"]
    assert "On the way" in (tmp_path / "page" / "index.html").read_text()
