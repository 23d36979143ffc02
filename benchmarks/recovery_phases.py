"""Phase synchronization, alignment, blind demixing: against a trust region, and against loops."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import torch
from timing import Comparison, Sample, Settings, Suite

from thalweg.core import Result
from thalweg.solve.recovery import (
    BlindDemixing,
    JointAlignment,
    PhaseSynchronization,
    blind_wirtinger_flow,
    certificate,
    generalized_power_method,
    projected_power_method,
    regularized_blind_descent,
)

GPM, PEER = "generalized power method", "pymanopt trust region"
CERTIFICATE, PPM = "certificate", "projected power method"
BATCH, LOOP = "one batch", "loop"
FLOW, REGULARIZED = "Wirtinger flow", "regularized descent"


products: Counter[str] = Counter()
"""With the matrix of ratios, where they are counted."""


class Counted(PhaseSynchronization):
    """Counts its products."""

    def product(self, x: torch.Tensor) -> torch.Tensor:
        products[GPM] += 1
        return super().product(x)


def gpm(problem: PhaseSynchronization) -> torch.Tensor:
    """To a gap of 1e-6, from a random start: the spectral one would take longer than the rest."""
    start = problem.start("random", seeded(1))
    return generalized_power_method(problem, start=start, tol=1e-6, certify=False).x


def trust_region(problem: PhaseSynchronization) -> torch.Tensor:
    """To the same, on the manifold of phases, from the same start."""
    import numpy as np
    import pymanopt

    manifold = pymanopt.manifolds.ComplexCircle(problem.n)
    Y = problem.ratios.numpy()

    def product(z: Any) -> Any:
        products[PEER] += 1
        return Y @ z

    @pymanopt.function.numpy(manifold)
    def cost(z: Any) -> Any:
        return -np.real(np.vdot(z, product(z)))

    @pymanopt.function.numpy(manifold)
    def gradient(z: Any) -> Any:
        return -2 * product(z)

    @pymanopt.function.numpy(manifold)
    def hessian(z: Any, v: Any) -> Any:
        return -2 * product(v)

    optimizer = pymanopt.optimizers.TrustRegions(verbosity=0, min_gradient_norm=1e-4 * problem.n)
    solved = optimizer.run(
        pymanopt.Problem(manifold, cost, euclidean_gradient=gradient, euclidean_hessian=hessian),
        initial_point=problem.start("random", seeded(1)).numpy(),
    )
    return torch.tensor(solved.point)


def synchronization(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """In turn; both must have come to the same value."""
    n = 40 if settings.tiny else 1000
    problem = PhaseSynchronization.random(n, sigma=3.0, generator=seeded())
    solvers: dict[str, Callable[[], object]] = {
        GPM: lambda: gpm(problem),
        PEER: lambda: trust_region(problem),
    }
    if {GPM, PEER} <= set(names):
        ours, theirs = (float(problem.value(x)) for x in (gpm(problem), trust_region(problem)))
        if abs(ours - theirs) > 1e-6 * abs(theirs):
            raise RuntimeError(f"values differ: {ours} and {theirs}")
    return in_turn({name: solvers[name] for name in names}, settings)


def count_products(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """How many times each multiplies with the matrix, which is what both spend their time on."""
    n = 40 if settings.tiny else 1000
    problem = Counted(PhaseSynchronization.random(n, sigma=3.0, generator=seeded()).Y)
    products.clear()
    for solve in (gpm, trust_region):
        solve(problem)
    return {name: Sample([float(products[name])]) for name in names}


def alone(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """What has no peer."""
    n = 30 if settings.tiny else 1000
    noisy = PhaseSynchronization.random(n, sigma=3.0, generator=seeded())
    x = gpm(noisy)
    y = JointAlignment.random(n, 10, 0.25, generator=seeded()).y
    solvers: dict[str, Callable[[], object]] = {
        CERTIFICATE: lambda: certificate(noisy, x),
        PPM: lambda: projected_power_method(JointAlignment(y, 10)),
    }
    return in_turn({name: solvers[name] for name in names}, settings)


def batched(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Many small problems at once, and one by one; 40 steps each."""
    number = 4 if settings.tiny else 200
    members = [BlindDemixing.random(1, 100, generator=seeded(k)) for k in range(number)]
    y = torch.stack([member.y for member in members])
    A = torch.stack([torch.as_tensor(member.A) for member in members])
    batch = BlindDemixing(y, A, 10)
    how: dict[str, Any] = {"tol": 0.0, "max_steps": 40}
    solvers: dict[str, Callable[[], object]] = {
        BATCH: lambda: blind_wirtinger_flow(batch, **how),
        LOOP: lambda: [blind_wirtinger_flow(member, **how) for member in members],
    }
    return in_turn({name: solvers[name] for name in names}, settings)


def steps(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Steps to a relative error of 1e-6."""

    def near(result: Result[Any]) -> None:
        if result.trace["error"][-1] <= 1e-6:
            raise StopIteration

    methods = {FLOW: blind_wirtinger_flow, REGULARIZED: regularized_blind_descent}
    problems = [
        BlindDemixing.random(2, 200, generator=seeded(k)) for k in range(1 if settings.tiny else 10)
    ]
    return {
        name: Sample(
            [float(methods[name](p, tol=0.0, callback=near).trace["step"][-1]) for p in problems]
        )
        for name in names
    }


def in_turn(solvers: dict[str, Callable[[], object]], settings: Settings) -> dict[str, Sample]:
    """A run takes long: three rounds."""
    values: dict[str, list[float]] = {name: [] for name in solvers}
    for _ in range(1 if settings.tiny else 3):
        for name, solve in solvers.items():
            start = time.perf_counter()
            solve()
            values[name].append(time.perf_counter() - start)
    return {name: Sample(seconds) for name, seconds in values.items()}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SUITES = (
    Suite(
        "phase synchronization",
        "s",
        [Comparison("1000 phases, sigma 3, random start, gap 1e-6", GPM, PEER, bar=0.1)],
        synchronization,
    ),
    Suite(
        "phase synchronization: products with Y",
        "products",
        [Comparison("1000 phases, sigma 3, random start, gap 1e-6", GPM, PEER)],
        count_products,
    ),
    Suite(
        "phase synchronization and alignment",
        "s",
        [
            Comparison("proof that 1000 phases are the best", CERTIFICATE, limit=10.0),
            Comparison("1000 shifts of 10, a quarter of pairs right", PPM, limit=10.0),
        ],
        alone,
    ),
    Suite(
        "blind deconvolution, many small problems",
        "s",
        [Comparison("200 problems, m = 100, K = N = 10, 40 steps", BATCH, LOOP, bar=0.05)],
        batched,
    ),
    Suite(
        "blind demixing: steps",
        "steps",
        [Comparison("2 sources, m = 200, K = N = 10, to 1e-6", FLOW, REGULARIZED)],
        steps,
    ),
)
