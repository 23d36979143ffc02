"""AdamP and SGDP: momentum that does not inflate weights whose length does not matter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform, OneMinusLogUniform
from thalweg.numeric.division import divide
from thalweg.optim.adam import check_betas
from thalweg.optim.engine import Active, How, Tensorwise
from thalweg.optim.engine.kernel import computed_once


def cosines(p: Tensor, g: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    r"""How far from orthogonal `g` and `p` are: the largest cosine of two rows, and that of all.

    Both are :math:`|\langle g, p\rangle| / (\max(\|g\|, \epsilon) \max(\|p\|, \epsilon))`.

    Examples
    --------
    >>> p, g = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    >>> [round(float(c), 4) for c in cosines(p, g, eps=0.0)]  # 1, and 2 / (sqrt 5 sqrt 2)
    [1.0, 0.6325]
    """
    products, squares_g, squares_p = (g * p).sum(1), (g * g).sum(1), (p * p).sum(1)

    def cosine(product: Tensor, square_g: Tensor, square_p: Tensor) -> Tensor:
        norms = torch.clamp_min(square_g.sqrt(), eps) * torch.clamp_min(square_p.sqrt(), eps)
        return divide(product.abs(), norms)

    return (
        cosine(products, squares_g, squares_p).amax(),
        cosine(products.sum(), squares_g.sum(), squares_p.sum()),
    )


def radial_share(u: Tensor, p: Tensor, rows: bool, eps: float) -> Tensor:
    r"""The multiple of p that `u` contains: :math:`\hat p \langle \hat p, u\rangle` over p.

    With :math:`\hat p = p/(\|p\| + \epsilon)`; for each row of two matrices (`rows`), or for them
    as two long vectors.

    Examples
    --------
    >>> radial_share(torch.ones(1, 2), torch.tensor([[0.0, 4.0]]), rows=True, eps=0.0)
    tensor([[0.2500]])
    """
    products, squares = (p * u).sum(1, keepdim=True), (p * p).sum(1, keepdim=True)
    if not rows:
        products, squares = products.sum(), squares.sum()
    length = squares.sqrt()
    return divide(divide(products, length, eps), length, eps)


def projected(
    u: Tensor,
    p: Tensor,
    g: Tensor,
    *,
    eps: float,
    row_bound: float,
    layer_bound: float,
) -> tuple[Tensor, Tensor]:
    r"""`u` without its radial part in the first view that passes the test, and whether one did.

    Examples
    --------
    >>> p, g = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> projected(torch.ones(1, 2), p, g, eps=0.0, row_bound=0.1, layer_bound=0.1)
    (tensor([[0., 1.]]), tensor(True))
    """
    u = computed_once(u)
    row, layer = cosines(p, g, eps=eps)
    by_rows, by_layer = row < row_bound, layer < layer_bound
    in_rows, in_layer = radial_share(u, p, True, eps), radial_share(u, p, False, eps)
    nothing = torch.zeros_like(in_rows)
    share = torch.where(by_rows, in_rows, torch.where(by_layer, in_layer, nothing))
    return u - computed_once(share) * p, computed_once(by_rows | by_layer)


class _Projected(Tensorwise):
    """What AdamP and SGDP share: the test of which tensors lose the radial part of their step."""

    reduced = ("row_bound", "layer_bound", "tested")
    _own_attributes = ("_names",)
    _names: tuple[str, ...] = ()

    def _forget(self) -> None:
        super()._forget()
        self._tested: list[tuple[dict[str, Any], Tensor, Tensor]] = []

    @property
    def last_projected(self) -> tuple[str, ...]:
        """Names (or places) of the tensors that were projected in the last step."""
        if self._tested:
            self._names = tuple(
                self._place(group, p) for group, p, passed in self._tested if float(passed)
            )
            self._tested = []
        return self._names

    def __getstate__(self) -> dict[str, Any]:
        _ = self.last_projected
        return super().__getstate__()

    def view(self, tensor: Tensor) -> Tensor:
        """Channels as rows: (first dimension, all others); vectors and scalars as they are."""
        return tensor.reshape(tensor.shape[0], -1) if tensor.dim() > 1 else tensor

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("eps", group["eps"], ge=0)
        check.number("weight_decay", group["weight_decay"], ge=0)
        check.number("delta", group["delta"], ge=0, finite=False)
        check.number("wd_ratio", group["wd_ratio"], ge=0)

    def update(self, active: Sequence[Active]) -> None:
        self._names, self._tested = (), []
        super().update(active)

    def decisions(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, Any]]:
        def bounds(a: Active) -> dict[str, Any]:
            delta, n = float(a.group["delta"]), a.p.numel()
            if a.p.dim() < 2 or n == 0 or delta == 0:
                return {"tested": False, "row_bound": 0.0, "layer_bound": 0.0}
            columns = n // a.p.shape[0]
            return {
                "tested": True,
                "row_bound": delta / math.sqrt(columns),
                "layer_bound": delta / math.sqrt(n),
            }

        return bounds

    def reports(self, a: Active, decided: Mapping[str, Any]) -> list[Tensor]:
        if not decided["tested"]:
            return []
        passed = torch.zeros(1, device=a.p.device)
        self._tested.append((a.group, a.p, passed))
        return [passed]

    def _place(self, group: dict[str, Any], p: Tensor) -> str:
        at = next(i for i, q in enumerate(group["params"]) if q is p)
        if names := group.get("param_names"):
            return str(names[at])
        of = next(i for i, known in enumerate(self.param_groups) if known is group)
        return f"param_groups[{of}]['params'][{at}]"


class AdamP(_Projected):
    r"""Adam for networks with normalization layers: the step's radial part is dropped.

    The length of weights followed by a normalization layer does not change the loss; momentum lets
    it grow, which shrinks the effective step. With the moments :math:`m_k, v_k` of `Adam`,

    .. math::
        u_k &= m_k \big/ \bigl(\sqrt{v_k / (1 - \beta_2^k)} + \epsilon\bigr) \\
        u_k &\leftarrow u_k - \hat x_k \langle \hat x_k, u_k\rangle, \quad
            \hat x_k = x_k / (\|x_k\| + \epsilon)
            && \text{if } \max \cos(g_k, x_k) < \delta / \sqrt{\dim} \\
        x_{k+1} &= (1 - a \lambda r)\, x_k - \frac{a}{1 - \beta_1^k}\, u_k

    The test (weights whose length does not matter are orthogonal to their gradient) looks at the
    tensor's channels (first dimension) one by one, then at the tensor as one vector; the first view
    that passes is projected, and r is ``wd_ratio`` there, else 1. Vectors and scalars are never
    projected. A zero gradient passes the test (so did the authors' code).

    **Use a schedule.** Without the growth of the weights the step no longer decays by itself: with
    a constant learning rate it does worse than Adam (digits, 1e-2: 0.961 against 0.978).

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0. Default 1e-3.
    betas
        :math:`(\beta_1, \beta_2)`, both in [0, 1). Default (0.9, 0.999).
    eps
        :math:`\epsilon \ge 0`, in units of the gradient; bounds the norms of the test from below
        too. With 0, 0/0 is 0. Default 1e-8.
    weight_decay
        :math:`\lambda \ge 0`, decoupled. Default 0.
    delta
        :math:`\delta \ge 0`: 0 never projects, infinity always. Default 0.1.
    wd_ratio
        r >= 0, the share of the decay that projected tensors get. Default 0.1.
    nesterov
        Use :math:`\beta_1 m_k + (1 - \beta_1) g_k` instead of :math:`m_k`. Default False.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Attributes
    ----------
    last_projected
        Names of the tensors projected in the last step (their places, if they have no names).

    Raises
    ------
    ValueError
        For a value out of range. A warning if :math:`\beta_1 \ge \sqrt{\beta_2}`.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.tensor([[3.0, 0.0]]))
    >>> x.grad = torch.tensor([[0.0, 1.0]])  # orthogonal: the length is not to change
    >>> optimizer = AdamP([("weight", x)], lr=0.5)
    >>> optimizer.step()
    >>> x.tolist(), optimizer.last_projected
    ([[3.0, -0.5]], ('weight',))

    References
    ----------
    Heo et al., "AdamP: slowing down the slowdown for momentum optimizers on scale-invariant
    weights", ICLR 2021 (arXiv 2006.08217). The paper tests
    :math:`\cos(x, g) < \delta / \sqrt{\dim x}`; the two views and the largest cosine are those of
    its code, which we follow. Agrees with adamp 0.3.0.
    """

    slots = ("exp_avg", "exp_avg_sq")
    paper = "Heo et al., ICLR 2021 (arXiv 2006.08217)"
    year = 2021
    family = "adaptive"
    memory = "2 per parameter"
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
        weight_decay: float = 0.0,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        nesterov: bool = False,
        **how: Unpack[How],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "delta": delta,
            "wd_ratio": wd_ratio,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check_betas(group)

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
        wd_ratio: float,
        nesterov: bool,
        tested: bool,
        row_bound: float,
        layer_bound: float,
    ) -> tuple[Tensor, ...]:
        exp_avg = beta1 * exp_avg + (1 - beta1) * g
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g * g
        m = beta1 * exp_avg + (1 - beta1) * g if nesterov else exp_avg
        u = divide(m, (exp_avg_sq / (1 - beta2**k)).sqrt(), eps)
        decay, step = lr * weight_decay, lr / (1 - beta1**k)
        if not tested:
            return p * (1 - decay) - step * u, exp_avg, exp_avg_sq
        u, passed = projected(u, p, g, eps=eps, row_bound=row_bound, layer_bound=layer_bound)
        one = torch.ones((), dtype=p.dtype, device=p.device)
        r = computed_once(torch.where(passed, wd_ratio * one, one))
        return p * (1 - decay * r) - step * u, exp_avg, exp_avg_sq, passed


class SGDP(_Projected):
    r"""SGD with momentum for networks with normalization layers: the radial part is dropped.

    .. math::
        b_k &= \mu b_{k-1} + (1 - d)\, g_k, \qquad b_0 = 0 \\
        u_k &= b_k \quad \text{or, Nesterov,} \quad g_k + \mu b_k \\
        u_k &\leftarrow u_k - \hat x_k \langle \hat x_k, u_k\rangle
            && \text{if the test of AdamP passes} \\
        x_{k+1} &= \Bigl(1 - \frac{a \lambda r}{1 - \mu}\Bigr) x_k - a\, u_k

    The stored buffer is not projected, as in the paper. Dampening counts from the first step,
    unlike in torch. On weights whose length does not matter, momentum 0.9 lets the square of the
    length grow 19 times as fast. **Use a schedule**: with a constant learning rate that growth is
    what decays the step (digits, 0.1: 0.946 with the projection, 0.977 without).

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0. Default 1e-3.
    momentum
        :math:`\mu` in [0, 1). Default 0.
    dampening
        d in [0, 1]. Default 0.
    weight_decay
        :math:`\lambda \ge 0`, decoupled. Default 0.
    nesterov
        Use Nesterov's direction. Default False.
    eps
        :math:`\epsilon \ge 0`, added to norms. Default 1e-8.
    delta
        :math:`\delta \ge 0`: 0 never projects, infinity always. Default 0.1.
    wd_ratio
        r >= 0, the share of the decay that projected tensors get. Default 0.1.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Attributes
    ----------
    last_projected
        Names of the tensors projected in the last step (their places, if they have no names).

    Raises
    ------
    ValueError
        For a value out of range.

    Examples
    --------
    >>> import torch
    >>> x = torch.nn.Parameter(torch.tensor([[3.0, 0.0]]))
    >>> x.grad = torch.tensor([[1.0, 1.0]])  # 45 degrees: the length matters, nothing is dropped
    >>> optimizer = SGDP([x], lr=1.0)
    >>> optimizer.step()
    >>> x.tolist(), optimizer.last_projected
    ([[2.0, -1.0]], ())

    References
    ----------
    Heo et al., ICLR 2021 (arXiv 2006.08217): see `AdamP`. Agrees with adamp 0.3.0, except that its
    buffer is projected too without Nesterov (through an alias); the paper's is not.
    """

    slots = ("momentum_buffer",)
    paper = "Heo et al., ICLR 2021 (arXiv 2006.08217)"
    year = 2021
    family = "stochastic gradient"
    memory = "0 per parameter, 1 with momentum"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-3, 1.0),
        "momentum": OneMinusLogUniform(1e-2, 1.0),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        eps: float = 1e-8,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        **how: Unpack[How],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "eps": eps,
            "delta": delta,
            "wd_ratio": wd_ratio,
        }
        super().__init__(params, defaults, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("momentum", group["momentum"], ge=0, lt=1)
        check.number("dampening", group["dampening"], ge=0, le=1)

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots if group["momentum"] != 0 else ()

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        *buffer: Tensor,
        lr: float,
        momentum: float,
        dampening: float,
        weight_decay: float,
        nesterov: bool,
        eps: float,
        wd_ratio: float,
        tested: bool,
        row_bound: float,
        layer_bound: float,
    ) -> tuple[Tensor, ...]:
        b = (1 - dampening) * g
        if buffer:
            b = momentum * buffer[0] + b
        u = g + momentum * b if nesterov else b
        decay = lr * weight_decay / (1 - momentum)
        kept = (b,)[: len(buffer)]
        if not tested:
            return p * (1 - decay) - lr * u, *kept
        u, passed = projected(u, p, g, eps=eps, row_bound=row_bound, layer_bound=layer_bound)
        one = torch.ones((), dtype=p.dtype, device=p.device)
        r = computed_once(torch.where(passed, wd_ratio * one, one))
        return p * (1 - decay * r) - lr * u, *kept, passed
