"""Perturbed gradient descent: a small kick where the gradient is small, then wait and see."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple, Unpack

import torch
from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.iterate import Stop, iterate
from thalweg.core.problem import Training
from thalweg.core.result import Reason, Result
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import How, prepared
from thalweg.numeric.krylov.lanczos import sphere


class PerturbedDescentConstants(NamedTuple):
    """What the theory makes of its constants: keyword arguments of `perturbed_descent`."""

    lr: float
    gradient_threshold: float
    radius: float
    wait: int
    decrease_threshold: float


def perturbed_descent_constants(
    *, smoothness: float, hessian_lipschitz: float, gap: float, d: int, tolerance: float,
    c: float, failure: float = 1e-3,
) -> PerturbedDescentConstants:  # fmt: skip
    r"""The constants of the theorem (Jin et al. 2017).

    .. math::
        \chi = 3 \max\Bigl(\ln \frac{d L\, \Delta_f}{c\, \epsilon^2 \delta}, 4\Bigr), \quad
        \eta = \frac cL, \quad r = \frac{\sqrt c}{\chi^2} \frac{\epsilon}{L}, \quad
        g = \frac{\sqrt c}{\chi^2} \epsilon, \quad
        F = \frac{c}{\chi^3} \sqrt{\frac{\epsilon^3}{\rho}}, \quad
        T = \Bigl\lceil \frac{\chi}{c^2} \frac{L}{\sqrt{\rho\, \epsilon}} \Bigr\rceil

    Parameters
    ----------
    smoothness, hessian_lipschitz
        L and :math:`\rho`, > 0.
    gap
        :math:`\Delta_f \ge f(x_0) - \min f`, > 0.
    d
        Number of unknowns.
    tolerance
        :math:`\epsilon` in :math:`(0, L^2 / \rho]`.
    c
        An absolute constant the paper does not evaluate, in (0, 1].
    failure
        :math:`\delta` in (0, 1). Default 1e-3.

    Raises
    ------
    TypeError, ValueError
        For a constant that is missing or out of range: nothing is guessed.

    Examples
    --------
    >>> constants = perturbed_descent_constants(
    ...     smoothness=2.0, hessian_lipschitz=1.0, gap=1.0, d=10, tolerance=1e-2, c=0.5)
    >>> constants.lr, constants.wait
    (0.25, 4754)

    References
    ----------
    Jin, Ge, Netrapalli, Kakade & Jordan, "How to escape saddle points efficiently", ICML 2017
    (arXiv 1703.00887), algorithm 2 and theorem 3.
    """
    L, rho, eps = smoothness, hessian_lipschitz, tolerance
    check.number("smoothness", L, gt=0)
    check.number("hessian_lipschitz", rho, gt=0)
    check.number("gap", gap, gt=0)
    check.number("d", d, ge=1, integer=True)
    check.number("tolerance", eps, gt=0, le=L**2 / rho)
    check.number("c", c, gt=0, le=1)
    check.number("failure", failure, gt=0, lt=1)
    chi = 3 * max(math.log(d * L * gap / (c * eps**2 * failure)), 4)
    return PerturbedDescentConstants(
        lr=c / L,
        gradient_threshold=math.sqrt(c) * eps / chi**2,
        radius=math.sqrt(c) * eps / (chi**2 * L),
        wait=math.ceil(chi * L / (c**2 * math.sqrt(rho * eps))),
        decrease_threshold=c * math.sqrt(eps**3 / rho) / chi**3,
    )


class _State(NamedTuple):
    x: Tensor
    f: float
    g: Tensor
    t: int
    perturbed: int  # when
    base: Tensor  # x before the perturbation
    base_f: float
    done: bool


def perturbed_descent(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    lr: float,
    gradient_threshold: float,
    radius: float,
    wait: int,
    decrease_threshold: float = 0.0,
    max_steps: int = 10_000,
    seed: int = 0,
    apply: bool = True,
    **how: Unpack[How],
) -> Result[Tensor]:
    r"""Gradient descent with a kick where it has come to rest. **This moves the model.**

    .. math::
        &\|\nabla f(x)\| \le g \text{ and no kick in the last } T \text{ steps: } \quad
        \tilde x \leftarrow x,\quad x \leftarrow x + \xi,\ \xi \text{ uniform in the ball } r \\
        &T \text{ steps after a kick, if } f(x) - f(\tilde x) > -F:\quad \text{return } \tilde x \\
        &x \leftarrow x - \eta \nabla f(x)

    Parameters
    ----------
    training, parameters
        The function, and its unknowns.
    lr
        :math:`\eta > 0`.
    gradient_threshold, radius, wait, decrease_threshold
        g >= 0, r >= 0, T >= 1 and F >= 0; `perturbed_descent_constants` has the theory's.
    max_steps
        Most steps. Default 10,000.
    seed
        Of the kicks. Default 0.
    apply
        Write the point into the model's parameters. Default True.
    **how
        ``mode``, ``weight``, ``memory``, ``group``: see `Objective`.

    Returns
    -------
    Result
        ``x`` flat; the trace has gradient norm, loss and, as ``perturbed``, the step of the last
        kick (-1: none yet). TOLERANCE: the wait after a kick was in vain.

    Raises
    ------
    ValueError
        For an argument out of range.

    Examples
    --------
    >>> start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> f = lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 4
    >>> result = perturbed_descent(Training.from_function(f, start), lr=0.1,
    ...     gradient_threshold=1e-2, radius=1e-2, wait=100, decrease_threshold=1e-4)
    >>> result.converged, round(f(result.x).item(), 3)
    (True, -1.0)

    References
    ----------
    Jin, Ge, Netrapalli, Kakade & Jordan, ICML 2017 (arXiv 1703.00887), algorithm 2.
    """
    check.number("lr", lr, gt=0)
    check.number("gradient_threshold", gradient_threshold, ge=0)
    check.number("radius", radius, ge=0)
    check.number("wait", wait, ge=1, integer=True)
    check.number("decrease_threshold", decrease_threshold, ge=0)
    check.number("seed", seed, ge=0, integer=True)
    objective = prepared(training, parameters, how)
    generator = torch.Generator().manual_seed(seed)

    def kick() -> Tensor:
        unit = sphere(objective.d, 1, generator, objective.dtype, objective.device)[:, 0]
        share = float(torch.rand((), generator=generator, dtype=torch.float64))
        return radius * share ** (1 / objective.d) * unit

    def step(state: _State) -> _State:
        if state.done:
            raise Stop(Reason.TOLERANCE)
        x, f, g, t, perturbed, base, base_f, _ = state
        if float(g.norm()) <= gradient_threshold and t - perturbed > wait:
            base, base_f, perturbed = x, f, t
            x = x + kick()
            f, g = objective.value_and_gradient(x)
        if t - perturbed == wait and f - base_f > -decrease_threshold:
            f, g = objective.value_and_gradient(base)
            return _State(base, f, g, t + 1, perturbed, base, base_f, True)
        x = x - lr * g
        f, g = objective.value_and_gradient(x)
        return _State(x, f, g, t + 1, perturbed, base, base_f, False)

    x = objective.start
    f, g = objective.value_and_gradient(x)
    result = iterate(
        step,
        _State(x, f, g, 0, -wait - 1, x, f, False),
        measure=lambda s: {
            # at rest is not the end: a norm of exactly zero must not stop the loop
            "gradient_norm": max(float(s.g.norm()), 5e-324),
            "loss": s.f,
            "perturbed": max(s.perturbed, -1),
        },
        point=lambda s: s.x,
        max_steps=max_steps,
    )
    if apply:
        objective.write(result.x)
    return dataclasses.replace(result, info={"loss": objective.value(result.x)})
