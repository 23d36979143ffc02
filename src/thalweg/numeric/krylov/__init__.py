"""Krylov spaces: eigenvalues, eigenvectors and linear systems from products alone."""

from __future__ import annotations

from thalweg.numeric.krylov.bounds import (
    Bounds,
    RunEnds,
    invariance_allowance,
    krylov_epsilon,
    random_start_bounds,
    width_allowance,
)
from thalweg.numeric.krylov.conjugate_gradients import LinearSolution, conjugate_gradients
from thalweg.numeric.krylov.extreme import ExtremeEigenvalues, extreme_eigenvalues
from thalweg.numeric.krylov.lanczos import Lanczos, RitzPairs, lanczos
from thalweg.numeric.krylov.leading import leading_eigs, leading_svd
from thalweg.numeric.krylov.lobpcg import Eigenpairs, lobpcg
from thalweg.numeric.krylov.restart import thick_restart
from thalweg.numeric.krylov.ritz import rayleigh_ritz

__all__ = [
    "Bounds",
    "Eigenpairs",
    "ExtremeEigenvalues",
    "Lanczos",
    "LinearSolution",
    "RitzPairs",
    "RunEnds",
    "conjugate_gradients",
    "extreme_eigenvalues",
    "invariance_allowance",
    "krylov_epsilon",
    "lanczos",
    "leading_eigs",
    "leading_svd",
    "lobpcg",
    "random_start_bounds",
    "rayleigh_ritz",
    "thick_restart",
    "width_allowance",
]
