"""How far is the nearest kink? Activations with corners make the Hessian that of one cell."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from thalweg.curvature.objective import Objective
from thalweg.curvature.pooling_kinks import pooling_margins

_CANDIDATES = 8  # preactivations per batch whose gradients are taken

_AT_ZERO = {
    torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, functional.relu,
    functional.relu_, functional.leaky_relu, functional.leaky_relu_, functional.prelu,
    functional.rrelu, torch.abs, torch.Tensor.abs, torch.Tensor.abs_, functional.selu,
    functional.l1_loss,
}  # fmt: skip


def kink_distance(objective: Objective, direction: Tensor | None = None) -> tuple[float, float]:
    r"""Distance in the parameters to the nearest kink, at first order.

    .. math:: \min_i \frac{|z_i|}{\|\nabla z_i\|}, \qquad
              \min_i \frac{|z_i|}{|\langle \nabla z_i, y \rangle|} \text{ along } y

    over the arguments z of ReLU, leaky ReLU, ReLU6, hard tanh, absolute values and the like, the
    corner at 0, and over the leads of the largest entry of a window of maximum pooling over the
    others. The first minimum is over the arguments nearest to their corners, 8 per batch.

    Parameters
    ----------
    objective
        f, at the parameters the model holds.
    direction
        A unit vector y, ``(d,)``. Default: none, and the second number is infinite.

    Returns
    -------
    nearest, along
        Infinite where no kink was met. Other maxima (``max``, ``topk``, sorting) are not seen.

    Examples
    --------
    >>> from thalweg import Training
    >>> start = torch.tensor([0.5, 3.0])
    >>> corner = Objective(Training.from_function(lambda x: x.abs().sum(), start))
    >>> kink_distance(corner, torch.tensor([0.0, 1.0]))
    (0.5, 3.0)
    """
    nearest, along = math.inf, math.inf
    leaves = objective.leaves()
    with objective.measuring():
        for batch, _ in objective.batches():
            with _Recorded() as recorded:
                objective.loss(leaves, batch)
            nearest = min(nearest, _nearest(objective, leaves, recorded.arguments))
            if direction is not None and recorded.arguments:
                along = min(along, _along(objective, batch, direction))
    if objective.group is not None:
        both = torch.tensor([nearest, along], dtype=torch.float64, device=objective.device)
        torch.distributed.all_reduce(both, torch.distributed.ReduceOp.MIN, group=objective.group)
        nearest, along = both.tolist()
    return min(nearest, along), along


class _Recorded(TorchFunctionMode):
    """Keeps the arguments of the functions with corners, moved so that the corner is at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.arguments: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for z in _corners(func, args, kwargs or {}):
            if isinstance(z, Tensor) and z.is_floating_point():
                self.arguments.append(z.clone() if "_" in func.__name__[-1:] else z)
        return func(*args, **(kwargs or {}))


def _corners(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Any]:
    if not args:
        return []
    margins = pooling_margins(func, args, kwargs)
    if margins is not None:
        return [margins]
    z = args[0]
    if func is functional.l1_loss:
        return [z - args[1]] if len(args) > 1 else []
    if func in (functional.relu6, functional.hardtanh, functional.hardtanh_):
        low, high = (0.0, 6.0) if func is functional.relu6 else (-1.0, 1.0)
        low = kwargs.get("min_val", args[1] if len(args) > 1 else low)
        high = kwargs.get("max_val", args[2] if len(args) > 2 else high)
        return [z - low, z - high]
    if func in (torch.clamp, torch.Tensor.clamp, torch.clip, torch.Tensor.clip):
        ends = (*args[1:3], kwargs.get("min"), kwargs.get("max"))
        return [z - end for end in ends if end is not None]
    return [z] if func in _AT_ZERO else []


def _nearest(objective: Objective, leaves: list[Tensor], arguments: list[Tensor]) -> float:
    with_graph = [z for z in arguments if z.requires_grad and z.numel()]
    if not with_graph:
        return math.inf
    flat = torch.cat([z.reshape(-1) for z in with_graph])

    def gradient(f: Tensor) -> Tensor:
        return objective.flat(
            torch.autograd.grad(
                f, leaves, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        )

    sizes = flat.detach().abs()
    at_zero = sizes == 0
    sizes = sizes.masked_fill(at_zero, math.inf)
    nearest, steepest = math.inf, 0.0
    for i in sizes.topk(min(_CANDIDATES, len(sizes)), largest=False).indices:
        if not math.isfinite(float(sizes[i])):
            break
        slope = float(gradient(flat[i]).norm())
        steepest = max(steepest, slope)
        if slope > 0:
            nearest = min(nearest, float(sizes[i]) / slope)
    if bool(at_zero.any()):
        # Where units are off, and where the input is constant, windows are full of equal values
        # that stay equal: no corner is met there. A sum with weights in general position moves if
        # any of them does; what their slopes leave when they cancel is rounding.
        weights = torch.linspace(1.0, 2.0, int(at_zero.sum())).to(flat).sqrt()
        if float(gradient(weights @ flat[at_zero]).norm()) > 1e-3 * steepest:
            return 0.0
    return nearest


def _along(objective: Objective, batch: Any, direction: Tensor) -> float:
    leaves = objective.leaves(requires_grad=False)
    along = math.inf
    try:
        with forward_ad.dual_level(), torch.no_grad(), _Recorded() as recorded:
            parts = objective.split(direction)
            dual = [forward_ad.make_dual(leaf, part) for leaf, part in zip(leaves, parts)]
            objective.loss(dual, batch)
            for argument in recorded.arguments:
                z, slope = forward_ad.unpack_dual(argument)
                if slope is None:
                    continue
                moving = slope.abs() > 8 * torch.finfo(slope.dtype).eps * slope.abs().max()
                if bool(moving.any()):
                    along = min(along, float((z[moving] / slope[moving]).abs().min()))
    except (RuntimeError, NotImplementedError):  # an operation without forward mode
        return math.inf
    return along
