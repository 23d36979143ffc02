"""What inspecting end points costs, from the measured time of a Hessian-vector product."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from thalweg.compare.end_points import PAIRS, TRACE_PRODUCTS, objective_of

if TYPE_CHECKING:
    from thalweg.core import Training

CHECKS = 16
"""Products that a certificate takes around its budget: for symmetry, and for rho."""
FRESH = 8
"""Of the products those at points where there is no graph yet: for rho, and a first one each."""
PASSES = 22
"""Gradients' worth of passes: determinism, noise of the gradient, nearest kinks, the decrease."""
VALUE = 0.5
"""A value costs at most this share of a gradient."""
OVERHEAD = 0.05
"""Seconds for each end point, whatever its size."""


@dataclass(frozen=True)
class Price:
    """Seconds, on one thread, on the data of the problem.

    Attributes
    ----------
    product
        A Hessian-vector product at a point that was met before.
    fresh
        The first one at a new point.
    gradient
        A gradient.
    once
        What the first product of a process takes more than later first ones, with the imports.
    """

    product: float
    fresh: float
    gradient: float
    once: float = 0.0

    def end_point(self, products: int, remade: float) -> float:
        """Of one end point: at most so many products for its certificate, and its run again."""
        steady = products + TRACE_PRODUCTS + CHECKS - FRESH
        passes = PASSES + VALUE * (2 * PAIRS + 1)
        curvature = steady * self.product + FRESH * self.fresh
        return remade + OVERHEAD + curvature + passes * self.gradient


def measured_price(training: Training) -> Price:
    """The price on a training, where its model is."""
    start = time.perf_counter()
    from thalweg.curvature.operators import hessian

    objective = objective_of(training)
    imported = time.perf_counter() - start
    v = torch.ones(objective.d, dtype=objective.dtype, device=objective.device)
    first = _seconds(lambda: hessian(objective) @ v) + imported
    H = hessian(objective)
    fresh = _seconds(lambda: H @ v)
    product = min(_seconds(lambda: H @ v) for _ in range(3))
    gradient = min(_seconds(objective.gradient) for _ in range(3))
    return Price(product, fresh, gradient, max(0.0, first - fresh))


def makespan(costs: Sequence[float], workers: int) -> float:
    """When the last of `workers` is done, each taking the next of `costs` when it is free.

    Examples
    --------
    >>> makespan([1.0, 1.0, 3.0], 2), makespan([], 2)
    (4.0, 0.0)
    """
    free = [0.0] * max(1, workers)
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def affordable(
    price: Price, remade: Sequence[float], workers: int, seconds: float, least: int, most: int
) -> int | None:
    """The products per certificate, `least` to `most`, that fit in `seconds`; None if none do.

    Parameters
    ----------
    price
        As measured.
    remade
        Seconds of each run that is made again.
    workers
        End points inspected at a time.
    seconds
        For all of them.
    least, most
        Products.

    Examples
    --------
    >>> price = Price(product=0.01, fresh=0.01, gradient=0.0)
    >>> affordable(price, [0.0, 0.0], 2, 1.0, 8, 400), affordable(price, [0.0], 1, 0.1, 8, 400)
    (71, None)
    """

    def fits(products: int) -> bool:
        costs = [price.end_point(products, again) for again in remade]
        return price.once + makespan(costs, workers) <= seconds

    if not fits(least):
        return None
    low, high = least, most
    while low < high:  # the largest that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
