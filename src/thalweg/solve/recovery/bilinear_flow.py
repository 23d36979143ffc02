"""Blind deconvolution and demixing by Wirtinger flow, and by descent with a regularizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thalweg.core import Reason, Result, Stop, check
from thalweg.core.catalogue import LogUniform, method
from thalweg.solve.recovery.bilinear import Bilinear, BlindDemixing
from thalweg.solve.recovery.descent import descend

COLLAPSED = 1e-6
"""A factor of less than this part of its norm at the start has collapsed."""


@method(
    paper="Dong, Shi, IEEE Trans. Signal Processing 2018, arXiv:1809.06796",
    year=2018,
    family="blind deconvolution",
    problems=(BlindDemixing,),
    search_space={"step_size": LogUniform(0.05, 1.0)},
)
def blind_wirtinger_flow(
    problem: BlindDemixing,
    *,
    step_size: float | None = None,
    start: str | Bilinear = "spectral",
    tol: float = 1e-10,
    xtol: float | None = None,
    max_steps: int = 2000,
    max_seconds: float | None = None,
    halvings: int = 5,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[Bilinear]:
    r"""Gradient descent on both factors of every source, without a regularizer.

    .. math:: h_i \leftarrow h_i - \frac{\eta}{\|x_i\|^2} \nabla_{h_i} f, \qquad
        x_i \leftarrow x_i - \frac{\eta}{\|h_i\|^2} \nabla_{x_i} f

    Parameters
    ----------
    problem
        A `BlindDemixing` or `BlindDeconvolution`.
    step_size
        :math:`\eta > 0`. Default 0.5 for one source, 0.3 for more.
    start
        ``"spectral"`` (default), ``"random"``, or `Bilinear` factors to continue from.
    tol
        Stop at this relative residual, >= 0. Default 1e-10.
    xtol
        Stop at this relative change of the factors. Default 1e-12 (4 roundings in float32).
    max_steps, max_seconds
        Limits. Default 2000 steps, no limit of time.
    halvings
        After divergence, or the collapse of a factor, how often to halve the step size and begin
        again. Default 5.
    generator
        Of the random start.
    callback, progress
        As in `thalweg.core.iterate`.

    Returns
    -------
    Result
        ``info["step_size"]`` is the one that was used; ``info["collapsed"]`` the sources of which a
        factor came down to nothing in the last run, if any.

    Examples
    --------
    >>> problem = BlindDemixing.random(2, 200, generator=torch.Generator().manual_seed(0))
    >>> result = blind_wirtinger_flow(problem, start="random", tol=1e-8,
    ...     generator=torch.Generator().manual_seed(1))
    >>> result.reason.name, problem.error(result.x).item() < 1e-6
    ('TOLERANCE', True)
    """

    def directions(z: Bilinear, misfit: Tensor) -> Bilinear:
        g = problem.gradient(z, misfit)
        gain = problem.gain.unsqueeze(-1)
        return Bilinear(g.h / (gain * _square(z.x)), g.x / (gain * _square(z.h)))

    return _flow(
        problem,
        directions,
        step_size,
        problem.start(start, generator),
        tol=tol,
        xtol=xtol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        halvings=halvings,
        callback=callback,
        progress=progress,
    )


@method(
    paper="Ling, Strohmer, Information and Inference 2019, arXiv:1703.08642; Li, Ling, Strohmer, "
    "Wei, Applied and Computational Harmonic Analysis 2019, arXiv:1606.04933",
    year=2017,
    family="blind deconvolution",
    problems=(BlindDemixing,),
    search_space={"step_size": LogUniform(0.05, 1.0)},
)
def regularized_blind_descent(
    problem: BlindDemixing,
    *,
    step_size: float | None = None,
    coherence: float | None = None,
    weight: float = 1.0,
    start: str | Bilinear = "spectral",
    tol: float = 1e-10,
    xtol: float | None = None,
    max_steps: int = 2000,
    max_seconds: float | None = None,
    halvings: int = 5,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[Bilinear]:
    r"""Gradient descent with penalties on long factors and on coherent h.

    .. math:: G = \rho \sum_i \bigg[ G_0\Big(\frac{\|h_i\|^2}{2 d_i}\Big)
        + G_0\Big(\frac{\|x_i\|^2}{2 d_i}\Big)
        + \sum_j G_0\Big(\frac{m |b_j^* h_i|^2}{8 d_i \mu^2}\Big) \bigg],
        \qquad G_0(t) = \max(t - 1, 0)^2

    and :math:`z_i \leftarrow z_i - (\eta / d_i) \nabla_{z_i} (f + G)` for both factors, with
    :math:`d_i` the norm of :math:`h_i x_i^*` at the start.

    Parameters
    ----------
    problem
        A `BlindDemixing` or `BlindDeconvolution`.
    step_size
        :math:`\eta > 0`. Default 0.5 for one source, 0.3 for more, as for `blind_wirtinger_flow`.
    coherence
        :math:`\mu > 0`, for which :math:`\sqrt m \, |b_j^* h_i| \le \mu \|h_i\|` is expected.
        Default: that of the start.
    weight
        :math:`\rho / \sum d_i^2 \ge 0`. Default 1.
    start, tol, xtol, max_steps, max_seconds, halvings, generator, callback, progress
        As in `blind_wirtinger_flow`.

    Returns
    -------
    Result
        As from `blind_wirtinger_flow`.

    Examples
    --------
    >>> problem = BlindDemixing.random(2, 200, generator=torch.Generator().manual_seed(0))
    >>> regularized_blind_descent(problem, tol=1e-8).reason.name
    'TOLERANCE'
    """
    check.number("weight", weight, ge=0)
    first = problem.start(start, generator)
    unit = problem.gain.unsqueeze(-1).sqrt()
    d = (_square(first.h) * _square(first.x)).sqrt() * unit  # as the data see it
    if coherence is None:
        energy = problem.left(first.h).abs().square()
        mu2 = energy.amax(-1, keepdim=True) / energy.mean(-1, keepdim=True)
    else:
        mu2 = d.new_tensor(float(check.number("coherence", coherence, gt=0)) ** 2)
    rho = weight * d.square().sum((-2, -1), keepdim=True)

    def directions(z: Bilinear, misfit: Tensor) -> Bilinear:
        g, extra = problem.gradient(z, misfit), penalty_gradient(problem, z, d, mu2, rho)
        return Bilinear((g.h + extra.h) / (d * unit), (g.x + extra.x) / (d * unit))

    return _flow(
        problem,
        directions,
        step_size,
        first,
        tol=tol,
        xtol=xtol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        halvings=halvings,
        callback=callback,
        progress=progress,
    )


def penalty(problem: BlindDemixing, z: Bilinear, d: Tensor, mu2: Tensor, rho: Tensor) -> Tensor:
    r"""G of `regularized_blind_descent`, with the factors' norms as the data see them.

    Examples
    --------
    >>> problem = BlindDemixing.random(1, 50, generator=torch.Generator().manual_seed(0))
    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> penalty(problem, problem.truth, one, 10 * one, one).item()
    0.0
    """
    unit, m = problem.gain.unsqueeze(-1).sqrt(), problem.y.shape[-1]
    h, x = _square(z.h) * unit, _square(z.x) * unit
    seen = _seen(problem, z.h)
    parts = _excess(h / (2 * d)).square() + _excess(x / (2 * d)).square()
    peaks = _excess(m * seen.abs().square() * unit / (8 * d * mu2)).square().sum(-1, keepdim=True)
    return (rho * (parts + peaks)).sum((-2, -1))


def penalty_gradient(
    problem: BlindDemixing, z: Bilinear, d: Tensor, mu2: Tensor, rho: Tensor
) -> Bilinear:
    r"""Wirtinger gradient of `penalty`, with :math:`G_0' = 2 \max(t - 1, 0)`.

    Examples
    --------
    >>> problem = BlindDemixing.random(1, 50, generator=torch.Generator().manual_seed(0))
    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> penalty_gradient(problem, problem.truth, one, 10 * one, one).x.abs().max().item()
    0.0
    """
    unit, m = problem.gain.unsqueeze(-1).sqrt(), problem.y.shape[-1]
    h, x = _square(z.h) * unit, _square(z.x) * unit
    seen, scale = _seen(problem, z.h), unit / (2 * d)
    peaks = _excess(m * seen.abs().square() * unit / (8 * d * mu2)) * seen
    pull = problem.left_adjoint(peaks) * m / (4 * mu2) / _columns(problem) ** 0.5
    return Bilinear(
        2 * rho * scale * (_excess(h / (2 * d)) * z.h + pull),
        2 * rho * scale * _excess(x / (2 * d)) * z.x,
    )


def _flow(
    problem: BlindDemixing,
    directions: Callable[[Bilinear, Tensor], Bilinear],
    step_size: float | None,
    start: Bilinear,
    *,
    halvings: int,
    **how: Any,
) -> Result[Bilinear]:
    """Descend; after divergence, or the collapse of a factor, again with half the step size."""
    check.number("halvings", halvings, ge=0, integer=True)
    eta = 0.5 if problem.n_sources == 1 else 0.3
    if step_size is not None:
        eta = float(check.number("step_size", step_size, gt=0))
    least = [COLLAPSED**2 * _square(v) for v in start]
    for k in range(halvings + 1):
        collapsed: list[int] = []
        length = eta / 2**k

        def step(z: Bilinear, misfit: Tensor) -> Bilinear:
            gone = torch.stack([_square(v) < low for v, low in zip(z, least, strict=True)])
            if gone.any():
                collapsed[:] = gone.squeeze(-1).nonzero()[:, -1].unique().tolist()  # noqa: B023
                raise Stop(Reason.NONFINITE)
            direction = directions(z, misfit)
            return Bilinear(z.h - length * direction.h, z.x - length * direction.x)  # noqa: B023

        result = descend(problem, step, start, **how)
        if result.reason is not Reason.NONFINITE:
            break
    info = {**result.info, "step_size": length, "collapsed": collapsed}
    return dataclasses.replace(result, info=info)


def _square(v: Tensor) -> Tensor:
    return v.abs().square().sum(-1, keepdim=True)


def _excess(t: Tensor) -> Tensor:
    return (t - 1).clamp(min=0)


def _columns(problem: BlindDemixing) -> float:
    """Squared length of a column of B."""
    if not isinstance(problem.B, Tensor):
        return 1.0
    return float(problem.B.abs().square().sum(0).mean())


def _seen(problem: BlindDemixing, h: Tensor) -> Tensor:
    """B h for columns of B of unit length."""
    return problem.left(h) / _columns(problem) ** 0.5
