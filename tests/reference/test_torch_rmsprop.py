"""`RMSProp` beside `torch.optim.RMSprop`: item (1) of the card, three modes, awkward tensors."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from thalweg.optim import RMSProp
from thalweg.optim.engine.flat import EAGER_PIECE

_spec = importlib.util.spec_from_file_location("odd", Path(__file__).with_name("odd_shapes.py"))
assert _spec is not None and _spec.loader is not None
odd = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(odd)

DOUBLE = torch.float64
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "centered": {"centered": True},
    "momentum": {"momentum": 0.9},
    "centered, momentum, all": {
        "centered": True,
        "momentum": 0.8,
        "weight_decay": 0.03,
        "maximize": True,
        "alpha": 0.9,
        "eps": 1e-3,
    },
    "weight decay, maximize": {"weight_decay": 0.1, "maximize": True},
}


def ours(params: Any, **options: Any) -> RMSProp:
    return RMSProp(params, lr=0.01, **options)


def theirs(params: Any, **options: Any) -> torch.optim.RMSprop:
    return torch.optim.RMSprop(params, lr=0.01, foreach=False, **options)


@pytest.mark.parametrize("mode", MODES)
def test_1_eager_agrees_with_torch(mode: str) -> None:
    difference = odd.run_beside(
        lambda groups: ours(groups, compile=False, **MODES[mode]),
        lambda groups: theirs(groups, **MODES[mode]),
    )
    assert difference < 1e-12


@pytest.mark.compile
@pytest.mark.parametrize("mode", MODES)
def test_1_compiled_agrees_with_torch(mode: str) -> None:
    difference = odd.run_beside(
        lambda groups: ours(groups, compile=True, **MODES[mode]),
        lambda groups: theirs(groups, **MODES[mode]),
        steps=100 if mode == "plain" else 25,
    )
    assert difference < 1e-12


LARGE = EAGER_PIECE + 1
STRIDED = {
    "expanded": lambda: torch.ones(1, dtype=DOUBLE).expand(LARGE),
    "expanded, two dimensions": lambda: torch.ones(1, 1, dtype=DOUBLE).expand(LARGE, 2),
    "sliced": lambda: torch.arange(2.0 * LARGE, dtype=DOUBLE)[::2],
    "a column": lambda: torch.arange(2.0 * LARGE, dtype=DOUBLE).view(LARGE, 2)[:, :1],
}


def compiled(kind: str) -> Any:
    return pytest.param(kind, True, marks=pytest.mark.compile, id=f"{kind}, compiled")


@pytest.mark.parametrize(
    ("kind", "compile"), [*((kind, False) for kind in STRIDED), *map(compiled, STRIDED)]
)
def test_1_a_large_parameter_with_a_strided_gradient(kind: str, compile: bool) -> None:
    g = STRIDED[kind]()
    x, y = (Parameter(torch.ones(g.shape, dtype=DOUBLE)) for _ in range(2))
    optimizers = [ours([x], compile=compile), theirs([y])]
    for k in range(3):
        for p, optimizer in zip((x, y), optimizers, strict=True):
            p.grad = g if k != 1 else None
            optimizer.step()
    torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_1_mixed_formats_in_one_group() -> None:
    """A float32 parameter takes part in float32, and does not disturb its float64 neighbours."""
    mine = [Parameter(p.detach().to(t)) for p in odd.model() for t in (DOUBLE, torch.float32)]
    reference = odd.twin(mine)
    optimizers = [ours(mine, compile=False), theirs(reference)]
    for k in range(100):
        for models in (
            [mine[::2], reference[::2]],
            [mine[1::2], reference[1::2]],
        ):
            odd.set_gradients(models, k)
        for optimizer in optimizers:
            optimizer.step()
    assert odd.distance(mine[::2], reference[::2]) < 1e-12
    assert odd.distance(mine[1::2], reference[1::2]) < 1e-5
    assert {p.dtype for p in mine} == {DOUBLE, torch.float32}


def test_gradients_are_not_modified() -> None:
    xs = odd.model()
    optimizer = ours(xs, weight_decay=0.3, maximize=True)
    odd.set_gradients([xs], 1)
    before = [None if x.grad is None else x.grad.clone() for x in xs]
    optimizer.step()
    for x, g in zip(xs, before, strict=True):
        assert (x.grad is None and g is None) or torch.equal(x.grad, g)


@pytest.mark.parametrize("mode", MODES)
def test_a_checkpoint_of_torch_continues(mode: str) -> None:
    """Its hyper-parameters come with it."""
    difference = odd.continue_from(
        lambda groups: theirs(groups, **MODES[mode]), lambda groups: RMSProp(groups, compile=False)
    )
    assert difference < 1e-12


@pytest.mark.parametrize("mode", MODES)
def test_torch_continues_our_checkpoint(mode: str) -> None:
    difference = odd.continue_from(
        lambda groups: ours(groups, compile=False, **MODES[mode]),
        lambda groups: torch.optim.RMSprop(groups),
    )
    assert difference < 1e-12
