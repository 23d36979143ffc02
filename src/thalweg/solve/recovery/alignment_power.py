"""The projected power method of joint alignment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thalweg.core import Reason, Result, Stop, check
from thalweg.core.catalogue import LogUniform, method
from thalweg.solve.recovery.alignment import JointAlignment
from thalweg.solve.recovery.descent import descend


@method(
    paper="Chen, Candes, Communications on Pure and Applied Mathematics 2018, arXiv:1609.05820",
    year=2018,
    family="synchronization",
    problems=(JointAlignment,),
    search_space={"scale": LogUniform(5.0, 100.0)},
)
def projected_power_method(
    problem: JointAlignment,
    *,
    scale: float = 25.0,
    start: str | Tensor = "spectral",
    tol: float = 1e-12,
    xtol: float | None = None,
    max_steps: int = 100,
    max_seconds: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[Tensor]:
    r"""Multiply with the log-likelihoods of all pairs, and project on the simplex.

    .. math:: z \leftarrow P(\mu L z), \qquad \mu = c / \lambda_{m-1}(L)

    Parameters
    ----------
    problem
        A `JointAlignment`.
    scale
        c > 0; infinity rounds to the corner of the largest entry. Default 25.
    start
        ``"spectral"`` (default), ``"random"``, or shifts ``(n,)`` or z ``(n, m)`` to continue from.
    tol
        Stop when rounding :math:`L z` changes z by at most this share, >= 0. Default 1e-12.
    xtol
        Stop at this relative change of z. Default 1e-12 (4 roundings in float32).
    max_steps, max_seconds
        Limits. Default 100 steps, no limit of time.
    generator
        Of what is random in the start.
    callback, progress
        As in `thalweg.core.iterate`.

    Returns
    -------
    Result
        x is z, ``(n, m)``; ``info["labels"]`` are its shifts, ``info["step_size"]`` is
        :math:`\mu`. Should the method enter a cycle of two points, it has `STALLED`, and the one
        with the greater :math:`z^T L z` is returned.

    Examples
    --------
    >>> y = torch.tensor([[0, 2, 1], [1, 0, 2], [2, 1, 0]])
    >>> result = projected_power_method(JointAlignment(y, 3))
    >>> labels = result.info["labels"]
    >>> ((labels[0] - labels) % 3).tolist()
    [0, 2, 1]
    """
    check.number("scale", scale, gt=0, finite=False)
    mu = math.inf
    if math.isfinite(scale):
        values = problem.eigenpairs[0]
        positive = float(values[-1]) if values[-1] > 0 else float(values[0])
        mu = scale / positive if positive > 0 else math.inf
    seen, before = _Seen(problem), None
    cycle: list[Tensor] = []

    def step(x: Tensor, misfit: Tensor) -> Tensor:
        nonlocal before
        u = seen.product(x)
        new = problem.rounded(u) if math.isinf(mu) else onto_simplices(mu * u)
        if before is not None and torch.equal(new, before) and not torch.equal(new, x):
            cycle[:] = [new, x]
            raise Stop(Reason.STALLED)
        before = x
        return new

    result = descend(
        seen,
        step,
        problem.start(start, generator),
        tol=tol,
        xtol=xtol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        callback=callback,
        progress=progress,
        patience=max_steps + 1,  # a point that is not decided yet moves on at an even gap
    )
    x = min(cycle, key=lambda z: float(problem.value(z))) if cycle else result.x
    info = {**result.info, "labels": problem.labels(x), "step_size": mu}
    info["components"] = int(problem.components.max()) + 1
    value = float(problem.residual(x)) if cycle else result.value
    return dataclasses.replace(result, x=x, value=value, info=info)


def onto_simplices(u: Tensor) -> Tensor:
    r"""The nearest point of the simplex to each row.

    .. math:: P(u)_a = \max(u_a - \nu, 0), \qquad
        \nu = \max_k \frac1k \Big(\sum_{a \le k} u_{(a)} - 1\Big)

    with :math:`u_{(1)} \ge u_{(2)} \ge \dots`.

    Examples
    --------
    >>> onto_simplices(torch.tensor([[1.0, 0.5, -1.0], [0.0, 0.0, 9.0]]))
    tensor([[0.7500, 0.2500, 0.0000],
            [0.0000, 0.0000, 1.0000]])

    References
    ----------
    Duchi, Shalev-Shwartz, Singer, Chandra, "Efficient projections onto the l1-ball for learning in
    high dimensions", ICML 2008. One set of any shape: `thalweg.numeric.Simplex`.
    """
    u = u - u.amax(-1, keepdim=True)  # no digits are lost to a common constant
    count = torch.arange(1, u.shape[-1] + 1, dtype=u.dtype, device=u.device)
    sums = u.sort(dim=-1, descending=True).values.cumsum(-1)
    threshold = ((sums - 1) / count).amax(-1, keepdim=True)
    return (u - threshold).clamp(min=0)


class _Seen:
    """The problem with the last product kept: gap, value and step come from the same one."""

    def __init__(self, problem: JointAlignment) -> None:
        self.problem = problem
        self.truth = problem.truth
        self._at: Tensor | None = None
        self._product = torch.empty(0)

    def product(self, x: Tensor) -> Tensor:
        if x is not self._at:
            self._at, self._product = x, self.problem.differences(x)
        return self._product

    def misfit(self, x: Tensor) -> Tensor:
        return self.problem.rounded(self.product(x)) - x

    def value_of(self, x: Tensor, misfit: Tensor) -> Tensor:
        return self.problem.value_at(x, self.product(x))

    def residual_of(self, misfit: Tensor) -> Tensor:
        return self.problem.residual_of(misfit)

    def error(self, x: Tensor) -> Tensor:
        return self.problem.error(x)
