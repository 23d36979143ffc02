"""Clause on torch.compile: the optimizer must not mind whose model it trains."""

from __future__ import annotations

import torch
from torch import nn

from thalweg.testing.report import Verdict, failed, passed
from thalweg.testing.subject import STEPS, Run, Subject


def compiled_model(subject: Subject) -> Verdict:
    """Train a compiled model, and compare with the plain one up to the compiler's rounding."""
    model = subject.model()
    optimizer = subject.optimizer(model.parameters())
    compiled: nn.Module = torch.compile(model)  # type: ignore[assignment]
    Run(subject, compiled, optimizer).train(range(STEPS))
    expected = subject.trained()
    for (name, p), q in zip(model.named_parameters(), expected.model.parameters(), strict=True):
        # Compiled gradients differ in the last bits; a wrong step differs by whole steps.
        if not torch.allclose(p, q, rtol=1e-3, atol=1e-4):
            gap = (p - q).abs().max().item()
            return failed(f"{name} off by {gap:.2g}", "the run of the plain model")
    return passed("a compiled model follows the plain one")
