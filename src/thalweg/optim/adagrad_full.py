"""AdaGrad with the full matrix: for few parameters that are strongly correlated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform
from thalweg.optim.engine import Active, How, RuleOptimizer, whole
from thalweg.optim.engine import rounding as formats
from thalweg.optim.engine.sharding import local, sharded_like


def full_matrix_direction(
    eigenvalues: Tensor, eigenvectors: Tensor, g: Tensor, delta: float
) -> Tensor:
    r"""Return :math:`(\delta I + G^{1/2})^{-1} g` for :math:`G = V \mathrm{diag}(w) V^\top`.

    `eigenvectors` may be a thin basis, shape (d, r), of a G of rank r < d: the rest of `g` is then
    divided by :math:`\delta`. With :math:`\delta = 0` it is the pseudo-inverse:
    eigenvalues below :math:`d\, \epsilon_{mach} w_{max}` count as zero.

    Examples
    --------
    >>> g = torch.tensor([3.0, 4.0], dtype=torch.float64)
    >>> full_matrix_direction(*torch.linalg.eigh(torch.outer(g, g)), g, delta=0.0).round(decimals=6)
    tensor([0.6000, 0.8000], dtype=torch.float64)
    """
    d, rank = eigenvectors.shape
    root = eigenvalues.clamp_min(0).sqrt()
    inside = eigenvectors.T @ g
    if delta == 0:
        floor = d * torch.finfo(g.dtype).eps * eigenvalues.max()
        kept = eigenvalues > floor
        return eigenvectors @ torch.where(kept, inside / root.where(kept, 1.0), 0.0)
    direction = eigenvectors @ (inside / (delta + root))
    if rank < d:
        direction = direction + (g - eigenvectors @ inside) / delta
    return direction


class AdaGradFull(RuleOptimizer):
    r"""AdaGrad with the whole matrix of second moments, one per parameter group.

    .. math::
        G_k = G_{k-1} + g_k g_k^\top, \qquad H_k = \delta I + G_k^{1/2}, \qquad
        x_{k+1} = x_k - a\, H_k^{-1} g_k

    with :math:`g_k` the gradients of the group flattened into one vector of length d. Equivariant
    under rotations, unlike the diagonal form. Time :math:`O(d^3)`, memory :math:`d^2`, in float64.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch; d is the size of a group.
    lr
        Step size a, >= 0. Default 0.1.
    delta
        :math:`\delta \ge 0`, in units of the gradient; with 0, the pseudo-inverse. Default 1e-8.
    every
        Steps between eigendecompositions, >= 1 (at steps 1, 1 + every, ...). Default 1.
    window
        Keep the last `window` gradients instead of G: memory :math:`d r`, time :math:`O(d r^2)`.
        This forgets, which the paper's method does not. Default None.
    max_dim
        Refuse groups larger than this. Default 4096.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range, or a group with more than `max_dim` entries.

    Examples
    --------
    >>> x = torch.nn.Parameter(torch.zeros(2))
    >>> x.grad = torch.tensor([3.0, 4.0])
    >>> AdaGradFull([x], lr=1.0, delta=0.0).step()
    >>> x.detach().round(decimals=3).tolist()  # the first step is lr * g / ||g||
    [-0.6000000238418579, -0.800000011920929]

    References
    ----------
    Duchi, Hazan & Singer, JMLR 12 (2011) 2121-2159. No maintained implementation to compare with;
    tested against ``scipy.linalg.sqrtm``.
    """

    paper = "Duchi, Hazan & Singer, JMLR 12, 2011"
    year = 2011
    family = "adaptive"
    needs = ("at most max_dim parameters a group",)
    memory = "d per parameter (d = size of the group)"
    search_space: ClassVar[dict[str, Axis]] = {"lr": LogUniform(1e-3, 1.0)}
    _own_attributes = ("max_dim",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        delta: float = 1e-8,
        every: int = 1,
        window: int | None = None,
        max_dim: int = 4096,
        **how: Unpack[How],
    ) -> None:
        self.max_dim = check.number("max_dim", max_dim, ge=1, integer=True)
        defaults = {"lr": lr, "delta": delta, "every": every, "window": window}
        super().__init__(params, defaults, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("delta", group["delta"], ge=0)
        check.number("every", group["every"], ge=1, integer=True)
        if group["window"] is not None:
            check.number("window", group["window"], ge=1, integer=True)
            if group["every"] != 1:
                raise ValueError(f"every must be 1 with a window, got {group['every']}")
        d = sum(p.numel() for p in group["params"])
        if d > self.max_dim:
            raise ValueError(
                f"params: a group of AdaGradFull must have at most max_dim={self.max_dim} entries "
                f"(its matrix has their square), got {d}; use AdaGrad, or raise max_dim"
            )

    def update(self, active: Sequence[Active]) -> None:
        for group in self.param_groups:
            members = [a for a in active if a.group is group]
            if members and sum(a.p.numel() for a in members):
                self._update_group(group, members)

    def _update_group(self, group: dict[str, Any], members: Sequence[Active]) -> None:
        for a in members:
            a.state["step"].add_(1)
        sign = -1.0 if group["maximize"] else 1.0
        gradients = {a.p: whole(a.g).double() for a in members}
        # A parameter without a gradient takes part as a zero block, and does not move.
        g = sign * torch.cat(
            [
                gradients[p].reshape(-1) if p in gradients else p.new_zeros(p.numel()).double()
                for p in group["params"]
            ]
        )
        holder = self._holder(group, members)
        if group["window"] is None:
            eigenvalues, eigenvectors = self._accumulate(holder, g, group["every"])
        else:
            eigenvalues, eigenvectors = self._remember(holder, g, group["window"])
        direction = full_matrix_direction(eigenvalues, eigenvectors, g, float(group["delta"]))
        at = 0
        for p in group["params"]:
            if p in gradients:
                move = float(group["lr"]) * direction[at : at + p.numel()].view(p.shape)
                self._move(p, sharded_like(move, p))
            at += p.numel()

    def _holder(self, group: dict[str, Any], members: Sequence[Active]) -> dict[str, Any]:
        """The state that keeps the group's matrix: with the first parameter that ever moved."""
        for p in group["params"]:
            if p in self.state and "matrix" in self.state[p]:
                return self.state[p]
        return members[0].state

    def _accumulate(self, holder: dict[str, Any], g: Tensor, every: int) -> tuple[Tensor, Tensor]:
        outer = torch.outer(g, g)
        holder["matrix"] = holder["matrix"] + outer if "matrix" in holder else outer
        # The age is the group's own: the holder may lack a gradient in some steps.
        age = int(holder["age"]) + 1 if "age" in holder else every
        if age < every:
            holder["age"] = torch.tensor(float(age))
            return holder["eigenvalues"], holder["eigenvectors"]
        eigenvalues, eigenvectors = torch.linalg.eigh(holder["matrix"])
        if every > 1:
            holder["age"] = torch.tensor(0.0)
            holder["eigenvalues"], holder["eigenvectors"] = eigenvalues, eigenvectors
        return eigenvalues, eigenvectors

    def _remember(self, holder: dict[str, Any], g: Tensor, window: int) -> tuple[Tensor, Tensor]:
        history = holder.get("matrix", g.new_zeros(len(g), 0))
        history = torch.cat([history, g[:, None]], dim=1)[:, -window:]
        holder["matrix"] = history
        eigenvectors, singular, _ = torch.linalg.svd(history, full_matrices=False)
        return singular**2, eigenvectors

    def _move(self, p: Tensor, move: Tensor) -> None:
        exact = local(p.detach()).double() - move
        if self.rounding == "stochastic":
            local(p).copy_(formats.stochastic(exact.float(), self._random_bits(p)))
            return
        if self.rounding == "compensated":
            compensation = local(self.state[p]["compensation"])
            exact = exact + compensation.double()
            compensation.copy_(exact - exact.to(p.dtype).double())
        local(p).copy_(exact.to(p.dtype))
