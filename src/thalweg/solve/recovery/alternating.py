"""Alternating minimization: solve for one factor exactly, then for the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thalweg.core import Result
from thalweg.core.catalogue import method
from thalweg.solve.recovery.completion import MatrixCompletion
from thalweg.solve.recovery.descent import descend
from thalweg.solve.recovery.factors import LowRank
from thalweg.solve.recovery.sampling import Sampling

PRODUCTS_AT_ONCE = 256
"""Columns of pairwise products of a factor that are summed in one sparse product."""


@method(
    paper="Jain, Netrapalli, Sanghavi, STOC 2013, arXiv:1212.0467",
    year=2013,
    family="low-rank recovery",
    problems=(MatrixCompletion,),
)
def alternating_minimization(
    problem: MatrixCompletion,
    *,
    start: str | LowRank = "spectral",
    tol: float = 1e-10,
    xtol: float | None = None,
    max_steps: int = 200,
    max_seconds: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[LowRank]:
    r"""Alternating least squares over the entries that are seen; one step is one sweep over both.

    .. math:: U_i \leftarrow \arg\min_u \sum_{j \in \Omega_i} (u^T V_j - M_{ij})^2
        + \lambda \|u\|^2, \qquad \text{then } V_j \text{ with the new } U

    Each row is an r x r system of normal equations; all of them are solved as one batch. With
    ``ridge`` > 0 this is ALS. The data are not split between the sweeps, as the theory asks.

    Parameters
    ----------
    problem
        A `MatrixCompletion`.
    start
        ``"spectral"`` (default), ``"random"``, or a `LowRank` to continue from; only V is used.
    tol
        Stop at this relative residual, >= 0. Default 1e-10.
    xtol
        Stop at this relative change of the factors. Default 1e-12 (4 roundings in float32).
    max_steps, max_seconds
        Limits. Default 200 sweeps, no limit of time.
    generator
        Of what is random in the start.
    callback, progress
        As in `thalweg.core.iterate`.

    Returns
    -------
    Result
        As of `scaled_gradient`.

    Raises
    ------
    ValueError
        If a row or column holds fewer than r entries and ``ridge`` is 0; it is named.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> problem = MatrixCompletion.random((60, 50), 2, 0.5, generator=generator)
    >>> result = alternating_minimization(problem)
    >>> result.reason.name, problem.error(result.x).item() < 1e-9
    ('TOLERANCE', True)
    """
    require_entries(problem)
    across, down = problem.sampling, problem.sampling.transpose()
    M, M_transposed = problem.observed, problem.observed[..., across.transposed]

    def step(x: LowRank, _: Tensor) -> LowRank:
        U = least_squares(across, M, x.V, problem.ridge)
        V = least_squares(down, M_transposed, U, problem.ridge)
        return LowRank(U, V)

    return descend(
        problem,
        step,
        problem.start(start, generator),
        tol=tol,
        xtol=xtol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        callback=callback,
        progress=progress,
    )


def least_squares(sampling: Sampling, values: Tensor, V: Tensor, ridge: float = 0.0) -> Tensor:
    r"""The rows :math:`u_i` that fit the entries best, given V: shape ``(..., n1, r)``.

    .. math:: \Big(\sum_{j \in \Omega_i} V_j V_j^T + \lambda I\Big) u_i
        = \sum_{j \in \Omega_i} M_{ij} V_j

    The sums on the left are the product of the pattern of the entries, a sparse matrix of ones,
    with the products of pairs of V's columns: memory is O(entries + (n1 + n2) r^2).

    Examples
    --------
    >>> read = Sampling(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), (2, 2))
    >>> least_squares(read, torch.tensor([2.0, 3.0, 3.0]), torch.ones(2, 1)).round()
    tensor([[2.],
            [3.]])
    """
    r = V.shape[-1]
    right = sampling.adjoint(values) @ V
    pattern = sampling.adjoint(torch.ones_like(values))
    gram = right.new_zeros(*right.shape, r)
    for i, j in zip(
        *(indices.split(PRODUCTS_AT_ONCE) for indices in torch.tril_indices(r, r)), strict=True
    ):
        gram[..., i, j] = pattern @ (V[..., i] * V[..., j])  # the lower triangle is all it takes
    if ridge:
        gram.diagonal(dim1=-2, dim2=-1).add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed.any():
        # A row whose entries do not determine it takes the least of its solutions.
        return (torch.linalg.pinv(gram, hermitian=True) @ right.unsqueeze(-1)).squeeze(-1)
    # Two batched substitutions are faster than torch's batched solution from the factor.
    half = torch.linalg.solve_triangular(factor, right.unsqueeze(-1), upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True).squeeze(-1)


def require_entries(problem: MatrixCompletion) -> None:
    """Refuse rows and columns with fewer than r entries, which no sweep can determine."""
    if problem.ridge:
        return
    s: Sampling = problem.sampling
    for name, positions, size in zip(
        ("row", "column"), (s.rows, s.cols), problem.shape, strict=True
    ):
        few = (torch.bincount(positions, minlength=size) < problem.rank).nonzero().flatten()
        if len(few):
            listed = ", ".join(str(int(i)) for i in few[:5])
            more = f" and {len(few) - 5} more" if len(few) > 5 else ""
            raise ValueError(
                f"every {name} must hold at least rank = {problem.rank} entries, too few in "
                f"{listed}{more}: use a smaller rank, or ridge > 0"
            )
