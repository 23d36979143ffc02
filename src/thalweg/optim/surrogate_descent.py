"""The inner loop of SSO: updates of the parameters that never call the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thalweg.optim.surrogate import BACKTRACK, DECREASE

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]

Inner = Literal["armijo"] | float | OptimizerFactory
"""A backtracking line search, a step size, or what makes an optimizer of the parameters."""

# Where the search of the official code begins, and the gradient norm it stops at.
_FIRST_STEP, _SMALLEST_NORM = 10.0, 1e-6


def descend(
    s: Callable[[], Tensor], params: list[nn.Parameter], inner_steps: int, inner: Inner
) -> int:
    """Make up to `inner_steps` updates on S; the count made. Gradients in ``p.grad`` stay."""
    kept = [p.grad for p in params]
    try:
        if callable(inner):
            return _by_optimizer(s, params, inner_steps, inner)
        return _by_gradient_descent(s, params, inner_steps, None if inner == "armijo" else inner)
    finally:
        for p, g in zip(params, kept, strict=True):
            p.grad = g


def _by_optimizer(
    s: Callable[[], Tensor], params: list[nn.Parameter], inner_steps: int, make: OptimizerFactory
) -> int:
    optimizer: Any = make(params)
    if not callable(getattr(optimizer, "step", None)):
        raise TypeError(f"inner must return an optimizer, got {type(optimizer).__name__}")

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = s()
            value.backward()
        return value

    for _ in range(inner_steps):
        optimizer.step(closure)
    return inner_steps


@torch.no_grad()
def _by_gradient_descent(
    s: Callable[[], Tensor], params: list[nn.Parameter], inner_steps: int, fixed: Any
) -> int:
    size = _FIRST_STEP
    for k in range(inner_steps):
        with torch.enable_grad():
            value = s()
            gradients = torch.autograd.grad(value, params, allow_unused=True)
        moving = [(p, g) for p, g in zip(params, gradients, strict=True) if g is not None]
        square = sum(float(g.square().sum()) for _, g in moving)
        if fixed is not None:
            for p, g in moving:
                p.sub_(float(fixed) * g)
            continue
        if math.sqrt(square) <= _SMALLEST_NORM:
            return k
        start = [p.clone() for p, _ in moving]
        while True:
            for (p, g), x in zip(moving, start, strict=True):
                p.copy_(x - size * g)
            if float(s()) <= float(value) - DECREASE * size * square:
                break
            size *= BACKTRACK
            if size < 1e-30:  # no decrease left that arithmetic can see
                for (p, _), x in zip(moving, start, strict=True):
                    p.copy_(x)
                return k
        size /= BACKTRACK**2  # the next search starts a little above
    return inner_steps
