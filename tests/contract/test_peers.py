"""The optimizers of torch meet the contract: a check of the checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from thalweg.testing import check_optimizer, distributed

DENSE: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.Adam, {}),
    (torch.optim.Adam, {"amsgrad": True, "foreach": True}),
    (torch.optim.AdamW, {}),
    (torch.optim.AdamW, {"fused": True}),
    (torch.optim.Adamax, {}),
    (torch.optim.NAdam, {}),
    (torch.optim.RAdam, {}),
    (torch.optim.Adadelta, {}),
    (torch.optim.Adagrad, {}),
    (torch.optim.ASGD, {}),
    (torch.optim.RMSprop, {}),
    (torch.optim.RMSprop, {"momentum": 0.9, "centered": True}),
    (torch.optim.Rprop, {}),
    (torch.optim.SGD, {}),
    (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    (torch.optim.Adafactor, {}),
    (torch.optim.Muon, {}),
]

# Defects of torch 2.13, found by these checks; each line may go when torch has mended it.
DEFECTS: dict[Any, dict[str, str]] = {
    # the fused CPU kernels read memory in storage order, past the end of an expanded gradient
    "fused": {
        "transposed parameter": "contiguous gradients",
        "channels-last parameter": "contiguous gradients",
        "expanded gradient": "away",
    },
    # float32 scalars over bfloat16 parameters come back from load_state_dict as bfloat16
    torch.optim.NAdam: {"state dtype": "mu_product bfloat16"},
    torch.optim.ASGD: {"state dtype": "eta bfloat16"},
    torch.optim.Adafactor: {"empty parameter": "ZeroDivisionError"},
    # __getstate__ forgets the attribute _params
    torch.optim.LBFGS: {"deepcopy": "_params", "pickle": "_params"},
}

# What a class may refuse, and what may not concern it, for reasons of its own.
EXPLAINED = {
    "integer parameter",
    "complex parameter",
    "sparse gradient",
    "0-d parameter",  # Muon
    "channels-last parameter",  # Muon
    "maximize",  # Muon
    "one cycle",  # no momentum
    "schedulers",  # Rprop: lr is the first step size only
    "tensor lr",  # foreach=True
    "wide state",  # SGD without momentum
}


def name(x: Any) -> str:
    return getattr(x, "__name__", "-".join(x) if isinstance(x, dict) else "")


@pytest.mark.parametrize(("cls", "hyper"), DENSE, ids=name)
def test_torch_meets_the_contract(cls: Any, hyper: dict[str, Any]) -> None:
    report = check_optimizer(cls, **hyper)
    defects = DEFECTS.get("fused" if hyper.get("fused") else cls, {})
    assert set(report.failed) == set(defects), report.raise_if_failed()
    for clause, words in defects.items():
        assert words in report[clause].detail
    assert report.ok == (not defects)
    assert set(report.named("refused") + report.named("not applicable")) <= EXPLAINED
    assert len(report.named("pass")) >= 25


def test_lbfgs_is_driven_by_a_closure() -> None:
    report = check_optimizer(torch.optim.LBFGS, max_iter=4, history_size=5)
    assert set(report.failed) == set(DEFECTS[torch.optim.LBFGS])
    assert report["trains"].outcome == "pass" and report["resume from disk"].outcome == "pass"
    assert report["groups"].outcome == report["resume through DCP"].outcome == "refused"
    assert "al (list)" in report["state layout"].detail


def test_sparse_adam_refuses_dense_gradients() -> None:
    report = check_optimizer(torch.optim.SparseAdam)
    assert report.ok and report.named("refused") == ("trains",)
    assert {f.outcome for f in report} == {"refused", "not applicable"}


def test_what_torch_shares_in_memory_is_noted() -> None:
    report = check_optimizer(torch.optim.Adam, checks=("independent load", "wide state"))
    assert report.named("note") == ("independent load", "wide state")
    assert "exp_avg, exp_avg_sq, step" in report["independent load"].detail


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("cls", [torch.optim.AdamW, torch.optim.Adagrad, torch.optim.SGD])
def test_torch_follows_one_process(cls: Any) -> None:
    check_optimizer(cls, checks=distributed.STAGES).raise_if_failed()


@pytest.mark.slow
@pytest.mark.compile
def test_a_compiled_model_follows_the_plain_one() -> None:
    report = check_optimizer(torch.optim.AdamW, checks=("compile",))
    assert [tuple(f)[:2] for f in report] == [("compile", "pass")]
