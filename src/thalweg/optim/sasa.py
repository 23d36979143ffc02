"""The halves of SALSA for use alone: SSLS finds a step size, SASA lowers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core.catalogue import Axis, LogUniform, OneMinusLogUniform
from thalweg.optim.engine import Active, How
from thalweg.optim.stationarity import Variance
from thalweg.optim.step_control import StepControl


class SSLS(StepControl):
    r"""Smoothed stochastic line search: SGD with momentum that finds its step size.

    .. math::
        \eta &= \text{the first of } 2a,\, a \text{ with }
            F(x - \eta g) \le F(x) - c\, \eta \|g\|^2, \text{ else } a/2 \\
        a &\leftarrow (1 - \gamma)\, a + \gamma\, \eta, \qquad x_{k+1} = x_k - a\, d_k

    with F the loss of the step's batch (plus :math:`\lambda \|x\|^2/2`), g its gradient, d the
    quasi-hyperbolic momentum and c = 0.05: the first half of `SALSA`, for those who lower the step
    size by other means. The search goes along g, the step along d.

    Parameters
    ----------
    params, lr, momentum, nu, weight_decay, gamma, batch_size, n, **how
        As in `SALSA`.

    Raises
    ------
    ValueError
        For a value out of range; from ``step()``, without a closure.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = SSLS([x], lr=1e-3)
    >>> for _ in range(100):
    ...     x.grad = 3 * x.detach()
    ...     loss = optimizer.step(lambda eval_mode: 1.5 * x.square().sum())
    >>> 0.95 / 3 < optimizer.param_groups[0]["lr"] < 0.95 * 1.1 / 3
    True

    References
    ----------
    Zhang, Lang, Liu & Xiao, "Statistical adaptive stochastic gradient methods", 2020 (arXiv
    2002.10597). Follows the authors' package statopt.
    """

    n_summands = 0  # no test, no statistic
    paper = "Zhang, Lang, Liu & Xiao, 2020 (arXiv 2002.10597)"
    year = 2020
    needs = ("closure",)
    memory = "1 per parameter, 2 with nu < 1"
    search_space: ClassVar[dict[str, Axis]] = {"momentum": OneMinusLogUniform(1e-2, 1.0)}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        nu: float = 1.0,
        weight_decay: float = 0.0,
        gamma: float | None = None,
        batch_size: int | None = None,
        n: int | None = None,
        **how: Unpack[How],
    ) -> None:
        super().__init__(
            params, lr, momentum, nu, weight_decay, gamma=gamma, batch_size=batch_size, n=n, **how
        )

    def update(self, active: Sequence[Active]) -> None:
        self.line_search(active)
        super().update(active)


class SASA(StepControl):
    r"""SGD with momentum whose step size drops when the iterates have come to rest.

    At rest, :math:`E\|x_{k+1}\|^2 = E\|x_k\|^2`, so that the mean of

    .. math:: D_k = \langle x_{k+1}, d_k \rangle + \tfrac a2 \|d_k\|^2
                  = \langle x_k, d_k \rangle - \tfrac a2 \|d_k\|^2

    is zero. When a t-test that respects the correlation of the :math:`D_k` finds no other mean,
    :math:`a \leftarrow a/10` and the momentum starts afresh: the second half of `SALSA` (SASA+),
    for those who know a good first step size. D depends on the origin: a shift of the parameters
    changes when steps drop.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        First step size, >= 0. Default 0.1.
    momentum, nu, weight_decay, drop, significance, var, leak, min_samples, test_every, **how
        As in `SALSA`.

    Raises
    ------
    ValueError
        For a value out of range.

    Examples
    --------
    >>> import torch
    >>> draw = torch.Generator().manual_seed(0)
    >>> x = torch.nn.Parameter(torch.zeros(100))
    >>> optimizer = SASA([x], lr=0.1, min_samples=100)
    >>> for _ in range(1500):  # at the minimum of x^2/2 already: noise alone
    ...     x.grad = x.detach() + torch.randn(100, generator=draw)
    ...     optimizer.step()
    >>> round(optimizer.param_groups[0]["lr"], 4) < 0.1
    True

    References
    ----------
    Zhang, Lang, Liu & Xiao, "Statistical adaptive stochastic gradient methods", 2020 (arXiv
    2002.10597); Lang, Zhang & Xiao, NeurIPS 2019.
    """

    paper = "Zhang, Lang, Liu & Xiao, 2020 (arXiv 2002.10597)"
    year = 2020
    memory = "1 per parameter, 2 with nu < 1"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-2, 10.0),
        "momentum": OneMinusLogUniform(1e-2, 1.0),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        momentum: float = 0.9,
        nu: float = 1.0,
        weight_decay: float = 0.0,
        drop: float = 10.0,
        significance: float = 0.05,
        var: Variance = "olbm",
        leak: int = 8,
        min_samples: int = 1000,
        test_every: int | None = None,
        **how: Unpack[How],
    ) -> None:
        super().__init__(
            params, lr, momentum, nu, weight_decay, drop=drop, significance=significance, var=var,
            leak=leak, min_samples=min_samples, test_every=test_every, **how,
        )  # fmt: skip

    def update(self, active: Sequence[Active]) -> None:
        super().update(active)
        self.drop_if_stationary(active)
