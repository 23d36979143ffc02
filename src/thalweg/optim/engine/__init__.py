"""The engine: the only place that knows of parameter groups, compilation and sharded tensors.

A method chooses its scope, that is, what its rule must see at once: `Elementwise` (any flat piece
of memory), `Tensorwise` (one whole parameter), `Matrixwise` (a stack of matrices), `Global`
(numbers that depend on all parameters).
"""

from __future__ import annotations

from thalweg.optim.engine.base import Active, How, RuleOptimizer
from thalweg.optim.engine.elementwise import Elementwise
from thalweg.optim.engine.globally import Global, squared_norm, tensor_norms
from thalweg.optim.engine.sharding import whole
from thalweg.optim.engine.tensorwise import Matrixwise, Tensorwise

__all__ = [
    "Active",
    "Elementwise",
    "Global",
    "How",
    "Matrixwise",
    "RuleOptimizer",
    "Tensorwise",
    "squared_norm",
    "tensor_norms",
    "whole",
]
