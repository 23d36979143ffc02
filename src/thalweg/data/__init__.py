"""Real data from installed packages, batches in memory, and the built-in problems of a race.

Nothing is downloaded: `load` reads the file an installed package ships and checks its content.
"""

from __future__ import annotations

from thalweg.data import problems
from thalweg.data.batches import Batches
from thalweg.data.dataset import Dataset
from thalweg.data.datasets import load
from thalweg.data.shipped import ChangedDataError
from thalweg.data.splits import split, standardize
from thalweg.data.tables import table

__all__ = [
    "Batches",
    "ChangedDataError",
    "Dataset",
    "load",
    "problems",
    "split",
    "standardize",
    "table",
]
