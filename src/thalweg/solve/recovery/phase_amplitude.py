"""Phase retrieval on amplitudes: amplitude flow, plain, truncated and reweighted."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from thalweg.core import Result, check
from thalweg.core.catalogue import LogUniform, method
from thalweg.core.signature import with_keywords_of
from thalweg.solve.recovery.phase_descent import FlowOptions, flow
from thalweg.solve.recovery.phase_flow import step_for
from thalweg.solve.recovery.phase_retrieval import PhaseRetrieval


@method(
    paper="Wang, Giannakis, Eldar, IEEE Trans. Information Theory 2018, arXiv:1605.08285",
    year=2018,
    family="phase retrieval",
    problems=(PhaseRetrieval,),
    search_space={"step_size": LogUniform(0.1, 1.5)},
)
@with_keywords_of(flow)
def amplitude_flow(
    problem: PhaseRetrieval,
    *,
    step_size: float | None = None,
    **how: Unpack[FlowOptions],
) -> Result[Tensor]:
    r"""Gradient descent on the squared misfit of the amplitudes :math:`\psi = \sqrt y`.

    .. math:: z \leftarrow z - \mu\, \frac1m \sum_i
        \left(a_i^* z - \psi_i \frac{a_i^* z}{|a_i^* z|}\right) a_i

    Parameters
    ----------
    problem
        A `PhaseRetrieval`.
    step_size
        :math:`\mu > 0`. Default 1 for complex signals, 0.6 for real ones.
    start, tol, xtol, max_steps, max_seconds, halvings, generator, callback, progress
        As in `wirtinger_flow`.

    Returns
    -------
    Result
        As from `wirtinger_flow`.

    Examples
    --------
    >>> problem = PhaseRetrieval.random(50, 400, generator=torch.Generator().manual_seed(0))
    >>> result = amplitude_flow(problem, tol=1e-8)
    >>> result.reason.name, problem.error(result.x).item() < 1e-7
    ('TOLERANCE', True)
    """
    amplitude = problem.intensity.sqrt()
    return flow(
        problem,
        lambda seen, z: amplitude_term(seen, amplitude),
        step_for(problem, step_size, complex_=1.0, real=0.6),
        **how,
    )


@method(
    paper="Wang, Giannakis, Eldar, IEEE Trans. Information Theory 2018, arXiv:1605.08285",
    year=2018,
    family="phase retrieval",
    problems=(PhaseRetrieval,),
    search_space={"step_size": LogUniform(0.1, 1.5), "gamma": LogUniform(0.3, 2.0)},
)
@with_keywords_of(flow)
def truncated_amplitude_flow(
    problem: PhaseRetrieval,
    *,
    step_size: float | None = None,
    gamma: float = 0.7,
    **how: Unpack[FlowOptions],
) -> Result[Tensor]:
    r"""Amplitude flow without the terms whose phase is not to be trusted: the one to try first.

    .. math:: z \leftarrow z - \mu\, \frac1m \sum_{i:\, |a_i^* z| \ge \psi_i / (1 + \gamma)}
        \left(a_i^* z - \psi_i \frac{a_i^* z}{|a_i^* z|}\right) a_i

    Parameters
    ----------
    problem
        A `PhaseRetrieval`.
    step_size
        :math:`\mu > 0`. Default 1 for complex signals, 0.6 for real ones.
    gamma
        :math:`\gamma > 0`: the larger, the more terms are kept. Default 0.7.
    start, tol, xtol, max_steps, max_seconds, halvings, generator, callback, progress
        As in `wirtinger_flow`.

    Returns
    -------
    Result
        As from `wirtinger_flow`.

    Examples
    --------
    >>> problem = PhaseRetrieval.random(50, 400, generator=torch.Generator().manual_seed(0))
    >>> result = truncated_amplitude_flow(problem, tol=1e-8)
    >>> result.reason.name, problem.error(result.x).item() < 1e-7
    ('TOLERANCE', True)
    """
    check.number("gamma", gamma, gt=0)
    amplitude = problem.intensity.sqrt()

    def term(seen: Tensor, z: Tensor) -> Tensor:
        kept = seen.abs() >= amplitude / (1 + gamma)
        return kept * amplitude_term(seen, amplitude)

    return flow(problem, term, step_for(problem, step_size, complex_=1.0, real=0.6), **how)


@method(
    paper="Wang, Giannakis, Saad, Chen, IEEE Trans. Signal Processing 2018, arXiv:1705.10407",
    year=2018,
    family="phase retrieval",
    problems=(PhaseRetrieval,),
    search_space={"step_size": LogUniform(0.5, 8.0), "beta": LogUniform(1.0, 30.0)},
)
@with_keywords_of(flow)
def reweighted_amplitude_flow(
    problem: PhaseRetrieval,
    *,
    step_size: float | None = None,
    beta: float = 10.0,
    **how: Unpack[FlowOptions],
) -> Result[Tensor]:
    r"""Amplitude flow with each term weighed by how far its phase is to be trusted.

    .. math:: z \leftarrow z - \mu\, \frac1m \sum_i
        \frac{|a_i^* z|}{|a_i^* z| + \beta \psi_i}
        \left(a_i^* z - \psi_i \frac{a_i^* z}{|a_i^* z|}\right) a_i

    Near the solution all weights are :math:`1 / (1 + \beta)`, so steps are longer than those of
    `amplitude_flow`.

    Parameters
    ----------
    problem
        A `PhaseRetrieval`.
    step_size
        :math:`\mu > 0`. Default 5 for complex signals, 2 for real ones.
    beta
        :math:`\beta > 0`. Default 10.
    start, tol, xtol, max_steps, max_seconds, halvings, generator, callback, progress
        As in `wirtinger_flow`.

    Returns
    -------
    Result
        As from `wirtinger_flow`.

    Examples
    --------
    >>> problem = PhaseRetrieval.random(50, 400, generator=torch.Generator().manual_seed(0))
    >>> result = reweighted_amplitude_flow(problem, tol=1e-8)
    >>> result.reason.name, problem.error(result.x).item() < 1e-7
    ('TOLERANCE', True)
    """
    check.number("beta", beta, gt=0)
    amplitude = problem.intensity.sqrt()

    def term(seen: Tensor, z: Tensor) -> Tensor:
        modulus = seen.abs()
        # Where nothing is seen and nothing was measured the term is 0, whatever its weight.
        weight = modulus / (modulus + beta * amplitude).clamp(min=torch.finfo(modulus.dtype).tiny)
        return weight * amplitude_term(seen, amplitude)

    return flow(problem, term, step_for(problem, step_size, complex_=5.0, real=2.0), **how)


def amplitude_term(seen: Tensor, amplitude: Tensor) -> Tensor:
    r""":math:`A z - \psi A z / |A z|`, 0 / 0 being 0; the loss is :math:`\||Az| - \psi\|^2 / m`."""
    modulus = seen.abs()
    return torch.where(modulus > 0, 1 - amplitude / modulus, 0.0) * seen
