"""Adam and AdamW."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Unpack

from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform, OneMinusLogUniform
from thalweg.numeric.division import divide
from thalweg.optim.engine import Elementwise, How


def check_betas(group: dict[str, Any]) -> None:
    """Both betas in [0, 1); a warning where the analysis of Adam asks for beta1 < sqrt(beta2)."""
    betas = group["betas"]
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ValueError(f"betas must be a pair of numbers in [0, 1), got {betas!r}")
    beta1 = check.number("betas[0]", betas[0], ge=0, lt=1)
    beta2 = check.number("betas[1]", betas[1], ge=0, lt=1)
    if beta1 > 0 and float(beta1) >= math.sqrt(float(beta2)):
        check.warn(
            f"betas: the analysis of Adam asks for betas[0] < sqrt(betas[1]), got {tuple(betas)}"
        )


def adam_direction(
    g: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    k: int,
    beta1: float,
    beta2: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The direction :math:`\hat m_k / (\sqrt{\hat v_k} + \epsilon)` and the two moments."""
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g * g
    m_hat = exp_avg / (1 - beta1**k)
    v_hat = exp_avg_sq / (1 - beta2**k)
    return divide(m_hat, v_hat.sqrt(), eps), exp_avg, exp_avg_sq


class Adam(Elementwise):
    r"""Adaptive moment estimation: a step per coordinate, from the mean and the size of gradients.

    .. math::
        m_k &= \beta_1 m_{k-1} + (1 - \beta_1)\, g_k, &
        v_k &= \beta_2 v_{k-1} + (1 - \beta_2)\, g_k^2, \\
        \hat m_k &= m_k / (1 - \beta_1^k), & \hat v_k &= v_k / (1 - \beta_2^k), \\
        x_{k+1} &= x_k - a\, \hat m_k / (\sqrt{\hat v_k} + \epsilon)

    with :math:`m_0 = v_0 = 0`. Weight decay is added to the gradient (L2); `AdamW` decouples it.
    There are convex problems on which it converges to the worst point: see `AMSGrad`.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0: about the change of each coordinate per step. Default 1e-3.
    betas
        :math:`(\beta_1, \beta_2)`, both in [0, 1). Default (0.9, 0.999).
    eps
        :math:`\epsilon \ge 0`, in units of the gradient. With 0, 0/0 is 0. Default 1e-8.
    weight_decay
        :math:`\lambda \ge 0`: :math:`g_k` becomes :math:`g_k + \lambda x_k`. Default 0.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range. A warning if :math:`\beta_1 \ge \sqrt{\beta_2}`.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.tensor([1.0, -100.0]))
    >>> (x**2).sum().backward()
    >>> Adam([x], lr=0.1).step()
    >>> x.tolist()  # the first step is lr * sign(g), whatever the scale
    [0.8999999761581421, -99.9000015258789]

    References
    ----------
    Kingma & Ba, "Adam: a method for stochastic optimization", ICLR 2015 (arXiv 1412.6980). Agrees
    with ``torch.optim.Adam`` and exchanges checkpoints with it.
    """

    slots = ("exp_avg", "exp_avg_sq")
    paper = "Kingma & Ba, ICLR 2015 (arXiv 1412.6980)"
    year = 2015
    family = "adaptive"
    memory = "2 per parameter"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-4, 1e-1),
        "betas[0]": OneMinusLogUniform(2e-2, 0.5),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **how: Unpack[How],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check_betas(group)
        check.number("eps", group["eps"], ge=0)
        check.number("weight_decay", group["weight_decay"], ge=0)

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        exp_avg: Tensor,
        exp_avg_sq: Tensor,
        *,
        k: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
    ) -> tuple[Tensor, ...]:
        g = g + weight_decay * p
        direction, *moments = adam_direction(
            g, exp_avg, exp_avg_sq, k=k, beta1=beta1, beta2=beta2, eps=eps
        )
        return p - lr * direction, *moments


class AdamW(Adam):
    r"""Adam with decoupled weight decay.

    .. math::
        x_{k+1} = (1 - a \lambda)\, x_k - a\, \hat m_k / (\sqrt{\hat v_k} + \epsilon)

    with the moments of `Adam`, which do not see the decay.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0. Default 1e-3.
    betas
        :math:`(\beta_1, \beta_2)`, both in [0, 1). Default (0.9, 0.999).
    eps
        :math:`\epsilon \ge 0`, in units of the gradient. With 0, 0/0 is 0. Default 1e-8.
    weight_decay
        :math:`\lambda \ge 0`; per step the parameters shrink by :math:`a \lambda`. Default 1e-2.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range. A warning if :math:`\beta_1 \ge \sqrt{\beta_2}`.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.tensor([10.0]))
    >>> x.grad = torch.zeros(1)
    >>> AdamW([x], lr=0.1, weight_decay=0.5).step()
    >>> x.item()
    9.5

    References
    ----------
    Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019 (arXiv 1711.05101).
    Agrees with ``torch.optim.AdamW`` and exchanges checkpoints with it.
    """

    paper = "Loshchilov & Hutter, ICLR 2019 (arXiv 1711.05101)"
    year = 2019
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-4, 1e-1),
        "weight_decay": LogUniform(1e-4, 1.0),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        **how: Unpack[How],
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, **how)

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        exp_avg: Tensor,
        exp_avg_sq: Tensor,
        *,
        k: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
    ) -> tuple[Tensor, ...]:
        direction, *moments = adam_direction(
            g, exp_avg, exp_avg_sq, k=k, beta1=beta1, beta2=beta2, eps=eps
        )
        return p * (1 - lr * weight_decay) - lr * direction, *moments
