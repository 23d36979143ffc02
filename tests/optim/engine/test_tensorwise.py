"""The tensorwise scope: where tensors lie, what is compiled, and decisions about whole tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from thalweg import optim
from thalweg.optim.engine import Active, tensor_norms, tensorwise
from thalweg.optim.engine.kernel import Compiled

DOUBLE = torch.float64
COMPILED = [False, pytest.param(True, marks=pytest.mark.compile)]


class Centered(optim.Tensorwise):
    """Momentum of gradients without their mean."""

    slots = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float = 0.1, **how: Any) -> None:
        super().__init__(params, {"lr": lr}, **how)

    @staticmethod
    def rule(p: Tensor, g: Tensor, momentum_buffer: Tensor, *, lr: float) -> tuple[Tensor, ...]:
        momentum_buffer = 0.5 * momentum_buffer + g - g.mean()
        return p - lr * momentum_buffer, momentum_buffer


class ByShape(Centered):
    """A rule that asks which dimension is longer."""

    @staticmethod
    def rule(p: Tensor, g: Tensor, momentum_buffer: Tensor, *, lr: float) -> tuple[Tensor, ...]:
        momentum_buffer = momentum_buffer + g
        sign = 1 if p.shape[0] > p.shape[1] else -1
        return p - sign * lr * momentum_buffer, momentum_buffer


class ByValue(optim.Tensorwise):
    """Up where the gradient's sum is negative, else down; decided for the whole tensor."""

    reduced = ("up",)

    def __init__(self, params: Any, lr: float = 1.0, **how: Any) -> None:
        super().__init__(params, {"lr": lr}, **how)

    def decisions(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, bool]]:
        up = {a.p: float(self.seen([a.g]).sum()) < 0 for a in active}
        return lambda a: {"up": up[a.p]}

    @staticmethod
    def rule(p: Tensor, g: Tensor, *, lr: float, up: bool) -> tuple[Tensor, ...]:
        return (p + lr if up else p - lr,)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("compile", COMPILED)
def test_every_layout_gives_the_same_run(compile: bool) -> None:
    """Scalars, vectors, lengths of one, strided and sliced memory, strided gradients."""
    layouts: list[Callable[[], Tensor]] = [
        lambda: gaussian(),
        lambda: gaussian(7),
        lambda: gaussian(1, 5),
        lambda: gaussian(5, 1),
        lambda: gaussian(6, 4).t(),
        lambda: gaussian(6, 8)[:, ::2],
        lambda: gaussian(2, 3, 4, 5).to(memory_format=torch.channels_last),
        lambda: gaussian(0, 3),
    ]
    params = [Parameter(make()) for make in layouts]
    expected = [p.detach().clone() for p in params]
    buffers = [torch.zeros_like(x) for x in expected]
    optimizer = Centered(params, lr=0.3, compile=compile)
    for k in range(3):
        for i, (p, m) in enumerate(zip(params, buffers, strict=True)):
            g = gaussian(*p.shape[::-1], seed=10 * k + i)
            p.grad = g.permute(tuple(reversed(range(g.dim()))))
            m.mul_(0.5).add_(p.grad - (p.grad.mean() if p.grad.numel() else 0))
            expected[i] = expected[i] - 0.3 * m
        optimizer.step()
    for p, x in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), x, rtol=1e-13, atol=1e-13)


def test_a_contiguous_tensor_is_seen_where_it_lies() -> None:
    x = Parameter(gaussian(30, 40))
    optimizer = Centered([x])
    assert optimizer.seen([x]).data_ptr() == x.data_ptr()
    y = Parameter(gaussian(30, 40).t())
    assert optimizer.seen([y]).data_ptr() != y.data_ptr()


@pytest.mark.compile
def test_one_compilation_serves_all_sizes() -> None:
    known = set(tensorwise._compiled)
    shapes = [(3, 5), (200, 100), (7, 900)]
    params = [Parameter(gaussian(*shape)) for shape in shapes]
    optimizer = Centered(params, compile=True)
    for p in params:
        p.grad = gaussian(*p.shape, seed=1)
    optimizer.step()
    new = [loop for key, loop in tensorwise._compiled.items() if key not in known]
    assert len(new) <= 1
    assert all(isinstance(loop, Compiled) for loop in new)


@pytest.mark.compile
def test_a_rule_that_asks_for_shapes_is_compiled_for_each_answer() -> None:
    params = [Parameter(torch.zeros(30, 20)), Parameter(torch.zeros(20, 30))]
    optimizer = ByShape(params, lr=1.0, compile=True)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert bool((params[0] == -1).all())
    assert bool((params[1] == 1).all())


@pytest.mark.compile
def test_an_elementwise_rule_must_not_ask_for_shapes() -> None:
    class Wrong(optim.Elementwise):
        def __init__(self, params: Any, **how: Any) -> None:
            super().__init__(params, {"lr": 1.0}, **how)

        @staticmethod
        def rule(p: Tensor, g: Tensor, *, lr: float) -> tuple[Tensor, ...]:
            return (p - lr * g if p.numel() > 1000 else p + lr * g,)

    x = Parameter(torch.zeros(5))
    x.grad = torch.ones(5)
    with pytest.raises(RuntimeError, match=r"the elementwise rule .*Wrong.rule must not ask for"):
        Wrong([x], compile=True).step()


@pytest.mark.parametrize("compile", COMPILED)
def test_decisions_reach_the_rule(compile: bool) -> None:
    params = [Parameter(torch.zeros(s, dtype=DOUBLE)) for s in ((3, 4), (5,), (), (0, 2))]
    optimizer = ByValue(params, compile=compile)
    for p, sign in zip(params, (1.0, -1.0, -1.0, 1.0), strict=True):
        p.grad = sign * torch.ones_like(p)
    optimizer.step()
    assert [p.unique().tolist() for p in params] == [[-1.0], [1.0], [1.0], []]


def test_norms_of_tensors() -> None:
    tensors = [gaussian(3, 4), gaussian(), torch.zeros(0), torch.full((4,), 1e30), torch.zeros(3)]
    expected = [float(gaussian(3, 4).norm()), abs(float(gaussian())), 0.0, 2e30, 0.0]
    assert tensor_norms(tensors) == pytest.approx(expected, rel=1e-6)
    half = torch.full((1000,), 1 / 3, dtype=torch.bfloat16)
    assert tensor_norms([half])[0] == pytest.approx(float(half.float().norm()), rel=1e-6)
