"""Clauses on the training loop: groups, schedulers, lr tensors, loss scaling, bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from thalweg.testing.report import Verdict, failed, not_applicable, passed, refused
from thalweg.testing.subject import (
    CLEAR,
    STEPS,
    Run,
    Subject,
    close,
    difference,
    loss_at,
    message,
    parameters,
    same_bits,
    seed,
)


def rate(subject: Subject) -> float | None:
    """The lr the class uses when nothing is said, or None if it has no such number."""
    lr = subject.start().optimizer.param_groups[0].get("lr")
    return None if lr is None else float(lr)


def groups(subject: Subject) -> Verdict:
    """Another lr in the second group changes its step, and not the first group's."""
    lr = rate(subject)
    if lr is None:
        return not_applicable("no lr")

    def after(*rates: float) -> list[Tensor]:
        model = subject.model()
        params = list(model.parameters())
        half = len(params) // 2
        split = [
            {"params": ps, "lr": r}
            for ps, r in zip((params[:half], params[half:]), rates, strict=True)
        ]
        Run(subject, model, subject.optimizer(split)).train([0])
        return [p.detach() for p in params]

    try:
        same, other = after(lr, lr), after(lr, 0.25 * lr)
    except CLEAR as error:
        if "group" in str(error):
            return refused(message(error))
        raise
    half = len(same) // 2
    moved = [not same_bits(a, b) for a, b in zip(same, other, strict=True)]
    if not any(moved[half:]):
        return failed("no change from a quarter of lr in the second group", "another step")
    if any(moved[:half]):
        return failed("another first step of group 1 from the lr of group 2", "each its own lr")
    return passed("each group steps with its own lr")


def added_group(subject: Subject) -> Verdict:
    """Add a group after two steps, and resume from after that."""

    def started() -> tuple[Run, list[Any]]:
        model = subject.model()
        first, *rest = model.children()
        return Run(subject, model, subject.optimizer(first.parameters())), rest

    def train(run: Run, rest: list[Any], steps: range) -> Run:
        for t in steps:
            if t == 2:
                run.optimizer.add_param_group({"params": list(rest[-1].parameters())})
            run.train([t])
        return run

    try:
        expected = train(*started(), range(2 * STEPS))
    except (*CLEAR, AssertionError) as error:
        if "group" in str(error):
            return refused(message(error))
        raise
    initial = subject.model()
    for (name, p), q in zip(expected.model.named_parameters(), initial.parameters(), strict=True):
        if same_bits(p, q) or not p.isfinite().all():
            return failed(f"no finite move of {name}", "old and added parameters to be trained")
    source = train(*started(), range(STEPS))
    twin, rest = started()
    twin.model.load_state_dict(source.model.state_dict())
    twin.optimizer.add_param_group({"params": list(rest[-1].parameters())})
    twin.optimizer.load_state_dict(source.optimizer.state_dict())
    gap = difference(twin.train(range(STEPS, 2 * STEPS)).tensors(), expected.tensors())
    if gap:
        return failed(gap, "the same bits when resumed after add_param_group")
    return passed("a group added in mid-run is trained and resumes exactly")


def scheduled(
    subject: Subject, schedule: Callable[[Optimizer], Any], steps: int = STEPS
) -> dict[str, Tensor]:
    """What a scheduler makes of the parameters."""
    run = subject.start()
    scheduler = schedule(run.optimizer)
    for t in range(steps):
        run.train([t])
        scheduler.step()
    return run.tensors()


