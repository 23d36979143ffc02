"""Recover structure from few, noisy or phaseless measurements.

One problem object, several methods, one `Result` that says why it stopped:

>>> import torch
>>> from thalweg.solve.recovery import MatrixCompletion, scaled_gradient
>>> generator = torch.Generator().manual_seed(0)
>>> problem = MatrixCompletion.random((60, 50), rank=2, density=0.5, generator=generator)
>>> result = scaled_gradient(problem, tol=1e-6)
>>> str(result.reason)
'converged: the measure fell below the tolerance'
"""

from thalweg.solve.recovery.alternating import alternating_minimization
from thalweg.solve.recovery.completion import MatrixCompletion
from thalweg.solve.recovery.factors import LowRank
from thalweg.solve.recovery.gradient import gradient_descent, scaled_gradient
from thalweg.solve.recovery.sampling import Sampling
from thalweg.solve.recovery.sensing import MatrixSensing

__all__ = [
    "LowRank",
    "MatrixCompletion",
    "MatrixSensing",
    "Sampling",
    "alternating_minimization",
    "gradient_descent",
    "scaled_gradient",
]
