"""Instruments: curvature of the loss over the whole data set, at the model's parameters."""

from __future__ import annotations

from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import Operator, hessian
from thalweg.curvature.trace import diagonal, frobenius, trace

__all__ = ["Objective", "Operator", "diagonal", "frobenius", "hessian", "trace"]
