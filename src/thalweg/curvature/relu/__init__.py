"""Two-layer ReLU networks at kinks: the exact test of Yun, Sra & Jadbabaie, and the way down."""

from __future__ import annotations

from thalweg.curvature.relu.check import ReluVerdict, Verdict, check_local_optimality
from thalweg.curvature.relu.escape import Decrease, escape_kink, polish_and_certify
from thalweg.curvature.relu.network import Direction, TwoLayerReLU
from thalweg.curvature.relu.snap import snap
from thalweg.curvature.relu.training import two_layer_relu

__all__ = [
    "Decrease",
    "Direction",
    "ReluVerdict",
    "TwoLayerReLU",
    "Verdict",
    "check_local_optimality",
    "escape_kink",
    "polish_and_certify",
    "snap",
    "two_layer_relu",
]
