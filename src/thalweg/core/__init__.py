"""The words every part of the house uses: problem, result, reason, the one loop, the catalogue."""

from __future__ import annotations

from thalweg.core.catalogue import Choice, Entry, LogUniform, OneMinusLogUniform, Uniform
from thalweg.core.iterate import Stop, iterate
from thalweg.core.problem import Training
from thalweg.core.result import NonFiniteError, NotConvergedError, Reason, Result, Trace
from thalweg.core.rng import preserved_rng, seeded_rng

__all__ = [
    "Choice",
    "Entry",
    "LogUniform",
    "NonFiniteError",
    "NotConvergedError",
    "OneMinusLogUniform",
    "Reason",
    "Result",
    "Stop",
    "Trace",
    "Training",
    "Uniform",
    "iterate",
    "preserved_rng",
    "seeded_rng",
]
