"""RMSProp: AdaGrad with forgetting."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform, OneMinusLogUniform
from thalweg.numeric.division import divide
from thalweg.optim.engine import Active, Elementwise, How
from thalweg.optim.engine.elementwise import Constraint


class RMSProp(Elementwise):
    r"""Divide the gradient by a running average of its recent size.

    .. math::
        Q_k &= \alpha Q_{k-1} + (1 - \alpha)\, g_k^2, \qquad Q_0 = 0 \\
        x_{k+1} &= P_X^{H}\bigl(x_k - a\, g_k / h_k\bigr), \qquad h_k = \sqrt{Q_k} + \epsilon

    without bias correction: the first step is :math:`a / \sqrt{1 - \alpha}` per coordinate.
    *Centered*: :math:`Q_k - M_k^2` (clamped at 0) replaces :math:`Q_k` under the root, with
    :math:`M_k = \alpha M_{k-1} + (1 - \alpha) g_k`. *Momentum* comes after the division:
    :math:`b_k = \mu b_{k-1} + g_k / h_k`, :math:`x_{k+1} = x_k - a b_k`.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0. Default 1e-2.
    alpha
        :math:`\alpha` in [0, 1); Hinton's lecture has 0.9. Default 0.99.
    eps
        :math:`\epsilon \ge 0`, in units of the gradient. With 0, 0/0 is 0. Default 1e-8.
    momentum
        :math:`\mu` in [0, 1). Default 0.
    centered
        Divide by the standard deviation instead of the root mean square. Default False.
    weight_decay
        :math:`\lambda \ge 0`, added to the gradient (L2). Default 0.
    constraint
        A set X of `thalweg.numeric`: each parameter is projected to it in the metric
        :math:`H = \mathrm{diag}(h)` after its move. Default None.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.tensor([1.0]))
    >>> x.grad = torch.tensor([5.0])
    >>> RMSProp([x], lr=0.01, eps=0.0).step()
    >>> round(x.item(), 6)  # 10 times lr: 1 / sqrt(1 - 0.99)
    0.9

    References
    ----------
    Tieleman & Hinton, Coursera lecture 6.5, 2012. Agrees with ``torch.optim.RMSprop`` (which does
    not clamp the centered variance) and exchanges checkpoints with it. A recursion on H instead of
    :math:`Q = H^2`, as one lecture summary prints it, is a misprint.
    """

    slots = ("square_avg", "grad_avg", "momentum_buffer")
    paper = "Tieleman & Hinton, Coursera lecture 6.5, 2012"
    year = 2012
    family = "adaptive"
    memory = "1 per parameter, +1 centered, +1 with momentum"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-4, 1e-1),
        "alpha": OneMinusLogUniform(1e-3, 0.1),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
        constraint: Constraint | None = None,
        **how: Unpack[How],
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "momentum": momentum,
            "centered": centered,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, constraint=constraint, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("alpha", group["alpha"], ge=0, lt=1)
        check.number("eps", group["eps"], ge=0)
        check.number("momentum", group["momentum"], ge=0, lt=1)
        check.number("weight_decay", group["weight_decay"], ge=0)

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        needed = (True, group["centered"], group["momentum"] != 0)
        return tuple(slot for slot, use in zip(self.slots, needed, strict=True) if use)

    def metric(self, a: Active, k: int) -> Tensor:
        square = a.state["square_avg"]
        if a.group["centered"]:
            square = (square - a.state["grad_avg"] ** 2).clamp_min(0)
        h: Tensor = square.sqrt() + a.group["eps"]
        return h

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        square_avg: Tensor,
        *others: Tensor,
        lr: float,
        alpha: float,
        eps: float,
        momentum: float,
        centered: bool,
        weight_decay: float,
    ) -> tuple[Tensor, ...]:
        g = g + weight_decay * p
        square_avg = alpha * square_avg + (1 - alpha) * g * g
        state, variance, rest = [square_avg], square_avg, list(others)
        if centered:
            grad_avg = alpha * rest.pop(0) + (1 - alpha) * g
            variance = torch.clamp_min(square_avg - grad_avg * grad_avg, 0)
            state.append(grad_avg)
        direction = divide(g, variance.sqrt(), eps)
        if rest:
            direction = momentum * rest.pop() + direction
            state.append(direction)
        return p - lr * direction, *state
