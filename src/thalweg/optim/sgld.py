"""Stochastic gradient Langevin dynamics: descent that samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform
from thalweg.optim.engine import Active, Elementwise, How
from thalweg.optim.engine.rounding import moved
from thalweg.optim.engine.sharding import local


class SGLD(Elementwise):
    r"""Stochastic gradient Langevin dynamics: samples from :math:`\exp(-U(x)/T)`.

    .. math::
        x_{k+1} = x_k - a\, \nabla U(x_k) + \sqrt{2 a T}\, \xi_k, \qquad \xi_k \sim N(0, I)

    where :math:`\nabla U = N g_k + \lambda x_k` for a loss that is a **mean** over N data points
    (`num_data`) and a Gaussian prior of precision :math:`\lambda` (`weight_decay`, not multiplied
    by N). Welling and Teh's :math:`\varepsilon` is 2a. *Preconditioned*:
    :math:`V \leftarrow 0.99 V + 0.01 g_k^2`, :math:`G = 1/(10^{-5} + \sqrt V)`,
    :math:`x - a G \nabla U + \sqrt{2 a T G}\, \xi`; the divergence term of pSGLD is dropped, so
    that it samples only approximately.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0. The bias of the samples is of order a. Default 1e-5.
    num_data
        N >= 1: the number of data points the loss averages over. Default 1: the loss is a sum.
    temperature
        T >= 0; 0 is SGD. Default 1.
    weight_decay
        :math:`\lambda \ge 0`: prior precision. Default 0.
    precondition
        Use the preconditioned form. Default False.
    **how
        How the rule is run: see `thalweg.optim.How`; `generator` is where the noise comes from.

    Raises
    ------
    ValueError
        For a value out of range. A warning where a short format would swallow a part of the step.

    Examples
    --------
    >>> x = torch.nn.Parameter(torch.zeros(10_000))  # as many chains
    >>> optimizer = SGLD([x], lr=0.2, generator=torch.Generator().manual_seed(0))
    >>> for _ in range(50):
    ...     x.grad = 2 * x.detach()  # U(x) = x^2
    ...     optimizer.step()
    >>> round(x.var().item(), 1)  # stationary variance 1 / (2 (1 - 0.2)) = 0.625
    0.6

    References
    ----------
    Welling & Teh, "Bayesian learning via stochastic gradient Langevin dynamics", ICML 2011;
    preconditioning: Li, Chen, Carlson & Carin, AAAI 2016 (arXiv 1512.07666).
    """

    slots = ("square_avg",)
    draws_noise = True
    paper = "Welling & Teh, ICML 2011"
    year = 2011
    family = "stochastic gradient"
    memory = "0 per parameter, 1 preconditioned"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-6, 1e-1),
        "temperature": LogUniform(1e-6, 1.0),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-5,
        num_data: int = 1,
        temperature: float = 1.0,
        weight_decay: float = 0.0,
        precondition: bool = False,
        **how: Unpack[How],
    ) -> None:
        defaults = {
            "lr": lr,
            "num_data": num_data,
            "temperature": temperature,
            "weight_decay": weight_decay,
            "precondition": precondition,
        }
        super().__init__(params, defaults, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("num_data", group["num_data"], ge=1)
        check.number("temperature", group["temperature"], ge=0)
        check.number("weight_decay", group["weight_decay"], ge=0)

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots if group["precondition"] else ()

    def update(self, active: Sequence[Active]) -> None:
        for a in active:
            if a.state["step"] == 0 and self.rounding == "nearest":
                _warn_if_swallowed(a)
        super().update(active)

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        *tensors: Tensor,
        lr: float,
        num_data: float,
        temperature: float,
        weight_decay: float,
        precondition: bool,
    ) -> tuple[Tensor, ...]:
        *square_avg, noise = tensors
        grad_u = num_data * g + weight_decay * p
        if not precondition:
            return (moved(p, (2 * lr * temperature) ** 0.5 * noise - lr * grad_u),)
        v = 0.99 * square_avg[0] + 0.01 * g * g
        preconditioner = 1 / (1e-5 + v.sqrt())
        scale = (2 * lr * temperature) ** 0.5 * preconditioner.sqrt()
        return moved(p, scale * noise - lr * preconditioner * grad_u), v


def _warn_if_swallowed(a: Active) -> None:
    if a.p.dtype not in (torch.bfloat16, torch.float16):
        return
    size = float(local(a.p).float().abs().mean())
    smallest = torch.finfo(a.p.dtype).eps * size
    lr, num_data = float(a.group["lr"]), float(a.group["num_data"])
    parts = {
        "noise": (2 * lr * a.group["temperature"]) ** 0.5,
        "move": lr * num_data * float(local(a.g).float().abs().mean()),
    }
    for name, part in parts.items():
        if 0 < part < smallest:
            check.warn(
                f"SGLD: {name} of size {part:.1e} is lost in {a.p.dtype} entries of size "
                f'{size:.1e}; use float32 parameters, or bfloat16 with rounding="stochastic"'
            )
