"""Both ends of a Hessian's spectrum, looked for step by step until a question is settled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.curvature.symmetry import Projected
from thalweg.numeric.krylov import krylov_epsilon, random_start_bounds, width_allowance
from thalweg.numeric.krylov.bounds import FACTOR
from thalweg.numeric.krylov.lanczos import sphere
from thalweg.numeric.krylov.ritz import relative_noise
from thalweg.numeric.krylov.runs import EndsRun, advance, room
from thalweg.numeric.operator import LinearOperator
from thalweg.numeric.operator import dense as matrix_of


@dataclass(frozen=True)
class Ends:
    r"""What is known of the ends of a spectrum.

    Attributes
    ----------
    low, high
        The extreme values found: :math:`\lambda_{\min} \le` low + noise and high - noise
        :math:`\le \lambda_{\max}`.
    lower, upper
        All eigenvalues lie between them, noise included, with probability >= 1 - failure.
    noise
        :math:`\nu_H`, the error of a product with a unit vector.
    resolution
        How far `lower` will be below `low` once the budget is spent.
    order
        Of the matrix (without the tangents of symmetries).
    dense
        Whether all eigenvalues were computed.
    final
        Whether nothing more will come.
    failure
        The share of the probability of failure that a budget is computed with.
    vectors
        Call it for the eigenvectors of low and high, ``(d, 2)``.
    nodes, weights
        A measure of the spectrum: the eigenvalues with equal weights, or the Ritz values with
        those of the start.
    """

    low: float
    high: float
    lower: float
    upper: float
    noise: float
    resolution: float
    order: int
    dense: bool
    final: bool
    failure: float
    vectors: Callable[[], Tensor]
    nodes: Tensor
    weights: Tensor

    @property
    def width(self) -> float:
        """The width found."""
        return self.high - self.low


def settling_steps(d: int, width: float, margin: float, failure: float) -> int:
    r"""Lanczos steps after which the lower bound is within `margin` of the lowest Ritz value.

    .. math:: \varepsilon = \frac{m}{W + 2m}, \qquad
              k = \frac12 \Big( 1 + \frac{\ln(3.296 \sqrt d / \delta)}{\sqrt\varepsilon} \Big)

    Parameters
    ----------
    d
        Order of the matrix.
    width
        W, the width of the spectrum.
    margin
        m > 0.
    failure
        :math:`\delta`, the probability of failure.

    Examples
    --------
    >>> settling_steps(10**6, 50.0, 0.01, 1e-3)
    532
    """
    eps = margin / (width + 2 * margin)
    return math.ceil((1 + math.log(2 * FACTOR * math.sqrt(d) / failure) / math.sqrt(eps)) / 2)


def dense_ends(H: LinearOperator, S: Tensor | None, least_noise: float) -> Ends:
    """All eigenvalues, from as many products as H has rows.

    Parameters
    ----------
    H
        Symmetric.
    S
        Orthonormal columns to leave out, or None.
    least_noise
        A lower bound of the noise, >= 0.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> ends = dense_ends(as_operator(torch.diag(torch.tensor([1.0, 2.0, -3.0]))), None, 0.0)
    >>> ends.low, ends.high
    (-3.0, 2.0)
    """
    A = matrix_of(H).to(torch.float64)
    if not bool(torch.isfinite(A).all()):
        raise ValueError("the Hessian must be finite, got an infinity or NaN in a product")
    defect = float(torch.linalg.matrix_norm(A - A.T, 2)) / 2
    A = (A + A.T) / 2
    basis = None
    if S is not None:
        basis = torch.linalg.qr(S.to(A), mode="complete").Q[:, S.shape[1] :]
        A = basis.T @ A @ basis
    values, Z = torch.linalg.eigh(A)
    size, eps = float(values.abs().max()), torch.finfo(H.dtype).eps
    if defect > math.sqrt(eps) * size:  # the rounding of cancelling sums; see `Lanczos`
        defect = max(defect, eps)
    noise = max(least_noise, defect, relative_noise(H.dtype) * size)

    def vectors() -> Tensor:
        Y = Z[:, [0, -1]]
        return (Y if basis is None else basis @ Y).to(H.dtype)

    low, high = float(values[0]), float(values[-1])
    return Ends(
        low, high, low - noise, high + noise, noise, noise, len(values), True, True, 0.0, vectors,
        values.cpu(), torch.full((len(values),), 1 / len(values), dtype=torch.float64),
    )  # fmt: skip


def lanczos_ends(
    H: LinearOperator, S: Tensor | None, least_noise: float, steps: int, failure: float,
    generator: torch.Generator, memory: int = 2**31,
) -> Iterator[Ends]:  # fmt: skip
    r"""What is known after 16, 32, 64, ... Lanczos steps, `steps` at most.

    The event on which the bounds of one start fail does not depend on the number of steps, so
    looking often costs no probability. Where a space becomes invariant before the caller is
    satisfied, a further start is made; start j has :math:`\delta / 2^j` of the probability.

    Parameters
    ----------
    H
        Symmetric.
    S
        Orthonormal columns to leave out, or None.
    least_noise
        A lower bound of the noise, >= 0.
    steps
        Most products.
    failure
        :math:`\delta`, for all that is yielded together.
    generator
        Of the starts.
    memory
        Bytes of basis vectors; beyond them thick restarts are made.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> A = as_operator(torch.diag(torch.linspace(-1, 1, 100, dtype=torch.float64)))
    >>> generator = torch.Generator().manual_seed(0)
    >>> *_, ends = lanczos_ends(A, None, 0.0, 100, 1e-3, generator)
    >>> round(ends.low, 9), round(ends.lower, 9), round(ends.high, 9)
    (-1.0, -1.0, 1.0)
    """
    n = H.shape[0]
    order = n if S is None else n - S.shape[1]
    operator = H if S is None else Projected(H, S)
    fits = room(H, memory, 1, 1, 1)
    runs: list[EndsRun] = []
    lower, upper, spent, share = -math.inf, math.inf, 0, failure
    while spent < steps:
        start = sphere(n, 1, generator, H.dtype, H.device)
        if isinstance(operator, Projected):
            start = operator.project(operator.project(start))
        # on the CPU memory is only taken when it is written to, and growing would copy
        at_once = steps - spent if H.device.type == "cpu" else 16
        run = EndsRun(start, 1, fits, capacity=min(at_once, order, fits))
        runs.append(run)
        share /= 2  # delta/2 + delta/4 + ... : each number of starts has its own event
        before, wanted, room_left = spent, 0, min(steps - spent, order)
        while run.process.active and wanted < room_left:
            wanted = min(max(2 * wanted, 16), room_left)
            advance(operator, [run], wanted, None)
            spent = before + run.process.steps
            best = [r.process.ritz() for r in runs]
            low = min(float(pairs.values[0]) for pairs in best)
            high = max(float(pairs.values[-1]) for pairs in best)
            rounding = max(r.process.rounding for r in runs)
            noise = max(least_noise, rounding, relative_noise(H.dtype) * max(abs(low), abs(high)))
            if run.process.steps >= order:  # the whole space: nothing can be missed
                lower, upper = max(lower, low), min(upper, high)
            else:
                bounds = random_start_bounds(order, [r.ends() for r in runs], share)
                lower, upper = max(lower, bounds.lower), min(upper, bounds.upper)
            eps = krylov_epsilon(order, min(steps, order), failure / 2)
            at_the_end = min(width_allowance(high - low, eps), low - lower)
            _, Z, _ = run.process.ritz()
            yield Ends(
                low, high, min(lower, low) - noise, max(upper, high) + noise, noise,
                at_the_end + noise, order, False, spent >= steps or run.process.steps >= order,
                failure / 2, lambda: _extreme_vectors(runs), best[-1].values, Z[0] ** 2,
            )  # fmt: skip
        if run.process.steps >= order:
            return


def _extreme_vectors(runs: list[EndsRun]) -> Tensor:
    """The Ritz vectors of the lowest and of the highest value of all runs."""
    found = [(run.process, run.process.ritz()) for run in runs]
    low, pairs = min(found, key=lambda each: float(each[1].values[0]))
    first = low.vectors(pairs.coordinates[:, :1])
    high, pairs = max(found, key=lambda each: float(each[1].values[-1]))
    Y = torch.cat([first, high.vectors(pairs.coordinates[:, -1:])], dim=1)
    return Y / torch.linalg.vector_norm(Y, dim=0)
