"""A rule made into an in-place update of a parameter and its state, in any format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.engine import rounding

Rule = Callable[..., tuple[Tensor, ...]]
Update = Callable[..., None]
#: Entries whose sums are wanted, from tensors of one shape.
Summands = Callable[..., tuple[Tensor, ...]]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The format a rule is evaluated in: float32 for the short formats, else the parameter's."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def in_place(
    rule: Rule,
    maximize: bool,
    round_to: str,
    static: Mapping[str, Any],
    summands: Summands | None = None,
) -> Update:
    """``update(p, g, state, inputs, extra, numbers)``: evaluate `rule` and store what it returns.

    Parameters
    ----------
    rule
        The formula, ``rule(p, g, *state, *inputs, **numbers) -> (p, *state)``. What it returns
        beyond that is stored in the last tensors of `extra`.
    maximize
        Flip the sign of the gradient.
    round_to
        ``"nearest"``, ``"stochastic"`` (then `extra` holds the random bits) or ``"compensated"``
        (then `extra` holds the compensation).
    static
        Hyper-parameters that choose between formulas (booleans, strings, None).
    summands
        ``summands(p, *state)`` of the new values; their sums are added to the last tensors of
        `extra`, while the values are at hand.
    """

    def update(
        p: Tensor,
        g: Tensor,
        state: Sequence[Tensor],
        inputs: Sequence[Tensor],
        extra: Sequence[Tensor],
        numbers: Mapping[str, Any],
    ) -> None:
        working = compute_dtype(p.dtype)
        exact = p.to(working)
        if round_to == "compensated":
            exact = exact + extra[0].to(working)
        gradient = -g.to(working) if maximize else g.to(working)
        new, *new_state = rule(
            exact, gradient, *(s.to(working) for s in state), *inputs, **numbers, **static
        )
        if round_to == "stochastic":
            stored = rounding.stochastic(new, extra[0])
        else:
            stored = new.to(p.dtype)
        if round_to == "compensated":
            extra[0].copy_(new - stored.to(working))
        if summands is not None:
            stored, *new_state = map(computed_once, (stored, *new_state))
            values = summands(stored.to(working), *new_state)
            for total, value in zip(extra[-len(values) :], values, strict=True):
                total.add_(value.sum())
        p.copy_(stored)
        for old, value in zip(state, new_state[: len(state)], strict=True):
            old.copy_(value)
        reports = new_state[len(state) :]
        for report, value in zip(extra[len(extra) - len(reports) :], reports, strict=True):
            report.copy_(value)

    return update


def summing(summands: Summands) -> Update:
    """The sums of ``summands(p, g)`` as an update: they are added to the tensors of `extra`."""

    def update(
        p: Tensor, g: Tensor, _: Any, __: Any, extra: Sequence[Tensor], numbers: Any
    ) -> None:
        working = compute_dtype(p.dtype)
        for total, value in zip(extra, summands(p.to(working), g.to(working)), strict=True):
            total.add_(value.sum())

    return update


def computed_once(value: Tensor) -> Tensor:
    """`value`, computed in one place where the compiler would write its formula out in two.

    It stores what is returned and sums it up in two passes over the memory otherwise.
    """
    if torch.compiler.is_compiling():
        found: Tensor = torch.ops._inductor_test.realize(value)
        return found
    return value
