"""Krylov spaces: eigenvalues, eigenvectors and linear systems from products alone."""

from __future__ import annotations

from thalweg.numeric.krylov.lanczos import Lanczos, RitzPairs, lanczos

__all__ = ["Lanczos", "RitzPairs", "lanczos"]
