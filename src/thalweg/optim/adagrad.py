"""AdaGrad in its two cheap forms: one step size per coordinate, or one for everything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Unpack

from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform
from thalweg.numeric.division import divide
from thalweg.optim.engine import Active, Elementwise, Global, How, squared_norm
from thalweg.optim.engine.elementwise import Constraint


class AdaGrad(Elementwise):
    r"""Divide each coordinate's gradient by the root of the sum of its squares so far.

    .. math::
        Q_k = Q_{k-1} + g_k^2, \qquad h_k = \sqrt{Q_k} + \epsilon, \qquad
        x_{k+1} = P_X^{H}\bigl(x_k - a\, g_k / h_k\bigr)

    For sparse features and coordinates of very different scale. Invariant to a rescaling of each
    coordinate of the gradient, not to rotations (see `AdaGradFull`).

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0. Default 1e-2.
    eps
        :math:`\epsilon \ge 0`, in units of the gradient. With 0, 0/0 is 0. Default 1e-10.
    initial_accumulator
        :math:`Q_0 \ge 0`. Default 0.
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
    >>> x = torch.nn.Parameter(torch.zeros(2))
    >>> x.grad = torch.tensor([4.0, -0.001])
    >>> AdaGrad([x], lr=0.5, eps=0.0).step()
    >>> x.tolist()
    [-0.5, 0.5]

    References
    ----------
    Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 12 (2011) 2121-2159. Agrees with ``torch.optim.Adagrad`` (lr_decay=0) and
    exchanges checkpoints with it.
    """

    slots = ("sum",)
    paper = "Duchi, Hazan & Singer, JMLR 12, 2011"
    year = 2011
    family = "adaptive"
    memory = "1 per parameter"
    search_space: ClassVar[dict[str, Axis]] = {"lr": LogUniform(1e-3, 1.0)}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        eps: float = 1e-10,
        initial_accumulator: float = 0.0,
        weight_decay: float = 0.0,
        constraint: Constraint | None = None,
        **how: Unpack[How],
    ) -> None:
        defaults = {
            "lr": lr,
            "eps": eps,
            "initial_accumulator": initial_accumulator,
            "weight_decay": weight_decay,
            "lr_decay": 0.0,  # torch.optim.Adagrad reads it when it loads our checkpoint
        }
        super().__init__(params, defaults, constraint=constraint, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("eps", group["eps"], ge=0)
        check.number("initial_accumulator", group["initial_accumulator"], ge=0)
        check.number("weight_decay", group["weight_decay"], ge=0)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for group in state_dict["param_groups"]:
            if group.get("lr_decay", 0) != 0:
                raise ValueError(
                    f"lr_decay of the checkpoint must be 0, got {group['lr_decay']}; "
                    "set it to 0 there and use a scheduler with lr / (1 + k * lr_decay)"
                )
        super().load_state_dict(state_dict)

    def initial(self, slot: str, p: Tensor, group: dict[str, Any]) -> Tensor:
        return super().initial(slot, p, group) + group["initial_accumulator"]

    def metric(self, a: Active, k: int) -> Tensor:
        h: Tensor = a.state["sum"].sqrt() + a.group["eps"]
        return h

    @staticmethod
    def rule(
        p: Tensor, g: Tensor, sum: Tensor, *, lr: float, eps: float, weight_decay: float
    ) -> tuple[Tensor, ...]:
        g = g + weight_decay * p
        sum = sum + g * g
        return p - lr * divide(g, sum.sqrt(), eps), sum


class AdaGradNorm(Global):
    r"""SGD whose one step size adapts to the gradients seen: neither L nor the noise need be known.

    .. math::
        b_k^2 = b_{k-1}^2 + \|g_k\|^2, \qquad x_{k+1} = x_k - \frac{\eta}{b_k}\, g_k

    where the norm runs over all parameters that have a gradient. If f is L-smooth and
    :math:`b_0 \ge \eta L`, then with :math:`D = f(x_0) - f^*` and exact gradients
    :math:`\min_{j<N} \|\nabla f(x_j)\|^2 \le \frac{2D}{\eta} (b_0 + 2D/\eta)/N`; any other
    :math:`b_0` costs a logarithm.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        :math:`\eta \ge 0`, in units of the parameters: with :math:`b_0 = 0` the length of the first
        step. Each group keeps its own. Default 1.
    b0
        :math:`b_0 \ge 0`, in units of the gradient. With 0, steps wait for the first gradient that
        is not zero. Default 1e-2.
    scope
        Over what the norm runs: ``"global"`` (the paper), ``"group"`` or ``"tensor"``.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range or an unknown scope.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.zeros(2))
    >>> x.grad = torch.tensor([3.0, 4.0])
    >>> AdaGradNorm([x], lr=1.0, b0=0.0).step()
    >>> x.detach().round(decimals=3).tolist()
    [-0.6000000238418579, -0.800000011920929]

    References
    ----------
    Ward, Wu & Bottou, "AdaGrad stepsizes: sharp convergence over nonconvex landscapes", JMLR 21
    (2020) 1-30 (arXiv 1806.01811). The sum of squares is kept in float64.
    """

    shared = ("sum",)
    reduced = ("b",)
    paper = "Ward, Wu & Bottou, JMLR 21, 2020 (arXiv 1806.01811)"
    year = 2019
    family = "adaptive"
    memory = "0 per parameter"
    search_space: ClassVar[dict[str, Axis]] = {"lr": LogUniform(1e-2, 1e2)}
    _own_attributes = ("b0", "scope")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        b0: float = 1e-2,
        scope: Literal["global", "group", "tensor"] = "global",
        **how: Unpack[How],
    ) -> None:
        self.b0 = check.number("b0", b0, ge=0)
        self.scope = check.choice("scope", scope, ("global", "group", "tensor"))
        super().__init__(params, {"lr": lr}, **how)

    def common(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, float]]:
        b: dict[Tensor, float] = {}
        for members, params in self._scopes(active):
            total = self.read_shared("sum", params, first=float(self.b0) ** 2)
            total += squared_norm([a.g for a in members])
            self.write_shared("sum", total, params)
            b.update({a.p: math.sqrt(total) if total > 0 else math.inf for a in members})
        return lambda a: {"b": b[a.p]}

    def _scopes(self, active: Sequence[Active]) -> list[tuple[list[Active], list[Tensor]]]:
        """Who shares a norm now, and who remembers it."""
        if self.scope == "global":
            return [(list(active), self.all_params())]
        if self.scope == "tensor":
            return [([a], [a.p]) for a in active]
        groups = [([a for a in active if a.group is g], g["params"]) for g in self.param_groups]
        return [(members, params) for members, params in groups if members]

    @staticmethod
    def rule(p: Tensor, g: Tensor, *, lr: float, b: float) -> tuple[Tensor, ...]:
        return (p - (lr / b) * g,)
