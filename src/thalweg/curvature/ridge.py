"""Ridge riding: different solutions, by following different eigenvectors from one saddle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.curvature.escape import finite_value
from thalweg.curvature.hessian import hessian_products
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import How, prepared
from thalweg.curvature.polish import Method, polished
from thalweg.numeric.krylov import extreme_eigenvalues, lanczos
from thalweg.numeric.krylov.extreme import DENSE_BELOW
from thalweg.numeric.operator import Counted, as_operator
from thalweg.numeric.operator import dense as matrix_of

Fingerprint = tuple[tuple[str, int], ...]
"""Of each branch the sign and the rank of the eigenvalue, as in (("+", 1), ("-", 2))."""
Order = Literal["breadth-first", "depth-first", "lowest"]


@dataclass(frozen=True, eq=False)
class Entry:
    """A ridge in the archive, still to be ridden.

    Attributes
    ----------
    x
        Where it begins, ``(d,)``.
    direction
        Unit eigenvector, signed.
    curvature
        Its eigenvalue, < 0.
    fingerprint
        The choices that lead here.
    """

    x: Tensor = field(repr=False)
    direction: Tensor = field(repr=False)
    curvature: float
    fingerprint: Fingerprint


@dataclass(frozen=True, eq=False)
class Ride:
    """How one ridge was ridden.

    Attributes
    ----------
    x
        Where it ended, ``(d,)``.
    loss
        There.
    steps
        Steps taken.
    least_overlap
        The smallest inner product of successive directions; 1 if there was one only.
    why
        ``"curvature"`` (no longer below the threshold), ``"loss"`` (no longer falling) or
        ``"steps"``.
    """

    x: Tensor = field(repr=False)
    loss: float
    steps: int
    least_overlap: float
    why: str


@dataclass(frozen=True, eq=False)
class Solution:
    """A solution found.

    Attributes
    ----------
    x
        ``(d,)``.
    loss
        f(x).
    converged
        Whether the local method ended at a second-order stationary point.
    fingerprint
        The path of the first ride that led here; it reproduces it.
    found
        How many rides led here.
    """

    x: Tensor = field(repr=False)
    loss: float
    converged: bool
    fingerprint: Fingerprint
    found: int = 1


@dataclass(frozen=True, eq=False)
class RidgeRiding:
    """What `ridge_riding` returns.

    Attributes
    ----------
    solutions
        Different ones, lowest loss first.
    rides
        All rides, by fingerprint, in the order they were made.
    left
        Ridges still in the archive when `max_rides` was reached.
    products
        Hessian-vector products of the eigenvectors.
    """

    solutions: tuple[Solution, ...]
    rides: dict[Fingerprint, Ride]
    left: int
    products: int

    def __str__(self) -> str:
        lines = [f"{len(self.solutions)} solutions from {len(self.rides)} rides, {self.left} left"]
        for solution in self.solutions:
            path = " ".join(f"{sign}{rank}" for sign, rank in solution.fingerprint)
            lines.append(f"  loss {solution.loss:.6g}, {solution.found} times, first by {path}")
        return "\n".join(lines)


def ridge_riding(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    branches: int = 2,
    depth: int = 2,
    step: float = 1e-2,
    max_ride: int = 1000,
    max_rides: int = 100,
    threshold: float = 1e-3,
    order: Order = "breadth-first",
    distance: float = 1e-3,
    canonical: Callable[[Tensor], Tensor] | None = None,
    method: Method = "newton-cg",
    seed: int = 0,
    **how: Unpack[How],
) -> RidgeRiding:
    r"""Ride the ridges of a saddle down, branch where they end, and collect the solutions.

    .. math:: x \leftarrow x + a\, e, \qquad
              e \leftarrow \operatorname{sign} \cdot \arg\max_{e'} |\langle e', e \rangle|

    over the eigenvectors e' of the Hessian at the new x: a ridge is followed by continuity, not by
    rank. The model should be at a saddle (a symmetric point, or one that `polish` or `certify`
    knows); each of its lowest eigenvectors of negative curvature gives two ridges. A ride ends
    where its curvature is above ``-threshold``, the loss no longer falls, or after `max_ride`
    steps; there the negative eigenvectors give new ridges, down to `depth`, and where there are
    none a local method goes on to a solution. The model is left as it was.

    Parameters
    ----------
    training, parameters
        The function, and its unknowns.
    branches
        Eigenvectors at each branching, >= 1. Default 2.
    depth
        Rides in a row, >= 1. Default 2.
    step
        a > 0. Default 0.01.
    max_ride, max_rides
        Most steps of a ride, and most rides, >= 1. Default 1000 and 100.
    threshold
        Curvature counts as negative below ``-threshold``, > 0. Default 1e-3.
    order
        Which ridge is next: ``"breadth-first"`` (default), ``"depth-first"`` or ``"lowest"``
        curvature.
    distance
        Solutions nearer than this, relative to 1 + their norm, are one, > 0. Default 1e-3.
    canonical
        Maps a flat solution to the representative of its orbit, where symmetries are known.
    method
        The local method of the leaves: see `polish`.
    seed
        Of the random starts of eigenvectors. Default 0.
    **how
        ``mode``, ``weight``, ``memory``, ``group``: see `Objective`.

    Returns
    -------
    RidgeRiding
        ``solutions``, ``rides``; ``print`` it.

    Raises
    ------
    ValueError
        For an argument out of range, or a point without negative curvature.

    Examples
    --------
    >>> start = torch.zeros(2, dtype=torch.float64)
    >>> f = lambda x: (x[0] ** 2 - 1) ** 2 + x[1] ** 2
    >>> found = ridge_riding(Training.from_function(f, start))
    >>> sorted(round(s.x[0].item(), 6) for s in found.solutions)
    [-1.0, 1.0]

    References
    ----------
    Parker-Holder et al., "Ridge Rider: finding diverse solutions by following eigenvectors of the
    Hessian", NeurIPS 2020 (arXiv 2011.06505). Archive order and stopping are this package's.
    """
    for name, value in (("branches", branches), ("depth", depth), ("max_ride", max_ride),
                        ("max_rides", max_rides)):  # fmt: skip
        check.number(name, value, ge=1, integer=True)
    check.number("step", step, gt=0)
    check.number("threshold", threshold, gt=0)
    check.number("distance", distance, gt=0)
    check.choice("order", order, ("breadth-first", "depth-first", "lowest"))
    check.number("seed", seed, ge=0, integer=True)
    objective = prepared(training, parameters, how)
    rider = _Rider(objective, branches, step, max_ride, threshold, seed)
    archive = list(rider.ridges(objective.start, ()))
    if not archive:
        raise ValueError(
            f"the point must have curvature below -threshold = {-threshold:g} to ride from, got "
            "none: start at a saddle"
        )
    rides: dict[Fingerprint, Ride] = {}
    solutions: list[Solution] = []
    while archive and len(rides) < max_rides:
        entry = _next(archive, order)
        ride = rides[entry.fingerprint] = rider.ride(entry)
        further = list(rider.ridges(ride.x, entry.fingerprint))
        if further and len(entry.fingerprint) < depth:
            archive += further
            continue
        leaf = polished(objective, ride.x, method, eps_H=threshold, seed=seed)
        x = leaf.x if canonical is None else canonical(leaf.x)
        _collect(solutions, Solution(x, leaf.info["loss"], leaf.converged, entry.fingerprint),
                 distance)  # fmt: skip
    solutions.sort(key=lambda solution: solution.loss)
    return RidgeRiding(tuple(solutions), rides, len(archive), rider.products)


class _Rider:
    def __init__(
        self, objective: Objective, branches: int, step: float, max_ride: int, threshold: float,
        seed: int,
    ) -> None:  # fmt: skip
        self.objective, self.branches, self.step = objective, branches, step
        self.max_ride, self.threshold = max_ride, threshold
        self.generator = torch.Generator().manual_seed(seed)
        self.products = 0

    def hessian(self, x: Tensor) -> Counted:
        products = hessian_products(self.objective, x)
        return Counted(as_operator(products, self.objective.d, x.dtype, x.device))

    def ridges(self, x: Tensor, path: Fingerprint) -> Iterator[Entry]:
        """Two for each of the lowest eigenvectors of negative curvature, the lowest first."""
        found = extreme_eigenvalues(self.hessian(x), self.branches, generator=self.generator)
        self.products += found.n_products
        for rank, curvature in enumerate(found.values[: self.branches].tolist(), start=1):
            if curvature < -self.threshold:
                e = _fixed_sign(found.vectors[:, rank - 1])
                yield Entry(x, e, curvature, (*path, ("+", rank)))
                yield Entry(x, -e, curvature, (*path, ("-", rank)))

    def ride(self, entry: Entry) -> Ride:
        x, e = entry.x, entry.direction
        loss = self.objective.value(x)
        least, why = 1.0, "steps"
        steps = 0
        for steps in range(1, self.max_ride + 1):
            moved = x + self.step * e
            after = finite_value(self.objective.value, moved)
            if not after < loss:
                why = "loss"
                steps -= 1
                break
            x, loss = moved, after
            e, curvature, overlap = self.followed(x, e)
            least = min(least, overlap)
            if curvature >= -self.threshold:
                why = "curvature"
                break
        return Ride(x, loss, steps, least, why)

    def followed(self, x: Tensor, e: Tensor) -> tuple[Tensor, float, float]:
        """Of the eigenvectors at x the one nearest to e: it, its eigenvalue, the overlap."""
        H = self.hessian(x)
        if self.objective.d < DENSE_BELOW:
            A = matrix_of(H).double()
            values, vectors = torch.linalg.eigh((A + A.T) / 2)
        else:
            # a Krylov space of e holds the eigenvector that e is nearly
            process = lanczos(H, e, 10)
            values, Z, _ = process.ritz()
            vectors = process.vectors(Z).double()
        self.products += H.n_products
        overlaps = vectors.T @ e.double()
        i = int(overlaps.abs().argmax())
        overlap = float(overlaps[i])
        new = (vectors[:, i] * math.copysign(1.0, overlap)).to(e)
        return new / new.norm(), float(values[i]), abs(overlap)


def _fixed_sign(e: Tensor) -> Tensor:
    """The sign that makes the largest entry positive, so that fingerprints reproduce."""
    return e if float(e[e.abs().argmax()]) > 0 else -e


def _next(archive: list[Entry], order: Order) -> Entry:
    if order == "breadth-first":
        return archive.pop(0)
    if order == "depth-first":
        return archive.pop()
    return archive.pop(min(range(len(archive)), key=lambda i: archive[i].curvature))


def _collect(solutions: list[Solution], new: Solution, distance: float) -> None:
    for i, old in enumerate(solutions):
        if float((old.x - new.x).norm()) <= distance * (1 + float(old.x.norm())):
            better = old if old.loss <= new.loss else new
            solutions[i] = Solution(
                better.x, better.loss, better.converged, old.fingerprint, old.found + 1
            )
            return
    solutions.append(new)
