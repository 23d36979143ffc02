"""Perturbed SGD: noise on the sphere at every step, so that no saddle holds the iterate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Unpack

from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform
from thalweg.optim.engine import Active, Global, How, squared_norm
from thalweg.optim.engine.rounding import moved


class PerturbedSGD(Global):
    r"""SGD with noise uniform on a sphere added to every gradient.

    .. math::
        x_{k+1} = x_k - a\, (g_k + r\, \xi_k), \qquad
        \xi_k \text{ uniform on the unit sphere of } \mathbb R^d

    with one sphere for **all** parameters: :math:`\xi = z/\|z\|`, :math:`z \sim N(0, I_d)`. With
    momentum, the buffer sees :math:`g_k + r \xi_k`. Under the strict-saddle property,
    :math:`O(a^{-2} \log(1/\zeta))` steps reach the neighbourhood of a local minimum with
    probability :math:`1 - \zeta`. With a constant step the iterate keeps a spread of order a:
    end with a decreasing one (`thalweg.optim.cooldown`).

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0. Default 1e-2.
    radius
        r >= 0, in units of the gradient (1 in the paper); 0 is SGD. Default 1.
    momentum
        :math:`\mu` in [0, 1). Default 0.
    **how
        How the rule is run: see `thalweg.optim.How`; `generator` is where the noise comes from.

    Raises
    ------
    ValueError
        For a value out of range.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.zeros(100))
    >>> optimizer = PerturbedSGD([x], lr=0.5, generator=torch.Generator().manual_seed(0))
    >>> x.grad = torch.zeros(100)  # a saddle: no gradient to follow
    >>> optimizer.step()
    >>> round(x.norm().item(), 5)
    0.5

    References
    ----------
    Ge, Huang, Jin & Yuan, "Escaping from saddle points: online stochastic gradient for tensor
    decomposition", COLT 2015 (arXiv 1503.02101). Not the later variant that perturbs only where the
    gradient is small (Jin et al. 2017).
    """

    slots = ("momentum_buffer",)
    reduced = ("noise_norm",)
    draws_noise = True
    paper = "Ge, Huang, Jin & Yuan, COLT 2015 (arXiv 1503.02101)"
    year = 2015
    family = "stochastic gradient"
    memory = "0 per parameter, 1 with momentum"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-3, 1.0),
        "radius": LogUniform(1e-2, 10.0),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        radius: float = 1.0,
        momentum: float = 0.0,
        **how: Unpack[How],
    ) -> None:
        super().__init__(params, {"lr": lr, "radius": radius, "momentum": momentum}, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("radius", group["radius"], ge=0)
        check.number("momentum", group["momentum"], ge=0, lt=1)

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots if group["momentum"] != 0 else ()

    def update(self, active: Sequence[Active]) -> None:
        self._noise_square = 0.0
        super().update(active)

    def gaussian(self, p: Tensor) -> Tensor:
        drawn = super().gaussian(p)
        self._noise_square += squared_norm([drawn])
        return drawn

    def common(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, float]]:
        noise_norm = math.sqrt(self._noise_square) or 1.0
        return lambda _: {"noise_norm": noise_norm}

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        *tensors: Tensor,
        lr: float,
        radius: float,
        momentum: float,
        noise_norm: float,
    ) -> tuple[Tensor, ...]:
        *buffer, noise = tensors
        d = g + (radius / noise_norm) * noise
        if not buffer:
            return (moved(p, -lr * d),)
        v = momentum * buffer[0] + d
        return moved(p, -lr * v), v
