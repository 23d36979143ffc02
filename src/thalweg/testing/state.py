"""Clauses on the state: what it holds, where it comes from, what it costs."""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from thalweg.testing.report import Verdict, failed, noted, passed, refused
from thalweg.testing.subject import (
    STEPS,
    Run,
    Subject,
    describe,
    difference,
    leaves,
    message,
    parameters,
    same_bits,
)


def trains(subject: Subject) -> Verdict:
    """Eight steps: parameters move and stay finite."""
    run = subject.start()
    before = [p.detach().clone() for p in run.model.parameters()]
    run.train(range(2 * STEPS))
    after = list(run.model.parameters())
    if not all(p.isfinite().all() for p in after):
        return failed("NaN or infinite parameters after 8 steps", "finite ones")
    if all(same_bits(a, b) for a, b in zip(before, after, strict=True)):
        return failed("parameters that do not move in 8 steps", "some change")
    return passed("8 steps run, parameters move and stay finite")


def layout(subject: Subject) -> Verdict:
    """Look at `state[p]` and at what state_dict holds."""
    run = subject.trained()
    names: dict[str, str] = {}
    odd: dict[str, str] = {}
    for p in parameters(run.optimizer):
        for name, value in run.optimizer.state.get(p, {}).items():
            if isinstance(value, Tensor):
                names.setdefault(str(name), f"{name} {describe(value)}")
            elif value is not None:
                odd.setdefault(str(name), f"{name} ({type(value).__name__})")
    code = [k for k, v in leaves(run.optimizer.state_dict()) if isinstance(v, (bytes, bytearray))]
    if code:
        return failed(
            f"bytes in state_dict at {code[0]}", "tensors: bytes are a pickle in disguise"
        )
    if odd:
        listed = ", ".join(odd.values())
        if subject.closure:
            # A line search or a quasi-Newton memory belongs to no single parameter.
            return noted(f"needs a closure and keeps {listed} for the whole model")
        return failed(f"state {listed}", "tensors only: others are lost or cast by checkpoints")
    if not names:
        return passed("no state")
    step = "" if "step" in names else "; no step count per parameter"
    return passed("tensors " + ", ".join(names.values()) + step)


def from_parameter(subject: Subject) -> Verdict:
    """Make state by a step with zero gradients at lr=0, as distributed checkpoints do."""
    source = subject.trained()
    expected = subject.trained(2 * STEPS).tensors()
    fresh = source.twin()
    try:
        step_at_zero(fresh)
    except Exception as error:
        if subject.closure:
            return refused(
                f"needs a closure, so distributed checkpoints cannot prepare it: {message(error)}"
            )
        return failed(message(error), "step(closure=None) to work with zero gradients and lr=0")
    made, wanted = (
        {
            k: describe(v)
            for k, v in leaves(r.optimizer.state_dict()["state"])
            if isinstance(v, Tensor)
        }
        for r in (fresh, source)
    )
    if made != wanted:
        odd = sorted(k for k in made.keys() | wanted.keys() if made.get(k) != wanted.get(k))[0]
        return failed(
            f"state {odd} = {made.get(odd, 'absent')} after a step with zero gradients",
            f"{wanted.get(odd, 'absent')} as after any other step",
        )
    fresh.optimizer.load_state_dict(source.optimizer.state_dict())
    fresh.model.load_state_dict(source.model.state_dict())
    gap = difference(fresh.train(range(STEPS, 2 * STEPS)).tensors(), expected)
    if gap:
        return failed(gap, "the same bits when loading after a step with zero gradients and lr=0")
    return passed("same names and shapes from zero gradients at lr=0; loading over it is exact")


def step_at_zero(run: Run) -> None:
    """Make a fresh optimizer create its state, the way torch.distributed.checkpoint does."""
    rates = [group.get("lr") for group in run.optimizer.param_groups]
    for p in parameters(run.optimizer):
        p.grad = torch.zeros_like(p)
    for group, lr in zip(run.optimizer.param_groups, rates, strict=True):
        if lr is not None:
            group["lr"] = torch.tensor(0.0) if isinstance(lr, Tensor) else 0.0
    run.optimizer.step(closure=None)
    for group, lr in zip(run.optimizer.param_groups, rates, strict=True):
        if lr is not None:
            group["lr"] = lr
    run.optimizer.zero_grad(set_to_none=True)


class Allocations(TorchDispatchMode):
    """Remembers, weakly, every storage that an operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[StorageWeakRef, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.layout is torch.strided:
                self.seen[StorageWeakRef(leaf.untyped_storage())] = describe(leaf)
        return out


def memory(subject: Subject) -> Verdict:
    """Watch every tensor that is made in three steps, and see which are alive after them."""
    run = subject.start()
    allocations = Allocations()
    for t in range(3):
        if subject.closure:
            with allocations:
                run.step(t)
        else:
            run.backward(t)
            with allocations:
                run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    groups = [{k: v for k, v in g.items() if k != "params"} for g in run.optimizer.param_groups]
    held = [v for _, v in leaves([dict(run.optimizer.state), groups]) if isinstance(v, Tensor)]
    known = {StorageWeakRef(x.untyped_storage()) for x in [*held, *run.model.parameters()]}
    smallest = min(p.untyped_storage().nbytes() for p in run.model.parameters() if p.dim() == 2)
    for storage, text in allocations.seen.items():
        if storage in known or storage.expired():
            continue
        size = torch.UntypedStorage._new_with_weak_ptr(storage.cdata).nbytes()
        if size >= smallest:
            return failed(
                f"{text} of {size} bytes alive after the step and in no state",
                "state[p] to hold all that is kept",
            )
    state = sum(
        {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in held}.values()
    )
    size = sum(p.untyped_storage().nbytes() for p in run.model.parameters())
    return passed(
        f"state is {state} bytes, {state / size:.2f} times the parameters; nothing else kept"
    )
