"""Estimators that follow scikit-learn to the letter; their fit runs the house's one loop."""

from __future__ import annotations

from thalweg.learn.low_rank_completer import LowRankCompleter
from thalweg.learn.normalized_logistic_regression import NormalizedLogisticRegression
from thalweg.learn.robust_pca import RobustPCA

__all__ = ["LowRankCompleter", "NormalizedLogisticRegression", "RobustPCA"]
