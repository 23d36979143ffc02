"""Stochastic gradient descent: plain, heavy ball, Nesterov, quasi-hyperbolic."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform, OneMinusLogUniform
from thalweg.optim.engine import Elementwise, How


class SGD(Elementwise):
    r"""Stochastic gradient descent: plain, with momentum, Nesterov's, or quasi-hyperbolic (QHM).

    With the gradient :math:`g_k` (plus :math:`\lambda x_k`, the weight decay) and the step size
    :math:`a`,

    .. math::
        v_k &= \mu v_{k-1} + (1 - \delta)\, g_k \qquad (v_1 = g_1) \\
        x_{k+1} &= x_k - a\, v_k
            && \text{heavy ball} \\
        x_{k+1} &= x_k - a\, (g_k + \mu v_k)
            && \text{Nesterov} \\
        h_k &= \mu h_{k-1} + (1 - \mu)\, g_k, \quad
        x_{k+1} = x_k - a\, \bigl((1 - \nu)\, g_k + \nu h_k\bigr)
            && \text{QHM}

    and :math:`x_{k+1} = x_k - a g_k` without momentum. For an L-smooth f with gradient noise of
    variance :math:`\sigma^2` and :math:`a = 1/(L\sqrt N)`,
    :math:`\frac1N \sum_k E\|\nabla f(x_k)\|^2 \le (2L(f(x_0) - f^*) + \sigma^2)/\sqrt N`
    (Ghadimi & Lan 2013; the lecture's last line multiplies the variance by 2L too, its own
    derivation does not).

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0. Default 1e-3.
    momentum
        :math:`\mu` in [0, 1). Default 0.
    dampening
        :math:`\delta` in [0, 1]; the first step is not damped, as in torch. Default 0.
    nesterov
        Use Nesterov's direction. Default False.
    nu
        :math:`\nu` in [0, 1] chooses QHM; 0.7 with momentum 0.999 is its authors' advice. Default
        None: not QHM.
    weight_decay
        :math:`\lambda \ge 0`, added to the gradient as :math:`\lambda x` (L2). Default 0.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range; Nesterov without momentum or with dampening; QHM with either.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = SGD([x], lr=0.1, momentum=0.9)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     (x**2 / 2).sum().backward()
    ...     optimizer.step()
    >>> round(x.item(), 4)  # 1 -> 0.9 -> 0.9 - 0.1 (0.9 + 0.9)
    0.72

    References
    ----------
    Robbins & Monro 1951; Polyak 1964; Nesterov 1983; Ma & Yarats, "Quasi-hyperbolic momentum and
    Adam for deep learning", ICLR 2019 (arXiv 1810.06801). Agrees with ``torch.optim.SGD`` in its
    three modes, and loads its checkpoints.
    """

    slots = ("momentum_buffer",)
    paper = "Robbins & Monro 1951; Polyak 1964; QHM: Ma & Yarats, ICLR 2019"
    year = 1951
    family = "stochastic gradient"
    memory = "0 per parameter, 1 with momentum"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-3, 1.0),
        "momentum": OneMinusLogUniform(1e-2, 1.0),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        nu: float | None = None,
        weight_decay: float = 0.0,
        **how: Unpack[How],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "nesterov": nesterov,
            "nu": nu,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("momentum", group["momentum"], ge=0, lt=1)
        check.number("dampening", group["dampening"], ge=0, le=1)
        check.number("weight_decay", group["weight_decay"], ge=0)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                "nesterov must be False unless momentum > 0 and dampening = 0, got "
                f"momentum={group['momentum']}, dampening={group['dampening']}"
            )
        if group["nu"] is not None:
            check.number("nu", group["nu"], ge=0, le=1)
            if group["nesterov"] or group["dampening"] != 0:
                raise ValueError(
                    "nu (QHM) must be None unless nesterov=False and dampening=0, got "
                    f"nesterov={group['nesterov']}, dampening={group['dampening']}"
                )

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots if group["momentum"] != 0 or group["nu"] is not None else ()

    def numbers(self, group: dict[str, Any], k: int) -> dict[str, float]:
        numbers = super().numbers(group, k)
        if k == 1:  # torch's convention: the first gradient enters the buffer whole
            numbers["dampening"] = 0.0
        return numbers

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        *buffer: Tensor,
        lr: float,
        momentum: float,
        dampening: float,
        nesterov: bool,
        nu: float | None,
        weight_decay: float,
    ) -> tuple[Tensor, ...]:
        g = g + weight_decay * p
        if not buffer:
            return (p - lr * g,)
        (v,) = buffer
        if nu is not None:
            h = momentum * v + (1 - momentum) * g
            return p - lr * ((1 - nu) * g + nu * h), h
        v = momentum * v + (1 - dampening) * g
        direction = g + momentum * v if nesterov else v
        return p - lr * direction, v
