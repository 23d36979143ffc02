r"""Step 3: the least value of a quadratic form on a cone of equalities and sign constraints.

.. math:: \min_\eta\ \eta^T Q \eta \quad \text{subject to} \quad E\eta = 0,\ B\eta \ge 0

is 0 or :math:`-\infty`. The paper runs projected gradient descent and looks whether it diverges;
here the three cases T1, T2, T3 of its Lemma are decided by eigenvalues and Kaplan's test.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from thalweg.curvature.relu.copositive import kaplan_test
from thalweg.curvature.relu.losses import Floats


class Case(Enum):
    """The paper's three cases."""

    T1 = "positive except at zero"
    T2 = "not negative, zero on some direction"
    T3 = "negative on some direction"


class DependentConstraints(ValueError):
    """The inequalities are dependent on the null space of the equalities."""

    def __init__(self, rows: int) -> None:
        super().__init__(f"B must have independent rows on the null space of E, got {rows} rows")


@dataclass(frozen=True, eq=False)
class ConeQP:
    """The answer.

    Attributes
    ----------
    case
        T1, T2 or T3.
    direction
        For T3, eta of norm 1 with eta^T Q eta < 0.
    value
        eta^T Q eta for it; 0 otherwise.
    """

    case: Case
    direction: Floats | None = None
    value: float = 0.0


def null_basis(E: Floats, rtol: float = 1e-10) -> Floats:
    """Orthonormal columns that span {x : E x = 0}.

    Examples
    --------
    >>> abs(null_basis(np.array([[0.0, 2.0]]))).tolist()
    [[1.0], [0.0]]
    """
    n = E.shape[1]
    if not len(E):
        return np.eye(n)
    sizes = np.linalg.norm(E, axis=1, keepdims=True)
    _, singular, Vt = np.linalg.svd(E / np.where(sizes > 0, sizes, 1.0), full_matrices=True)
    rank = int((singular > rtol).sum())
    return np.asarray(Vt[rank:].T)


def solve_cone_qp(Q: Floats, E: Floats, B: Floats, tol: float = 1e-6) -> ConeQP:
    r"""Decide min eta^T Q eta on the cone E eta = 0, B eta >= 0.

    On a basis Z of the equalities, :math:`\xi = N y + B_z^+ w` with :math:`w \ge 0` and N a basis
    of the null space of B_z. With blocks :math:`Q_{yy}, Q_{yw}, Q_{ww}` the form is >= 0 iff (a)
    :math:`Q_{yy} \succeq 0`, (b) the columns of :math:`Q_{yw}` lie in its range, (c)
    :math:`S = Q_{ww} - Q_{yw}^T Q_{yy}^+ Q_{yw}` is copositive.

    Parameters
    ----------
    Q
        Symmetric, shape (p, p).
    E
        Equalities, shape (*, p).
    B
        Inequalities, shape (r, p), independent on the null space of E.
    tol
        Negative means below :math:`-\mathrm{tol}\,\|Q_z\|_2`, zero within it. Every T3 direction
        also has :math:`\eta^T Q\eta < -\mathrm{tol}\,\|Q_z\|_2 \|\eta\|^2`, else T2. Default 1e-6.

    Returns
    -------
    ConeQP

    Raises
    ------
    DependentConstraints
        A ValueError: the inequalities are dependent on the null space of E.

    Examples
    --------
    >>> Q, none = np.array([[1.0, -3.0], [-3.0, 1.0]]), np.zeros((0, 2))
    >>> solve_cone_qp(Q, none, np.eye(2)).case.name
    'T3'
    >>> solve_cone_qp(Q, none, np.diag([1.0, -1.0])).case.name  # on the other quadrant
    'T1'

    References
    ----------
    Yun, Sra & Jadbabaie 2019, section 3.3 and Lemmas 3 and 4.
    """
    Z = null_basis(E)
    Qz = Z.T @ Q @ Z
    if not Qz.size:
        return ConeQP(Case.T1)
    scale = float(np.abs(np.linalg.eigvalsh(Qz)).max())
    cut = tol * scale
    Bz = B @ Z
    N = null_basis(Bz)
    if N.shape[1] != len(Qz) - len(Bz):
        raise DependentConstraints(len(Bz))
    P = np.linalg.pinv(Bz / np.linalg.norm(Bz, axis=1, keepdims=True)) if len(Bz) else Bz.T
    candidates = _negative(Qz, N, P, cut)
    if isinstance(candidates, Case):
        return ConeQP(candidates)
    quotients = [float(xi @ Qz @ xi) / float(xi @ xi) for xi in candidates]
    best = int(np.argmin(quotients))
    if quotients[best] >= -cut:  # an eigenvalue that is nearly zero was taken for zero
        return ConeQP(Case.T2)
    xi = candidates[best] / np.linalg.norm(candidates[best])
    return ConeQP(Case.T3, Z @ xi, quotients[best])


def _negative(Qz: Floats, N: Floats, P: Floats, cut: float) -> list[Floats] | Case:
    """Vectors of the cone where the form should be negative, or T1 or T2 if there are none."""
    values, vectors = np.linalg.eigh(N.T @ Qz @ N)
    if len(values) and values[0] < -cut:  # (a)
        return [N @ vectors[:, 0]]
    r = P.shape[1]
    definite = bool((values > cut).all())
    if r == 0:
        return Case.T1 if definite else Case.T2
    null = N @ vectors[:, values <= cut]
    unit = P / np.linalg.norm(P, axis=0)
    found = []
    for n in null.T:  # (b): P's columns are orthogonal to n
        for e in unit.T:
            if abs(n @ Qz @ e) > cut:
                plane = np.stack([n, e], axis=1)
                x = np.linalg.eigh(plane.T @ Qz @ plane)[1][:, 0]
                found.append(plane @ (x if x[1] >= 0 else -x))
    if found:
        return found
    live = vectors[:, values > cut]
    inverse = (live / values[values > cut]) @ live.T  # Q_yy^+
    Qyw = N.T @ Qz @ P
    S = P.T @ Qz @ P - Qyw.T @ inverse @ Qyw
    answer = kaplan_test((S + S.T) / 2, cut)  # (c)
    if not answer.copositive:
        return [P @ w - N @ (inverse @ (Qyw @ w)) for w in answer.witnesses]
    return Case.T1 if definite and answer.strictly else Case.T2
