"""AMSGrad: Adam with a step size that never grows, on constrained sets too."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform, OneMinusLogUniform
from thalweg.numeric.division import divide
from thalweg.optim.adam import check_betas
from thalweg.optim.engine import Active, Elementwise, How
from thalweg.optim.engine.elementwise import Constraint


class AMSGrad(Elementwise):
    r"""Adam divided by the largest second moment so far, projected in its own metric.

    .. math::
        m_k &= \beta_{1,k} m_{k-1} + (1 - \beta_{1,k})\, g_k, \qquad
        v_k = \beta_2 v_{k-1} + (1 - \beta_2)\, g_k^2, \\
        \hat v_k &= \max(\hat v_{k-1}, v_k), \qquad h_k = \sqrt{\hat v_k} + \epsilon, \\
        x_{k+1} &= P_X^{h_k}\bigl(x_k - a_k\, m_k / h_k\bigr), \qquad
        P_X^{h}(y) = \arg\min_{x \in X} \sum_i h_i (x_i - y_i)^2

    with :math:`a_k = a/\sqrt k`. There is no bias correction in the paper. Adam (the same without
    the maximum) converges to the worst point of some convex problems; this does not.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0. Default 1e-3.
    betas
        :math:`(\beta_1, \beta_2)`, both in [0, 1). Default (0.9, 0.99).
    eps
        :math:`\epsilon \ge 0`; the same h is in the step and in the projection. Default 1e-8.
    weight_decay
        :math:`\lambda \ge 0`, added to the gradient (L2). Default 0.
    constraint
        A set X of `thalweg.numeric` (Box, L2Ball, L1Ball, Simplex, Affine, Halfspace); each
        parameter is projected to it by itself. Default None.
    schedule
        ``"sqrt"``: :math:`a_k = a/\sqrt k`; ``"constant"``: :math:`a_k = a`. Either is
        multiplied by an external scheduler. Default ``"sqrt"``.
    bias_correction
        Divide both moments by :math:`1 - \beta^k` as torch does. Default False.
    beta1_decay
        :math:`\beta_{1,k}`: a number c in (0, 1] for :math:`\beta_1 c^{k-1}`, or ``"1/k"`` for
        :math:`\beta_1 / k`. Default 1.
    initial_accumulator
        :math:`\hat v_0 \ge 0`: 0 in the paper, small and positive in some analyses. Default 0.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range, or bias correction of a changing :math:`\beta_1`.

    Examples
    --------
    >>> import torch
    >>> from thalweg.numeric import Simplex
    >>> x = torch.nn.Parameter(torch.full((3,), 1 / 3))
    >>> optimizer = AMSGrad([x], lr=0.5, constraint=Simplex())
    >>> for _ in range(50):
    ...     x.grad = torch.tensor([1.0, 2.0, 3.0])
    ...     optimizer.step()
    >>> x.detach().round(decimals=3).tolist()
    [1.0, 0.0, 0.0]

    References
    ----------
    Reddi, Kale & Kumar, "On the convergence of Adam and beyond", ICLR 2018 (arXiv 1904.09237);
    constrained, weakly convex: Alacaoglu, Malitsky & Cevher, NeurIPS 2021 (arXiv 2006.06650).
    ``torch.optim.Adam(amsgrad=True)`` differs: it takes the maximum of the uncorrected v, then
    corrects both moments, without projection; ``schedule="constant", bias_correction=True``
    reproduces it, and checkpoints interchange.
    """

    slots = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    paper = "Reddi, Kale & Kumar, ICLR 2018 (arXiv 1904.09237)"
    year = 2018
    family = "adaptive"
    memory = "3 per parameter"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-3, 1.0),
        "betas[0]": OneMinusLogUniform(2e-2, 0.5),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        constraint: Constraint | None = None,
        schedule: Literal["sqrt", "constant"] = "sqrt",
        bias_correction: bool = False,
        beta1_decay: float | Literal["1/k"] = 1.0,
        initial_accumulator: float = 0.0,
        **how: Unpack[How],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "schedule": schedule,
            "bias_correction": bias_correction,
            "beta1_decay": beta1_decay,
            "initial_accumulator": initial_accumulator,
            "amsgrad": True,  # not read here: it tells torch.optim.Adam what our checkpoint is
        }
        super().__init__(params, defaults, constraint=constraint, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check_betas(group)
        check.number("eps", group["eps"], ge=0)
        check.number("weight_decay", group["weight_decay"], ge=0)
        check.choice("schedule", group["schedule"], ("sqrt", "constant"))
        check.number("initial_accumulator", group["initial_accumulator"], ge=0)
        if group["beta1_decay"] != "1/k":
            check.number("beta1_decay", group["beta1_decay"], gt=0, le=1)
        if group["bias_correction"] and group["beta1_decay"] != 1:
            raise ValueError(
                "bias_correction must be False unless beta1_decay=1 (it corrects a fixed beta1), "
                f"got beta1_decay={group['beta1_decay']!r}"
            )

    def initial(self, slot: str, p: Tensor, group: dict[str, Any]) -> Tensor:
        zeros = super().initial(slot, p, group)
        return zeros + group["initial_accumulator"] if slot == "max_exp_avg_sq" else zeros

    def numbers(self, group: dict[str, Any], k: int) -> dict[str, float]:
        numbers = super().numbers(group, k)
        if group["schedule"] == "sqrt":
            numbers["lr"] /= k**0.5
        decay = group["beta1_decay"]
        numbers["beta1"] *= 1 / k if decay == "1/k" else decay ** (k - 1)
        return numbers

    def metric(self, a: Active, k: int) -> Tensor:
        largest = a.state["max_exp_avg_sq"]
        if a.group["bias_correction"]:
            largest = largest / (1 - a.group["betas"][1] ** k)
        h: Tensor = largest.sqrt() + a.group["eps"]
        return h

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        exp_avg: Tensor,
        exp_avg_sq: Tensor,
        max_exp_avg_sq: Tensor,
        *,
        k: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        bias_correction: bool,
    ) -> tuple[Tensor, ...]:
        g = g + weight_decay * p
        exp_avg = beta1 * exp_avg + (1 - beta1) * g
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g * g
        max_exp_avg_sq = torch.maximum(max_exp_avg_sq, exp_avg_sq)
        m, v = exp_avg, max_exp_avg_sq
        if bias_correction:
            m, v = m / (1 - beta1**k), v / (1 - beta2**k)
        return p - lr * divide(m, v.sqrt(), eps), exp_avg, exp_avg_sq, max_exp_avg_sq
