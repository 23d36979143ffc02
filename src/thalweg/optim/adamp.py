"""AdamP: Adam that does not inflate weights whose length does not matter."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core.catalogue import Axis, LogUniform
from thalweg.numeric.division import divide
from thalweg.optim.adam import check_betas
from thalweg.optim.engine import How
from thalweg.optim.engine.update import computed_once
from thalweg.optim.projection import Projected, projected


class AdamP(Projected):
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
