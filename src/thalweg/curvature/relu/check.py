"""SOSP-Check: is this point of a two-layer ReLU network a local minimum? Exactly, kinks included.

The steps, with the paper's names (Yun, Sra & Jadbabaie, ICLR 2019, Algorithm 1):

====  ==========================================  =================================================
step  paper                                       here
====  ==========================================  =================================================
0     (the point is on its kinks)                 `snap`: tolerance, projection, Newton
0b    --                                          `balance`: tolerances free of each node's scaling
1     gradient in (W2, b2)                        `first_order_test`
2     QP for 0 in the Clarke subdifferential,     `first_order_test`: one least-squares problem
      then the extreme rays                       decides both
3     equality QP, inequality QPs (T1, T2, T3)    `solve_cone_qp`, with the scaling symmetry of each
                                                  node taken out by an equality (else no live node
                                                  would ever allow LOCAL_MINIMUM); `LargeProgram`
                                                  beyond 3,000 parameters
end   --                                          a descent verdict only if R really decreased
====  ==========================================  =================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import product

import numpy as np

from thalweg.core import check
from thalweg.curvature.relu.escape import Decrease, go_down
from thalweg.curvature.relu.expansion import Coordinates, KinkedPoint, quadratic_form
from thalweg.curvature.relu.first_order import Kink, first_order_test
from thalweg.curvature.relu.large import LargeProgram
from thalweg.curvature.relu.losses import Floats
from thalweg.curvature.relu.network import Direction, TwoLayerReLU
from thalweg.curvature.relu.quadratic import Case, DependentConstraints, solve_cone_qp
from thalweg.curvature.relu.snap import balance, snap, unbalance

LARGEST = 3000
"""Parameters up to which step 3 is dense linear algebra; beyond, it is done by products."""


class Verdict(Enum):
    """What `check_local_optimality` says of a point; the value is the sentence for the user."""

    DESCENT_FIRST_ORDER = "not a local minimum: the risk falls along a direction, at first order"
    DESCENT_SECOND_ORDER = "not a local minimum: the risk falls along a direction, at second order"
    SECOND_ORDER_STATIONARY = "second-order stationary: a minimum or not, undecided at this order"
    LOCAL_MINIMUM = "a local minimum, strict up to the scaling of each node"
    DEGENERATE = "degenerate: the test does not apply here"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, eq=False)
class ReluVerdict:
    """The verdict on a point of a two-layer ReLU network.

    Attributes
    ----------
    verdict
        What kind of point it is.
    reason
        Why, in words.
    network
        The snapped point, which the verdict is about.
    direction
        For the descent verdicts: of norm 1, in the parameters of `network`.
    slope_or_curvature
        Along `direction`: the derivative, or q, the coefficient of t^2. 0 without a direction.
    step
        The decrease along the direction, as demonstrated.
    M, L, K
        Numbers of (sample, node) pairs on a kink; with at least one flat ray; with two. L and K
        count nothing beyond the node a first-order descent was found at.
    kinks
        The kinks of the nodes tested.
    displacement
        How far snapping moved the parameters.
    dead
        Nodes inactive on all data (ReLU): a verdict of step 3 is modulo their parameters.
    failure
        The probability, over the start of Lanczos' method, with which a negative curvature was
        missed; 0 where step 3 was dense, and for the descent verdicts.
    """

    verdict: Verdict
    reason: str
    network: TwoLayerReLU = field(repr=False)
    direction: Direction | None = field(default=None, repr=False)
    slope_or_curvature: float = 0.0
    step: Decrease | None = field(default=None, repr=False)
    M: int = 0
    L: int = 0
    K: int = 0
    kinks: tuple[Kink, ...] = field(default=(), repr=False)
    displacement: float = 0.0
    dead: tuple[int, ...] = ()
    failure: float = 0.0

    @property
    def s_star(self) -> tuple[float, ...]:
        """The QP's multiplier s_i^* of each of `kinks`; NaN where any slope will do."""
        return tuple(kink.s_star for kink in self.kinks)

    def __str__(self) -> str:
        dead = f"; modulo the dead nodes {list(self.dead)}" if self.dead else ""
        return (
            f"{self.verdict.name}: {self.verdict.value} ({self.reason}{dead}); kinks M = {self.M}, "
            f"flat L = {self.L}, both sides K = {self.K}; moved by {self.displacement:.2g}"
        )


