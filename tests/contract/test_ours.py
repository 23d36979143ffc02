"""Every public optimizer of thalweg meets the contract. A new one adds one row."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

import thalweg.optim
from thalweg.testing import check_optimizer, distributed


class LionAndAdamW(thalweg.optim.Combined):
    """Lion for matrices and AdamW for the rest, built as the contract builds every class."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, weight_decay: float = 0.01, **how: Any
    ) -> None:
        given = list(params)
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        parts: tuple[list[Any], list[Any]] = ([], [])
        for group in groups:
            for is_matrix, part in zip((True, False), parts, strict=True):
                if mine := [p for p in group["params"] if (p.dim() > 1) == is_matrix]:
                    part.append({**group, "params": mine})
        hyper = {"lr": lr, "weight_decay": weight_decay, **how}
        classes = (thalweg.optim.Lion, thalweg.optim.AdamW)
        super().__init__(
            cls(part, **hyper) for cls, part in zip(classes, parts, strict=True) if part
        )


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
    (LionAndAdamW, {}),
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
    # A group that is added to several optimizers must say to which.
    allowed = MAY_REFUSE | ({"added group"} if cls is LionAndAdamW else set())
    assert set(report.named("refused")) <= allowed, [tuple(f) for f in report]
    # What torch's base class does badly, our engine does well: nothing to note.
    assert report.named("note") == (), [tuple(f) for f in report]


def test_every_public_optimizer_has_a_row() -> None:
    public = {getattr(thalweg.optim, name) for name in thalweg.optim.__all__}
    optimizers = {x for x in public if isinstance(x, type) and issubclass(x, torch.optim.Optimizer)}
    # Base classes for new methods have no rule of their own.
    assert {x for x in optimizers if hasattr(x, "rule")} <= {cls for cls, _ in ROWS}


@pytest.mark.slow
@pytest.mark.compile
@pytest.mark.parametrize(("cls", "hyper"), ROWS, ids=name)
def test_a_compiled_model_trains_the_same(cls: Any, hyper: dict[str, Any]) -> None:
    check_optimizer(cls, checks="compile", **hyper).raise_if_failed()


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(("cls", "hyper"), ROWS, ids=name)
def test_two_processes_follow_one(
    cls: Any, hyper: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other processes import the class of this file under the name it has here.
    monkeypatch.syspath_prepend(str(Path(__file__).parents[__name__.count(".")]))
    check_optimizer(cls, checks=distributed.STAGES, **hyper).raise_if_failed()
