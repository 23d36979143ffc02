"""The one recurrence every recurrent layer runs through."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

State = tuple[Tensor, ...]


def recur(
    step: Callable[[Tensor, State], State],
    e: Tensor,
    state: State,
    batch_sizes: Sequence[int],
    *,
    reverse: bool = False,
) -> tuple[Tensor, State]:
    r"""Run :math:`state_t = step(e_t, state_{t-1})` over sequences packed longest first.

    Parameters
    ----------
    step
        One step of the cell; the first member of its state is the output h.
    e
        Projected inputs of all time steps, shape (sum of `batch_sizes`, features): first all
        sequences at time 0, then those that go on at time 1, ...
    state
        Initial state, every member of shape (batch, features).
    batch_sizes
        How many sequences are still running at each time; never growing.
    reverse
        Run from the last time step to the first.

    Returns
    -------
    tuple
        h at all time steps, packed like `e`, and each sequence's state after its own last step:
        a sequence that has ended keeps all of its state, momentum included.

    Examples
    --------
    >>> add = lambda e, state: (state[0] + e,)
    >>> e = torch.tensor([[1.0], [10.0], [2.0], [3.0]])  # sequences (1, 2, 3) and (10,)
    >>> h, (last,) = recur(add, e, (torch.zeros(2, 1),), [2, 1, 1])
    >>> h.flatten().tolist(), last.flatten().tolist()
    ([1.0, 10.0, 3.0, 6.0], [6.0, 10.0])
    """
    # one split: its backward is one concatenation, where indexing would make one sum per step
    inputs = list(e.split(list(batch_sizes)))
    outputs: list[Tensor] = []
    if reverse:
        active = tuple(s[: batch_sizes[-1]] for s in state)
        for e_t in reversed(inputs):
            begun, running = len(active[0]), len(e_t)
            if running > begun:
                active = _cat((active, tuple(s[begun:running] for s in state)))
            active = step(e_t, active)
            outputs.append(active[0])
        return torch.cat(outputs[::-1]), active
    active, ended = state, []
    for e_t in inputs:
        running = len(e_t)
        if running < len(active[0]):
            ended.append(tuple(s[running:] for s in active))
            active = tuple(s[:running] for s in active)
        active = step(e_t, active)
        outputs.append(active[0])
    return torch.cat(outputs), _cat((active, *reversed(ended))) if ended else active


def _cat(states: Sequence[State]) -> State:
    return tuple(torch.cat(members) for members in zip(*states, strict=True))
