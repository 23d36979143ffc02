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

from thalweg.solve.recovery.alignment import JointAlignment
from thalweg.solve.recovery.alignment_power import projected_power_method
from thalweg.solve.recovery.alternating import alternating_minimization
from thalweg.solve.recovery.alternating_robust import robust_alternating_minimization
from thalweg.solve.recovery.bilinear import Bilinear, BlindDemixing
from thalweg.solve.recovery.bilinear_flow import blind_wirtinger_flow, regularized_blind_descent
from thalweg.solve.recovery.completion import MatrixCompletion
from thalweg.solve.recovery.deconvolution import BlindDeconvolution
from thalweg.solve.recovery.factors import LowRank
from thalweg.solve.recovery.gradient import gradient_descent, scaled_gradient
from thalweg.solve.recovery.kronecker import KroneckerSparse, Posterior
from thalweg.solve.recovery.kronecker_sbl import classical_sbl, kronecker_sbl
from thalweg.solve.recovery.lines import CodedDiffraction, Lines
from thalweg.solve.recovery.phase_amplitude import (
    amplitude_flow,
    reweighted_amplitude_flow,
    truncated_amplitude_flow,
)
from thalweg.solve.recovery.phase_flow import truncated_wirtinger_flow, wirtinger_flow
from thalweg.solve.recovery.phase_reduction import error_reduction
from thalweg.solve.recovery.phase_retrieval import PhaseRetrieval
from thalweg.solve.recovery.phase_start import spectral_start
from thalweg.solve.recovery.robust_pca import LowRankPlusSparse, RobustPCA
from thalweg.solve.recovery.robust_pca_methods import (
    alternating_projections,
    principal_component_pursuit,
    robust_pca,
)
from thalweg.solve.recovery.robust_sensing import RobustSensing
from thalweg.solve.recovery.sampling import Sampling
from thalweg.solve.recovery.scaled_subgradient import scaled_subgradient
from thalweg.solve.recovery.sensing import MatrixSensing
from thalweg.solve.recovery.subgradient import subgradient
from thalweg.solve.recovery.synchronization import PhaseSynchronization
from thalweg.solve.recovery.synchronization_power import certificate, generalized_power_method

__all__ = [
    "Bilinear",
    "BlindDeconvolution",
    "BlindDemixing",
    "CodedDiffraction",
    "JointAlignment",
    "KroneckerSparse",
    "Lines",
    "LowRank",
    "LowRankPlusSparse",
    "MatrixCompletion",
    "MatrixSensing",
    "PhaseRetrieval",
    "PhaseSynchronization",
    "Posterior",
    "RobustPCA",
    "RobustSensing",
    "Sampling",
    "alternating_minimization",
    "alternating_projections",
    "amplitude_flow",
    "blind_wirtinger_flow",
    "certificate",
    "classical_sbl",
    "error_reduction",
    "generalized_power_method",
    "gradient_descent",
    "kronecker_sbl",
    "principal_component_pursuit",
    "projected_power_method",
    "regularized_blind_descent",
    "reweighted_amplitude_flow",
    "robust_alternating_minimization",
    "robust_pca",
    "scaled_gradient",
    "scaled_subgradient",
    "spectral_start",
    "subgradient",
    "truncated_amplitude_flow",
    "truncated_wirtinger_flow",
    "wirtinger_flow",
]