def schedulers(subject: Subject) -> Verdict:
    """Two of torch's schedulers against no scheduler."""
    lr = rate(subject)
    if not lr:
        return not_applicable("no lr, or lr = 0")

    def decay(t: int) -> float:
        return 0.5**t

    by_hand = subject.start()
    for t in range(STEPS):
        for group in by_hand.optimizer.param_groups:
            group["lr"] = lr * decay(t)
        by_hand.train([t])
    plain = subject.trained().tensors()
    results = {
        "LambdaLR": scheduled(subject, lambda o: lr_scheduler.LambdaLR(o, decay)),
        "CosineAnnealingLR": scheduled(subject, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
    }
    for name, result in results.items():
        if difference(result, plain) is None:
            kept = holds_rate(subject, lr)
            if kept:
                return not_applicable(
                    f"lr only sets the initial {kept}, by definition of the method"
                )
            return failed(
                f"no effect of {name} on the steps", "lr read from the group at each step"
            )
    gap = difference(results["LambdaLR"], by_hand.tensors())
    if gap:
        return failed(f"{gap} under LambdaLR", "the run with the same lr written into the groups")
    return passed("LambdaLR and CosineAnnealingLR change the steps")


def holds_rate(subject: Subject, lr: float) -> str | None:
    """The state that starts as lr everywhere, if there is one (Rprop's step sizes)."""
    p = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = subject.optimizer([p])
    subject.apply(optimizer, [p], [torch.zeros_like(p)])
    for name, value in optimizer.state[p].items():
        if (
            isinstance(value, Tensor)
            and value.shape == p.shape
            and close(value, lr * p.detach() / p.detach())
        ):
            return str(name)
    return None


def one_cycle(subject: Subject) -> Verdict:
    """OneCycleLR, which cycles a momentum or beta as well, against no scheduler."""
    lr = rate(subject)
    defaults = subject.start().optimizer.defaults
    if not lr or not ("betas" in defaults or "momentum" in defaults):
        return not_applicable("no momentum or betas to cycle")

    def schedule(optimizer: Optimizer) -> Any:
        return lr_scheduler.OneCycleLR(optimizer, max_lr=2 * lr, total_steps=2 * STEPS)

    try:
        schedule(subject.start().optimizer)
    except ValueError as error:
        if "momentum" in str(error):
            return not_applicable(message(error))
        raise
    result = scheduled(subject, schedule)
    if not all(v.isfinite().all() for v in result.values()):
        return failed("NaN or infinity under OneCycleLR", "finite numbers")
    if difference(result, subject.trained().tensors()) is None:
        return failed("no effect of OneCycleLR", "lr and momentum read from the group at each step")
    return passed("OneCycleLR changes the steps")


def tensor_rate(subject: Subject) -> Verdict:
    """lr as a 0-d tensor against a float."""
    lr = rate(subject)
    if lr is None:
        return not_applicable("no lr")
    expected = subject.trained()
    given = torch.tensor(lr)
    try:
        run = subject.trained(lr=given)
    except (TypeError, ValueError) as error:
        if "lr" in str(error) or "tensor" in str(error).lower():
            return refused(message(error))
        raise
    if given.item() != torch.tensor(lr).item():
        return failed(f"the caller's lr tensor changed to {given.item()}", "it to be left alone")
    for (name, p), q in zip(run.model.named_parameters(), expected.model.parameters(), strict=True):
        if not close(p, q):
            gap = (p - q).abs().max().item()
            return failed(
                f"{name} off by {gap:.2g} with lr as a 0-d tensor", "the run with a float"
            )
    return passed("lr as a 0-d tensor gives the run with a float")


def grad_scaler(subject: Subject) -> Verdict:
    """Scaled gradients against plain ones; and one infinite gradient, which must be skipped."""
    if subject.closure:
        return not_applicable("needs a closure, which GradScaler refuses")
    run = subject.start()
    # A power of two, so that scaling and unscaling lose no bit.
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=10**6)
    for t in range(2 * STEPS):
        seed(t)
        run.optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss_at(run.model, t)).backward()
        before = run.tensors()
        if t == STEPS:
            parameters(run.optimizer)[0].grad.fill_(float("inf"))  # type: ignore[union-attr]
        scaler.step(run.optimizer)
        scaler.update()
        if t == STEPS and (gap := difference(run.tensors(), before)):
            return failed(f"{gap} after a step with infinite gradients", "that step to be skipped")
    expected = subject.start().train([t for t in range(2 * STEPS) if t != STEPS])
    for (name, p), q in zip(run.model.named_parameters(), expected.model.parameters(), strict=True):
        if not close(p, q):
            gap_size = (p - q).abs().max().item()
            return failed(f"{name} off by {gap_size:.2g}", "the run without loss scaling")
    return passed("follows the run without scaling; a step with infinite gradients is skipped")


def bfloat16(subject: Subject) -> Verdict:
    """Train in bfloat16."""
    run = subject.trained(2 * STEPS, torch.bfloat16)
    for name, p in run.model.named_parameters():
        if p.dtype is not torch.bfloat16:
            return failed(f"{name} of {p.dtype}", "parameters that stay bfloat16")
        if not p.isfinite().all():
            return failed(f"NaN or infinity in {name}", "finite bfloat16 parameters")
    return passed("bfloat16 parameters run and stay finite")
