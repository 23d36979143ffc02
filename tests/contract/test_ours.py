"""Every public optimizer of thalweg meets the contract. A new one adds one row."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import thalweg.optim
from thalweg.testing import check_optimizer, distributed

ROWS: list[tuple[Any, dict[str, Any]]] = [
    (thalweg.optim.SGD, {}),
    (thalweg.optim.SGLD, {}),
    (thalweg.optim.AMSGrad, {}),
    (thalweg.optim.AcceleGrad, {"diameter": 10.0}),
    (thalweg.optim.AdaGrad, {}),
    (thalweg.optim.AdaGradFull, {}),
    (thalweg.optim.AdaGradNorm, {}),
    (thalweg.optim.Adam, {}),
    (thalweg.optim.AdamP, {}),
    (thalweg.optim.AdamW, {}),
    (thalweg.optim.ClippedSGD, {}),
    (thalweg.optim.EGDD, {}),
    (thalweg.optim.Lion, {}),
    (thalweg.optim.LionK, {}),
    (thalweg.optim.NovoGrad, {}),
    (thalweg.optim.PerturbedSGD, {}),
    (thalweg.optim.RMSProp, {}),
    (thalweg.optim.SALSA, {}),
    (thalweg.optim.SASA, {}),
    (thalweg.optim.SGDP, {}),
    (thalweg.optim.SSLS, {}),
    (thalweg.optim.AdamW, {"rounding": "stochastic"}),
    (thalweg.optim.AdamW, {"rounding": "compensated"}),
]

# Ours may refuse these, with a clear error, and nothing else.
MAY_REFUSE = {
    "integer parameter",
    "complex parameter",
    "sparse gradient",
    "0-d parameter",  # methods for matrices
    "channels-last parameter",  # methods for matrices
}


def name(x: Any) -> str:
    return getattr(x, "__name__", "-".join(map(str, x.values())) if isinstance(x, dict) else "")


@pytest.mark.parametrize(("cls", "hyper"), ROWS, ids=name)
def test_contract(cls: Any, hyper: dict[str, Any]) -> None:
    report = check_optimizer(cls, **hyper).raise_if_failed()
    assert set(report.named("refused")) <= MAY_REFUSE, [tuple(f) for f in report]
    # What torch's base class does badly, our engine does well: nothing to note.
    assert report.named("note") == (), [tuple(f) for f in report]


def test_every_public_optimizer_has_a_row() -> None:
    public = {getattr(thalweg.optim, name) for name in thalweg.optim.__all__}
    optimizers = {x for x in public if isinstance(x, type) and issubclass(x, torch.optim.Optimizer)}
    # Base classes for new methods have no rule of their own.
    assert {x for x in optimizers if hasattr(x, "rule")} <= {cls for cls, _ in ROWS}


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(("cls", "hyper"), ROWS, ids=name)
def test_two_processes_follow_one(cls: Any, hyper: dict[str, Any]) -> None:
    check_optimizer(cls, checks=distributed.STAGES, **hyper).raise_if_failed()
