"""Clauses on gradients: who owns them; missing, zero, negated, summed and clipped ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from thalweg.testing.report import Verdict, failed, not_applicable, passed, refused
from thalweg.testing.subject import (
    CLEAR,
    STEPS,
    Run,
    Subject,
    difference,
    loss_at,
    message,
    parameters,
    same_bits,
    seed,
    step_with,
)


def untouched(subject: Subject) -> Verdict:
    """Compare each `p.grad` before and after a step, as object and bit by bit."""
    run = subject.start()
    names = [name for name, _ in run.model.named_parameters()]
    for t in range(STEPS):
        run.backward(t)
        before = [(p.grad, p.grad.clone()) for p in run.model.parameters() if p.grad is not None]
        if subject.closure:
            # The closure must not replace gradients here: the last ones it left are compared.
            step_with(run.optimizer, lambda: loss_at(run.model, 0).detach())
        else:
            run.optimizer.step()
        for name, p, (grad, bits) in zip(names, run.model.parameters(), before, strict=True):
            if p.grad is not grad:
                what = "None" if p.grad is None else "another tensor"
                return failed(f"{what} as the gradient of {name} after step()", "the same object")
            if not same_bits(grad, bits):
                gap = (grad - bits).abs().max().item()
                return failed(f"the gradient of {name} changed by {gap:.2g}", "the same bits")
    return passed("p.grad is the same object with the same bits after step()")


def zero_step(subject: Subject) -> Verdict:
    """Values that reveal what is added to them: -0.0 + 0.0 = 0.0, denormals vanish if flushed."""
    values = torch.tensor([[-0.0, 0.0, 1e-40, -1e-40], [1.0, -3e-8, 1e4, -0.7]])
    p = torch.nn.Parameter(values.clone())
    optimizer = subject.optimizer([p])
    if "lr" not in optimizer.param_groups[0]:
        return not_applicable("no lr")
    optimizer.param_groups[0]["lr"] = 0.0
    for _ in range(3):
        subject.apply(optimizer, [p], [torch.zeros_like(p)])
    if not same_bits(p, values):
        index = (p.detach().view(torch.int32) != values.view(torch.int32)).flatten().nonzero()[0]
        was, now = values.flatten()[index].item(), p.detach().flatten()[index].item()
        return failed(f"{now!r} from {was!r}", "lr=0 and a zero gradient to leave every bit alone")
    return passed("lr=0 with zero gradients leaves every bit, -0.0 and denormals included")


def absent(subject: Subject) -> Verdict:
    """Train with one parameter without gradient and one frozen: neither moves or gets state."""
    run = subject.start()
    idle, still = parameters(run.optimizer)[0], parameters(run.optimizer)[-1]
    still.requires_grad_(False)
    before = [idle.detach().clone(), still.detach().clone()]
    # Adagrad makes its state at construction, which is as good: what counts is what a step makes.
    at_first = [dict(run.optimizer.state.get(p, {})) for p in (idle, still)]

    def backward(t: int) -> Tensor:
        loss = run.backward(t)
        idle.grad = None
        return loss

    for t in range(STEPS):
        backward(t)
        step_with(run.optimizer, partial(backward, t) if subject.closure else None)
    for what, p, value in zip(
        ("no gradient", "requires_grad=False"), (idle, still), before, strict=True
    ):
        if not same_bits(p, value):
            return failed(f"a parameter with {what} that moved", "it to be skipped")
    if subject.closure:
        return passed("parameters without gradient stay")
    for what, p, state in zip(
        ("no gradient", "requires_grad=False"), (idle, still), at_first, strict=True
    ):
        if run.optimizer.state.get(p, {}).keys() != state.keys():
            return failed(f"a step that makes state for a parameter with {what}", "none made")
    return passed("parameters without gradient stay and get no state from a step")


def late(subject: Subject) -> Verdict:
    """One layer is frozen at first; the checkpoint is taken before it ever had a gradient."""

    def train(run: Run, steps: range) -> Run:
        first = next(run.model.parameters())
        for t in steps:
            first.requires_grad_(t >= STEPS + 1)
            run.train([t])
        return run

    expected = train(subject.start(), range(2 * STEPS))
    source = train(subject.start(), range(STEPS))
    frozen = next(source.model.parameters()).detach().clone()
    twin = source.twin()
    twin.optimizer.load_state_dict(source.optimizer.state_dict())
    gap = difference(train(twin, range(STEPS, 2 * STEPS)).tensors(), expected.tensors())
    thawed = next(expected.model.parameters())
    if same_bits(thawed, frozen) or not thawed.isfinite().all():
        return failed("no finite move when the first gradient comes late", "an ordinary step")
    if gap:
        return failed(gap, "the same bits when resumed before the first gradient of a parameter")
    return passed("a first gradient at a later step is an ordinary step, resumed or not")


def maximize(subject: Subject) -> Verdict:
    """Train with maximize, and with negated gradients: the same parameters."""
    offered = "maximize" in subject.start().optimizer.defaults
    if not offered and "maximize" not in inspect.signature(subject.cls).parameters:
        return not_applicable("no argument maximize")
    if subject.closure:
        return not_applicable("needs a closure, which gives the gradients")
    up = subject.start(maximize=True)
    down = subject.start(maximize=False)
    for t in range(2 * STEPS):
        up.backward(t)
        for p, q in zip(up.model.parameters(), down.model.parameters(), strict=True):
            q.grad = None if p.grad is None else -p.grad
        for run in (up, down):
            seed(t)
            run.optimizer.step()
    for (name, p), q in zip(up.model.named_parameters(), down.model.parameters(), strict=True):
        if not torch.equal(p, q):
            gap = (p - q).abs().max().item()
            return failed(f"{name} off by {gap:.2g}", "maximizing = minimizing with -gradients")
    return passed("maximize=True equals minimizing with negated gradients, exactly")


def closure(subject: Subject) -> Verdict:
    """Record how often the closure is called, with grad or without, and what step() returns."""
    run = subject.start()
    enabled: list[bool] = []
    values: list[float] = []

    def evaluate() -> Tensor:
        enabled.append(torch.is_grad_enabled())
        if not torch.is_grad_enabled():
            return loss_at(run.model, 0)
        loss = run.backward(0)
        values.append(loss.item())
        return loss

    try:
        returned = step_with(run.optimizer, evaluate)
    except CLEAR as error:
        if "closure" in str(error):
            return refused(message(error))
        raise
    if not enabled:
        return failed("a closure that was never called", "at least one call")
    if not all(enabled):
        return failed("a closure called without grad", "torch.enable_grad() around it")
    if returned is None or not any(float(returned) == value for value in values):
        return failed(f"{returned!r} from step(closure)", f"the closure's value, {values[0]!r}")
    return passed(f"called {len(values)} time(s) with grad enabled, value returned")


def accumulated(subject: Subject) -> Verdict:
    """Two backward passes into the same memory against the sum of their gradients."""

    def in_place(run: Run, t: int) -> Tensor:
        run.optimizer.zero_grad(set_to_none=False)  # the same memory at every step
        losses = [loss_at(run.model, number) for number in (t, 100 + t)]
        for loss in losses:
            loss.backward()
        return losses[0].detach()

    def at_once(run: Run, t: int) -> Tensor:
        params = parameters(run.optimizer)
        losses = [loss_at(run.model, number) for number in (t, 100 + t)]
        first, second = (torch.autograd.grad(loss, params) for loss in losses)
        for p, g, h in zip(params, first, second, strict=True):
            p.grad = g + h
        return losses[0].detach()

    gap = difference(fed(subject, in_place), fed(subject, at_once))
    if gap:
        return failed(f"{gap} with gradients accumulated in place", "the run given their sum")
    return passed("two backward passes without zero_grad give the step of the summed gradient")


def clipped(subject: Subject) -> Verdict:
    """Clip p.grad in place with torch's own functions against gradients given clipped."""
    kinds: dict[str, Callable[[list[Tensor]], Any]] = {
        "clip_grad_norm_": lambda ps: clip_grad_norm_(ps, 0.1),
        "clip_grad_value_": lambda ps: clip_grad_value_(ps, 0.01),
    }
    for name, clip in kinds.items():

        def after_backward(run: Run, t: int, clip: Callable[..., Any] = clip) -> Tensor:
            loss = run.backward(t)
            clip(parameters(run.optimizer))
            return loss.detach()

        def given(run: Run, t: int, clip: Callable[..., Any] = clip) -> Tensor:
            params = parameters(run.optimizer)
            loss = loss_at(run.model, t)
            for p, g in zip(params, torch.autograd.grad(loss, params), strict=True):
                p.grad = g
            clip(params)
            return loss.detach()

        gap = difference(fed(subject, after_backward), fed(subject, given))
        if gap:
            return failed(f"{gap} after {name}", "the run given the clipped gradients")
    return passed("clip_grad_norm_ and clip_grad_value_ reach the step")


def fed(subject: Subject, fill: Callable[[Run, int], Tensor]) -> dict[str, Tensor]:
    """All parameters and state after steps whose gradients are what `fill` makes of the step."""
    run = subject.start()
    for t in range(2 * STEPS):
        seed(t)

        def closure(t: int = t) -> Tensor:
            with torch.enable_grad():
                return fill(run, t)

        if subject.closure:
            step_with(run.optimizer, closure)
        else:
            closure()
            run.optimizer.step()
    return run.tensors()
