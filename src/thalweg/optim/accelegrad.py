"""AcceleGrad: acceleration without knowing the smoothness, by three sequences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check, iterate
from thalweg.core.catalogue import Axis, LogUniform
from thalweg.core.result import Result
from thalweg.optim.engine import Active, Global, How, squared_norm, whole
from thalweg.optim.engine.elementwise import Constraint
from thalweg.optim.engine.rounding import moved
from thalweg.optim.engine.sharding import local, sharded_like


def step_weight(k: int) -> float:
    r"""The weight :math:`w_k`: 1 for the first three steps (k = 1, 2, 3), then :math:`k/4`."""
    return 1.0 if k <= 3 else k / 4


def total_weight(k: int) -> float:
    r"""The sum :math:`W_k = \sum_{j \le k} w_j`.

    Examples
    --------
    >>> total_weight(5) == sum(step_weight(j) for j in range(1, 6))
    True
    """
    return float(k) if k <= 3 else 3 + (k * (k + 1) - 12) / 8


class AcceleGrad(Global):
    r"""Accelerated adaptive gradient method, universal over smooth and non-smooth convex problems.

    With k = 1, 2, ... and :math:`w_k = 1` for :math:`k \le 3`, :math:`k/4` after (the paper counts
    from 0),

    .. math::
        x_k &= \tau_k z_{k-1} + (1 - \tau_k)\, y_{k-1}, \qquad \tau_k = 1/w_k,
            \qquad g_k = \nabla f(x_k) \\
        \eta_k &= 2D \Big/ \sqrt{G^2 + \textstyle\sum_{j \le k} w_j^2 \|g_j\|^2} \\
        z_k &= P_K(z_{k-1} - w_k \eta_k g_k), \qquad y_k = x_k - \eta_k g_k \\
        \bar y &= \textstyle\sum_k w_k y_k / \sum_k w_k

    The output is :math:`\bar y`. For convex f with a minimizer over :math:`\mathbb R^d` inside K:
    :math:`O((DG + LD^2 \log(LD/G))/k^2)` if f is L-smooth, :math:`O(GD\sqrt{\log k}/\sqrt k)` if
    it is only Lipschitz, with the same parameters. K is a set known to contain a minimizer, **not a
    constraint to enforce**: y may leave it, and if the minimizer of f is outside no rate holds.

    The model holds :math:`x_k`, where gradients are taken. `eval` writes the output into the model
    (call it before evaluating or saving the model), `train` puts :math:`x_k` back bitwise; the
    checkpoint is valid in either position. k is each parameter's own step count: one without a
    gradient stays where it is, in the output too.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch.
    diameter
        D > 0, at least the diameter of K: a bound on twice the distance from the start to a
        minimizer. Too small a D converges to a wrong point.
    G
        A bound on gradient norms, >= 0; a tiny one only costs a logarithm. Default 1e-8.
    lr
        Multiplies :math:`\eta`, so that schedulers work, >= 0. Default 1.
    constraint
        K, a set of `thalweg.numeric` each parameter's z is projected to. Default None.
    average
        Output :math:`\bar y` (True) or the last y. Default True.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range; D has no default.
    RuntimeError
        If a step is taken while the model holds the output.

    Examples
    --------
    >>> x = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> optimizer = AcceleGrad([x], diameter=4.0)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     (x[0] ** 2 + 10 * x[1] ** 2).backward()
    ...     optimizer.step()
    >>> optimizer.eval()
    >>> bool(x.detach().norm() < 1e-2)
    True
    >>> optimizer.train()

    References
    ----------
    Levy, Yurtsever & Cevher, "Online adaptive methods, universality and acceleration", NeurIPS 2018
    (arXiv 1809.02864). A lecture writes :math:`w_k = k/4` for all k, so that :math:`\tau > 1` at
    first; this follows the paper. There is no official code.
    """

    slots = ("y", "z", "average")
    shared = ("sum_of_squares", "boundary_steps")
    reduced = ("w", "eta", "tau_next")
    paper = "Levy, Yurtsever & Cevher, NeurIPS 2018 (arXiv 1809.02864)"
    year = 2018
    family = "accelerated"
    needs = ("diameter", "train()/eval()")
    memory = "3 per parameter"
    search_space: ClassVar[dict[str, Axis]] = {"diameter": LogUniform(1e-1, 1e3)}
    _own_attributes = ("average",)

    def __init__(
        self,
        params: ParamsT,
        diameter: float,
        G: float = 1e-8,
        lr: float | Tensor = 1.0,
        constraint: Constraint | None = None,
        average: bool = True,
        **how: Unpack[How],
    ) -> None:
        self.average = bool(average)
        super().__init__(
            params, {"lr": lr, "diameter": diameter, "G": G}, constraint=constraint, **how
        )

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("diameter", group["diameter"], gt=0)
        check.number("G", group["G"], ge=0)

    def initial(self, slot: str, p: Tensor, group: dict[str, Any]) -> Tensor:
        zeros = super().initial(slot, p, group)
        return zeros if slot == "average" else zeros.copy_(p)

    def common(self, active: Sequence[Active]) -> Callable[[Active], Mapping[str, float]]:
        params = self.all_params()
        if any("x" in self.state[p] for p in params if p in self.state):
            raise RuntimeError("AcceleGrad: the model holds the output; call train() before step()")
        gradients: dict[int, list[Tensor]] = {}
        for a in active:
            gradients.setdefault(int(a.state["step"]) + 1, []).append(a.g)
        total = self.read_shared("sum_of_squares", params)
        total += sum(step_weight(k) ** 2 * squared_norm(gs) for k, gs in gradients.items())
        self.write_shared("sum_of_squares", total, params)

        def numbers(a: Active) -> dict[str, float]:
            k = int(a.state["step"])  # already increased
            root = math.sqrt(float(a.group["G"]) ** 2 + total)
            eta = 2 * float(a.group["diameter"]) / root if root > 0 else 0.0
            return {
                "w": step_weight(k),
                "eta": float(a.group["lr"]) * eta,
                "tau_next": 1 / step_weight(k + 1),
            }

        return numbers

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        y: Tensor,
        z: Tensor,
        average: Tensor,
        *,
        w: float,
        eta: float,
        tau_next: float,
    ) -> tuple[Tensor, ...]:
        z = z - w * eta * g
        y = p - eta * g
        average = average + w * y
        return moved(y, tau_next * (z - y)), y, z, average

    def update(self, active: Sequence[Active]) -> None:
        super().update(active)
        if self.constraint is not None:
            self._watch_boundary(active)

    def _project(self, a: Active) -> None:
        """K holds z alone; x follows from y and the projected z."""
        assert self.constraint is not None
        z = whole(a.state["z"])
        projected = self.constraint.project(z)
        self._moved = getattr(self, "_moved", False) or not torch.equal(projected, z)
        local(a.state["z"]).copy_(sharded_like(projected, a.p))
        tau = 1 / step_weight(int(a.state["step"]) + 1)
        y, z = local(a.state["y"]), local(a.state["z"])
        local(a.p).copy_(moved(y, tau * (z - y)))

    def _watch_boundary(self, active: Sequence[Active]) -> None:
        params = self.all_params()
        hits = self.read_shared("boundary_steps", params) + getattr(self, "_moved", False)
        self._moved = False
        self.write_shared("boundary_steps", hits, params)
        k = max(int(a.state["step"]) for a in active)
        if k == 100 and hits > 0.9 * k:
            check.warn(
                f"diameter: z left the constraint in {int(hits)} of {k} steps; "
                "the set is probably too small to hold a minimizer"
            )

    # ---- which point the model holds ----

    @torch.no_grad()
    def eval(self) -> None:
        """Write the output into the model; x is kept aside. Before the first step: nothing."""
        for p in self.all_params():
            state = self.state.get(p, {})
            if "average" not in state or "x" in state or not state["step"]:
                continue
            state["x"] = p.detach().clone(memory_format=torch.preserve_format)
            output = local(state["y"])
            if self.average:
                output = local(state["average"]) / total_weight(int(state["step"]))
            local(p).copy_(output)

    @torch.no_grad()
    def train(self) -> None:
        """Put the point where gradients are taken back into the model, bitwise."""
        for p in self.all_params():
            state = self.state.get(p, {})
            if "x" in state:
                local(p).copy_(local(state.pop("x")))


class _State(NamedTuple):
    y: Tensor
    z: Tensor
    average: Tensor
    weight_sum: float
    sum_of_squares: float
    k: int


def accelegrad(
    gradient: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    diameter: float,
    G: float = 1e-8,
    constraint: Constraint | None = None,
    measure: Callable[[Tensor], float | Tensor] | None = None,
    average: bool = True,
    tol: float | None = None,
    max_steps: int = 1000,
    max_seconds: float | None = None,
    measure_every: int = 10,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[Tensor]:
    r"""Minimize a convex function by AcceleGrad (formula and rates: see the class `AcceleGrad`).

    Parameters
    ----------
    gradient
        :math:`\nabla f`, or a stochastic estimate of it, as a function of a tensor.
    start
        :math:`x_0`, in K.
    diameter, G, constraint, average
        As in `AcceleGrad`.
    measure
        What is watched at the point that is returned. Default: the norm of `gradient` there.
    tol, max_steps, max_seconds, measure_every, callback, progress
        As in `thalweg.iterate`.

    Returns
    -------
    Result
        ``x`` is :math:`\bar y` (or the last y).

    Examples
    --------
    >>> result = accelegrad(lambda x: 2 * x, torch.tensor([1.0, -1.0]), diameter=4.0, tol=1e-3)
    >>> result.converged
    True
    """
    check.floating("start", start)
    check.number("diameter", diameter, gt=0)
    check.number("G", G, ge=0)

    def output(state: _State) -> Tensor:
        if not average or state.weight_sum == 0:
            return state.y
        return state.average / state.weight_sum

    def step(state: _State) -> _State:
        k = state.k + 1
        w = step_weight(k)
        x = state.y + (state.z - state.y) / w
        g = gradient(x)
        total = state.sum_of_squares + w**2 * squared_norm([g])
        root = math.sqrt(G**2 + total)
        eta = 2 * diameter / root if root > 0 else 0.0
        _, y, z, summed = AcceleGrad.rule(
            x, g, state.y, state.z, state.average, w=w, eta=eta, tau_next=0.0
        )
        if constraint is not None:
            z = constraint.project(z)
        return _State(y, z, summed, state.weight_sum + w, total, k)

    def measured(state: _State) -> dict[str, float | Tensor]:
        x = output(state)
        if measure is None:
            return {"gradient_norm": torch.linalg.vector_norm(gradient(x))}
        return {"measure": measure(x)}

    start = start.detach().clone()
    return iterate(
        step,
        _State(start, start, torch.zeros_like(start), 0.0, 0.0, 0),
        measure=measured,
        point=output,
        tol=tol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        measure_every=measure_every,
        callback=callback,
        progress=progress,
    )
