"""Phase retrieval on intensities: Wirtinger flow, plain and truncated."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from thalweg.core import Result, check
from thalweg.core.catalogue import LogUniform, method
from thalweg.core.signature import with_keywords_of
from thalweg.solve.recovery.lines import squared_modulus
from thalweg.solve.recovery.phase_descent import FlowOptions, flow
from thalweg.solve.recovery.phase_retrieval import PhaseRetrieval


@method(
    paper="Candes, Li, Soltanolkotabi, IEEE Trans. Information Theory 2015, arXiv:1407.1065",
    year=2015,
    family="phase retrieval",
    problems=(PhaseRetrieval,),
    search_space={"step_size": LogUniform(0.05, 0.8)},
)
@with_keywords_of(flow)
def wirtinger_flow(
    problem: PhaseRetrieval,
    *,
    step_size: float | None = None,
    ramp: float = 330.0,
    **how: Unpack[FlowOptions],
) -> Result[Tensor]:
    r"""Gradient descent on the squared misfit of the intensities.

    .. math:: z \leftarrow z - \frac{\mu_t}{\|z_0\|^2}\, \frac1m \sum_i
        \left(|a_i^* z|^2 - y_i\right) (a_i^* z)\, a_i, \qquad
        \mu_t = \min(1 - e^{-t / \tau}, \mu)

    Parameters
    ----------
    problem
        A `PhaseRetrieval`.
    step_size
        :math:`\mu > 0`. Default 0.4 for complex signals, 0.2 for real ones.
    ramp
        :math:`\tau \ge 0`, the steps over which the step size grows; 0: it is constant. Default
        330. From a random start, ``step_size=0.1, ramp=0`` is known to work.
    start
        An initializer's name (see `spectral_start`; default ``"optimal"``), ``"random"``, or a
        tensor to continue from.
    tol
        Stop at this relative residual of the intensities, >= 0. Default 1e-10.
    xtol
        Stop at this relative change of the signal. Default 1e-12 (4 roundings in float32).
    max_steps, max_seconds
        Limits. Default 2000 steps, no limit of time.
    halvings
        After divergence, how often to halve the step size and begin again. Default 5.
    generator
        Of what is random in the start.
    callback, progress
        As in `thalweg.core.iterate`.

    Returns
    -------
    Result
        With ``trace["residual"]``, ``trace["value"]`` and, for a problem that knows its truth,
        ``trace["error"]``; ``info["step_size"]`` is the one that was used. The signal is known up
        to a global phase.

    Examples
    --------
    >>> problem = PhaseRetrieval.random(50, 500, generator=torch.Generator().manual_seed(0))
    >>> result = wirtinger_flow(problem, tol=1e-8)
    >>> result.reason.name, problem.error(result.x).item() < 1e-7
    ('TOLERANCE', True)
    """
    check.number("ramp", ramp, ge=0)
    mu = step_for(problem, step_size, complex_=0.4, real=0.2)

    def schedule(t: int, z0: Tensor) -> Tensor:
        grown = min(1 - math.exp(-t / ramp), mu) if ramp > 0 else mu
        return grown / mu / squared_modulus(z0).sum(-1, keepdim=True)

    return flow(
        problem, lambda seen, z: intensity_term(seen, problem.intensity), mu, schedule, **how
    )


@method(
    paper="Chen, Candes, Communications on Pure and Applied Mathematics 2017, arXiv:1505.05114",
    year=2017,
    family="phase retrieval",
    problems=(PhaseRetrieval,),
    search_space={"step_size": LogUniform(0.02, 0.5)},
)
@with_keywords_of(flow)
def truncated_wirtinger_flow(
    problem: PhaseRetrieval,
    *,
    step_size: float = 0.2,
    lower: float = 0.3,
    upper: float = 5.0,
    spread: float = 5.0,
    **how: Unpack[FlowOptions],
) -> Result[Tensor]:
    r"""Ascent of the Poisson likelihood, without the terms that mislead.

    .. math:: z \leftarrow z - \mu\, \frac2m \sum_{i \in E_1 \cap E_2}
        \frac{|a_i^* z|^2 - y_i}{\overline{a_i^* z}}\, a_i, \qquad
        r_i = \frac{\sqrt n\, |a_i^* z|}{\|a_i\| \|z\|}

    .. math:: E_1: \alpha_l \le r_i \le \alpha_u, \qquad
        E_2: \left| y_i - |a_i^* z|^2 \right| \le \alpha_h\, r_i\,
        \operatorname{mean}_k \left| y_k - |a_k^* z|^2 \right|

    Parameters
    ----------
    problem
        A `PhaseRetrieval`.
    step_size
        :math:`\mu > 0`. Default 0.2.
    lower, upper, spread
        :math:`\alpha_l \ge 0`, :math:`\alpha_u > \alpha_l` and :math:`\alpha_h > 0`. Default 0.3,
        5 and 5.
    start, tol, xtol, max_steps, max_seconds, halvings, generator, callback, progress
        As in `wirtinger_flow`.

    Returns
    -------
    Result
        As from `wirtinger_flow`.

    Examples
    --------
    >>> problem = PhaseRetrieval.random(50, 400, generator=torch.Generator().manual_seed(0))
    >>> result = truncated_wirtinger_flow(problem, tol=1e-8)
    >>> result.reason.name, problem.error(result.x).item() < 1e-7
    ('TOLERANCE', True)
    """
    check.number("lower", lower, ge=0)
    check.number("upper", upper, gt=lower)
    check.number("spread", spread, gt=0)
    norms2, size = problem.operator.row_norms2, problem.size()
    relative = (norms2 / norms2.mean(-1, keepdim=True)).sqrt()

    def term(seen: Tensor, z: Tensor) -> Tensor:
        # seen is A z over the root of the mean intensity, which is that of A z for |z| = size.
        ratio = seen.abs() / (relative * (z.norm(dim=-1, keepdim=True) / size))
        return poisson_term(seen, problem.intensity, ratio, lower, upper, spread)

    return flow(problem, term, check.number("step_size", step_size, gt=0), **how)


def intensity_term(seen: Tensor, y: Tensor) -> Tensor:
    r""":math:`(|A z|^2 - y) \odot A z`: of the loss :math:`\frac{1}{2m} \sum (|a^* z|^2 - y)^2`."""
    return (squared_modulus(seen) - y) * seen


def poisson_term(
    seen: Tensor, y: Tensor, ratio: Tensor, lower: float, upper: float, spread: float
) -> Tensor:
    r""":math:`2 (|A z|^2 - y) / \overline{A z}` on :math:`E_1 \cap E_2`, else 0; `ratio` is r."""
    misfit = squared_modulus(seen) - y
    mean = misfit.abs().mean(-1, keepdim=True)
    kept = (ratio >= lower) & (ratio <= upper) & (misfit.abs() <= spread * mean * ratio)
    # Where A z = 0 the quotient is infinite: never kept with lower > 0, and 0 without.
    kept &= seen != 0
    return torch.where(kept, 2 * misfit / torch.where(kept, seen, 1).conj(), 0)


def step_for(
    problem: PhaseRetrieval, step_size: float | None, *, complex_: float, real: float
) -> float:
    """The step size that was asked for, else the one for the field of the signals.

    The long steps that suit complex signals fail on real ones.
    """
    if step_size is not None:
        return float(check.number("step_size", step_size, gt=0))
    return complex_ if problem.operator.dtype.is_complex else real
