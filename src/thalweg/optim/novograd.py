"""NovoGrad: gradients normalized tensor by tensor, before the momentum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform, OneMinusLogUniform
from thalweg.optim.engine import Active, Global, How, tensor_norms
from thalweg.optim.lion import check_two_betas


class NovoGrad(Global):
    r"""Momentum of gradients divided by the running size of their tensor: half of Adam's state.

    For every tensor by itself,

    .. math::
        v_k &= \beta_2 v_{k-1} + (1 - \beta_2)\, \|g_k\|^2 \qquad (v_1 = \|g_1\|^2) \\
        m_k &= \beta_1 m_{k-1} + \frac{g_k}{\sqrt{v_k} + \epsilon} + \lambda x_k,
            \qquad m_0 = 0 \\
        x_{k+1} &= x_k - a\, m_k

    without bias correction: in the first step every tensor moves by a length of exactly a. A zero
    gradient at the start leaves v unset, so that the first gradient that is not zero sets it. The
    run does not change if the loss, or the gradient of one tensor, is multiplied by a constant. A
    scalar parameter is moved by signs.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0, in units of the parameters. Default 1e-2.
    betas
        :math:`(\beta_1, \beta_2)`, both in [0, 1). Default (0.95, 0.98).
    eps
        :math:`\epsilon \ge 0`, in units of the gradient's norm. With 0, 0/0 is 0. Default 1e-8.
    weight_decay
        :math:`\lambda \ge 0`, added to the normalized gradient. Default 0.
    grad_averaging
        Multiply what enters the momentum by :math:`1 - \beta_1`, at every step. Default False.
    decay_in_momentum
        False: the decay is added to the momentum's output, as in Apex, and leaves no trace in it.
        Default True.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.zeros(2))
    >>> x.grad = torch.tensor([300.0, 400.0])
    >>> NovoGrad([x], lr=0.5, eps=0.0).step()
    >>> [round(value, 6) for value in x.tolist()]
    [-0.3, -0.4]

    References
    ----------
    Ginsburg et al., "Training deep networks with stochastic gradient normalized by layerwise
    adaptive second moments", 2019 (arXiv 1905.11286v3). Agrees with pytorch_optimizer 4.1.0 with
    ``weight_decouple=False, grad_averaging=False`` (its averaging skips the first step). NVIDIA's
    OpenSeq2Seq puts :math:`\epsilon` under the root; Apex stores the norm instead of its square,
    and corrects biases. On digits its claim of robustness to the learning rate does not hold
    against Adam; that to the scale of the gradient does.
    """

    slots = ("exp_avg",)
    shared = ("exp_avg_sq",)
    reduced = ("size",)
    paper = "Ginsburg et al., 2019 (arXiv 1905.11286)"
    year = 2019
    family = "adaptive"
    memory = "1 per parameter, +1 per tensor"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-4, 1.0),
        "weight_decay": LogUniform(1e-5, 1e-1),
        "betas[0]": OneMinusLogUniform(1e-2, 0.5),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        betas: tuple[float, float] = (0.95, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        grad_averaging: bool = False,
        decay_in_momentum: bool = True,
        **how: Unpack[How],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "grad_averaging": grad_averaging,
            "decay_in_momentum": decay_in_momentum,
        }
        super().__init__(params, defaults, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check_two_betas(group)
        check.number("eps", group["eps"], ge=0)
        check.number("weight_decay", group["weight_decay"], ge=0)

    def common(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, float]]:
        sizes: dict[Tensor, float] = {}
        for a, norm in zip(active, tensor_norms([a.g for a in active]), strict=True):
            beta2 = float(a.group["betas"][1])
            if "exp_avg_sq" not in a.state:
                a.state["exp_avg_sq"] = torch.tensor(0.0, dtype=torch.float64)
            before = float(a.state["exp_avg_sq"])
            v = norm**2 if before == 0 else beta2 * before + (1 - beta2) * norm**2
            a.state["exp_avg_sq"].fill_(v)
            sizes[a.p] = math.sqrt(v) + float(a.group["eps"]) or math.inf  # 0 / inf for 0 / 0
        return lambda a: {"size": sizes[a.p]}

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        exp_avg: Tensor,
        *,
        lr: float,
        beta1: float,
        weight_decay: float,
        grad_averaging: bool,
        decay_in_momentum: bool,
        size: float | Tensor,
    ) -> tuple[Tensor, ...]:
        decay = weight_decay * p
        new = g / size + decay if decay_in_momentum else g / size
        if grad_averaging:
            new = (1 - beta1) * new
        exp_avg = beta1 * exp_avg + new
        move = exp_avg if decay_in_momentum else exp_avg + decay
        return p - lr * move, exp_avg
