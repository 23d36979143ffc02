"""The built-in problems of a race of solvers: each is ``problem(seed) -> instance``.

The seed draws the whole instance, truth and measurements; the methods of one seed get the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from thalweg.solve.recovery import MatrixCompletion, MatrixSensing, PhaseRetrieval


def builtin() -> dict[str, Callable[[int], Any]]:
    """The built-in problems by name.

    Examples
    --------
    >>> builtin()["completion-200"](0).shape
    (200, 200)
    """
    return {
        "completion-200": completion_200,
        "sensing-30": sensing_30,
        "phase-retrieval-100": phase_retrieval_100,
    }


def completion_200(seed: int) -> MatrixCompletion:
    """Random 200 x 200 matrices of rank 3 and condition 5, 30 % of the entries seen."""
    return MatrixCompletion.random(generator=torch.Generator().manual_seed(seed))


def sensing_30(seed: int) -> MatrixSensing:
    """Random 30 x 30 matrices of rank 2 and condition 5, 360 Gaussian measurements."""
    return MatrixSensing.random(generator=torch.Generator().manual_seed(seed))


def phase_retrieval_100(seed: int) -> PhaseRetrieval:
    """Random complex signals of length 100, 600 intensities of Gaussian lines."""
    return PhaseRetrieval.random(100, 600, generator=torch.Generator().manual_seed(seed))
