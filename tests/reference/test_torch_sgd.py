"""`thalweg.optim.SGD` beside `torch.optim.SGD`: three modes, awkward tensors, checkpoints."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from thalweg.optim import SGD

_spec = importlib.util.spec_from_file_location("odd", Path(__file__).with_name("odd_shapes.py"))
assert _spec is not None and _spec.loader is not None
odd = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(odd)

MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "heavy ball": {"momentum": 0.9},
    "dampened": {"momentum": 0.9, "dampening": 0.3},
    "nesterov": {"momentum": 0.9, "nesterov": True},
}
HYPER: dict[str, dict[str, Any]] = {
    "no decay": {},
    "weight decay": {"weight_decay": 0.1},
    "maximize": {"weight_decay": 0.1, "maximize": True},
}


@pytest.mark.parametrize("hyper", HYPER.values(), ids=HYPER)
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_eager_agrees_with_torch(mode: dict[str, Any], hyper: dict[str, Any]) -> None:
    difference = odd.run_beside(
        lambda groups: SGD(groups, lr=0.01, compile=False, **mode, **hyper),
        lambda groups: torch.optim.SGD(groups, lr=0.01, foreach=False, **mode, **hyper),
    )
    assert difference < 1e-12


@pytest.mark.compile
@pytest.mark.parametrize(
    "mode", [MODES["plain"], MODES["dampened"], MODES["nesterov"]], ids=lambda m: str(m)
)
def test_compiled_agrees_with_torch(mode: dict[str, Any]) -> None:
    hyper = HYPER["maximize"]
    difference = odd.run_beside(
        lambda groups: SGD(groups, lr=0.01, compile=True, **mode, **hyper),
        lambda groups: torch.optim.SGD(groups, lr=0.01, foreach=False, **mode, **hyper),
    )
    assert difference < 1e-12


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_continues_a_checkpoint_of_torch(mode: dict[str, Any]) -> None:
    difference = odd.continue_from(
        lambda groups: torch.optim.SGD(groups, lr=0.01, weight_decay=0.1, **mode),
        lambda groups: SGD(groups, lr=0.5, momentum=mode.get("momentum", 0.0)),
    )
    assert difference < 1e-12


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_torch_continues_our_checkpoint(mode: dict[str, Any]) -> None:
    difference = odd.continue_from(
        lambda groups: SGD(groups, lr=0.01, weight_decay=0.1, **mode),
        lambda groups: torch.optim.SGD(groups, lr=0.5),
    )
    assert difference < 1e-12


@pytest.mark.parametrize(
    "layout",
    [lambda g: g[:1].expand(g.shape), lambda g: torch.stack([g, g + 1], 1)[:, 0]],
    ids=["expanded", "strided"],
)
@pytest.mark.parametrize(
    "compile", [False, pytest.param(True, marks=pytest.mark.compile)], ids=["eager", "compiled"]
)
def test_vector_gradients_with_holes_in_memory(compile: bool, layout: Any) -> None:
    """Above the packing threshold a gradient is read where it lies: its stride must be seen."""
    mine = [Parameter(torch.zeros(odd.SMALL + 1, dtype=torch.float64))]
    reference = odd.twin(mine)
    g = layout(torch.linspace(1, 2, odd.SMALL + 1, dtype=torch.float64))
    for p in (*mine, *reference):
        p.grad = g
    SGD(mine, lr=0.1, compile=compile).step()
    torch.optim.SGD(reference, lr=0.1).step()
    assert odd.distance(mine, reference) < 1e-12


def test_momentum_of_a_sliced_channels_last_parameter() -> None:
    """Neither dense nor in row order: its state has strides that differ from its own."""
    base = torch.randn(2, 4, 3, 5, dtype=torch.float64).to(memory_format=torch.channels_last)
    mine, reference = Parameter(base[:, :3].detach()), Parameter(base[:, :3].clone())
    ours = SGD([mine], lr=0.1, momentum=0.9)
    theirs = torch.optim.SGD([reference], lr=0.1, momentum=0.9)
    for _ in range(5):
        mine.grad = torch.ones_like(mine)
        reference.grad = torch.ones_like(reference)
        ours.step()
        theirs.step()
    assert odd.distance([mine], [reference]) < 1e-12


def test_float32_and_float64_in_one_model() -> None:
    """Each in its own format: float64 to 1e-12, float32 to a few of its roundings."""
    mine = [Parameter(p.detach().to(torch.float32 if i % 3 else p.dtype)) for i, p in
            enumerate(odd.model())]  # fmt: skip
    reference = odd.twin(mine)
    ours = SGD(odd.groups(mine), lr=0.01, momentum=0.9)
    theirs = torch.optim.SGD(odd.groups(reference), lr=0.01, momentum=0.9, foreach=False)
    for k in range(100):
        odd.set_gradients([mine, reference], k)
        ours.step()
        theirs.step()
    for p, q in zip(mine, reference, strict=True):
        assert p.dtype is q.dtype
        if p.numel():
            scale = 1 + float(q.detach().abs().max())
            tolerance = 1e-12 if p.dtype is torch.float64 else 1e-5
            assert odd.distance([p], [q]) < tolerance * scale
