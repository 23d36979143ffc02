"""Structured problems: one problem object, several methods, one `Result` that says why it stopped.

A family of problems is a package: problems are frozen dataclasses, methods are functions
``method(problem, *, ...) -> Result``.
"""

from thalweg.solve import recovery

__all__ = ["recovery"]
