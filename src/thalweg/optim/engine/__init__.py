"""The engine: the only place that knows about parameter groups, compilation and sharded tensors."""

from __future__ import annotations

from thalweg.optim.engine.base import Active, How, RuleOptimizer
from thalweg.optim.engine.elementwise import Elementwise

__all__ = ["Active", "Elementwise", "How", "RuleOptimizer"]
