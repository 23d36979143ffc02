"""Instruments: curvature of the loss over the whole data set, at the model's parameters."""

from __future__ import annotations

from thalweg.curvature.blocks import block_diagonal, layers
from thalweg.curvature.certificate import Certificate, Interval, Verdict
from thalweg.curvature.certify import certify
from thalweg.curvature.covariance import gradient_covariance, gradient_gram
from thalweg.curvature.escape import Escape, escape
from thalweg.curvature.kfac import KroneckerOperator, ekfac, kfac
from thalweg.curvature.neon import NegativeCurvature, neon, neon2, neon2_online
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import Operator, fisher, generalized_gauss_newton, hessian
from thalweg.curvature.perturbed_descent import (
    PerturbedDescentConstants,
    perturbed_descent,
    perturbed_descent_constants,
)
from thalweg.curvature.polish import polish
from thalweg.curvature.population import PopulationClaim, population_claim
from thalweg.curvature.relu import (
    ReluVerdict,
    TwoLayerReLU,
    check_local_optimality,
    escape_kink,
    polish_and_certify,
)
from thalweg.curvature.ridge import RidgeRiding, ridge_riding
from thalweg.curvature.spectrum import Density, ExtremeEigenvalues, density, extremes
from thalweg.curvature.trace import diagonal, frobenius, trace

__all__ = [
    "Certificate",
    "Density",
    "Escape",
    "ExtremeEigenvalues",
    "Interval",
    "KroneckerOperator",
    "NegativeCurvature",
    "Objective",
    "Operator",
    "PerturbedDescentConstants",
    "PopulationClaim",
    "ReluVerdict",
    "RidgeRiding",
    "TwoLayerReLU",
    "Verdict",
    "block_diagonal",
    "certify",
    "check_local_optimality",
    "density",
    "diagonal",
    "ekfac",
    "escape",
    "escape_kink",
    "extremes",
    "fisher",
    "frobenius",
    "generalized_gauss_newton",
    "gradient_covariance",
    "gradient_gram",
    "hessian",
    "kfac",
    "layers",
    "neon",
    "neon2",
    "neon2_online",
    "perturbed_descent",
    "perturbed_descent_constants",
    "polish",
    "polish_and_certify",
    "population_claim",
    "ridge_riding",
    "trace",
]
