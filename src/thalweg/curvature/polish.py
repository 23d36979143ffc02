"""`polish`: second-order methods that end at a second-order stationary point."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Literal, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.iterate import Stop, iterate
from thalweg.core.problem import Training
from thalweg.core.result import Reason, Result
from thalweg.curvature.escape import backtracked, finite_value, signed
from thalweg.curvature.hessian import hessian_products
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import How, prepared
from thalweg.curvature.second_order_steps import cubic_step, saddle_free_step, trust_region_cg
from thalweg.numeric.krylov import extreme_eigenvalues
from thalweg.numeric.operator import Counted, as_operator

Method = Literal["newton-cg", "saddle-free", "cubic"]


def polish(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    method: Method = "newton-cg",
    gradient_tolerance: float = 1e-6,
    curvature_tolerance: float = 1e-3,
    max_steps: int = 100,
    max_seconds: float | None = None,
    radius: float = 1.0,
    seed: int = 0,
    apply: bool = True,
    **how: Unpack[How],
) -> Result[Tensor]:
    r"""Go down to a second-order stationary point over the whole data. **This moves the model.**

    ``"newton-cg"``: conjugate gradients in a trust region, which follow negative curvature to its
    boundary. ``"saddle-free"``: :math:`-|H|^{-1} g` in a Krylov space, with Armijo's rule.
    ``"cubic"``: the global minimizer of :math:`g^\top s + \frac12 s^\top H s + \frac\sigma3
    \|s\|^3` with adaptive :math:`\sigma`. Where :math:`\|g\| \le \epsilon_g`, all three look for

    .. math:: \lambda_{\min}(H) < -\epsilon_H

    from a random start (a Krylov space of g never holds a direction orthogonal to g), step along
    its eigenvector until :math:`f(x) - f(x + t u) \ge |\lambda| t^2 / 4`, and go on; else they end.

    Parameters
    ----------
    training, parameters
        The function, and its unknowns.
    method
        ``"newton-cg"`` (default), ``"saddle-free"`` or ``"cubic"``.
    gradient_tolerance, curvature_tolerance
        :math:`\epsilon_g > 0` and :math:`\epsilon_H > 0`. Default 1e-6 and 1e-3.
    max_steps, max_seconds
        As in `thalweg.iterate`. Default 100 steps.
    radius
        The first trust region, and the longest step of an escape, > 0. Default 1.
    seed
        Of the random starts. Default 0.
    apply
        Write the point into the model's parameters. Default True.
    **how
        ``mode``, ``weight``, ``memory``, ``group``: see `Objective`.

    Returns
    -------
    Result
        ``x`` flat; TOLERANCE or EXACT: second-order stationary. ``info``: ``loss``,
        ``lambda_min`` (None if it was not looked for), ``degenerate`` (within
        :math:`\epsilon_H` of zero: a minimum or not, undecided), ``escapes``, ``products``.

    Raises
    ------
    ValueError
        For an argument out of range, or a stochastic loss.

    Examples
    --------
    >>> start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> f = lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 4
    >>> result = polish(Training.from_function(f, start))
    >>> result.converged, round(result.info["loss"], 9), result.info["escapes"]
    (True, -1.0, 1)

    References
    ----------
    Steihaug 1983; Royer, O'Neill & Wright 2018 (arXiv 1803.02924); Dauphin et al. 2014 (arXiv
    1406.2572); Nesterov & Polyak 2006; Cartis, Gould & Toint 2011.
    """
    check.choice("method", method, ("newton-cg", "saddle-free", "cubic"))
    check.number("gradient_tolerance", gradient_tolerance, gt=0)
    check.number("curvature_tolerance", curvature_tolerance, gt=0)
    check.number("radius", radius, gt=0)
    check.number("seed", seed, ge=0, integer=True)
    objective = prepared(training, parameters, how)
    result = polished(
        objective, objective.start, method, gradient_tolerance, curvature_tolerance, max_steps,
        radius, seed, max_seconds,
    )  # fmt: skip
    if apply:
        objective.write(result.x)
    return result


def polished(
    objective: Objective, x: Tensor, method: Method = "newton-cg", eps_g: float = 1e-6,
    eps_H: float = 1e-3, max_steps: int = 100, radius: float = 1.0, seed: int = 0,
    max_seconds: float | None = None,
) -> Result[Tensor]:  # fmt: skip
    """`polish` from any flat point, without writing.

    Examples
    --------
    >>> bowl = Training.from_function(lambda x: (x**2).sum(), torch.ones(2, dtype=torch.float64))
    >>> result = polished(Objective(bowl), torch.ones(2, dtype=torch.float64))
    >>> float(result.x.norm()) < 1e-6
    True
    """
    run = _Polish(objective, method, eps_g, eps_H, radius, seed)
    result = iterate(
        run.step,
        run.start(x),
        # whatever is small ends the loop, so an unfinished point must not be
        measure=lambda s: {
            "gradient_norm": s.size if s.finished else max(s.size, 2 * eps_g),
            "loss": s.f,
        },
        point=lambda s: s.x,
        tol=eps_g,
        max_steps=max_steps,
        max_seconds=max_seconds,
    )
    lowest = run.lowest if result.converged else None
    info = {
        "loss": objective.value(result.x),
        "lambda_min": lowest,
        "degenerate": lowest is not None and abs(lowest) <= eps_H,
        "escapes": run.escapes,
        "products": run.products,
    }
    return dataclasses.replace(result, info=info)


class _State(NamedTuple):
    x: Tensor
    f: float
    g: Tensor
    trust: float  # the radius, or sigma
    finished: bool

    @property
    def size(self) -> float:
        return float(self.g.norm())


class _Polish:
    def __init__(
        self, objective: Objective, method: Method, eps_g: float, eps_H: float, radius: float,
        seed: int,
    ) -> None:  # fmt: skip
        self.objective, self.method = objective, method
        self.eps_g, self.eps_H, self.radius = eps_g, eps_H, radius
        self.generator = torch.Generator().manual_seed(seed)
        self.escapes, self.products = 0, 0
        self.lowest: float | None = None

    def start(self, x: Tensor) -> _State:
        f, g = self.objective.value_and_gradient(x)
        return _State(x, f, g, 1.0 if self.method == "cubic" else self.radius, False)

    def step(self, state: _State) -> _State:
        H = Counted(
            as_operator(
                hessian_products(self.objective, state.x), self.objective.d, state.x.dtype,
                state.x.device,
            )
        )  # fmt: skip
        try:
            if state.size <= self.eps_g:
                return self._escape(state, H)
            if self.method == "newton-cg":
                return self._newton_cg(state, H)
            return (
                self._saddle_free(state, H)
                if self.method == "saddle-free"
                else self._cubic(state, H)
            )
        finally:
            self.products += H.n_products

    def _escape(self, state: _State, H: Counted) -> _State:
        ends = extreme_eigenvalues(H, generator=self.generator)
        self.lowest = ends.lowest
        if ends.lowest >= -self.eps_H:
            return state._replace(finished=True)
        u = signed(ends.vectors[:, 0], state.g, self.generator)
        found = backtracked(
            self.objective.value, state.x, u, ends.lowest, state.f, largest=self.radius
        )
        if found is None:
            return state._replace(finished=True)  # within rounding of stationary
        self.escapes += 1
        return self._at(state.x + found[0] * u, max(state.trust, self.radius)
                        if self.method != "cubic" else state.trust)  # fmt: skip

    def _newton_cg(self, state: _State, H: Counted) -> _State:
        found = trust_region_cg(H, state.g, state.trust)
        ratio = self._ratio(state, found.s, found.predicted)
        radius = state.trust
        if ratio < 0.25:
            radius = 0.25 * min(radius, float(found.s.norm()))
        elif ratio >= 0.75 and found.on_boundary:
            radius = 2 * radius
        if ratio >= 0.1:
            return self._at(state.x + found.s, radius)
        self._stop_if_negligible(state, radius)
        return state._replace(trust=radius)

    def _saddle_free(self, state: _State, H: Counted) -> _State:
        s = saddle_free_step(H, state.g)
        slope, t = float(s @ state.g), 1.0
        rounding = self._rounding(state.f)
        while finite_value(self.objective.value, state.x + t * s) > (
            state.f + 1e-4 * t * slope + rounding
        ):
            t /= 2
            self._stop_if_negligible(state, t * float(s.norm()))
        return self._at(state.x + t * s, state.trust)

    def _cubic(self, state: _State, H: Counted) -> _State:
        sigma = state.trust
        found = cubic_step(H, state.g, sigma)
        s = found.s
        if found.other is not None and finite_value(
            self.objective.value, state.x + found.other
        ) < finite_value(self.objective.value, state.x + s):
            s = found.other
        ratio = self._ratio(state, s, found.predicted)
        if ratio > 0.9:
            sigma = max(sigma / 2, 1e-8)
        elif ratio < 0.1:
            sigma = 2 * sigma
        if ratio >= 0.1:
            return self._at(state.x + s, sigma)
        self._stop_if_negligible(state, float(s.norm()))
        return state._replace(trust=sigma)

    def _at(self, x: Tensor, trust: float) -> _State:
        f, g = self.objective.value_and_gradient(x)
        return _State(x, f, g, trust, False)

    def _ratio(self, state: _State, s: Tensor, predicted: float) -> float:
        """Actual over predicted decrease, both with what rounding may hide."""
        after = finite_value(self.objective.value, state.x + s)
        rounding = self._rounding(state.f)
        if math.isinf(after):
            return -math.inf
        return (state.f - after + rounding) / (max(predicted, 0.0) + rounding)

    def _rounding(self, f: float) -> float:
        return max(10 * torch.finfo(self.objective.dtype).eps * abs(f), 1e-300)

    def _stop_if_negligible(self, state: _State, step: float) -> None:
        if step <= torch.finfo(state.x.dtype).eps * (1 + float(state.x.norm())):
            raise Stop(Reason.STALLED)
