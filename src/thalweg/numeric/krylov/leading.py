"""Leading eigenvectors and singular vectors, to a residual: what spectral methods start from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric.krylov.lanczos import Lanczos, sphere
from thalweg.numeric.krylov.restart import thick_restart
from thalweg.numeric.operator import FunctionOperator, dense

DENSE_UP_TO = 512


def leading_eigs(
    matmat: Callable[[Tensor], Tensor],
    n: int,
    k: int,
    dtype: torch.dtype,
    *,
    device: torch.device | str = "cpu",
    steps: int = 300,
    tol: float = 1e-8,
    memory: int = 2**30,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""The k algebraically largest eigenpairs of a symmetric (Hermitian) matrix.

    .. math:: A y_i = \lambda_i y_i, \qquad \lambda_1 \ge \dots \ge \lambda_k

    Block Lanczos with k vectors per step, so eigenvalues of multiplicity up to k are found; it
    goes on until every residual :math:`\|A y_i - t_i y_i\| \le \text{tol}\, |t_1|`. Dense when
    n <= 512.

    Parameters
    ----------
    matmat
        ``(n, b) -> (n, b)``: the product with a block.
    n
        Order of the matrix.
    k
        Pairs, in [1, n].
    dtype, device
        Of the vectors; real or complex.
    steps
        Block steps at most, >= 1. Default 300. If they do not suffice, a warning says so.
    tol
        > 0. Default 1e-8; in single precision not below 5e-6.
    memory
        Bytes of basis vectors; thick restarts keep to it. Default 1 GiB.
    generator
        Source of the start. Default: a new one of seed 0.

    Returns
    -------
    values
        ``(k,)``, real, descending.
    vectors
        ``(n, k)``, orthonormal.

    Raises
    ------
    ValueError
        For an argument out of range, or a matrix that is not Hermitian or not finite.

    Examples
    --------
    >>> d = torch.linspace(0, 1, 2000, dtype=torch.float64)
    >>> values, vectors = leading_eigs(lambda V: d[:, None] ** 8 * V, 2000, 1, torch.float64)
    >>> round(float(values[0]), 10), vectors.shape
    (1.0, torch.Size([2000, 1]))

    References
    ----------
    Golub & Underwood, "The block Lanczos method for computing eigenvalues", 1977.
    """
    k = int(check.number("k", k, ge=1, le=n, integer=True))
    steps = int(check.number("steps", steps, ge=1, integer=True))
    check.number("tol", tol, gt=0)
    check.number("memory", memory, gt=0)
    operator = FunctionOperator(matmat, n, dtype, device)
    real = dtype.to_real()
    if n <= DENSE_UP_TO or 3 * k >= n:
        A = dense(operator)
        if not bool(torch.isfinite(A).all()):
            raise ValueError("matmat returned a product that is not finite")
        values, vectors = torch.linalg.eigh((A + A.mH) / 2)
        return values[-k:].flip(0), vectors[:, -k:].flip(1)
    tol = max(tol, 5e-6 if torch.finfo(dtype).eps > 1e-10 else 1e-13)
    room = max(int(memory // (n * dtype.itemsize)), 4 * k)
    process = Lanczos(sphere(n, k, generator, dtype, device))
    look = 4
    while True:
        done = not process.active or process.steps == steps
        if done or process.steps == look:
            values, Z, residuals = process.ritz()
            worst = float(residuals[-k:].max())
            met = worst <= tol * abs(float(values[-1]))
            if met or done:
                break
            look += max(2, look // 4)  # seldom enough that small eigenproblems stay cheap
        if process.m + process.V.shape[1] > room:
            thick_restart(process, 0, max(k, room // 2))
        process.step(operator @ process.V)
    if not met and process.active:
        check.warn(
            f"leading_eigs: after steps = {steps} the largest residual is {worst:.2g}, above "
            f"tol = {tol:g} times {abs(float(values[-1])):.3g}"
        )
    kept = torch.arange(process.m - 1, process.m - k - 1, -1)
    return values[kept].to(device=device, dtype=real), process.vectors(Z[:, kept])


def leading_svd(
    matmat: Callable[[Tensor], Tensor],
    rmatmat: Callable[[Tensor], Tensor],
    shape: tuple[int, int],
    k: int,
    dtype: torch.dtype,
    *,
    device: torch.device | str = "cpu",
    steps: int = 300,
    tol: float = 1e-8,
    memory: int = 2**30,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The k largest singular triples of a matrix of shape ``(n1, n2)``.

    .. math:: A v_i = s_i u_i, \qquad A^* u_i = s_i v_i, \qquad s_1 \ge \dots \ge s_k

    Block Lanczos on the smaller of :math:`A^* A` and :math:`A A^*`, until its residuals are at most
    :math:`\text{tol}\, s_1^2`; then one decomposition of :math:`A V` (or :math:`A^* U`), so that
    values keep the accuracy that squaring loses; triples below :math:`\sqrt{\text{tol}}\, s_1` are
    not resolved. Dense when both sides are <= 512.

    Parameters
    ----------
    matmat
        ``(n2, b) -> (n1, b)``: products with A.
    rmatmat
        ``(n1, b) -> (n2, b)``: products with the adjoint.
    shape
        ``(n1, n2)``.
    k
        Triples, in [1, min(n1, n2)].
    dtype, device, steps, tol, memory, generator
        As in `leading_eigs`.

    Returns
    -------
    U, S, V
        ``(n1, k)``, ``(k,)`` descending, ``(n2, k)``: A is about ``(U * S) @ V.mH``. V is not
        conjugated or transposed.

    Examples
    --------
    >>> A = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    >>> U, S, V = leading_svd(lambda V: A @ V, lambda U: A.mT @ U, (3, 3), 2, torch.float64)
    >>> [round(s, 9) for s in S.tolist()]
    [3.0, 2.0]

    References
    ----------
    Golub & Van Loan, "Matrix Computations", 4th ed., ch. 10.
    """
    n1, n2 = shape
    k = int(check.number("k", k, ge=1, le=min(n1, n2), integer=True))
    if max(n1, n2) <= DENSE_UP_TO:
        A = matmat(torch.eye(n2, dtype=dtype, device=device))
        U, S, Vh = torch.linalg.svd(A, full_matrices=False)
        return U[:, :k], S[:k], Vh[:k].mH
    if n1 < n2:
        V, S, U = leading_svd(
            rmatmat, matmat, (n2, n1), k, dtype, device=device, steps=steps, tol=tol,
            memory=memory, generator=generator,
        )  # fmt: skip
        return U, S, V
    _, V = leading_eigs(
        lambda X: rmatmat(matmat(X)), n2, k, dtype, device=device, steps=steps, tol=tol,
        memory=memory, generator=generator,
    )  # fmt: skip
    U, S, Wh = torch.linalg.svd(matmat(V), full_matrices=False)
    return U, S, V @ Wh.mH
