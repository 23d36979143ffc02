"""Step 3 of the test by products, for networks whose quadratic form is too large to write down."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch

from thalweg.curvature.ends import Ends, lanczos_ends
from thalweg.curvature.relu.copositive import kaplan_test
from thalweg.curvature.relu.expansion import Coordinates, KinkedPoint, quadratic_product
from thalweg.curvature.relu.first_order import Kink
from thalweg.curvature.relu.losses import Floats
from thalweg.curvature.relu.quadratic import Case, ConeQP, DependentConstraints
from thalweg.curvature.relu.subspace import Subspace, subspace
from thalweg.numeric.operator import as_operator

SOLVED = 1e-9
"""Relative residual at which a linear system counts as solved."""

DAMPING = (1.0, 0.01)
"""Of what counts as zero curvature. Without directions of curvature below it the falling ones are
short enough to be seen; with them the least curvature is least enough to be called positive."""


class LargeProgram:
    r"""The quadratic programs of step 3 at one point, by products with Q.

    On the directions that leave no kink, Q does not depend on the sides chosen for the flat ones:
    one run of Lanczos' method is for all. What it says of the least eigenvalue of
    :math:`Q_{yy}` holds with a probability (see `thalweg.curvature.ends`); a direction of negative
    curvature is certain. :math:`Q_{yy}^+ Q_{yw}` is solved for by MINRES.

    Parameters
    ----------
    point, coordinates, kinks
        The point, what moves, and the kinks of the nodes that move.
    tol
        Relative tolerance, as for `solve_cone_qp`.
    budget
        Most products of Lanczos' method, and of MINRES for each flat kink.
    failure
        The probability with which the bound on the least eigenvalue may fail, in (0, 1).
    seed
        Of Lanczos' start.

    Attributes
    ----------
    unsolved
        Whether MINRES needed more than the budget: what is not negative is undecided then.
    """

    def __init__(
        self, point: KinkedPoint, coordinates: Coordinates, kinks: tuple[Kink, ...], tol: float,
        budget: int, failure: float, seed: int,
    ) -> None:  # fmt: skip
        self.point, self.coordinates, self.kinks = point, coordinates, kinks
        self.tol, self.budget, self.asked, self.seed = tol, budget, failure, seed
        self.unsolved = False

    @cached_property
    def kept(self) -> Subspace:
        """The directions that leave no kink."""
        return subspace(self.point, self.coordinates, self.kinks)

    @cached_property
    def ends(self) -> Ends:
        """The least and the largest eigenvalue of Qyy."""
        kept, point = self.kept, self.point

        def product(xi: torch.Tensor) -> torch.Tensor:
            eta = kept.expand(xi.numpy())
            Qeta = quadratic_product(point, point.J, self.coordinates, eta)
            return torch.from_numpy(kept.reduce(Qeta))

        operator = as_operator(product, kept.size, torch.float64, columnwise=True)
        generator = torch.Generator().manual_seed(self.seed)
        found = None
        for found in lanczos_ends(operator, None, 0.0, self.budget, self.asked, generator):
            if found.low + found.noise < -self.tol * max(-found.low, found.high):
                break
        assert found is not None  # the budget is positive
        return found

    @property
    def failure(self) -> float:
        """The probability with which `bound` may be wrong: 0 if the whole space was seen."""
        return 0.0 if self.ends.lower == self.ends.low - self.ends.noise else self.asked

    @property
    def bound(self) -> str:
        """What is known of the curvature along the kinks, in words."""
        size = max(abs(self.ends.low), abs(self.ends.high), 1e-300)
        chance = f", with probability {1 - self.failure:.7g}" if self.failure else ""
        least = f"{self.ends.lower / size:.2g}"
        return f"no curvature along the kinks below {least} of the largest{chance}"

    def solve(self, J: Floats, sides: Mapping[tuple[int, int], int]) -> ConeQP:
        """Decide the program with the kinks of `sides` left to these sides, as `solve_cone_qp`."""
        ends = self.ends
        scale = max(abs(ends.low), abs(ends.high))
        if ends.low + ends.noise < -self.tol * scale:  # (a)
            eta = self.kept.expand(ends.vectors()[:, 0].numpy())
            return self._falling([eta], J, self.tol * scale) or ConeQP(Case.T2)
        definite = ends.lower > self.tol * scale
        if not sides:
            return ConeQP(Case.T1 if definite else Case.T2)
        P = self._rays(sides)
        P /= np.linalg.norm(P, axis=0)
        QP = self._times(P, J)
        cut = self.tol * max(scale, *np.linalg.norm(QP, axis=0))
        candidates = []
        for damping in DAMPING:
            rays = P.copy()
            for j, b in enumerate(QP.T):
                y, rest = self._solved(-self.kept.reduce(b), damping * cut)
                rays[:, j] += y
                if np.linalg.norm(rest) > cut:  # (b)
                    n = self.kept.expand(rest / np.linalg.norm(rest))
                    plane = np.stack([n, P[:, j]], axis=1)
                    x = np.linalg.eigh(plane.T @ self._times(plane, J))[1][:, 0]
                    candidates.append(plane @ (x if x[1] >= 0 else -x))
            S = rays.T @ self._times(rays, J)
            answer = kaplan_test((S + S.T) / 2, cut)  # (c)
            candidates += [rays @ w for w in answer.witnesses]
        definite = definite and answer.strictly and not self.unsolved
        return self._falling(candidates, J, cut) or ConeQP(Case.T1 if definite else Case.T2)

    def _times(self, vectors: Floats, J: Floats) -> Floats:
        """The products of Q with the columns of `vectors`."""
        columns = [quadratic_product(self.point, J, self.coordinates, eta) for eta in vectors.T]
        return np.stack(columns, axis=1)

    def _falling(self, candidates: list[Floats], J: Floats, cut: float) -> ConeQP | None:
        """The candidate along which the form falls most, if it does."""
        best = None
        for eta in candidates:
            unit = eta / np.linalg.norm(eta)
            value = float(unit @ quadratic_product(self.point, J, self.coordinates, unit))
            if value < min(-cut, 0.0 if best is None else best.value):
                best = ConeQP(Case.T3, unit, value)
        return best

    def _rays(self, sides: Mapping[tuple[int, int], int]) -> Floats:
        """The columns of B_z^+: each leaves one flat kink to its side, and is least."""
        flat = set(sides)
        others = tuple(k for k in self.kinks if (k.sample, k.node) not in flat)
        free = subspace(self.point, self.coordinates, others)
        place = {k: j for j, k in enumerate(self.coordinates.nodes)}
        rows = []
        for (sample, node), side in sides.items():
            row = np.zeros(self.coordinates.p)
            row[self.coordinates.v(place[node])] = side * self.point.network.Xb[sample]
            rows.append(free.reduce(row))
        B = np.array(rows)
        sizes = np.linalg.norm(B, axis=1, keepdims=True)
        if np.linalg.matrix_rank(B / sizes) < len(B):
            raise DependentConstraints(len(B))
        return np.stack([free.expand(column) for column in np.linalg.pinv(B / sizes).T], axis=1)

    def _solved(self, b: Floats, damping: float) -> tuple[Floats, Floats]:
        """eta = N y of (Qyy + damping) y = b, and b - Qyy y in the basis."""
        from scipy.sparse.linalg import LinearOperator, minres

        def product(xi: Floats) -> Floats:
            eta = self.kept.expand(np.ravel(xi))
            form = quadratic_product(self.point, self.point.J, self.coordinates, eta)
            return self.kept.reduce(form)

        n = len(b)
        Q = LinearOperator((n, n), matvec=product, dtype=np.float64)
        y, failed = minres(Q, b, shift=-damping, rtol=SOLVED, maxiter=self.budget)
        self.unsolved = self.unsolved or failed != 0
        return self.kept.expand(y), b - product(y)
