"""Spectra of a Hessian: products and time of both ends, time of the density, against PyHessian."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Collection

import torch
from pyhessian import hessian as PyHessian
from timing import Comparison, Contender, Sample, Settings, Suite, interleaved
from torch import Tensor, nn

from thalweg.core.problem import Training
from thalweg.curvature.operators import hessian
from thalweg.curvature.spectrum import density, extremes
from thalweg.data import load
from thalweg.numeric.operator import Counted, LinearOperator

STEPS = 100
MOST = 1000  # products of one power iteration
POWER = "power iteration to the same accuracy, at most 1000 each"
MASTER = "PyHessian's density, repaired"


def trained(settings: Settings) -> Training:
    """A digits network (d = 26,122, n = 1,797) after 50 steps of Adam: both signs of curvature."""
    data = load("digits")
    x = torch.as_tensor(data.inputs, dtype=torch.float32)
    y = torch.as_tensor(data.targets)
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    if settings.tiny:
        x, y = x[:50], y[:50]
    width = 8 if settings.tiny else 128
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(64, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, 10),
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Training(model, nn.functional.cross_entropy, [(x, y)])


def power_iteration(
    H: LinearOperator, generator: torch.Generator, right: Callable[[float], bool], shift: float = 0
) -> float:
    """The loop of `pyhessian.hessian.eigenvalues`, until its value is `right`.

    Its own rule, a relative change below 1e-3, stops on the shifted matrix after two products at
    +0.0016 where the eigenvalue is -0.062: what is counted here is the same accuracy instead.
    """
    v = torch.randn(H.shape[0], generator=generator)
    v, value = v / (v.norm() + 1e-6), math.nan
    for _ in range(MOST):
        Hv = H @ v - shift * v
        value = float(Hv @ v) + shift
        if right(value):
            break
        v = Hv / (Hv.norm() + 1e-6)
    return value


def both_ends_by_power_iteration(
    H: LinearOperator, generator: torch.Generator, low: float, high: float
) -> None:
    """Its only way to the other end: once more, on the shifted matrix. The ends are known here."""
    near = 1e-3 * max(abs(low), abs(high))
    found = power_iteration(H, generator, lambda t: abs(t - high) <= near)
    power_iteration(H, generator, lambda t: abs(t - low) <= near, shift=found)


def count_products(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Products until both ends are found, over several starts."""
    H = Counted(hessian(trained(settings)))
    known = extremes(H, steps=150, dense=False)
    ways: dict[str, Callable[[torch.Generator], object]] = {
        "extremes": lambda g: extremes(H, tol=1e-3, dense=False, generator=g),
        POWER: lambda g: both_ends_by_power_iteration(H, g, known.lowest, known.highest),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways if name in names}
    for seed in range(1, 2 if settings.tiny else 4):
        for name in spent:
            before = H.n_products
            ways[name](torch.Generator().manual_seed(seed))
            spent[name].append(H.n_products - before)
    return {name: Sample(values) for name, values in spent.items()}


def time_spectra(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Milliseconds; the number of steps is equal, and so are the probes."""
    training = trained(settings)
    steps = 5 if settings.tiny else STEPS
    H = hessian(training)
    contenders = {"density": Contender(lambda: density(H, steps, probes=1))}
    for mode in ("data", "dataloader"):
        theirs = repaired_pyhessian(copy.deepcopy(training.model), training, mode)
        contenders[f"{MASTER}, {mode}="] = Contender(lambda its=theirs: its.density(steps, 1))
    chosen = {name: contender for name, contender in contenders.items() if name in names}
    return interleaved(chosen, min(settings.rounds, 5), min(settings.warm_up, 1))


def repaired_pyhessian(model: nn.Module, training: Training, mode: str) -> PyHessian:
    """PyHessian 0.1 with its own products; `torch.eig`, which it calls, is gone since torch 2."""
    torch.eig = _eig  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it keeps the graph in .grad, and torch says so
        data = training.data if mode == "dataloader" else training.data[0]
        return PyHessian(model, nn.functional.cross_entropy, cuda=False, **{mode: data})


def _eig(T: Tensor, eigenvectors: bool = True) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(T)
    return values[:, None], vectors


SUITES = (
    Suite(
        "products of both ends of a Hessian's spectrum to 1e-3",
        "products",
        [Comparison("digits MLP, d = 26,122", "extremes", POWER, 0.5)],
        count_products,
    ),
    Suite(
        "time of a Hessian's spectrum",
        "ms",
        [
            Comparison(f"density, {STEPS} steps, one probe", "density", f"{MASTER}, {mode}=", 0.7)
            for mode in ("data", "dataloader")
        ],
        time_spectra,
    ),
)  # fmt: skip
