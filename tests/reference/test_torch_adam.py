"""`Adam`, `AdamW` and `AMSGrad` beside `torch.optim`: awkward tensors and checkpoints."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from thalweg.optim import Adam, AdamW, AMSGrad
from thalweg.optim.engine import RuleOptimizer

_spec = importlib.util.spec_from_file_location("odd", Path(__file__).with_name("odd_shapes.py"))
assert _spec is not None and _spec.loader is not None
odd = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(odd)

BETAS = (0.8, 0.97)
HYPER: dict[str, dict[str, Any]] = {
    "no decay": {"weight_decay": 0.0},
    "weight decay": {"weight_decay": 0.1},
    "maximize": {"weight_decay": 0.1, "maximize": True},
}


def amsgrad(params: Any, **keywords: Any) -> AMSGrad:
    return AMSGrad(params, schedule="constant", bias_correction=True, **keywords)


def torch_amsgrad(params: Any, **keywords: Any) -> torch.optim.Adam:
    return torch.optim.Adam(params, amsgrad=True, **keywords)


PAIRS = [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW), (amsgrad, torch_amsgrad)]
pairs = pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["Adam", "AdamW", "AMSGrad"])


def difference(ours: Any, theirs: Any, compile: bool, hyper: dict[str, Any]) -> float:
    keywords = {"lr": 0.01, "betas": BETAS, "eps": 1e-7, **hyper}
    largest: float = odd.run_beside(
        lambda groups: ours(groups, compile=compile, **keywords),
        lambda groups: theirs(groups, foreach=False, **keywords),
    )
    return largest


@pairs
@pytest.mark.parametrize("hyper", HYPER.values(), ids=HYPER)
def test_eager_agrees_with_torch(ours: Any, theirs: Any, hyper: dict[str, Any]) -> None:
    assert difference(ours, theirs, False, hyper) < 1e-12


@pytest.mark.compile
@pairs
def test_compiled_agrees_with_torch(ours: Any, theirs: Any) -> None:
    assert difference(ours, theirs, True, HYPER["maximize"]) < 1e-12


@pairs
def test_continues_a_checkpoint_of_torch(ours: Any, theirs: Any) -> None:
    """Everything torch saves counts, not what our optimizer was made with."""
    gap = odd.continue_from(
        lambda groups: theirs(groups, lr=0.01, betas=BETAS, eps=1e-7, weight_decay=0.1),
        lambda groups: ours(groups, lr=0.5),
    )
    assert gap < 1e-12


@pairs
def test_torch_continues_our_checkpoint(ours: Any, theirs: Any) -> None:
    gap = odd.continue_from(
        lambda groups: ours(groups, lr=0.01, betas=BETAS, eps=1e-7, weight_decay=0.1),
        lambda groups: theirs(groups, lr=0.5),
    )
    assert gap < 1e-12


@pairs
def test_our_checkpoint_counts_the_steps_of_each_parameter(ours: Any, theirs: Any) -> None:
    """torch counts in place what it loads: one tensor for several parameters would count twice."""
    mine = odd.model()
    optimizer: RuleOptimizer = ours(mine, lr=0.01)
    for k in range(3):
        odd.set_gradients([mine], k)
        optimizer.step()
    before = [float(state["step"]) for state in optimizer.state.values()]
    reference = odd.twin(mine)
    follower = theirs(reference, lr=0.01)
    follower.load_state_dict(optimizer.state_dict())
    for q in reference:
        q.grad = torch.zeros_like(q)
    follower.step()
    assert [float(s["step"]) for s in follower.state.values()] == [k + 1 for k in before]


@pairs
def test_moments_of_a_sliced_channels_last_parameter(ours: Any, theirs: Any) -> None:
    """Neither dense nor in row order: its state has strides that differ from its own."""
    base = torch.randn(2, 4, 3, 5, dtype=torch.float64).to(memory_format=torch.channels_last)
    mine, reference = Parameter(base[:, :3].detach()), Parameter(base[:, :3].clone())
    optimizers = [ours([mine], lr=0.1), theirs([reference], lr=0.1, betas=(0.9, 0.999))]
    optimizers[1].param_groups[0]["betas"] = optimizers[0].param_groups[0]["betas"]
    for k in range(5):
        g = torch.linspace(1, 2 + k, base[:, :3].numel(), dtype=torch.float64)
        mine.grad = reference.grad = g.view(base[:, :3].shape)
        for optimizer in optimizers:
            optimizer.step()
    assert odd.distance([mine], [reference]) < 1e-12


@pairs
def test_float32_and_float64_in_one_model(ours: Any, theirs: Any) -> None:
    """Each in its own format: float64 to 1e-12, float32 to a few of its roundings."""
    mine = [Parameter(p.detach().to(torch.float32 if i % 3 else p.dtype)) for i, p in
            enumerate(odd.model())]  # fmt: skip
    reference = odd.twin(mine)
    keywords = {"lr": 0.01, "betas": BETAS, "weight_decay": 0.1}
    optimizers = [
        ours(odd.groups(mine), **keywords),
        theirs(odd.groups(reference), foreach=False, **keywords),
    ]
    for k in range(100):
        odd.set_gradients([mine, reference], k)
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(mine, reference, strict=True):
        assert p.dtype is q.dtype
        if p.numel():
            scale = 1 + float(q.detach().abs().max())
            tolerance = 1e-12 if p.dtype is torch.float64 else 1e-5
            assert odd.distance([p], [q]) < tolerance * scale
