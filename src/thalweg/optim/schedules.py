"""Step-size schedules with a convergence theory: power, cool-down, square-root horizon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import LambdaLR

from thalweg.core import check


@dataclass(frozen=True)
class Schedule:
    """A step size for every step k = 1, 2, ...; called with k."""

    lr0: float
    factor: Callable[[int], float]

    def __call__(self, k: int) -> float:
        check.number("k", k, ge=1, integer=True)
        return self.lr0 * self.factor(k)


def power(lr0: float, p: float = 1.0, offset: float = 0.0) -> Schedule:
    r"""The power schedule :math:`a_k = a_0 / (k + m)^p`, k = 1 at the first step.

    For gradient noise with bounded q-th moments (q >= 2), SGD converges almost surely if
    :math:`p > 2/(q + 2)`: p > 1/2 for a bounded variance. Strict saddles are avoided with
    probability one for every p in (0, 1] if the noise is bounded and uniformly exciting. Near a
    minimum with a positive definite Hessian, p = 1 has an objective error of O(1/k).

    Parameters
    ----------
    lr0
        :math:`a_0 \ge 0`, the step size at k + m = 1.
    p
        Exponent >= 0; outside (0, 1] a warning. Default 1.
    offset
        m >= 0. Default 0.

    Examples
    --------
    >>> schedule = power(0.5, p=1.0)
    >>> [schedule(k) for k in (1, 2, 5)]
    [0.5, 0.25, 0.1]

    References
    ----------
    Mertikopoulos, Hallak, Kavis & Cevher, NeurIPS 2020 (arXiv 2006.11144).
    """
    check.number("lr0", lr0, ge=0)
    check.number("p", p, ge=0)
    check.number("offset", offset, ge=0)
    if not 0 < p <= 1 and p != 0:
        check.warn(f"p: the theory of the power schedule is for (0, 1], got {p}")
    return Schedule(lr0, _Power(p, offset))


def cooldown(lr0: float, start: int, p: float = 1.0, offset: float | None = None) -> Schedule:
    r"""Constant, then a power: :math:`a_k = a_0` to step :math:`K_c`, then
    :math:`a_0 \bigl(m/(m + k - K_c)\bigr)^p`.

    It is continuous at :math:`K_c`. With p = 1 and :math:`m = K_c`: :math:`a_k = a_0 K_c / k`. It
    pays where noise dominates; a network that interpolates its data does as well with a
    constant step.

    Parameters
    ----------
    lr0
        :math:`a_0 \ge 0`.
    start
        :math:`K_c \ge 0`: the last step with the constant step size.
    p
        Exponent > 0. Default 1.
    offset
        m > 0. Default :math:`K_c`; must be given if start is 0.

    Examples
    --------
    >>> schedule = cooldown(0.5, start=100)
    >>> [schedule(k) for k in (1, 100, 200)]
    [0.5, 0.5, 0.25]

    References
    ----------
    Mertikopoulos, Hallak, Kavis & Cevher, NeurIPS 2020 (arXiv 2006.11144).
    """
    check.number("lr0", lr0, ge=0)
    check.number("start", start, ge=0, integer=True)
    check.number("p", p, gt=0)
    if offset is None and start == 0:
        raise ValueError("offset must be given (> 0) if start is 0, got None")
    m = check.number("offset", start if offset is None else offset, gt=0)
    return Schedule(lr0, _Cooldown(start, p, m))


def sqrt_horizon(smoothness: float, steps: int) -> Schedule:
    r"""The constant step :math:`a = 1/(L \sqrt N)` of the non-convex rate for N steps.

    Examples
    --------
    >>> sqrt_horizon(smoothness=10.0, steps=100)(1)
    0.01
    """
    check.number("smoothness", smoothness, gt=0)
    check.number("steps", steps, ge=1, integer=True)
    return Schedule(1 / (smoothness * steps**0.5), _Power(0.0, 0.0))


def as_lr_scheduler(
    optimizer: torch.optim.Optimizer, schedule: Schedule, last_epoch: int = -1
) -> LambdaLR:
    """A torch scheduler that follows `schedule`: call its ``step()`` after each optimizer step.

    The schedule's shape multiplies each group's own lr (its `lr0` is not used), so groups with
    different step sizes keep their ratio. Resumes from its ``state_dict`` like any torch scheduler.

    Examples
    --------
    >>> x = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = torch.optim.SGD([x], lr=0.5)
    >>> scheduler = as_lr_scheduler(optimizer, power(0.5))
    >>> optimizer.step(); scheduler.step()
    >>> scheduler.get_last_lr()
    [0.25]
    """

    def factor(epoch: int) -> float:  # torch counts from 0; of a plain function it saves nothing
        return schedule.factor(epoch + 1)

    return LambdaLR(optimizer, factor, last_epoch)


@dataclass(frozen=True)
class _Power:
    p: float
    offset: float

    def __call__(self, k: int) -> float:
        return 1 / (k + self.offset) ** self.p


@dataclass(frozen=True)
class _Cooldown:
    start: int
    p: float
    offset: float

    def __call__(self, k: int) -> float:
        return 1.0 if k <= self.start else (self.offset / (self.offset + k - self.start)) ** self.p
