r"""What a Lanczos run from a random start says about the eigenvalues it has not seen.

A symmetric of order d, eigenvalues :math:`\lambda_1 \le \dots \le \lambda_d`, width
:math:`w = \lambda_d - \lambda_1`; Ritz values :math:`t_1 \le \dots \le t_k` after k steps. In order
of strength:

(a) always, :math:`\lambda_1 \le t_1` and :math:`t_k \le \lambda_d`;
(b) always, some eigenvalue lies in :math:`[t_i - r_i, t_i + r_i]`, r the residual norm;
(c) with probability at least :math:`1 - \delta` over the start, nothing is missed by more than
    :math:`\varepsilon w`: `krylov_epsilon` and `width_allowance`;
(d) on the same event, nothing is missed by more than a multiple of what the Krylov space lacks to
    be invariant: `invariance_allowance`.

The event is that the start has a component of at least :math:`0.607\, \delta/\sqrt d` along both
extreme eigenvectors. It does not depend on k: the bounds hold for all steps of one run at once, and
looking often costs no probability.

Reference: Kuczynski & Wozniakowski, "Estimating the largest eigenvalue by the power and Lanczos
algorithms with a random start", SIAM J. Matrix Anal. Appl. 13(4), 1992. (d) is derived here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from thalweg.core import check

FACTOR = 1.648  # of Kuczynski and Wozniakowski, theorem 4.2


class RunEnds(NamedTuple):
    """The ends of one Lanczos run.

    Attributes
    ----------
    low, high
        The extreme Ritz values.
    coupling
        A bound of the distance of the space from invariance (one start: the last beta).
    steps
        (Block) steps.
    """

    low: float
    high: float
    coupling: float
    steps: int


class Bounds(NamedTuple):
    """All eigenvalues lie in [lower, upper] with probability at least 1 - delta."""

    lower: float
    upper: float
    eps: float


def krylov_epsilon(d: int, steps: int, delta: float, starts: int = 1) -> float:
    r"""The share of the width that k Lanczos steps may miss at either end.

    .. math:: \varepsilon = \Big( \frac{\ln(1.648 \sqrt d) + \ln(2/\delta)/r}{2k - 1} \Big)^2

    From :math:`P[\lambda_{\max}(M) - \xi_k > \varepsilon \lambda_{\max}(M)] \le 1.648 \sqrt d\,
    e^{-\sqrt\varepsilon (2k-1)}` for positive semidefinite M, used for :math:`A - \lambda_1 I` and
    :math:`\lambda_d I - A`: Lanczos is shift invariant. With r independent starts all must fail.

    Parameters
    ----------
    d
        Order of the matrix, >= 1.
    steps
        k >= 1.
    delta
        Probability of failure of both ends together, in (0, 1).
    starts
        r >= 1: independent starts, or the columns of a block.

    Returns
    -------
    float
        May be above 1/2; then it says nothing.

    Examples
    --------
    >>> round(krylov_epsilon(10**6, 100, 1e-3), 4), round(krylov_epsilon(10**6, 400, 1e-3), 5)
    (0.0057, 0.00035)
    """
    check.number("d", d, ge=1, integer=True)
    check.number("steps", steps, ge=1, integer=True)
    check.number("delta", delta, gt=0, lt=1)
    check.number("starts", starts, ge=1, integer=True)
    needed = math.log(FACTOR * math.sqrt(d)) + math.log(2 / delta) / starts
    return (needed / (2 * steps - 1)) ** 2


def width_allowance(spread: float, eps: float) -> float:
    r"""What (c) allows beyond the Ritz values.

    .. math:: a = \frac{\varepsilon}{1 - 2 \varepsilon} (t_k - t_1)

    since either end misses at most :math:`\varepsilon w`, so :math:`w \le (t_k - t_1)/(1 -
    2\varepsilon)`; infinite for :math:`\varepsilon \ge 1/2`.

    Examples
    --------
    >>> width_allowance(2.0, 0.25), width_allowance(2.0, 0.5)
    (1.0, inf)
    """
    return eps / (1 - 2 * eps) * spread if eps < 0.5 else math.inf


def invariance_allowance(d: int, coupling: float, delta: float, starts: int = 1) -> float:
    r"""What (d) allows beyond the Ritz values.

    .. math:: a = 1.648 \sqrt d\, \beta_k / \delta^{1/r}

    With :math:`z = Q^T e_1`,
    :math:`(\lambda_1 I - T) z = \beta_k \langle q_{k+1}, e_1 \rangle e_k`: the left side is at
    least :math:`(t_1 - \lambda_1) |\langle q_1, e_1 \rangle|` long, the right side at most
    :math:`\beta_k`. For a block, :math:`\|C\|_2` takes the place of :math:`\beta_k`.

    Examples
    --------
    >>> round(invariance_allowance(100, 1e-9, 1e-3), 8)
    1.648e-05
    """
    return FACTOR * math.sqrt(d) * coupling / delta ** (1 / starts)


def random_start_bounds(
    d: int, runs: Sequence[RunEnds], delta: float, block: int = 1, noise: float = 0.0
) -> Bounds:
    r"""Bounds of all eigenvalues, from one or several runs with independent random starts.

    Per end the smaller allowance of (c) and (d). (c) is for the best Ritz values of all runs; (d)
    is the loosest over the runs, because which of them had the good start is unknown.

    Parameters
    ----------
    d
        Order of the matrix.
    runs
        Of the same block size, >= 1 of them.
    delta
        Probability of failure, in (0, 1).
    block
        Columns per start; each counts as a start.
    noise
        A bound of the error of a product with a unit vector, >= 0; widens both ends.

    Returns
    -------
    Bounds
        ``lower``, ``upper`` and the ``eps`` of (c).

    Examples
    --------
    >>> bounds = random_start_bounds(1000, [RunEnds(-1.0, 1.0, 0.3, 100)], delta=1e-3)
    >>> round(bounds.lower, 4), round(bounds.upper, 4)
    (-1.0068, 1.0068)
    """
    starts = len(runs) * block
    eps = krylov_epsilon(d, min(run.steps for run in runs), delta, starts)
    low, high = min(run.low for run in runs), max(run.high for run in runs)
    unseen = width_allowance(high - low, eps)
    allowed = [invariance_allowance(d, run.coupling, delta, starts) for run in runs]
    lower = max(low - unseen, min(run.low - a for run, a in zip(runs, allowed)))
    upper = min(high + unseen, max(run.high + a for run, a in zip(runs, allowed)))
    return Bounds(min(lower, low) - noise, max(upper, high) + noise, eps)
