"""Directional sharpness: why an optimizer's step tolerates its learning rate, or does not."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.core.rng import preserved_rng
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import prepared


@dataclass(frozen=True)
class DirectionalSharpness:
    r"""The quadratic model of the loss along a step :math:`x - \eta v`.

    .. math:: f(x - \eta v) \approx f(x) - \eta\, g^T v + \tfrac{\eta^2}{2} v^T H v

    Attributes
    ----------
    slope
        :math:`g^T v`; v is a descent direction if it is > 0.
    curvature
        :math:`v^T H v`.
    norm
        :math:`\|v\|`.

    Examples
    --------
    >>> along = DirectionalSharpness(slope=2.0, curvature=8.0, norm=2.0)
    >>> along.sharpness, along.largest_lr, along.best_lr
    (2.0, 0.5, 0.25)
    >>> along.decreases(0.4), along.decreases(0.6), along.predicted(0.25)
    (True, False, -0.25)
    """

    slope: float
    curvature: float
    norm: float

    @property
    def sharpness(self) -> float:
        r""":math:`v^T H v / \|v\|^2`."""
        return self.curvature / self.norm**2

    @property
    def descent(self) -> bool:
        """Whether v is a descent direction, :math:`g^T v > 0`."""
        return self.slope > 0

    @property
    def largest_lr(self) -> float:
        """The model falls for every smaller learning rate; 0 if v is no descent direction,
        infinite if there is no positive curvature along it."""
        if not self.descent:
            return 0.0
        return 2 * self.slope / self.curvature if self.curvature > 0 else math.inf

    @property
    def best_lr(self) -> float:
        """Where the model is least along the step; half of `largest_lr`."""
        return self.largest_lr / 2

    def decreases(self, lr: float = 1.0) -> bool:
        r"""Whether the model falls: :math:`g^T v > 0` and :math:`\eta\, v^T H v < 2 g^T v`."""
        check.number("lr", lr, gt=0)
        return self.descent and lr * self.curvature < 2 * self.slope

    def predicted(self, lr: float = 1.0) -> float:
        r"""The change of the model, :math:`-\eta\, g^T v + \eta^2 v^T H v / 2`."""
        check.number("lr", lr, gt=0)
        return -lr * self.slope + 0.5 * lr**2 * self.curvature

    def __str__(self) -> str:
        kind = "descent" if self.descent else "not a descent direction"
        curved = "up" if self.curvature > 0 else "down" if self.curvature < 0 else "not at all"
        return (
            f"slope g.v = {self.slope:.4g} ({kind}), curvature v.Hv = {self.curvature:.4g} "
            f"(curves {curved}), sharpness {self.sharpness:.4g}, "
            f"the model falls for lr < {self.largest_lr:.4g}"
        )


def directional(training: Training | Objective, direction: Tensor) -> DirectionalSharpness:
    r"""Slope and curvature along a step :math:`x - \eta v`.

    .. math:: g^T v, \qquad v^T H v, \qquad \frac{v^T H v}{\|v\|^2}

    Parameters
    ----------
    training
        A `Training` or an `Objective`; at the parameters the model holds.
    direction
        v, a flat vector (d,), finite and not zero: what is *subtracted*, such as `optimizer_step`
        returns (then a learning rate of 1 is the step itself), or the gradient.

    Returns
    -------
    DirectionalSharpness

    Raises
    ------
    ValueError
        If `direction` is of the wrong shape, zero or not finite, or the loss is not deterministic.

    Examples
    --------
    >>> f = Training.from_function(lambda x: x[0] ** 2 + 5 * x[1] ** 2, torch.tensor([1.0, 1.0]))
    >>> directional(f, torch.tensor([0.0, 2.0])).sharpness  # an eigenvector: its eigenvalue
    10.0
    >>> print(directional(f, torch.tensor([2.0, 10.0])))
    slope g.v = 104 (descent), curvature v.Hv = 1008 (curves up), sharpness 9.692,
    the model falls for lr < 0.2063

    References
    ----------
    Pan & Li, Toward understanding why Adam converges faster than SGD for transformers, 2023 (arXiv
    2306.00204).
    """
    objective = prepared(training, None, {})
    v = check.floating("direction", direction)
    if v.shape != (objective.d,):
        raise ValueError(f"direction must be of shape ({objective.d},), got {tuple(v.shape)}")
    v = v.detach().to(objective.device, objective.dtype)
    norm = float(v.double().norm())
    if not (math.isfinite(norm) and norm > 0):
        raise ValueError(f"direction must be finite and not zero, got norm {norm}")
    unit = v / norm  # so that a tiny step does not drown
    slope = float(objective.gradient().double() @ unit.double())
    curvature = float(unit.double() @ objective.hvp(unit).double())
    return DirectionalSharpness(slope * norm, curvature * norm**2, norm)


def optimizer_step(
    training: Training | Objective,
    optimizer: torch.optim.Optimizer,
    gradient: Tensor | None = None,
) -> Tensor:
    r"""The step an optimizer would take now, :math:`v = x - x^+`, without taking it.

    A copy of the optimizer, with its state and copies of its parameters, takes the step: optimizer,
    parameters, ``.grad`` and the global random generators stay as they are. Hooks are not copied.

    Parameters
    ----------
    training
        A `Training` or an `Objective` of the model that `optimizer` trains.
    optimizer
        A ``torch.optim.Optimizer`` whose ``step()`` needs no closure.
    gradient
        What the optimizer sees, a flat vector (d,): of a minibatch, or clipped. Default: the
        gradient over all data.

    Returns
    -------
    Tensor
        v, a flat vector (d,), with the learning rate in it; 0 for parameters the optimizer does
        not have.

    Raises
    ------
    TypeError
        If `optimizer` is not an optimizer, or its step needs a closure.
    ValueError
        If it holds none of the parameters, or `gradient` is of the wrong shape.

    Examples
    --------
    >>> model = nn.Linear(2, 1, bias=False)
    >>> batch = (torch.eye(2), torch.ones(2, 1))
    >>> training = Training(model, nn.functional.mse_loss, [batch])
    >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> v = optimizer_step(training, sgd)
    >>> bool(torch.allclose(v, 0.1 * Objective(training).gradient()))
    True
    >>> directional(training, v).decreases()
    True
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    objective = prepared(training, None, {})
    g = objective.gradient() if gradient is None else gradient
    if g.shape != (objective.d,):
        raise ValueError(f"gradient must be of shape ({objective.d},), got {tuple(g.shape)}")
    named = dict(objective.training.model.named_parameters())
    copies: dict[int, Any] = {}
    with preserved_rng():
        copied = copy.deepcopy(optimizer, copies)
        for group in copied.param_groups:
            for p in group["params"]:
                p.grad = None
        held: dict[str, nn.Parameter] = {}
        for name, part in objective.unflatten(g.detach()).items():
            if id(named[name]) in copies:
                held[name] = copies[id(named[name])]
                held[name].grad = part.clone()
        if not held:
            raise ValueError("optimizer must hold parameters of the model, got none of them")
        try:
            copied.step()
        except TypeError as error:
            raise TypeError(
                f"optimizer must step without a closure, got {type(optimizer).__name__}: {error}"
            ) from error
    return objective.flatten(
        [
            named[name].detach() - held[name].detach()
            if name in held
            else torch.zeros_like(named[name])
            for name in objective.names
        ]
    )
