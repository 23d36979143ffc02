"""A tiny GPT-2 with random weights, inspected end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from thalweg import Training
from thalweg.inspect import inspect

transformers = pytest.importorskip("transformers")


def gpt2() -> Training:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=23, n_positions=8, n_embd=12, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)  # dropout 0.1, input and output tied
    tokens = torch.randint(0, 23, (12, 8), generator=torch.Generator().manual_seed(1))

    def loss(output: object, batch: dict[str, Tensor]) -> Tensor:
        return output.loss  # type: ignore[attr-defined, no-any-return]

    batches = [{"input_ids": part, "labels": part} for part in tokens.split(6)]
    return Training(model, loss, batches, name="tiny GPT-2")


def test_a_transformer_end_to_end(tmp_path: Path) -> None:
    training = gpt2()
    found = inspect(training, budget=60)
    assert found.certificate.verdict.name == "NOT_STATIONARY"
    assert not found.skipped
    assert found.certificate.d == sum(p.numel() for p in training.model.parameters())
    assert "transformer.wte" in [layer.name for layer in found.layers]
    assert sum(layer.parameters for layer in found.layers) == found.certificate.d
    assert sum(layer.share.value for layer in found.layers) == pytest.approx(1.0)
    page = found.write(tmp_path).read_text()
    assert "tiny GPT-2" in page and "NOT_STATIONARY" in page
