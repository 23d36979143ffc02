"""The trace of a Hessian to 5 %: products spent and error made, against PyHessian's."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection

import torch
from spectrum import repaired_pyhessian, trained
from timing import Comparison, Sample, Settings, Suite

from thalweg.curvature import hessian, trace
from thalweg.numeric.xtrace import xtrace

OURS = "trace, rtol=0.05"
THEIRS = "PyHessian's trace, its own rule"
HUTCHINSON = "Hutchinson to the same interval"


def measure(names: Collection[str], settings: Settings, what: str) -> dict[str, Sample]:
    """Products, or the relative error in per cent, of each way over several seeds."""
    training = trained(settings)
    H = hessian(training)
    truth = xtrace(H, rtol=2e-3, max_products=40 if settings.tiny else 800).value
    theirs = repaired_pyhessian(copy.deepcopy(training.model), training, "data")

    def pyhessian(seed: int) -> tuple[int, float]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            samples = theirs.trace(maxIter=3 if settings.tiny else 100)
        return len(samples), math.fsum(samples) / len(samples)

    def ours(seed: int, method: str, most: int) -> tuple[int, float]:
        generator = torch.Generator().manual_seed(seed)
        most = 20 if settings.tiny else most
        found = trace(H, max_products=most, method=method, generator=generator)
        return found.n_products, found.value

    ways: dict[str, Callable[[int], tuple[int, float]]] = {
        OURS: lambda seed: ours(seed, "auto", 300),
        HUTCHINSON: lambda seed: ours(seed, "hutchinson", 2000),
        THEIRS: pyhessian,
    }
    samples: dict[str, Sample] = {}
    for name in ways:
        if name in names:
            found = [ways[name](seed) for seed in range(1 if settings.tiny else 10)]
            errors = [100 * abs(value / truth - 1) for _, value in found]
            samples[name] = Sample([float(n) for n, _ in found] if what == "products" else errors)
    return samples


SUITES = (
    Suite(
        "products of a Hessian's trace",
        "products",
        [
            Comparison("trace to 5 %, digits MLP, d = 26,122", OURS, HUTCHINSON, 1.0),
            Comparison("trace, digits MLP, d = 26,122", OURS, THEIRS),
        ],
        lambda names, settings: measure(names, settings, "products"),
    ),
    Suite(
        "error of a Hessian's trace",
        "%",
        [Comparison("trace, digits MLP, d = 26,122", OURS, THEIRS, 1.0)],
        lambda names, settings: measure(names, settings, "error"),
    ),
)
