"""Bytes of state, and what a step needs on top of it while it runs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Sequence

import torch
from optimizers import BUILD, LARGE, SMALL, TINY
from timing import Comparison, Sample, Settings, Suite
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from thalweg import optim

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler reports every start and stop

#: Slots as large as the parameter.
SLOTS = {
    "SGD": 0,
    "SGD, momentum": 1,
    "AdaGradNorm": 0,
    "AdaGrad": 1,
    "RMSProp": 1,
    "Adam": 2,
    "AdamW": 2,
    "AMSGrad": 3,
    "AcceleGrad": 3,
}
SCALAR = 8  # bytes: the step count, or a sum in double precision
WHERE = {"24 large tensors": LARGE, "200 small tensors": SMALL}
PEAK = ("Adam", "Adam, eager", "torch AdamW foreach")


def peak_bytes(run: Callable[[], object]) -> int:
    """The most memory of torch that `run` holds at one time beyond what there was before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    results = profiled.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in results if e.name() == "[memory]")
    return max(0, *itertools.accumulate(size for _, size in changes), 0)


def _model(shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    params = [torch.ones(shape).requires_grad_() for shape in shapes]
    for p in params:
        p.grad = torch.ones_like(p)
    return params


def _stepped(name: str, params: Sequence[Tensor], settings: Settings) -> Callable[[], object]:
    step = BUILD[name](params, not settings.tiny)
    step()
    step()
    return step


def state_bytes(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Bytes of state per optimizer, and of what it needs: its slots and a scalar per tensor."""
    found = {}
    shapes = TINY if settings.tiny else LARGE
    entries, tensors = sum(torch.Size(s).numel() for s in shapes), len(shapes)
    for name, slots in SLOTS.items():
        if name in names:
            optimizer = _stepped(name, _model(shapes), settings).__self__  # type: ignore[attr-defined]
            assert isinstance(optimizer, optim.RuleOptimizer)
            found[name] = Sample([float(optimizer.state_bytes())])
            needed = 4 * slots * entries + SCALAR * tensors
            found[_needed(slots)] = Sample([float(needed)])
    return found


def step_peaks(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Bytes a step holds at its peak on top of parameters, gradients and state."""
    found = {}
    for where, shapes in WHERE.items():
        parameters = _model(TINY if settings.tiny else shapes)
        size = sum(4 * p.numel() for p in parameters)
        found[f"one copy of the parameters ({where})"] = Sample([float(size)])
        for name in PEAK:
            if _at(name, where) in names:
                step = _stepped(name, _model([tuple(p.shape) for p in parameters]), settings)
                found[_at(name, where)] = Sample([float(peak_bytes(step))])
    return found


def _needed(slots: int) -> str:
    return f"{slots} slots and a scalar per tensor"


def _at(name: str, where: str) -> str:
    return f"{name} ({where})"


SUITES = (
    Suite(
        "bytes of state, 8.4 M parameters in 24 tensors",
        "MB",
        [Comparison("state", name, _needed(slots), 1.0) for name, slots in SLOTS.items()],
        state_bytes,
    ),
    Suite(
        "memory during a step, beyond parameters, gradients and state",
        "MB",
        [
            Comparison("peak of a step", _at(name, where), f"one copy of the parameters ({where})")
            for where in WHERE
            for name in PEAK
        ],
        step_peaks,
    ),
)
