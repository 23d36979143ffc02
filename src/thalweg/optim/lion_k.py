"""Lion-K: choose the constraint by choosing a convex function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform, OneMinusLogUniform
from thalweg.optim.engine import Active, Elementwise, How, Tensorwise
from thalweg.optim.engine.rounding import moved
from thalweg.optim.kappa import L1, ConvexFunction
from thalweg.optim.lion import check_decay, check_two_betas, warn_if_lost


class LionK(Tensorwise, Elementwise):
    r"""Lion with a convex function K in place of the l1 norm: it minimizes f under a constraint.

    .. math::
        \tilde m_k &= \beta_1 m_{k-1} - (1 - \beta_1)\, g_k, &
        m_k &= \beta_2 m_{k-1} - (1 - \beta_2)\, g_k, \\
        x_{k+1} &= x_k + a\,\bigl(\nabla K(\tilde m_k) - \lambda x_k\bigr)

    finds stationary points of :math:`F(x) = f(x) + \frac1\lambda K^*(\lambda x)`. The conjugate
    :math:`K^*` of a norm is the indicator of its dual's unit ball, so `kappa` is a constraint on
    :math:`\lambda x`: see `thalweg.optim.kappa` for ten of them. From outside, the distance to the
    constraint shrinks by :math:`1 - a\lambda` per step. The measure of stationarity is
    :math:`\|\lambda x - \nabla K(-\nabla f(x))\|`.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0. Default 1e-4.
    kappa
        K, acting on each tensor by itself: an instance from `thalweg.optim.kappa`, or a `Kappa` of
        your own. Default ``L1()``: Lion.
    betas
        :math:`(\beta_1, \beta_2)`, both in [0, 1). Default (0.9, 0.99).
    weight_decay
        :math:`\lambda \ge 0`; with 0 there is no constraint. Unless implicit, :math:`a\lambda < 1`.
        Default 0.
    implicit
        The decay of the discrete theorem, :math:`x_{k+1} = (x_k + a \nabla K) / (1 + a\lambda)`.
        Default False.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range, or a `kappa` whose gradient is not monotone.
    TypeError
        If `kappa` lacks one of its methods.

    Examples
    --------
    >>> import torch
    >>> from thalweg.optim.kappa import Huber
    >>> x = torch.nn.Parameter(torch.zeros(3))
    >>> x.grad = torch.tensor([100.0, 2.5, -1.0])
    >>> LionK([x], lr=1.0, kappa=Huber(e=0.5)).step()  # 0.1 g, clipped to 0.5, over 0.5
    >>> x.detach()
    tensor([-1.0000, -0.5000,  0.2000])

    References
    ----------
    Chen, Liu, Liang & Liu, "Lion secretly solves constrained optimization: as Lyapunov predicts",
    ICLR 2024 (arXiv 2310.05898). The state is :math:`-m`, as Lion keeps it; with ``L1()`` the runs
    are equal bitwise.
    """

    slots = ("exp_avg",)
    reduced = ("kappa", "implicit")
    paper = "Chen, Liu, Liang & Liu, ICLR 2024 (arXiv 2310.05898)"
    year = 2024
    family = "sign"
    memory = "1 per parameter"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-5, 1e-2),
        "weight_decay": LogUniform(1e-3, 10.0),
        "betas[0]": OneMinusLogUniform(2e-2, 0.5),
    }
    _own_attributes = ("kappa", "implicit")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        kappa: ConvexFunction = L1(),  # noqa: B008 (immutable)
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        implicit: bool = False,
        **how: Unpack[How],
    ) -> None:
        self.kappa = _convex(kappa)
        self.implicit = bool(implicit)
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay}, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check_two_betas(group)
        if self.implicit:
            check.number("weight_decay", group["weight_decay"], ge=0)
        else:
            check_decay(group)
        if self.rounding == "nearest" and isinstance(self.kappa, L1):
            warn_if_lost(group)

    def static(self, group: dict[str, Any]) -> dict[str, Any]:
        return {**super().static(group), "kappa": self.kappa, "implicit": self.implicit}

    def update(self, active: Sequence[Active]) -> None:
        """Entry by entry if K allows it, else tensor by tensor."""
        scope = Elementwise if self.kappa.elementwise else Tensorwise
        scope.update(self, active)

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
        kappa: ConvexFunction,
        implicit: bool,
    ) -> tuple[Tensor, ...]:
        m = -(beta1 * exp_avg + (1 - beta1) * g)
        exp_avg = beta2 * exp_avg + (1 - beta2) * g
        if implicit:
            return moved(p, lr * kappa.grad(m)) / (1 + lr * weight_decay), exp_avg
        return moved(p * (1 - lr * weight_decay), lr * kappa.grad(m)), exp_avg


def _convex(kappa: Any) -> ConvexFunction:
    """`kappa`, if it has its methods and its gradient is monotone on random pairs."""
    for method in ("value", "grad", "conj", "in_dom"):
        if not callable(getattr(kappa, method, None)):
            raise TypeError(
                "kappa must be a convex function such as thalweg.optim.kappa.L1(), with methods "
                f"value, grad, conj and in_dom, got {type(kappa).__name__} without {method}"
            )
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 1.0, 10.0):
        a, b = scale * torch.randn(2, 16, 4, 5, dtype=torch.float64, generator=generator)
        for one, two in zip(a, b, strict=True):
            monotone = float(((kappa.grad(one) - kappa.grad(two)) * (one - two)).sum())
            if not monotone >= -1e-9 * scale:
                raise ValueError(
                    "kappa must be convex: <grad(a) - grad(b), a - b> must be >= 0, "
                    f"got {monotone:.3g} for a random pair"
                )
    return kappa


def lion_lyapunov(
    x: Tensor,
    m: Tensor,
    f: Callable[[Tensor], Any],
    kappa: ConvexFunction,
    lam: float,
    betas: tuple[float, float],
    lr: float,
) -> float:
    r"""The function that Lion-K decreases along its flow, where :math:`\lambda x` is in dom K*.

    .. math::
        H(x, m) = \alpha f(x) + \frac\gamma\lambda K^*(\lambda x)
            + \frac{1 - \epsilon\gamma}{1 + \epsilon\lambda}
            \bigl(K^*(\lambda x) + K(m) - \lambda\langle x, m\rangle\bigr)

    with :math:`\alpha = \gamma = (1 - \beta_2)/a` and
    :math:`\epsilon = a (1 - \beta_1)/(1 - \beta_2)`.

    Parameters
    ----------
    x, m
        The point and the paper's momentum: minus the state ``exp_avg`` of `LionK`.
    f
        The loss, a function of x.
    kappa, lam, betas, lr
        K, :math:`\lambda > 0` (``weight_decay``), :math:`(\beta_1, \beta_2)` and a > 0.

    Returns
    -------
    float
        H; infinite outside the domain.

    Examples
    --------
    >>> from thalweg.optim.kappa import HalfSquare
    >>> x, m = torch.tensor([1.0]), torch.tensor([0.0])
    >>> round(lion_lyapunov(x, m, lambda x: 0.0, HalfSquare(), 1.0, (0.5, 0.5), 0.5), 6)
    0.666667

    References
    ----------
    Chen, Liu, Liang & Liu, ICLR 2024 (arXiv 2310.05898), Theorem 3.1.
    """
    lam = float(check.number("lam", lam, gt=0))
    lr = float(check.number("lr", lr, gt=0))
    check_two_betas({"betas": betas})
    gamma = (1 - betas[1]) / lr
    epsilon = lr * (1 - betas[0]) / (1 - betas[1])
    conj = float(kappa.conj(lam * x))
    gap = conj + float(kappa.value(m)) - lam * float((x * m).sum())
    weight = (1 - epsilon * gamma) / (1 + epsilon * lam)
    return gamma * float(f(x)) + gamma / lam * conj + weight * gap
