"""Thick restart: go on with the best Ritz vectors when no more vectors fit in memory."""

from __future__ import annotations

import torch

from thalweg.numeric.krylov.lanczos import Lanczos


def thick_restart(process: Lanczos, low: int, high: int) -> None:
    r"""Shrink the basis of a Lanczos process to its lowest and highest Ritz vectors.

    .. math:: A Q = Q T + V C \;\longrightarrow\;
              A (Q Z) = (Q Z) \operatorname{diag}(t) + V (C Z)

    V stays, so the next step needs no product more than without the restart; the process goes on
    as a Krylov-Schur iteration. What is known about missed eigenvalues is what the first cycle
    said: later spaces do not contain the start.

    Parameters
    ----------
    process
        Changed in place.
    low, high
        How many Ritz vectors stay at each end, >= 0; all stay if there are no more.

    Examples
    --------
    >>> process = Lanczos(torch.ones(50, dtype=torch.float64))
    >>> A = torch.diag(torch.linspace(-1, 1, 50, dtype=torch.float64))
    >>> while process.coupling > 1e-10 or process.m < 4:
    ...     process.step(A @ process.V)
    ...     if process.m == 16:
    ...         thick_restart(process, low=4, high=4)
    ...         if process.ritz().residuals[0] < 1e-9:
    ...             break
    >>> round(float(process.ritz().values[0]), 9)
    -1.0

    References
    ----------
    Wu & Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM J.
    Matrix Anal. Appl. 22(2), 2000; Stewart, "A Krylov-Schur algorithm", 2001.
    """
    values, Z, _ = process.ritz()
    m = process.m
    if low + high >= m:
        return
    kept = torch.cat([torch.arange(low), torch.arange(m - high, m)])
    process.replace(Z[:, kept], values[kept])