def check_local_optimality(
    network: TwoLayerReLU,
    *,
    tau: float = 1e-6,
    tol: float = 1e-6,
    polish: bool = True,
    max_flat: int = 14,
    budget: int = 400,
    failure: float = 1e-3,
    seed: int = 0,
) -> ReluVerdict:
    r"""Decide exactly what kind of point this is, where autograd's Hessian does not exist.

    The point is put on its kinks, then tested: is there a direction along which the risk falls at
    first order; if not, one along which it falls at second order? The risk is quadratic on each of
    finitely many cones, so on each the second-order condition is one quadratic program.

    Parameters
    ----------
    network
        The point with its data and loss.
    tau
        Relative distance from a kink that counts as on it, >= 0. Default 1e-6.
    tol
        Relative tolerance of all tests, in (0, 1). Default 1e-6.
    polish
        Newton's method on the kinks before the test (see `snap`). Default True.
    max_flat
        Flat kinks L beyond which the :math:`2^K 2^L` cases are not enumerated. Default 14.
    budget
        Most products of Lanczos' method, which decides step 3 of networks with more than 3,000
        parameters, >= 1. Default 400.
    failure
        The probability with which its bound may fail, in (0, 1). A descent verdict is certain.
        Default 1e-3.
    seed
        Of its start, >= 0. Default 0.

    Returns
    -------
    ReluVerdict
        SECOND_ORDER_STATIONARY is undecided at second order, not a minimum. LOCAL_MINIMUM is strict
        modulo the scaling :math:`(c w_k, W_{2,k}/c)`. A descent verdict comes with the demonstrated
        decrease; where rounding hides it: INCONCLUSIVE.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> X, y = [[-1.0], [0.0], [1.0], [2.0]], [1.0, -2.0, 3.0, 1.0]
    >>> net = TwoLayerReLU([[1.0]], [0.0], [[1.0]], [0.0], X, y, "mse")
    >>> verdict = check_local_optimality(net)
    >>> verdict.verdict.name, verdict.M, verdict.L, [round(s, 6) for s in verdict.s_star]
    ('LOCAL_MINIMUM', 1, 0, [0.5])

    References
    ----------
    Yun, Sra & Jadbabaie, Efficiently testing local optimality and escaping saddles for ReLU
    networks, ICLR 2019 (arXiv 1809.10858). The paper names a numerical implementation as future
    work; this one departs from it where the module's table says so.
    """
    if not isinstance(network, TwoLayerReLU):
        raise TypeError(f"network must be a TwoLayerReLU, got {type(network).__name__}")
    check.number("tau", tau, ge=0, lt=1)
    check.number("tol", tol, gt=0, lt=1)
    check.number("max_flat", max_flat, ge=0, integer=True)
    check.number("budget", budget, ge=1, integer=True)
    check.number("failure", failure, gt=0, lt=1)
    check.number("seed", seed, ge=0, integer=True)
    snapped = snap(network, tau, polish=polish)
    at = snapped.point.network
    M = sum(len(snapped.point.kinks(k)) for k in range(len(at.W)))
    if snapped.reason:
        return ReluVerdict(
            Verdict.DEGENERATE, snapped.reason, at, M=M, displacement=snapped.displacement
        )
    balanced, c = balance(at)
    point = KinkedPoint(balanced, snapped.point.boundary)
    first = first_order_test(point, tol)
    found = _Found(at, point, c, M, first.kinks, snapped.displacement)
    if first.direction is not None:
        return found.descent(first.direction, first.slope, 1, first.reason)
    return _second_order(found, tol, max_flat, int(budget), float(failure), int(seed))


@dataclass(frozen=True, eq=False)
class _Found:
    """What is known after steps 0 to 2."""

    at: TwoLayerReLU
    point: KinkedPoint
    c: Floats
    M: int
    kinks: tuple[Kink, ...]
    displacement: float

    @property
    def flat(self) -> list[Kink]:
        return [kink for kink in self.kinks if kink.flat]

    @property
    def dead(self) -> tuple[int, ...]:
        point = self.point
        inactive = (point.J == 0).all(axis=0) & ~point.boundary.any(axis=0)
        return tuple(np.flatnonzero(inactive).tolist())

    def verdict(self, verdict: Verdict, reason: str, dead: tuple[int, ...] = ()) -> ReluVerdict:
        return ReluVerdict(
            verdict,
            reason,
            self.at,
            M=self.M,
            L=len(self.flat),
            K=sum(len(kink.flat) == 2 for kink in self.flat),
            kinks=self.kinks,
            displacement=self.displacement,
            dead=dead,
        )

    def descent(self, eta: Direction, value: float, order: int, reason: str) -> ReluVerdict:
        """The verdict if the risk really falls along `eta`, a direction of the balanced network.

        It is demonstrated there, then told in the user's parameters: the path is the same.
        """
        step = go_down(self.point.network, eta, value, order)
        if step is None:
            return self.verdict(
                Verdict.INCONCLUSIVE, f"{reason}, but the decrease is below rounding"
            )
        mapped = unbalance(eta, self.c)
        size = mapped.norm
        direction, t = mapped.scaled(1 / size), step.t * size
        network = self.at.moved(direction, t)
        base = self.verdict(
            Verdict.DESCENT_FIRST_ORDER if order == 1 else Verdict.DESCENT_SECOND_ORDER, reason
        )
        return ReluVerdict(
            base.verdict,
            reason,
            self.at,
            direction,
            value / size**order,
            Decrease(network, t, step.risk_before, step.risk_after, step.decrease),
            *(base.M, base.L, base.K, base.kinks, base.displacement),
        )


