"""Estimators that follow scikit-learn to the letter; their fit runs the house's one loop."""

from __future__ import annotations

from thalweg.learn.normalized_logistic_regression import NormalizedLogisticRegression

__all__ = ["NormalizedLogisticRegression"]
