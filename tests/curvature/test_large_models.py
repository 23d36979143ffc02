"""Models of other libraries, and memory over many batches."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.nn import functional

from thalweg import Training
from thalweg.curvature import Objective, generalized_gauss_newton, hessian


def gpt2() -> tuple[Any, list[Any]]:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, n_inner=8
    )
    model = transformers.GPT2LMHeadModel(config).double()
    tokens = torch.randint(20, (4, 8))
    # the model computes its own loss from the labels of a dict batch
    batches = [{"input_ids": part, "labels": part} for part in tokens.split(2)]
    return model, batches


def token_loss(output: Any, batch: Any) -> torch.Tensor:
    logits, labels = output.logits[:, :-1], batch["labels"][:, 1:]
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def test_a_transformer_with_tied_embeddings_and_dict_batches() -> None:
    model, batches = gpt2()
    inside = Training(model, lambda output, _: output.loss, batches)
    outside = Training(model, token_loss, batches)
    H = hessian(inside)
    assert H.shape[0] == sum(p.numel() for p in model.parameters())  # tied ones once
    v = torch.randn(H.shape[0], 3, dtype=torch.float64)
    # its own loss rounds the logits to float32
    product = hessian(outside) @ v
    torch.testing.assert_close(H @ v, product, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(hessian(outside, memory=0) @ v, product)
    # against differences of the gradient
    objective = Objective(outside)
    u, step = v[:, 0] / v[:, 0].norm(), 1e-4
    ahead, behind = (objective.gradient(H.x + s * step * u) for s in (1, -1))
    difference = (ahead - behind) / (2 * step)
    torch.testing.assert_close(objective.hvp(u), difference, rtol=1e-5, atol=1e-7)
    G = generalized_gauss_newton(outside)
    assert float(v[:, 0] @ (G @ v[:, 0])) > 0
    with pytest.raises(ValueError, match="linear in the model's outputs"):
        generalized_gauss_newton(inside) @ v


PROGRAM = """
import json, resource, sys
import torch
from torch import nn
from thalweg import Training
from thalweg.curvature import hessian

class Stream:
    def __init__(self, batches):
        self.batches = batches
    def __iter__(self):
        for i in range(self.batches):
            x = torch.randn(256, 512, generator=torch.Generator().manual_seed(i))
            yield x, torch.zeros(256, 1)

torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(512, 64), nn.Tanh(), nn.Linear(64, 1))
peaks = []
for batches in (8, 8, 160):
    H = hessian(Training(model, nn.functional.mse_loss, Stream(batches)), memory=2**22)
    H @ torch.ones(H.shape[0], 2)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
json.dump(peaks, sys.stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_memory_does_not_grow_with_the_number_of_batches() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    _, few, many = json.loads(done.stdout)
    # 152 more batches of half a MiB would be 78 MiB, and their graphs three times that
    assert many - few < 16 * 1024
