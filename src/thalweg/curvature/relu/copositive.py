r"""Is a matrix copositive? Kaplan's test, by the eigenvectors of principal submatrices."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from thalweg.curvature.relu.losses import Floats


@dataclass(frozen=True, eq=False)
class Copositivity:
    r"""What Kaplan's test found.

    Attributes
    ----------
    copositive
        :math:`w^T S w \ge 0` for all :math:`w \ge 0`.
    strictly
        :math:`w^T S w > 0` for all :math:`w \ge 0` but 0.
    witnesses
        Vectors w >= 0 of norm 1 with w^T S w < 0, one for each violated submatrix; shape (*, n).
    """

    copositive: bool
    strictly: bool
    witnesses: Floats


def kaplan_test(S: Floats, tol: float = 0.0) -> Copositivity:
    r"""Kaplan's test: no principal submatrix has an eigenvector > 0 with eigenvalue < 0.

    S is copositive iff no principal submatrix has an eigenvector with positive entries and a
    negative eigenvalue; strictly iff none has one with eigenvalue <= 0. Costs :math:`2^n`
    eigendecompositions; submatrices of one size are decomposed together. Repeated eigenvalues need
    no care: what their arbitrary basis hides, a smaller submatrix shows.

    Parameters
    ----------
    S
        Symmetric, shape (n, n).
    tol
        Eigenvalues in [-tol, tol] count as zero. Default 0.

    Returns
    -------
    Copositivity

    Examples
    --------
    >>> kaplan_test(np.array([[1.0, 5.0], [5.0, 1.0]])).strictly  # indefinite, yet copositive
    True
    >>> found = kaplan_test(np.array([[1.0, -2.0], [-2.0, 1.0]]))
    >>> found.copositive, found.witnesses.round(3).tolist()
    (False, [[0.707, 0.707]])

    References
    ----------
    Kaplan, A test for copositive matrices, Linear Algebra and its Applications 313, 2000.
    """
    n = len(S)
    witnesses: list[Floats] = []
    strictly = True
    for size in range(1, n + 1):
        subsets = np.array(list(combinations(range(n), size)))
        values, vectors = np.linalg.eigh(S[subsets[:, :, None], subsets[:, None, :]])
        positive = (vectors > 0).all(axis=1) | (vectors < 0).all(axis=1)
        strictly = strictly and not bool((positive & (values <= tol)).any())
        for subset, column in np.argwhere(positive & (values < -tol)):
            w = np.zeros(n)
            w[subsets[subset]] = np.abs(vectors[subset, :, column])
            witnesses.append(w)
    return Copositivity(not witnesses, strictly, np.reshape(witnesses, (-1, n)))
