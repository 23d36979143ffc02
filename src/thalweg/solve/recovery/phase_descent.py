"""The descent of phase retrieval: one product and one adjoint a step, whatever the loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypedDict

import torch
from torch import Tensor

from thalweg.core import Reason, Result, check
from thalweg.solve.recovery.descent import descend
from thalweg.solve.recovery.lines import squared_modulus
from thalweg.solve.recovery.phase_retrieval import PhaseRetrieval

Start = str | Tensor
"""An initializer's name, ``"random"``, or a tensor to continue from."""

PLATEAU = 500
"""Steps for which the residual may rise: other losses cross its plateaus and turn down again."""

Term = Callable[[Tensor, Tensor], Tensor]
"""From :math:`A z`, with intensities of mean 1, and z: the w of a gradient :math:`A^* w / m`."""


class Seen:
    r"""A problem as the loop sees it: its "misfit" is A z over the root of the mean intensity.

    From that come residual, value and the next step, so that a step costs one product with A and
    one with its adjoint.
    """

    def __init__(self, problem: PhaseRetrieval) -> None:
        self.problem = problem
        self.truth = problem.truth
        self.root = problem.mean.sqrt()
        self._last: tuple[Tensor, Tensor] | None = None

    def misfit(self, x: Tensor) -> Tensor:
        return self.problem.operator.forward(x) / self.root

    def value_of(self, x: Tensor, misfit: Tensor) -> Tensor:
        unit = self._distance(misfit).square() / misfit.shape[-1]
        return unit * self.problem.mean.squeeze(-1).square() / 2

    def residual_of(self, misfit: Tensor) -> Tensor:
        return self._distance(misfit) / self.problem.intensity.norm(dim=-1)

    def _distance(self, seen: Tensor) -> Tensor:
        """The norm of the intensities' misfit; the loop asks three times for each point."""
        if self._last is None or self._last[0] is not seen:
            difference = squared_modulus(seen) - self.problem.intensity
            self._last = (seen, difference.norm(dim=-1))
        return self._last[1]

    def error(self, x: Tensor) -> Tensor:
        return self.problem.error(x)


class FlowOptions(TypedDict, total=False):
    """Keyword arguments of every flow, passed on to `flow`; its defaults are theirs."""

    start: Start
    tol: float
    xtol: float | None
    max_steps: int
    max_seconds: float | None
    halvings: int
    generator: torch.Generator | None
    callback: Callable[[Result[Any]], object] | None
    progress: bool


def flow(
    problem: PhaseRetrieval,
    term: Term,
    step_size: float,
    schedule: Callable[[int, Tensor], float | Tensor] = lambda t, start: 1.0,
    /,
    *,
    start: Start = "optimal",
    tol: float = 1e-10,
    xtol: float | None = None,
    max_steps: int = 2000,
    max_seconds: float | None = None,
    halvings: int = 5,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[Tensor]:
    r"""Descend along :math:`A^* w / m`, w the method's term, in units where all data have mean 1.

    .. math:: z \leftarrow z - \mu\, \frac{\lambda}{s\, m}
        A^* w\Big(\frac{A z}{\sqrt{\operatorname{mean} y}}\Big), \qquad
        s^2 = \operatorname{mean} \|a_i\|^2 / n

    Parameters
    ----------
    problem
        The problem.
    term
        w as a function of the scaled products and of z.
    step_size
        :math:`\mu`; halved, and the descent begun again, after a divergence.
    schedule
        Factor of the step size at step t = 1, 2, ..., given the start in units of
        :math:`\lambda`, shape ``(..., n)``.
    start, tol, xtol, max_steps, max_seconds, halvings, generator, callback, progress
        As in `thalweg.solve.recovery.wirtinger_flow`.
    """
    check.number("step_size", step_size, gt=0)
    check.number("halvings", halvings, ge=0, integer=True)
    operator, shape = problem.operator, problem.operator.signal_shape
    first = problem.start(start, generator)
    unit_start = problem.flat(first) / problem.size()
    # One number a signal, shaped to go with signals.
    scale = problem.size() / (problem.energy.sqrt() * problem.intensity.shape[-1])

    def solve(mu: float) -> Result[Tensor]:
        t = 0

        def step(x: Tensor, seen: Tensor) -> Tensor:
            nonlocal t
            t += 1
            length = mu * schedule(t, unit_start) * scale
            direction = operator.adjoint(term(seen, problem.flat(x)))
            return x - length.reshape(*length.shape[:-1], *(1 for _ in shape)) * direction

        return descend(
            Seen(problem),
            step,
            first,
            tol=tol,
            xtol=xtol,
            max_steps=max_steps,
            max_seconds=max_seconds,
            callback=callback,
            progress=progress,
            patience=PLATEAU,
        )

    for k in range(halvings + 1):
        mu = step_size / 2**k
        result = solve(mu)
        if result.reason is not Reason.NONFINITE:
            break
    return dataclasses.replace(result, info={**result.info, "step_size": mu})
