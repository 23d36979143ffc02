"""Spectra of curvature operators: both ends with bounds, and the whole as a density."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from thalweg.curvature.density import Density, density
from thalweg.numeric.krylov import ExtremeEigenvalues, extreme_eigenvalues
from thalweg.numeric.operator import LinearOperator

__all__ = ["Density", "ExtremeEigenvalues", "density", "extremes"]


def extremes(
    H: LinearOperator,
    k: int = 1,
    *,
    steps: int | None = None,
    tol: float | None = None,
    delta: float = 1e-3,
    dense: bool | Literal["auto"] = "auto",
    starts: int = 1,
    block: int = 1,
    method: Literal["lanczos", "lobpcg"] = "lanczos",
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    memory: int = 2**31,
    noise: float | None = None,
    generator: torch.Generator | None = None,
) -> ExtremeEigenvalues:
    r"""Lowest and highest eigenvalues of a curvature operator, with eigenvectors and bounds.

    With :math:`t_1, t_m` the extreme Ritz values of `steps` Lanczos steps from a random start,

    .. math:: t_1 - a_1 \le \lambda_{\min} \le t_1, \qquad t_m \le \lambda_{\max} \le t_m + a_m

    where the inner inequalities always hold (``t_1 < 0`` proves negative curvature along the
    vector that comes with it), and the outer ones with probability at least
    :math:`1 - \delta` over the start:

    .. math:: a = \frac{\varepsilon}{1 - 2 \varepsilon} (t_m - t_1), \qquad
              \varepsilon = \Big( \frac{\ln(3.296 \sqrt d / \delta)}{2k - 1} \Big)^2

    for k steps, or less where the Krylov space is nearly invariant. Below d = 500 the dense
    matrix is decomposed and nothing can be missed.

    Parameters
    ----------
    H
        Symmetric: a Hessian, a Gauss-Newton or Fisher matrix, or any other `LinearOperator`.
    k
        Pairs at each end, >= 1. Default 1. Pairs inside the ends carry their residual only.
    steps
        Lanczos steps per start at most. Default max(64, 4 k).
    tol
        Stop early once every residual is at most ``tol`` times the largest absolute value; the
        bounds are then as wide as the fewer steps leave them. Default None: all steps.
    delta
        Probability with which the bounds may fail, in (0, 1). Default 1e-3.
    dense
        True, False, or ``"auto"`` (default): below d = 500.
    starts, block
        Independent starts, and vectors per start: a block finds eigenvalues of multiplicity up to
        its size. Default 1 and 1.
    method
        ``"lanczos"`` (default) or ``"lobpcg"`` with a `preconditioner` for the lowest pairs; that
        gives no outer bounds.
    preconditioner
        ``(d, b) -> (d, b)``, such as the division by the diagonal of the Gauss-Newton matrix.
    memory
        Bytes of basis vectors. Default 2 GiB; with less, thick restarts are made.
    noise
        Error of a product with a unit vector. Default 1e-6 (float32) or 1e-14 (float64) times the
        largest absolute value. It widens every interval.
    generator
        Source of the starts. Default: a new one of seed 0. The global generators are not used.

    Returns
    -------
    ExtremeEigenvalues
        Values, vectors, residuals, bounds, cost; ``print`` it.

    Raises
    ------
    ValueError
        For an argument out of range, or an operator that is not symmetric or not finite.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> H = as_operator(torch.diag(torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)))
    >>> print(extremes(H))
    lambda_min in [-1, -1], lambda_max in [2, 2]
    all eigenvalues of the dense matrix; 3 products, n = 3
    lowest: -1 +- 0.0e+00
    highest: 2 +- 0.0e+00

    References
    ----------
    Kuczynski & Wozniakowski, SIAM J. Matrix Anal. Appl. 13(4), 1992; Parlett, "The Symmetric
    Eigenvalue Problem", SIAM 1998; Knyazev, SIAM J. Sci. Comput. 23(2), 2001.
    """
    return extreme_eigenvalues(
        H, k, steps=steps, tol=tol, delta=delta, dense=dense, starts=starts, block=block,
        method=method, preconditioner=preconditioner, memory=memory, noise=noise,
        generator=generator,
    )  # fmt: skip
