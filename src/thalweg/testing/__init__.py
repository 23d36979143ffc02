"""Contracts that code outside thalweg can be held to as well: run one before a long training.

>>> import torch
>>> from thalweg.testing import check_optimizer
>>> check_optimizer(torch.optim.AdamW).ok
True
"""

from __future__ import annotations

from thalweg.testing.contract import CLAUSES, check_optimizer
from thalweg.testing.report import Clause, ContractReport, Finding, Outcome

__all__ = ["CLAUSES", "Clause", "ContractReport", "Finding", "Outcome", "check_optimizer"]
