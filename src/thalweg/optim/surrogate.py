"""The target-based surrogate of a loss: from one expensive gradient in the space of outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Any], Tensor]
"""``loss(z, target)``, a scalar."""

# The constants of the official line searches.
BACKTRACK, DECREASE = 0.9, 0.5


def surrogate(z: Tensor, z_t: Tensor, q: Tensor, loss: float | Tensor, eta: float) -> Tensor:
    r"""The surrogate :math:`l(z_t) + \langle q, z - z_t \rangle + \|z - z_t\|^2 / (2 \eta)`.

    Examples
    --------
    >>> z_t, q = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])
    >>> surrogate(z_t - 0.5 * q, z_t, q, loss=3.0, eta=0.5).item()  # its minimum
    2.75
    """
    move = z - z_t
    return loss + (q * move).sum() + move.square().sum() / (2 * eta)


class Seen(NamedTuple):
    """The outputs of a batch, their loss and its gradient: the expensive part of a step."""

    z: Tensor
    value: float
    q: Tensor


def seen_at(model: nn.Module, loss: Loss, batch: tuple[Any, Any]) -> Seen:
    """Call the model and the loss once each, on one batch."""
    inputs, target = batch
    with torch.no_grad():
        z = outputs(model, inputs).clone()  # outputs may be a view of the parameters that move
    with torch.enable_grad():
        z.requires_grad_()
        value = scalar(loss(z, target))
        (q,) = torch.autograd.grad(value, z)
    return Seen(z.detach(), float(value.detach()), q)


def outputs(model: nn.Module, inputs: Any) -> Tensor:
    """Return the model's outputs, if they are a tensor."""
    z = model(inputs)
    if not isinstance(z, Tensor):
        raise TypeError(f"model must return a tensor of outputs, got {type(z).__name__}")
    return z


def scalar(value: Any) -> Tensor:
    """Return the loss as a 0-d tensor, if it is one number."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss must return a scalar tensor, got {got}")
    return value.reshape(())


def searched_eta(
    loss: Loss, z: Tensor, q: Tensor, value: float, target: Any, eta: float
) -> tuple[float, int]:
    r"""The largest of eta, 0.9 eta, ... with :math:`l(z - \eta q) \le l(z) - \eta \|q\|^2 / 2`.

    Returns it, and how many were tried: each trial calls the loss.

    Examples
    --------
    >>> half_square = lambda z, target: (z - target).square().sum() / 2
    >>> z = torch.tensor([1.0, 2.0])  # L = 1: eta = 1 is just short enough
    >>> searched_eta(half_square, z, z, value=2.5, target=0.0, eta=1.0)
    (1.0, 1)
    """
    square = float(q.square().sum())
    trials = 0
    with torch.no_grad():
        while square > 0:
            trials += 1
            if float(scalar(loss(z - eta * q, target))) <= value - DECREASE * eta * square:
                break
            eta *= BACKTRACK
            if eta < 1e-30:
                raise ValueError(
                    "loss must decrease along its negative gradient, got none that does"
                )
    return eta, trials
