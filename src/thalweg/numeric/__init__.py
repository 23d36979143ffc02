"""Pure tensor mathematics, tested against closed forms: constraint sets and their projections."""

from __future__ import annotations

from thalweg.numeric.sets import (
    Affine,
    Box,
    Halfspace,
    L1Ball,
    L2Ball,
    NuclearBall,
    Set,
    Simplex,
)

__all__ = ["Affine", "Box", "Halfspace", "L1Ball", "L2Ball", "NuclearBall", "Set", "Simplex"]
