"""Coordinate-wise clipping: the largest coordinates are cut to the size of the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis, LogUniform, OneMinusLogUniform, Uniform
from thalweg.optim.engine import Active, Global, How, whole

#: Entries from which a threshold is bracketed by a sample before anything is sorted out.
_BRACKET_FROM = 2**17
_SAMPLE = 2**14


def clip_threshold(tensors: Sequence[Tensor], fraction: float) -> float:
    r"""The largest magnitude that is left when a `fraction` of all entries is to be clipped.

    With d entries, :math:`n = \lceil q d\rceil` are clipped, to the (d - n)-th smallest
    magnitude; infinity if n = 0. Exact at every size: a sample brackets the threshold, and only
    what lies in the bracket is searched.

    Examples
    --------
    >>> clip_threshold([torch.tensor([1.0, -5.0]), torch.tensor([3.0])], fraction=0.3)
    3.0
    """
    sizes = [whole(t.detach()).reshape(-1).abs() for t in tensors if t.numel()]
    d = sum(size.numel() for size in sizes)
    clipped = math.ceil(fraction * d - 1e-9)
    if clipped <= 0:
        return math.inf
    return _kth_smallest(sizes, max(1, d - clipped))


def _kth_smallest(sizes: Sequence[Tensor], k: int) -> float:
    d = sum(size.numel() for size in sizes)
    if d >= _BRACKET_FROM:
        sample = torch.cat([size[:: max(1, d // _SAMPLE)] for size in sizes]).sort().values
        at, slack = k / d * len(sample), 4 * math.sqrt(len(sample))
        low = sample[max(0, int(at - slack))]
        high = sample[min(len(sample) - 1, int(at + slack))]
        below = sum(int((size < low).sum()) for size in sizes)
        inside = torch.cat([size[(size >= low) & (size <= high)] for size in sizes])
        if below < k <= below + inside.numel():
            return float(inside.kthvalue(k - below).values)
    return float(torch.cat([size.to(sizes[0].device) for size in sizes]).kthvalue(k).values)


def clip_coordinates_(
    tensors: Tensor | Iterable[Tensor],
    fraction: float = 0.1,
    scope: Literal["global", "tensor"] = "global",
) -> float | list[float]:
    r"""Clip, in place, the largest coordinates of a direction to the largest unclipped magnitude.

    .. math::
        \mathrm{clip}(u, \tau)_i = \mathrm{sign}(u_i) \min(|u_i|, \tau)

    where :math:`\tau` is chosen so that :math:`\lceil q d\rceil` of the d coordinates are clipped.

    Parameters
    ----------
    tensors
        The direction: a tensor or several.
    fraction
        q in [0, 1). With 0 nothing changes. Where more than 1 - q of the coordinates are zero,
        :math:`\tau` is 0, and so is the result. Default 0.1.
    scope
        Whether coordinates compete over all tensors (``"global"``) or in each (``"tensor"``).

    Returns
    -------
    float or list of float
        :math:`\tau`, infinite if nothing is clipped; one for each tensor with scope ``"tensor"``.

    Raises
    ------
    ValueError
        For a value out of range.

    Examples
    --------
    >>> u = torch.tensor([1.0, -5.0, 3.0, 2.0])
    >>> clip_coordinates_(u, fraction=0.5)
    2.0
    >>> u
    tensor([ 1., -2.,  2.,  2.])

    References
    ----------
    Pan & Li, "Toward understanding why Adam converges faster than SGD for transformers", 2023
    (arXiv 2306.00204).
    """
    fraction = float(check.number("fraction", fraction, ge=0, lt=1))
    check.choice("scope", scope, ("global", "tensor"))
    members = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    for i, t in enumerate(members):
        check.floating(f"tensors[{i}]", t)
    groups = [members] if scope == "global" else [[t] for t in members]
    found = []
    with torch.no_grad():
        for group in groups:
            tau = clip_threshold(group, fraction)
            found.append(tau)
            if tau < math.inf:
                torch._foreach_clamp_min_(group, -tau)
                torch._foreach_clamp_max_(group, tau)
    return found[0] if scope == "global" else found


class ClippedSGD(Global):
    r"""SGD whose largest coordinates are clipped: a cheap remedy for SGD on transformers.

    .. math::
        m_k &= \mu m_{k-1} + g_k, &
        x_{k+1} &= x_k - a\, \mathrm{clip}(m_k, \tau_k)
            && \texttt{clip="update"} \\
        m_k &= \mu m_{k-1} + (1 - \mu)\, \mathrm{clip}(g_k, \tau_k), &
        x_{k+1} &= x_k - a\, m_k
            && \texttt{clip="gradient"}

    where :math:`\tau_k` is the largest magnitude left when a fraction q of the coordinates is
    clipped: `clip_coordinates_`. The first form is the paper's, and its stored m is not clipped;
    the second is that of a public implementation.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    lr
        Step size a, >= 0. Default 1e-3.
    momentum
        :math:`\mu` in [0, 1). Default 0.
    fraction
        q in [0, 1); the paper clips less where the method scales less (about 0.1 for SGD,
        unverified). One value for all groups. Default 0.1.
    clip
        ``"update"`` or ``"gradient"``: what is clipped.
    scope
        Whether coordinates compete over all tensors (``"global"``, default) or in each
        (``"tensor"``).
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range.

    Examples
    --------
    >>> x = torch.nn.Parameter(torch.zeros(3))
    >>> x.grad = torch.tensor([1000.0, -2.0, 1.0])
    >>> ClippedSGD([x], lr=0.5, fraction=0.3).step()
    >>> x.tolist()
    [-1.0, 1.0, -0.5]

    References
    ----------
    Pan & Li, "Toward understanding why Adam converges faster than SGD for transformers", 2023
    (arXiv 2306.00204). No official code.
    """

    slots = ("momentum_buffer",)
    reduced = ("tau", "clip")
    paper = "Pan & Li, 2023 (arXiv 2306.00204)"
    year = 2023
    family = "stochastic gradient"
    memory = "0 per parameter, 1 with momentum"
    search_space: ClassVar[dict[str, Axis]] = {
        "lr": LogUniform(1e-3, 1e2),
        "momentum": OneMinusLogUniform(1e-2, 1.0),
        "fraction": Uniform(0.0, 0.5),
    }
    _own_attributes = ("fraction", "clip", "scope")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        fraction: float = 0.1,
        clip: Literal["update", "gradient"] = "update",
        scope: Literal["global", "tensor"] = "global",
        **how: Unpack[How],
    ) -> None:
        self.fraction = float(check.number("fraction", fraction, ge=0, lt=1))
        self.clip = check.choice("clip", clip, ("update", "gradient"))
        self.scope = check.choice("scope", scope, ("global", "tensor"))
        super().__init__(params, {"lr": lr, "momentum": momentum}, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("momentum", group["momentum"], ge=0, lt=1)

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots if group["momentum"] != 0 else ()

    def static(self, group: dict[str, Any]) -> dict[str, Any]:
        return {**super().static(group), "clip": self.clip}

    def common(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, float]]:
        def direction(a: Active) -> Tensor:
            """What is clipped, up to its sign (``maximize`` flips the gradient)."""
            g = whole(a.g.detach())
            if self.clip == "gradient" or "momentum_buffer" not in a.state:
                return g
            buffer = whole(a.state["momentum_buffer"])
            sign = -1.0 if a.group["maximize"] else 1.0
            return float(a.group["momentum"]) * buffer + sign * g.to(buffer.dtype)

        if self.scope == "tensor":
            each = {a.p: clip_threshold([direction(a)], self.fraction) for a in active}
            return lambda a: {"tau": each[a.p]}
        tau = clip_threshold([direction(a) for a in active], self.fraction)
        return lambda a: {"tau": tau}

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        *buffer: Tensor,
        lr: float,
        momentum: float,
        clip: str,
        tau: float | Tensor,
    ) -> tuple[Tensor, ...]:
        if clip == "gradient":
            m = (1 - momentum) * _clip(g, tau)
            if buffer:
                m = momentum * buffer[0] + m
            return (p - lr * m, m)[: 1 + len(buffer)]
        m = momentum * buffer[0] + g if buffer else g
        return (p - lr * _clip(m, tau), m)[: 1 + len(buffer)]


def _clip(u: Tensor, tau: float | Tensor) -> Tensor:
    return torch.maximum(torch.minimum(u, _as(u, tau)), -_as(u, tau))


def _as(u: Tensor, tau: float | Tensor) -> Tensor:
    return tau.to(u.dtype) if isinstance(tau, Tensor) else torch.full_like(u, tau)
