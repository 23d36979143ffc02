"""Step sizes adapted by exponentiated gradient updates: one global scale, one gain per entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform, OneMinusLogUniform
from thalweg.optim.engine import Active, Global, How, squared_norm
from thalweg.optim.inner_product import inner_product

Scope = Literal["global", "tensor"]
Align = Literal["momentum", "average"]


def updated_scale(
    scale: float, inner: float, norms: float, *, scale_lr: float, normalized: bool
) -> float:
    r"""The scale after one exponentiated gradient update, before it is clipped to its range.

    Parameters
    ----------
    scale
        :math:`s > 0`.
    inner
        :math:`\langle g, n \rangle`.
    norms
        :math:`(\|g\| + 10^{-10})(\|n\| + 10^{-10})`, read if `normalized`.
    scale_lr
        :math:`\gamma_s`.
    normalized
        Divide `inner` by `norms`; without, the exponent is clipped to [-1, 1].

    Examples
    --------
    >>> math.log(updated_scale(1.0, 6.0, 6.0, scale_lr=0.5, normalized=True))
    0.5
    >>> math.log(updated_scale(1.0, 1e9, 1.0, scale_lr=0.5, normalized=False))
    1.0
    """
    if normalized:
        return scale * math.exp(scale_lr * inner / norms)
    return scale * math.exp(min(max(scale_lr * inner, -1.0), 1.0))


class EGDD(Global):
    r"""SGD with momentum whose step sizes learn, by exponentiated gradient updates.

    With the momentum n, the average gradient :math:`\bar g`, gains p (one per coordinate, 1 at
    first) and a scale s (one for everything, 1 at first):

    .. math::
        s_k &= \mathrm{clip}\Bigl(s_{k-1} \exp\bigl(\gamma_s
            \langle \tfrac{g_k}{\|g_k\|}, \tfrac{n_{k-1}}{\|n_{k-1}\|} \rangle\bigr)\Bigr) \\
        p_k &= \mathrm{clip}\bigl(p_{k-1} \exp(\gamma_p \operatorname{sign}(g_k)
            \operatorname{sign}(\bar g_{k-1}))\bigr) \\
        n_k &= \mu\, n_{k-1} + a\, p_k g_k, \qquad
        \bar g_k = \beta\, \bar g_{k-1} + (1 - \beta)\, g_k \\
        x_{k+1} &= x_k - s_k n_k

    While successive steps agree, step sizes grow; when they contradict one another, they shrink.
    Both updates are mirror descent (entropy) on the hypergradients
    :math:`-\langle g_k, n_{k-1} \rangle` and :math:`-g_k \bar g_{k-1}`. The paths of s and p do not
    change when the loss is multiplied by a positive number. The step size a sits inside the
    momentum, unlike torch's: after a change of lr, the old part of n keeps its old one.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0, before scale and gains. Default 1e-2.
    momentum
        :math:`\mu` in [0, 1). Default 0.9.
    beta
        :math:`\beta` in [0, 1), the memory of the average gradient. Default 0.9.
    scale_lr
        :math:`\gamma_s \ge 0`; 0 keeps s = 1. Default 1e-3.
    gain_lr
        :math:`\gamma_p \ge 0`; 0 keeps p = 1. Default 1e-2.
    scale_range
        The range s is clipped to, two positive numbers with 1 between them. Default (0.1, 10).
    gain_range
        The same for p. Default (1e-2, 1e2).
    scope
        ``"global"``: one s, inner product and norms over all parameters; ``"tensor"``: one s for
        each. Default ``"global"``.
    align
        What s compares the gradient with: ``"momentum"`` (n) or ``"average"`` (:math:`\bar g`).
        Default ``"momentum"``.
    normalized
        True: as above. False: s is driven by :math:`\langle g, n\rangle`, p by
        :math:`g \bar g / (1 - \beta^{k-1})`, both exponents clipped to [-1, 1]. Default True.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range.

    Examples
    --------
    >>> x = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = EGDD([x], lr=1e-4)
    >>> steps = 0
    >>> while abs(x.item()) > 1e-6:  # 13 693 without adaptation
    ...     x.grad = x.detach().clone()
    ...     optimizer.step()
    ...     steps += 1
    >>> steps < 1369
    True

    References
    ----------
    Amid, Anil, Fifty & Warmuth, "Step-size adaptation using exponentiated gradient updates", 2022
    (arXiv 2202.00145). The formulas are those of the authors' code (EGDD in tensorflow/lingvo),
    which keeps one scale per variable; the abstract's global scale is our default. The abstract
    compares g with the average gradient, the code with the momentum: `align` offers both.
    """

    slots = ("momentum_buffer", "exp_avg", "gain")
    shared = ("scale",)
    reduced = ("scale", "correction", "gain_up", "gain_min", "gain_max")
    paper = "Amid, Anil, Fifty & Warmuth, 2022 (arXiv 2202.00145)"
    year = 2022
    family = "adaptive"
    memory = "3 per parameter"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-3, 1.0),
        "momentum": OneMinusLogUniform(1e-2, 1.0),
        "scale_lr": LogUniform(1e-4, 1e-1),
        "gain_lr": LogUniform(1e-3, 1e-1),
    }
    _own_attributes = ("scope", "align", "scale_lr", "scale_range")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        momentum: float = 0.9,
        beta: float = 0.9,
        scale_lr: float = 1e-3,
        gain_lr: float = 1e-2,
        scale_range: tuple[float, float] = (0.1, 10.0),
        gain_range: tuple[float, float] = (1e-2, 1e2),
        scope: Scope = "global",
        align: Align = "momentum",
        normalized: bool = True,
        **how: Unpack[How],
    ) -> None:
        self.scale_lr = check.number("scale_lr", scale_lr, ge=0)
        self.scale_range = _range("scale_range", scale_range)
        self.scope = check.choice("scope", scope, ("global", "tensor"))
        self.align = check.choice("align", align, ("momentum", "average"))
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "beta": beta,
            "gain_lr": gain_lr,
            "gain_range": gain_range,
            "normalized": bool(normalized),
        }
        super().__init__(params, defaults, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("momentum", group["momentum"], ge=0, lt=1)
        check.number("beta", group["beta"], ge=0, lt=1)
        check.number("gain_lr", group["gain_lr"], ge=0)
        _range("gain_range", group["gain_range"])

    def initial(self, slot: str, p: Tensor, group: dict[str, Any]) -> Tensor:
        zeros = super().initial(slot, p, group)
        return zeros + 1 if slot == "gain" else zeros

    def common(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, float]]:
        scale: dict[Tensor, float] = {}
        together = [(list(active), self.all_params())]
        if self.scope == "tensor":
            together = [([a], [a.p]) for a in active]
        for members, params in together:
            s = self._scaled(self.read_shared("scale", params, first=1.0), members)
            self.write_shared("scale", s, params)
            scale.update({a.p: s for a in members})

        made: dict[tuple[int, int, float], Mapping[str, float]] = {}

        def numbers(a: Active) -> Mapping[str, float]:
            k = int(a.state["step"])  # already increased
            key = (id(a.group), k, scale[a.p])
            if key not in made:
                low, high = a.group["gain_range"]
                made[key] = {
                    "scale": scale[a.p],
                    "correction": 1 - float(a.group["beta"]) ** max(k - 1, 1),
                    "gain_up": math.exp(min(float(a.group["gain_lr"]), 700.0)),
                    "gain_min": float(low),
                    "gain_max": float(high),
                }
            return made[key]

        return numbers

    def _scaled(self, scale: float, members: Sequence[Active]) -> float:
        slot = "momentum_buffer" if self.align == "momentum" else "exp_avg"
        old = [a.state[slot] for a in members]
        normalized = members[0].group["normalized"]
        inner = g_square = n_square = 0.0
        for sign in (1.0, -1.0):  # of the groups that go down, and of those that go up
            pairs = [
                (n, a.g)
                for a, n in zip(members, old, strict=True)
                if a.group["maximize"] == (sign < 0)
            ]
            if pairs:
                dot, nn, gg = self.summed_pairs(_products, 3, pairs)
                inner, g_square, n_square = inner + sign * dot, g_square + gg, n_square + nn
        norms = 1.0
        if normalized:
            if not all(1e-25 < square < math.inf for square in (g_square, n_square)):
                g_square, n_square = squared_norm([a.g for a in members]), squared_norm(old)
            norms = (math.sqrt(g_square) + 1e-10) * (math.sqrt(n_square) + 1e-10)
        new = updated_scale(scale, inner, norms, scale_lr=self.scale_lr, normalized=normalized)
        low, high = self.scale_range
        return min(max(new, low), high)

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        momentum_buffer: Tensor,
        exp_avg: Tensor,
        gain: Tensor,
        *,
        lr: float,
        momentum: float,
        beta: float,
        gain_lr: float,
        normalized: bool,
        scale: float,
        correction: float,
        gain_up: float,
        gain_min: float,
        gain_max: float,
    ) -> tuple[Tensor, ...]:
        if normalized:
            # exp(gain_lr * sign(g) * sign(exp_avg)) has three values only
            agree = g.sign() * exp_avg.sign()
            down, same = 1 / gain_up, torch.ones_like(gain)
            gain = gain * torch.where(agree > 0, gain_up, torch.where(agree < 0, down, same))
        else:
            gain = gain * (gain_lr * (g * (exp_avg / correction))).clamp(-1.0, 1.0).exp()
        gain = torch.clamp(gain, gain_min, gain_max)
        n = momentum * momentum_buffer + lr * (gain * g)
        return p - scale * n, n, beta * exp_avg + (1 - beta) * g, gain


def _range(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} must be a pair (low, high), got {value!r}")
    low, high = value
    check.number(f"{name}[0]", low, gt=0, le=1)
    check.number(f"{name}[1]", high, ge=1)
    return (low, high)


def _products(n: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    """What the cosine of two vectors is made of, entry by entry."""
    return n * g, n * n, g * g


class EGScale:
    r"""One learned scale on the moves of any optimizer.

    With u the move the optimizer would make, and s = 1 at first,

    .. math::
        s_k = \mathrm{clip}\Bigl(s_{k-1} \exp\bigl(\gamma_s
            \langle \tfrac{g_k}{\|g_k\|}, \tfrac{u_{k-1}}{\|u_{k-1}\|} \rangle\bigr)\Bigr),
        \qquad x_{k+1} = x_k - s_k u_k

    (:math:`u_0 = 0`; inner product and norms over all parameters). The paper says that the scale
    goes with any optimizer; its exact formulas are unverified, these are ours.

    Parameters
    ----------
    optimizer
        The optimizer that steps; its state sees the scaled points.
    scale_lr
        :math:`\gamma_s \ge 0`. Default 1e-3.
    scale_range
        The range s is clipped to, two positive numbers with 1 between them. Default (0.1, 10).

    Raises
    ------
    TypeError
        If `optimizer` is none.
    ValueError
        For a value out of range.

    Examples
    --------
    >>> x = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = EGScale(torch.optim.SGD([x], lr=0.1), scale_lr=math.log(2))
    >>> for _ in range(2):
    ...     x.grad = torch.tensor([1.0])
    ...     optimizer.step()
    >>> round(x.item(), 4)  # 1 -> 0.9 -> 0.9 - 2 * 0.1
    0.7

    References
    ----------
    Amid, Anil, Fifty & Warmuth 2022 (arXiv 2202.00145).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scale_lr: float = 1e-3,
        scale_range: tuple[float, float] = (0.1, 10.0),
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        self.scale_lr = check.number("scale_lr", scale_lr, ge=0)
        self.scale_range = _range("scale_range", scale_range)
        self.scale = 1.0
        self._last: dict[int, Tensor] = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups."""
        return self.optimizer.param_groups

    @torch.no_grad()
    def step(self) -> None:
        """The optimizer's step, scaled. Gradients are those of the point before it."""
        params = [p for group in self.param_groups for p in group["params"]]
        active = [i for i, p in enumerate(params) if p.grad is not None]
        gradients = [params[i].grad for i in active]
        last = [self._last.get(i, torch.zeros_like(params[i])) for i in active]
        norms = (math.sqrt(squared_norm(gradients)) + 1e-10) * (
            math.sqrt(squared_norm(last)) + 1e-10
        )
        inner = inner_product(gradients, last)
        new = updated_scale(self.scale, inner, norms, scale_lr=self.scale_lr, normalized=True)
        self.scale = min(max(new, self.scale_range[0]), self.scale_range[1])
        before = [params[i].clone() for i in active]
        self.optimizer.step()
        for i, x in zip(active, before, strict=True):
            u = self._last[i] = x - params[i]
            params[i].copy_(x - self.scale * u)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's checkpoint, the scale and the last move."""
        last = {i: u.clone() for i, u in self._last.items()}
        return {"optimizer": self.optimizer.state_dict(), "scale": self.scale, "last": last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, bitwise."""
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.scale = float(state_dict["scale"])
        self._last = {i: u.clone() for i, u in state_dict["last"].items()}
