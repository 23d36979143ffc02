"""The classic of phase retrieval: error reduction (Gerchberg-Saxton)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thalweg.core import Result
from thalweg.core.catalogue import method
from thalweg.solve.recovery.descent import descend
from thalweg.solve.recovery.phase_descent import PLATEAU, Seen, Start
from thalweg.solve.recovery.phase_retrieval import PhaseRetrieval


@method(
    paper="Gerchberg, Saxton, Optik 1972; Fienup, Applied Optics 1982",
    year=1972,
    family="phase retrieval",
    problems=(PhaseRetrieval,),
    memory="the Q and R of the lines (none for coded diffraction)",
)
def error_reduction(
    problem: PhaseRetrieval,
    *,
    start: Start = "optimal",
    tol: float = 1e-10,
    xtol: float | None = None,
    max_steps: int = 2000,
    max_seconds: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[Tensor]:
    r"""Put the measured amplitudes on the present phases, and solve for the signal; repeat.

    .. math:: z \leftarrow A^+ \left(\psi \odot \frac{A z}{|A z|}\right)

    Nothing to tune. The pseudo-inverse is one QR that is kept; for coded diffraction it is
    diagonal.

    Parameters
    ----------
    problem
        A `PhaseRetrieval`.
    start, tol, xtol, max_steps, max_seconds, generator, callback, progress
        As in `wirtinger_flow`.

    Returns
    -------
    Result
        As from `wirtinger_flow`.

    Examples
    --------
    >>> problem = PhaseRetrieval.random(50, 400, generator=torch.Generator().manual_seed(0))
    >>> result = error_reduction(problem, tol=1e-8)
    >>> result.reason.name, problem.error(result.x).item() < 1e-7
    ('TOLERANCE', True)
    """
    amplitude = problem.intensity.sqrt() * problem.mean.sqrt()
    solve = problem.operator.pseudo_inverse()

    def step(x: Tensor, seen: Tensor) -> Tensor:
        return solve(amplitude * torch.sgn(seen))

    return descend(
        Seen(problem),
        step,
        problem.start(start, generator),
        tol=tol,
        xtol=xtol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        callback=callback,
        progress=progress,
        patience=PLATEAU,
    )
