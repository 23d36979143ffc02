"""The radial part of a step, and the test of whether to drop it: what AdamP and SGDP share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric.division import divide
from thalweg.optim.engine import Active, Tensorwise
from thalweg.optim.engine.update import computed_once


def cosine(product: Tensor, square_a: Tensor, square_b: Tensor, *, eps: float) -> Tensor:
    r"""Of two vectors, from :math:`\langle a, b\rangle` and their squared lengths.

    .. math:: |\langle a, b\rangle| / (\max(\|a\|, \epsilon) \max(\|b\|, \epsilon))

    Examples
    --------
    >>> cosine(torch.tensor(2.0), torch.tensor(4.0), torch.tensor(1.0), eps=0.0)
    tensor(1.)
    """
    norms = torch.clamp_min(square_a.sqrt(), eps) * torch.clamp_min(square_b.sqrt(), eps)
    return divide(product.abs(), norms)


def radial_share(product: Tensor, square: Tensor, *, eps: float) -> Tensor:
    r"""The multiple of p that u contains, from :math:`\langle p, u\rangle` and :math:`\|p\|^2`.

    .. math:: \hat p \langle \hat p, u\rangle
        = \frac{\langle p, u\rangle}{(\|p\| + \epsilon)^2}\, p,
        \qquad \hat p = \frac{p}{\|p\| + \epsilon}

    Examples
    --------
    >>> radial_share(torch.tensor(4.0), torch.tensor(16.0), eps=0.0)
    tensor(0.2500)
    """
    length = square.sqrt()
    return divide(divide(product, length, eps), length, eps)


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

    The views of the matrices are their rows (the largest cosine of p and g is tested, and each row
    projected) and each matrix as one vector.

    Examples
    --------
    >>> p, g = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> projected(torch.ones(1, 2), p, g, eps=0.0, row_bound=0.1, layer_bound=0.1)
    (tensor([[0., 1.]]), tensor(True))
    """
    u = computed_once(u)
    pg, gg, pp, pu = ((a * b).sum(1, keepdim=True) for a, b in ((p, g), (g, g), (p, p), (p, u)))
    by_rows = cosine(pg, gg, pp, eps=eps).amax() < row_bound
    by_layer = cosine(pg.sum(), gg.sum(), pp.sum(), eps=eps) < layer_bound
    in_rows = radial_share(pu, pp, eps=eps)
    in_layer = radial_share(pu.sum(), pp.sum(), eps=eps)
    share = torch.where(
        by_rows, in_rows, torch.where(by_layer, in_layer, torch.zeros_like(in_rows))
    )
    return u - computed_once(share) * p, computed_once(by_rows | by_layer)


class Projected(Tensorwise):
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
