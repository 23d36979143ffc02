"""Optimizers: drop-in replacements for `torch.optim`, one formula each."""

from __future__ import annotations

from thalweg.optim.adam import Adam, AdamW

__all__ = ["Adam", "AdamW"]