def _second_order(
    found: _Found, tol: float, max_flat: int, budget: int, failure: float, seed: int
) -> ReluVerdict:
    """Step 3: one QP with every kink kept, and one per choice of sides of the flat ones."""
    point, dead = found.point, found.dead
    nodes = tuple(k for k in range(len(point.network.W)) if k not in dead)
    coordinates = Coordinates(point.network, nodes)
    if not coordinates.p:
        return found.verdict(Verdict.LOCAL_MINIMUM, "every node is dead", dead)
    large = None
    if coordinates.p > LARGEST:
        large = LargeProgram(point, coordinates, found.kinks, tol, budget, failure, seed)
    L = len(found.flat)
    skipped = max_flat < L
    strict = True
    for sides in _sides(found.flat, enumerate_all=not skipped):
        J = _slopes(point, sides)
        try:
            if large is None:
                Q = quadratic_form(point, J, coordinates)
                answer = solve_cone_qp(
                    Q, *_constraints(point, coordinates, found.kinks, sides), tol
                )
            else:
                answer = large.solve(J, sides)
        except DependentConstraints:
            reason = "the flat kinks of some node are dependent on its scaling constraint"
            return found.verdict(Verdict.INCONCLUSIVE, reason)
        if answer.direction is not None:
            eta = coordinates.direction(answer.direction)
            kept = f"leaving {len(sides)} of {found.M} kinks" if sides else "along the kinks"
            return found.descent(eta, answer.value, 2, f"negative curvature {kept}")
        strict = strict and answer.case is Case.T1
    known = "" if large is None else f": {large.bound}"
    if skipped:
        reason = f"L = {L} flat kinks, > max_flat = {max_flat}: not enumerated"
        return found.verdict(Verdict.INCONCLUSIVE, reason)
    if large is not None and large.unsolved:
        reason = f"a flat kink's linear system was not solved in {budget} products{known}"
        return found.verdict(Verdict.INCONCLUSIVE, reason)
    failure = 0.0 if large is None else large.failure
    if strict:
        reason = f"the second order is positive on every cone{known}"
        return replace(found.verdict(Verdict.LOCAL_MINIMUM, reason, dead), failure=failure)
    reason = f"the second order is not negative, but zero along some direction{known}"
    if failure:
        reason = f"no direction of negative second order was found{known}"
    return replace(found.verdict(Verdict.SECOND_ORDER_STATIONARY, reason, dead), failure=failure)


def _sides(flat: list[Kink], *, enumerate_all: bool) -> Iterator[dict[tuple[int, int], int]]:
    """First no kink left (all sigma = 0), then every choice of a flat side for each flat kink."""
    yield {}
    if flat and enumerate_all:
        for choice in product(*(kink.flat for kink in flat)):
            yield {(kink.sample, kink.node): side for kink, side in zip(flat, choice)}


def _slopes(point: KinkedPoint, sides: dict[tuple[int, int], int]) -> Floats:
    """J_ik = h' off the boundary; on a kink that is left, s+ or s- (for all equal inputs)."""
    J = point.J.copy()
    positive, negative = point.network.slopes
    for (sample, node), side in sides.items():
        equal = point.first_of_equals == sample
        J[equal, node] = positive if side > 0 else negative
    return J


def _constraints(
    point: KinkedPoint,
    coordinates: Coordinates,
    kinks: tuple[Kink, ...],
    sides: dict[tuple[int, int], int],
) -> tuple[Floats, Floats]:
    r"""Equalities E eta = 0 and inequalities B eta >= 0.

    :math:`W_{2,k}^T u_k = w_k^T v_k` takes out the scaling of each node, whose direction is
    (u_k, v_k) = (-W2_k, w_k); for the softmax :math:`1^T\delta_2 = 0` and :math:`1^T u_k = 0` take
    out the common shift of the logits. Both are exact symmetries.
    """
    network, p = point.network, coordinates.p
    E: list[Floats] = []
    B: list[Floats] = []
    place = {k: j for j, k in enumerate(coordinates.nodes)}
    for k, j in place.items():
        row = np.zeros(p)
        row[coordinates.u(j)], row[coordinates.v(j)] = network.W2[:, k], -network.W[k]
        E.append(row)
        if network.loss == "ce":
            row = np.zeros(p)
            row[coordinates.u(j)] = 1.0
            E.append(row)
    if network.loss == "ce" and network.b2 is not None:
        row = np.zeros(p)
        row[: coordinates.widths[0]] = 1.0
        E.append(row)
    for kink in kinks:
        row = np.zeros(p)
        side = sides.get((kink.sample, kink.node), 0)
        row[coordinates.v(place[kink.node])] = (side or 1) * network.Xb[kink.sample]
        (B if side else E).append(row)
    return np.array(E).reshape(-1, p), np.array(B).reshape(-1, p)
