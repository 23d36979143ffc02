"""Calls kept from step to step notice whatever changes hands between two steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from thalweg import optim

Change = Callable[[torch.optim.Optimizer, Tensor], None]
METHODS: list[tuple[type[Any], dict[str, Any]]] = [
    (optim.Adam, {}),
    (optim.AMSGrad, {}),
    (optim.SGD, {"momentum": 0.9}),
    (optim.EGDD, {}),
    (optim.AdamP, {"delta": 1.0}),
    (optim.SGDP, {"momentum": 0.9, "delta": 1.0}),
]


def new_memory(_: Any, p: Tensor) -> None:
    p.data = p.data.clone()


def new_layout(_: Any, p: Tensor) -> None:
    p.data = p.data.t().contiguous().t()


def new_state(optimizer: torch.optim.Optimizer, p: Tensor) -> None:
    state = optimizer.state[p]
    for name, value in state.items():
        if isinstance(value, Tensor) and value.shape == p.shape:
            state[name] = 0.5 * value


def reloaded(optimizer: torch.optim.Optimizer, _: Tensor) -> None:
    optimizer.load_state_dict(optimizer.state_dict())


def upwards(optimizer: torch.optim.Optimizer, _: Tensor) -> None:
    optimizer.param_groups[0]["maximize"] = True


def slower(optimizer: torch.optim.Optimizer, _: Tensor) -> None:
    optimizer.param_groups[0]["lr"] = 0.003


def strided_gradient(_: Any, p: Tensor) -> None:
    assert p.grad is not None
    p.grad = p.grad.t().contiguous().t()


def no_gradient(_: Any, p: Tensor) -> None:
    p.grad = None


@pytest.mark.parametrize("method, how", METHODS, ids=lambda x: getattr(x, "__name__", ""))
@pytest.mark.parametrize(
    "change",
    [
        new_memory,
        new_layout,
        new_state,
        reloaded,
        upwards,
        slower,
        strided_gradient,
        no_gradient,
    ],
)
def test_a_change_between_two_steps_is_seen(
    method: type[Any], how: dict[str, Any], change: Change
) -> None:
    """Compiled steps around a change are those of the eager rule that looks everything up anew."""
    ends = []
    for compiled in (True, False):
        generator = torch.Generator().manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(150, 151, generator=generator)) for _ in range(2)]
        optimizer = method(params, lr=0.01, compile=compiled, **how)
        for step in range(5):
            for p in params:
                p.grad = torch.randn(150, 151, generator=generator)
            if step == 3:
                change(optimizer, params[1])
            if not compiled:
                optimizer._forget()
            optimizer.step()
        ends.append([p.detach() for p in params])
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method, how", METHODS, ids=lambda x: getattr(x, "__name__", ""))
def test_gradients_are_not_kept_alive(method: type[Any], how: dict[str, Any]) -> None:
    import weakref

    p = torch.nn.Parameter(torch.ones(150, 151))
    optimizer = method([p], compile=True, **how)
    for _ in range(2):
        p.grad = torch.ones_like(p)
        optimizer.step()
    grad = weakref.ref(p.grad)
    assert grad() is not None
    p.grad = None
    assert grad() is None


@pytest.mark.parametrize("method, how", METHODS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_step_is_seen_by_autograd(method: type[Any], how: dict[str, Any]) -> None:
    """What was saved for backward before a step must not be used after it."""
    p = torch.nn.Parameter(torch.ones(150, 151))
    optimizer = method([p], compile=True, **how)
    for _ in range(2):
        loss = (p * p).sum()
        p.grad = torch.ones_like(p)
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
