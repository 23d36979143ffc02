"""SGDP: momentum that does not inflate weights whose length does not matter."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform, OneMinusLogUniform
from thalweg.optim.engine import How
from thalweg.optim.engine.update import computed_once
from thalweg.optim.projection import Projected, projected


class SGDP(Projected):
    r"""SGD with momentum for networks with normalization layers: the radial part is dropped.

    .. math::
        b_k &= \mu b_{k-1} + (1 - d)\, g_k, \qquad b_0 = 0 \\
        u_k &= b_k \quad \text{or, Nesterov,} \quad g_k + \mu b_k \\
        u_k &\leftarrow u_k - \hat x_k \langle \hat x_k, u_k\rangle
            && \text{if the test of AdamP passes} \\
        x_{k+1} &= \Bigl(1 - \frac{a \lambda r}{1 - \mu}\Bigr) x_k - a\, u_k

    The stored buffer is not projected, as in the paper. Dampening counts from the first step,
    unlike in torch. On weights whose length does not matter, momentum 0.9 lets the square of the
    length grow 19 times as fast. **Use a schedule**: with a constant learning rate that growth is
    what decays the step (digits, 0.1: 0.946 with the projection, 0.977 without).

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0. Default 1e-3.
    momentum
        :math:`\mu` in [0, 1). Default 0.
    dampening
        d in [0, 1]. Default 0.
    weight_decay
        :math:`\lambda \ge 0`, decoupled. Default 0.
    nesterov
        Use Nesterov's direction. Default False.
    eps
        :math:`\epsilon \ge 0`, added to norms. Default 1e-8.
    delta
        :math:`\delta \ge 0`: 0 never projects, infinity always. Default 0.1.
    wd_ratio
        r >= 0, the share of the decay that projected tensors get. Default 0.1.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Attributes
    ----------
    last_projected
        Names of the tensors projected in the last step (their places, if they have no names).

    Raises
    ------
    ValueError
        For a value out of range.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.tensor([[3.0, 0.0]]))
    >>> x.grad = torch.tensor([[1.0, 1.0]])  # 45 degrees: the length matters, nothing is dropped
    >>> optimizer = SGDP([x], lr=1.0)
    >>> optimizer.step()
    >>> x.tolist(), optimizer.last_projected
    ([[2.0, -1.0]], ())

    References
    ----------
    Heo et al., ICLR 2021 (arXiv 2006.08217): see `AdamP`. Agrees with adamp 0.3.0, except that its
    buffer is projected too without Nesterov (through an alias); the paper's is not.
    """

    slots = ("momentum_buffer",)
    paper = "Heo et al., ICLR 2021 (arXiv 2006.08217)"
    year = 2021
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
        weight_decay: float = 0.0,
        nesterov: bool = False,
        eps: float = 1e-8,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        **how: Unpack[How],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "eps": eps,
            "delta": delta,
            "wd_ratio": wd_ratio,
        }
        super().__init__(params, defaults, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("momentum", group["momentum"], ge=0, lt=1)
        check.number("dampening", group["dampening"], ge=0, le=1)

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots if group["momentum"] != 0 else ()

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        *buffer: Tensor,
        lr: float,
        momentum: float,
        dampening: float,
        weight_decay: float,
        nesterov: bool,
        eps: float,
        wd_ratio: float,
        tested: bool,
        row_bound: float,
        layer_bound: float,
    ) -> tuple[Tensor, ...]:
        b = (1 - dampening) * g
        if buffer:
            b = momentum * buffer[0] + b
        u = g + momentum * b if nesterov else b
        decay = lr * weight_decay / (1 - momentum)
        kept = (b,)[: len(buffer)]
        if not tested:
            return p * (1 - decay) - lr * u, *kept
        u, passed = projected(u, p, g, eps=eps, row_bound=row_bound, layer_bound=layer_bound)
        one = torch.ones((), dtype=p.dtype, device=p.device)
        r = computed_once(torch.where(passed, wd_ratio * one, one))
        return p * (1 - decay * r) - lr * u, *kept, passed
