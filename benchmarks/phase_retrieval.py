"""A photograph from six coded diffraction patterns: time, and products against the classic."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import torch
from timing import Comparison, Sample, Settings, Suite

from thalweg.core import Result
from thalweg.solve.recovery import (
    CodedDiffraction,
    PhaseRetrieval,
    error_reduction,
    truncated_amplitude_flow,
)

TAF, CLASSIC = "truncated amplitude flow", "error reduction"
METHODS = {TAF: truncated_amplitude_flow, CLASSIC: error_reduction}
ERROR = 1e-5


class Counted(CodedDiffraction):
    """Counts products with the operator, its adjoint or its pseudo-inverse."""

    products = 0

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        self.products += 1
        return super().forward(z)

    def adjoint(self, w: torch.Tensor) -> torch.Tensor:
        self.products += 1
        return super().adjoint(w)


def problem(size: int) -> PhaseRetrieval:
    """The photograph of a cameraman, 512 x 512 or smaller."""
    from skimage import data

    image = torch.tensor(data.camera() / 255.0)[: 512 // size * size : 512 // size]
    masks = CodedDiffraction.random(
        (size, size), 6, generator=torch.Generator().manual_seed(0)
    ).masks
    return PhaseRetrieval.measure(Counted(masks), image[:, : 512 // size * size : 512 // size])


def solve(name: str, photograph: PhaseRetrieval) -> tuple[float, int]:
    """Seconds and products to a relative error of 1e-5, the spectral start included."""

    def near(result: Result[Any]) -> None:
        if result.trace["error"][-1] <= ERROR:
            raise StopIteration

    operator: Any = photograph.operator
    operator.products, start = 0, time.perf_counter()
    result = METHODS[name](photograph, tol=0.0, callback=near)
    if result.trace["error"][-1] > ERROR:
        raise RuntimeError(f"{name} came to {result.trace['error'][-1]:.1e} only: {result.reason}")
    return time.perf_counter() - start, operator.products


def seconds(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """A run takes many seconds: three of them."""
    photograph = problem(16 if settings.tiny else 512)
    rounds = 1 if settings.tiny else 3
    return {name: Sample([solve(name, photograph)[0] for _ in range(rounds)]) for name in names}


def products(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Products do not vary: one run."""
    photograph = problem(16 if settings.tiny else 128)
    return {name: Sample([solve(name, photograph)[1]]) for name in names}


SUITES = (
    Suite(
        "phase retrieval",
        "s",
        [Comparison("512 x 512 photograph, 6 masks, to 1e-5", TAF, limit=60.0)],
        seconds,
    ),
    Suite(
        "phase retrieval: products with the operator",
        "products",
        [Comparison("128 x 128 photograph, 6 masks, to 1e-5", TAF, CLASSIC)],
        products,
    ),
)
