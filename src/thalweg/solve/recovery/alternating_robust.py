"""Robust alternating minimization: the regressions solved only as well as they need be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.core import Result, check
from thalweg.core.catalogue import method
from thalweg.solve.recovery.alternating import least_squares
from thalweg.solve.recovery.completion import MatrixCompletion
from thalweg.solve.recovery.descent import descend
from thalweg.solve.recovery.factors import LowRank
from thalweg.solve.recovery.row_regressions import (
    conjugate_gradient_rows,
    divide_by_triangles,
    sketched_triangles,
)
from thalweg.solve.recovery.sampling import Sampling

Inner = Literal["auto", "cholesky", "cg", "sketch"]

CHOLESKY_UP_TO = 32
"""Ranks up to which ``inner="auto"`` solves the normal equations directly."""


@method(
    paper="Gu, Song, Yin, Zhang, ICLR 2024, arXiv:2302.11068",
    year=2024,
    family="low-rank recovery",
    problems=(MatrixCompletion,),
)
def robust_alternating_minimization(
    problem: MatrixCompletion,
    *,
    inner: Inner = "auto",
    accuracy: float | None = None,
    incoherence: float | None = None,
    start: str | LowRank = "spectral",
    tol: float = 1e-10,
    xtol: float | None = None,
    max_steps: int = 200,
    max_seconds: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[LowRank]:
    r"""Alternating minimization in nearly linear time, by regressions that are not solved exactly.

    .. math:: V \leftarrow \operatorname{orth}\Big(\arg\min_V
            \|P_\Omega(U V^T - M)\|\Big), \qquad
        U \leftarrow \arg\min_U \|P_\Omega(U V^T - M)\|, \qquad U^T U = I \text{ in the first}

    Each to a relative accuracy of :math:`\min(10^{-3}, 0.01\, \rho)`, with :math:`\rho` the
    relative residual after the last sweep. Since one factor is orthonormal, the systems are well
    conditioned whatever the matrix: conjugate gradients take a number of steps that its condition
    number does not change, O(entries r) each.

    Parameters
    ----------
    problem
        A `MatrixCompletion`.
    inner
        How the regressions are solved. ``"cholesky"``: exactly, O(entries r^2). ``"cg"``: conjugate
        gradients. ``"sketch"``: conjugate gradients preconditioned by a sparse sketch of 4 r rows;
        for factors far from incoherent; not for batches. ``"auto"`` (default): Cholesky up to rank
        32, conjugate gradients above.
    accuracy
        > 0: use this instead of the schedule.
    incoherence
        :math:`\mu > 0`: rows of the orthonormal start longer than :math:`2 \mu \sqrt{r / n_1}` are
        set to zero first, as the theory asks. Default: skip that.
    start
        ``"spectral"`` (default), ``"random"``, or a `LowRank` to continue from; only U is used.
    tol
        Stop at this relative residual, >= 0. Default 1e-10.
    xtol
        Stop at this relative change of the factors. Default 1e-12 (4 roundings in float32).
    max_steps, max_seconds
        Limits. Default 200 sweeps, no limit of time.
    generator
        Of what is random in the start, and of the sketch.
    callback, progress
        As in `thalweg.core.iterate`.

    Returns
    -------
    Result
        As of `scaled_gradient`; ``info["iterations"]`` are those of the conjugate gradients, one
        number per sweep (both halves together).

    Warns
    -----
    UserWarning
        If a row or column holds fewer than r entries: it gets the least of its solutions.

    Notes
    -----
    With ``ridge`` > 0 the penalty depends on the factors, so they are not made orthonormal: the
    method is then ALS by conjugate gradients, to an accuracy of 1e-8. The data are not split
    between the sweeps, as the theory asks.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> problem = MatrixCompletion.random((60, 50), 2, 0.5, generator=generator)
    >>> result = robust_alternating_minimization(problem, inner="cg")
    >>> result.reason.name, problem.error(result.x).item() < 1e-9
    ('TOLERANCE', True)
    """
    check.choice("inner", inner, ("auto", "cholesky", "cg", "sketch"))
    for name, value in (("accuracy", accuracy), ("incoherence", incoherence)):
        if value is not None:
            check.number(name, value, gt=0)
    if inner == "auto":
        inner = "cholesky" if problem.rank <= CHOLESKY_UP_TO else "cg"
    if inner == "sketch" and problem.observed.ndim > 1:
        raise ValueError('inner must be "cholesky" or "cg" for a batch, got "sketch"')
    _warn_of_few_entries(problem)
    if generator is None:
        generator = torch.Generator(problem.observed.device).manual_seed(0)
    across, down = problem.sampling, problem.sampling.transpose()
    M, M_transposed = problem.observed, problem.observed[..., across.transposed]
    iterations: list[int] = []

    def regress(sampling: Sampling, values: Tensor, V: Tensor, epsilon: float) -> Tensor:
        if inner == "cholesky":
            return least_squares(sampling, values, V, problem.ridge)
        precondition = None
        if inner == "sketch":
            R = sketched_triangles(sampling, V, 4 * V.shape[-1], generator)
            precondition = divide_by_triangles(R)
        U, taken = conjugate_gradient_rows(
            sampling, values, V, epsilon, problem.ridge, precondition
        )
        iterations[-1] += taken
        return U

    def step(x: LowRank, misfit: Tensor) -> LowRank:
        epsilon = accuracy
        if epsilon is None:
            residual = float(problem.residual_of(misfit).max())
            epsilon = 1e-8 if problem.ridge else min(1e-3, 0.01 * residual)
        epsilon = max(epsilon, 10 * torch.finfo(M.dtype).eps)
        orthonormal = (lambda F: F) if problem.ridge else (lambda F: torch.linalg.qr(F).Q)
        iterations.append(0)
        V = orthonormal(regress(down, M_transposed, orthonormal(x.U), epsilon))
        return LowRank(regress(across, M, V, epsilon), V)

    first = problem.start(start, generator)
    if incoherence is not None:
        first = LowRank(_without_long_rows(first.U, incoherence), first.V)
    result = descend(
        problem,
        step,
        first,
        tol=tol,
        xtol=xtol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        callback=callback,
        progress=progress,
    )
    return dataclasses.replace(result, info={**result.info, "iterations": iterations})


def _without_long_rows(U: Tensor, incoherence: float) -> Tensor:
    Q = torch.linalg.qr(U).Q
    n, r = Q.shape[-2:]
    short = Q.norm(dim=-1, keepdim=True) <= 2 * incoherence * (r / n) ** 0.5
    return torch.linalg.qr(torch.where(short, Q, 0.0)).Q


def _warn_of_few_entries(problem: MatrixCompletion) -> None:
    if problem.ridge:
        return
    s = problem.sampling
    for name, positions, size in (("row", s.rows, s.shape[0]), ("column", s.cols, s.shape[1])):
        few = int((torch.bincount(positions, minlength=size) < problem.rank).sum())
        if few:
            check.warn(
                f"{few} {name}{'s hold' if few > 1 else ' holds'} fewer than rank = {problem.rank} "
                "entries, which do not determine them: they get the least of their solutions; use "
                "a smaller rank, or ridge > 0"
            )
