"""The methods that are trained inside other people's trainers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from thalweg import optim

Build = Callable[[Iterable[Any]], Optimizer]

# One of each scope and kind of state; AcceleGrad has train() and eval(), as schedule-free ones do.
METHODS: dict[str, Build] = {
    "AdamW": lambda params: optim.AdamW(params, lr=1e-2),
    "Lion": lambda params: optim.Lion(params, lr=1e-3, weight_decay=0.1),
    "AdamP": lambda params: optim.AdamP(params, lr=1e-2),
    "NovoGrad": lambda params: optim.NovoGrad(params, lr=1e-2),
    "EGDD": lambda params: optim.EGDD(params, lr=1e-2),
    "AdaGradNorm": lambda params: optim.AdaGradNorm(params, lr=1.0),
    "SGD": lambda params: optim.SGD(params, lr=0.1, momentum=0.9),
    "AcceleGrad": lambda params: optim.AcceleGrad(params, diameter=10.0),
}
# The others add no kind of state or scope, except those that draw random numbers. AdaGradFull,
# which keeps a matrix of the square of a tensor's size, is not for networks.
MORE: dict[str, Build] = {
    "Adam": lambda params: optim.Adam(params, lr=1e-2),
    "AMSGrad": lambda params: optim.AMSGrad(params, lr=1e-2),
    "AdaGrad": lambda params: optim.AdaGrad(params, lr=1e-1),
    "RMSProp": lambda params: optim.RMSProp(params, lr=1e-2),
    "LionK": lambda params: optim.LionK(params, lr=1e-3),
    "SGDP": lambda params: optim.SGDP(params, lr=1e-1),
    "ClippedSGD": lambda params: optim.ClippedSGD(params, lr=1e-1),
    "SGLD": lambda params: optim.SGLD(params, lr=1e-3),
    "PerturbedSGD": lambda params: optim.PerturbedSGD(params, lr=1e-1),
    "SASA": lambda params: optim.SASA(params, lr=1e-1),
}
SLOW = [pytest.param(build, id=name, marks=pytest.mark.slow) for name, build in MORE.items()]


@pytest.fixture(params=[*(pytest.param(b, id=name) for name, b in METHODS.items()), *SLOW])
def build(request: pytest.FixtureRequest) -> Build:
    """Builds one of the methods over some parameters."""
    torch.manual_seed(0)  # the seed of those that draw random numbers
    return request.param


@pytest.fixture
def same_state() -> Callable[[Optimizer, Optimizer], bool]:
    """Whether two optimizers hold the same state and hyper-parameters, to the last bit."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor):
            return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(same, a, b))
        return bool(a == b)

    return lambda a, b: same(a.state_dict(), b.state_dict())
