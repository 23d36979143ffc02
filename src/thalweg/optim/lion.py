"""Lion: the sign of a blend of momentum and gradient."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform, OneMinusLogUniform
from thalweg.optim.engine import Elementwise, How
from thalweg.optim.engine.sharding import local


def check_two_betas(group: dict[str, Any]) -> None:
    """Both betas in [0, 1), with no relation between them."""
    betas = group["betas"]
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ValueError(f"betas must be a pair of numbers in [0, 1), got {betas!r}")
    for i, beta in enumerate(betas):
        check.number(f"betas[{i}]", beta, ge=0, lt=1)


def check_decay(group: dict[str, Any]) -> None:
    """A decoupled decay that shrinks: ``lr * weight_decay`` in [0, 1)."""
    check.number("weight_decay", group["weight_decay"], ge=0)
    shrinkage = float(group["lr"]) * float(group["weight_decay"])
    if shrinkage >= 1:
        raise ValueError(
            "weight_decay must be < 1 / lr (a step multiplies the parameters by "
            f"1 - lr * weight_decay), got weight_decay={group['weight_decay']}, lr={group['lr']}"
        )


def warn_if_lost(group: dict[str, Any]) -> None:
    """Warn where a move of exactly lr is lost when a short format rounds it to nearest."""
    lr = float(group["lr"])
    short = [p for p in group["params"] if p.dtype in (torch.float16, torch.bfloat16)]
    if lr == 0 or not short:
        return
    lost = sum(int((lr < torch.finfo(p.dtype).eps * local(p).abs()).sum()) for p in short)
    if lost:
        share = lost / sum(local(p).numel() for p in short)
        warnings.warn(
            f"lr: a move of {lr:g} is below the precision of {100 * share:.0f} % of the entries of "
            "the float16 or bfloat16 parameters; keep them in float32, or use bfloat16 with "
            "rounding='stochastic' or 'compensated'",
            stacklevel=6,
        )


class Lion(Elementwise):
    r"""Evolved sign momentum: every coordinate moves by the learning rate, half of Adam's state.

    .. math::
        u_k &= \mathrm{sign}\bigl(\beta_1 m_{k-1} + (1 - \beta_1)\, g_k\bigr) \\
        x_{k+1} &= (1 - a \lambda)\, x_k - a\, u_k \\
        m_k &= \beta_2 m_{k-1} + (1 - \beta_2)\, g_k, \qquad m_0 = 0

    with :math:`\mathrm{sign}(0) = 0`. The blend that is used and the average that is stored have
    different memories. Compared with `AdamW`, take a learning rate 3 to 10 times smaller and a
    weight decay as many times larger. The decay confines the parameters to
    :math:`\|x\|_\infty \le 1 / \lambda` in the limit: see `LionK`.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0: the change of every coordinate per step. Default 1e-4.
    betas
        :math:`(\beta_1, \beta_2)`, both in [0, 1). Default (0.9, 0.99).
    weight_decay
        :math:`\lambda \ge 0`, decoupled; :math:`a \lambda < 1`. Default 0.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range. A warning if the parameters are in a short format in which some of
        them cannot feel a move of `lr`.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    >>> x.grad = torch.tensor([1000.0, -0.001, 0.0])
    >>> Lion([x], lr=0.25).step()
    >>> x.tolist()
    [0.75, 1.25, 1.0]

    References
    ----------
    Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023 (arXiv 2302.06675).
    Agrees bitwise, uncompiled, with lion-pytorch 0.2.5 and pytorch_optimizer 4.1.0; the former's
    ``decoupled_weight_decay=True`` divides the decay by the first learning rate and is not ours.
    """

    slots = ("exp_avg",)
    paper = "Chen et al., NeurIPS 2023 (arXiv 2302.06675)"
    year = 2023
    family = "sign"
    memory = "1 per parameter"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-5, 1e-2),
        "weight_decay": LogUniform(1e-3, 10.0),
        "betas[0]": OneMinusLogUniform(2e-2, 0.5),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **how: Unpack[How],
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay}, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check_two_betas(group)
        check_decay(group)
        if self.rounding == "nearest":
            warn_if_lost(group)

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        exp_avg: Tensor,
        *,
        lr: float,
        beta1: float,
        beta2: float,
        weight_decay: float,
    ) -> tuple[Tensor, ...]:
        blend = beta1 * exp_avg + (1 - beta1) * g
        exp_avg = beta2 * exp_avg + (1 - beta2) * g
        return p * (1 - lr * weight_decay) - lr * blend.sign(), exp_avg
