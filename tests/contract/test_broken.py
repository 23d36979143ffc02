"""The contract can fail: one optimizer per clause breaks it, and that clause alone must say so."""

from __future__ import annotations

import copy
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from thalweg.core import check
from thalweg.testing import CLAUSES, check_optimizer, distributed


class Good(Optimizer):
    """Momentum that meets every clause; each class below spoils one thing."""

    def __init__(self, params: Any, lr: Any = 0.05, momentum: float = 0.9, maximize: bool = False):
        check.number("lr", lr, ge=0)
        check.number("momentum", momentum, ge=0, lt=1)
        super().__init__(params, {"lr": lr, "momentum": momentum, "maximize": maximize})

    def step(self, closure: Any = None) -> Any:
        loss = self.loss(closure)
        with torch.no_grad():
            for group in self.groups():
                for p in group["params"]:
                    if p.grad is None:
                        self.skip(p)
                        continue
                    g = self.gradient(p)
                    if not self.state[p]:
                        self.state[p].update(self.initial(p, g))
                    self.move(p, -g if group["maximize"] else g, self.state[p], group)
        return loss

    def loss(self, closure: Any) -> Any:
        if closure is None:
            return None
        with torch.enable_grad():
            return closure()

    def groups(self) -> list[dict[str, Any]]:
        return self.param_groups

    def skip(self, p: Tensor) -> None:
        pass

    def gradient(self, p: Tensor) -> Tensor:
        if not (p.is_floating_point() or p.is_complex()):
            raise TypeError(f"parameters must be floating point, got {p.dtype}")
        if p.grad.layout is not torch.strided:
            raise TypeError("gradients must be dense, got a sparse one")
        return p.grad

    def initial(self, p: Tensor, g: Tensor) -> dict[str, Any]:
        return {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(p)}

    def rate(self, group: dict[str, Any]) -> Any:
        return group["lr"]

    def move(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["step"] += 1
        state["exp_avg"].mul_(group["momentum"]).add_(g)
        p.copy_(self.update(p, state["exp_avg"], self.rate(group)))

    def update(self, p: Tensor, m: Tensor, lr: Any) -> Tensor:
        return p - lr * m

    def load_state_dict(self, state_dict: Any) -> None:
        saved = copy.deepcopy(state_dict)
        super().load_state_dict(saved)
        # torch casts to the parameter's dtype: put back what was saved
        self.replace_state(saved)

    def replace_state(self, saved: Any) -> None:
        numbers = [i for group in saved["param_groups"] for i in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for i, p in zip(numbers, params, strict=True):
            if i in saved["state"]:
                self.state[p] = saved["state"][i]


class Diverges(Good):
    def move(self, p, g, state, group):
        super().move(p, g, state, group)
        if state["step"] == 8 and p.shape == (4, 16) and p.dtype is torch.float32:
            p.fill_(float("inf"))


class KeepsAString(Good):
    def initial(self, p, g):
        return super().initial(p, g) | {"kind": "momentum"}


class KeepsPickledBytes(Good):
    def __init__(self, params, **hyper):
        super().__init__(params, **hyper)
        for group in self.param_groups:
            group["schedule"] = b"\x80\x04N."


class MakesStateFromTheGradient(Good):
    """A zero gradient makes less state, so a distributed checkpoint has no place to load into."""

    def initial(self, p, g):
        extra = {"first": torch.zeros_like(p)} if g.any() else {}
        return super().initial(p, g) | extra


class KeepsUpdates(Good):
    def update(self, p, m, lr):
        self.last = getattr(self, "last", [])[-3:] + [lr * m]
        return super().update(p, m, lr)


class KeepsItsOwnRate(Good):
    def load_state_dict(self, state_dict):
        rates = [group["lr"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, lr in zip(self.param_groups, rates, strict=True):
            group["lr"] = lr


class SharesMemory(Good):
    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.replace_state(state_dict)


class CopiesWithoutState(Good):
    def __deepcopy__(self, memo):
        groups = [
            {k: v for k, v in group.items() if k != "params"}
            | {"params": [memo[id(p)] for p in group["params"]]}
            for group in self.param_groups
        ]
        return type(self)(groups)


class CannotBePickled(Good):
    def __deepcopy__(self, memo):
        twin = type(self)([copy.deepcopy(p, memo) for p in self.param_groups[0]["params"]])
        twin.load_state_dict(self.state_dict())
        return twin

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle a handle")


class KeepsAnObject(Good):
    def __init__(self, params, **hyper):
        super().__init__(params, **hyper)
        for group in self.param_groups:
            group["power"] = Fraction(1, 2)


class CountsUnderAName(Good):
    """State of no parameter, which torch.distributed.checkpoint has no name for."""

    def step(self, closure=None):
        self.state["all"] = {"t": self.state.get("all", {}).get("t", torch.tensor(0.0)) + 1}
        return super().step(closure)

    def rate(self, group):
        return group["lr"] / self.state["all"]["t"].item()


class SharesAtTheStart(Good):
    """Two averages in one memory until they differ: a file cannot be read into both."""

    def initial(self, p, g):
        zeros = torch.zeros_like(p)
        return {"step": torch.tensor(0.0), "exp_avg": zeros, "fast": zeros}

    def move(self, p, g, state, group):
        state["step"] += 1
        if g.count_nonzero() or state["exp_avg"].count_nonzero():
            state["exp_avg"] = group["momentum"] * state["exp_avg"] + g
            state["fast"] = 0.5 * state["fast"] + g
        p.copy_(self.update(p, state["exp_avg"] + state["fast"], self.rate(group)))


class LosesDtype(Good):
    """Keeps float32 over bfloat16 parameters, and loads as torch.optim.Optimizer does."""

    def initial(self, p, g):
        dtype = torch.float32 if p.dtype is torch.bfloat16 else p.dtype
        return super().initial(p, g) | {"exp_avg": torch.zeros_like(p, dtype=dtype)}

    def load_state_dict(self, state_dict):
        Optimizer.load_state_dict(self, copy.deepcopy(state_dict))


class CastsWideState(Good):
    def load_state_dict(self, state_dict):
        Optimizer.load_state_dict(self, copy.deepcopy(state_dict))


class DrawsGlobally(Good):
    def update(self, p, m, lr):
        return p - lr * m * (1 + 0.1 * torch.rand(()).item())


class TakesGradients(Good):
    def move(self, p, g, state, group):
        super().move(p, g, state, group)
        p.grad = None


class ChangesGradients(Good):
    def move(self, p, g, state, group):
        super().move(p, g, state, group)
        if 0 not in p.grad.stride():
            p.grad.mul_(0.5)


class AddsZero(Good):
    def update(self, p, m, lr):
        return p - lr * m + 0.0


class DecaysWithoutGradient(Good):
    def skip(self, p):
        p.mul_(0.99)


class MakesStateWithoutGradient(Good):
    def skip(self, p):
        self.state[p].update(self.initial(p, p))


class ExpectsAllGradientsAtFirst(Good):
    def step(self, closure=None):
        self.fresh = {
            p
            for group in self.param_groups
            if not any(self.state.get(p) for p in group["params"])
            for p in group["params"]
        }
        return super().step(closure)

    def initial(self, p, g):
        return super().initial(p, g) if p in self.fresh else {}


class IgnoresMaximize(Good):
    def groups(self):
        return [group | {"maximize": False} for group in self.param_groups]


class ClosesWithoutGrad(Good):
    def loss(self, closure):
        with torch.no_grad():
            return None if closure is None else closure()


class ReturnsNothing(Good):
    def step(self, closure=None):
        super().step(closure)


class KeepsTheGradient(Good):
    """The previous gradient by reference: accumulating into it writes over it."""

    def initial(self, p, g):
        return super().initial(p, g) | {"previous": torch.zeros_like(p)}

    def move(self, p, g, state, group):
        super().move(p, g + state["previous"], state, group)
        state["previous"] = g


class TakesGradientsInBackward(Good):
    """What is done to p.grad afterwards is lost; only loss scaling is undone."""

    in_backward: dict[Tensor, Tensor] = {}

    def __init__(self, params, **hyper):
        super().__init__(params, **hyper)
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.requires_grad:
                p.register_post_accumulate_grad_hook(keep_gradient)

    def gradient(self, p):
        g = super().gradient(p)
        kept = self.in_backward.pop(p, g)
        return g if any(torch.equal(kept, scale * g) for scale in (8, 16)) else kept


def keep_gradient(p: Tensor) -> None:
    TakesGradientsInBackward.in_backward[p] = p.grad.clone()


class UsesTheFirstRate(Good):
    def rate(self, group):
        return self.param_groups[0]["lr"]


class ForgetsNewGroups(Good):
    def groups(self):
        self.known = getattr(self, "known", len(self.param_groups))
        return self.param_groups[: self.known]


class RemembersItsRate(Good):
    def rate(self, group):
        return group.setdefault("first_lr", group["lr"]) if group["lr"] else group["lr"]


class NeedsOneMomentum(Good):
    def move(self, p, g, state, group):
        if group["momentum"] != self.defaults["momentum"]:
            raise RuntimeError("buffers were made for another momentum")
        super().move(p, g, state, group)


class WritesIntoTheRate(Good):
    def rate(self, group):
        lr = group["lr"]
        lr *= 0.5
        return 2 * lr


class ClaimsToUnscale(Good):
    _step_supports_amp_scaling = True


class OverflowsInBfloat16(Good):
    def update(self, p, m, lr):
        if p.dtype is torch.bfloat16 and p.numel() > 16:
            return (p.half() * 1e6).to(p.dtype)
        return super().update(p, m, lr)


class AcceptsAnyRate(Good):
    def __init__(self, params, lr=0.05, **hyper):
        super().__init__(params, lr=abs(lr) if isinstance(lr, float) else lr, **hyper)


class AcceptsNaN(Good):
    def __init__(self, params, lr=0.05, momentum=0.9, maximize=False):
        check.number("lr", lr, ge=0)
        super().__init__(params, lr, 0.9, maximize)
        for group in self.param_groups:
            group["momentum"] = momentum


class LooksAtTheFirst(Good):
    def __init__(self, params, **hyper):
        params = list(params)
        self.example = params[0]
        super().__init__(params, **hyper)


class RoundsIntegers(Good):
    def gradient(self, p):
        return p.grad if p.dtype is torch.int64 else super().gradient(p)

    def move(self, p, g, state, group):
        if p.dtype is torch.int64:
            p.copy_(p - group["lr"] * g)
        else:
            super().move(p, g, state, group)


class Conjugates(Good):
    def gradient(self, p):
        return super().gradient(p).conj()


class HalvesSparse(Good):
    def gradient(self, p):
        return 0.5 * p.grad.to_dense() if p.grad.is_sparse else super().gradient(p)


class AddsADimension(Good):
    def move(self, p, g, state, group):
        super().move(p, g, state, group)
        if p.dim() == 0:
            p.data, p.grad = p.data.view(1), None
            state["exp_avg"] = state["exp_avg"].view(1)


class DividesBySize(Good):
    def update(self, p, m, lr):
        return p - (lr / p.numel()) * m * p.numel()


class WritesInStorageOrder(Good):
    def update(self, p, m, lr):
        if p.dim() != 2 or p.is_contiguous():
            return super().update(p, m, lr)
        p.as_strided((p.numel(),), (1,)).sub_(lr * m.flatten())
        return p


class MakesImagesContiguous(Good):
    def move(self, p, g, state, group):
        super().move(p, g, state, group)
        if p.dim() == 4:
            p.data = p.data.contiguous()


class SkipsPartialStorage(Good):
    def gradient(self, p):
        g = super().gradient(p)
        return g if g.untyped_storage().nbytes() == g.nbytes else torch.zeros_like(p)


class CastsToTheFirst(Good):
    def move(self, p, g, state, group):
        super().move(p, g, state, group)
        dtype = group["params"][0].dtype
        if p.dtype is not dtype:
            p.grad, p.data = None, p.data.to(dtype)


class MindsTheRank(Good):
    def rate(self, group):
        plain = type(group["params"][0].data) is Tensor
        late = plain and dist.is_initialized() and dist.get_rank() == 1
        return group["lr"] * (2 if late else 1)


class AssumesRows(Good):
    """Takes every sharded parameter for one that is split by row, as FSDP2 splits it."""

    def update(self, p, m, lr):
        columns = any(place.is_shard(1) for place in getattr(p, "placements", ()))
        return super().update(p, m, 2 * lr if columns else lr)


class NormOfTheShard(Good):
    def update(self, p, m, lr):
        m = m.to_local() if hasattr(m, "to_local") else m
        size = m.norm().clamp(min=1e-8) if m.numel() else 1.0
        if hasattr(p, "to_local"):
            p.to_local().sub_(lr * m / size)
            return p
        return p - lr * m / size


class LosesShards(Good):
    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for p, state in self.state.items():
            if hasattr(p, "to_local"):
                state["exp_avg"] = torch.zeros_like(p)


class WaitsForever(Good):
    def step(self, closure=None):
        if dist.is_initialized() and dist.get_rank() == 1:
            time.sleep(1000)
        return super().step(closure)


FAULTS = [
    (Diverges, "trains", "infinite"),
    (KeepsAString, "state layout", r"kind \(str\)"),
    (KeepsPickledBytes, "state layout", "bytes"),
    (MakesStateFromTheGradient, ("state from the parameter", "DCP on disk"), "first"),
    (KeepsUpdates, "memory", "alive after the step"),
    (KeepsItsOwnRate, "resume in memory", "off by"),
    (CopiesWithoutState, "deepcopy", "off by"),
    (CannotBePickled, "pickle", "handle"),
    (KeepsAnObject, "resume from disk", "Fraction"),
    (CountsUnderAName, ("resume through DCP", "DCP on disk"), "all"),
    (SharesAtTheStart, "DCP on disk", "off by"),
    (LosesDtype, "state dtype", "bfloat16"),
    (DrawsGlobally, "random state", "global seed"),
    (TakesGradients, "gradients untouched", "None as the gradient"),
    (ChangesGradients, "gradients untouched", "changed by"),
    (AddsZero, "zero step", r"0\.0 from -0\.0"),
    (DecaysWithoutGradient, "absent gradient", "moved"),
    (MakesStateWithoutGradient, "absent gradient", "makes state"),
    (ExpectsAllGradientsAtFirst, "late gradient", "KeyError"),
    (IgnoresMaximize, "maximize", "off by"),
    (ClosesWithoutGrad, "closure", "without grad"),
    (ReturnsNothing, "closure", "None from step"),
    (KeepsTheGradient, "accumulation", "accumulated in place"),
    (TakesGradientsInBackward, "clipping", "after clip_grad_norm_"),
    (UsesTheFirstRate, "groups", "no change"),
    (ForgetsNewGroups, "added group", "no finite move"),
    (RemembersItsRate, "schedulers", "no effect of LambdaLR"),
    (NeedsOneMomentum, "one cycle", "another momentum"),
    (WritesIntoTheRate, "tensor lr", "caller's lr"),
    (ClaimsToUnscale, "grad scaler", "after a step with infinite"),
    (OverflowsInBfloat16, "bfloat16", "NaN or infinity"),
    (AcceptsAnyRate, "bad hyper-parameters", "lr=-1 accepted"),
    (LooksAtTheFirst, "empty list", "IndexError"),
    (RoundsIntegers, "integer parameter", "rounded"),
    (Conjugates, "complex parameter", "away"),
    (HalvesSparse, "sparse gradient", "away"),
    (AddsADimension, "0-d parameter", r"\[1\]"),
    (DividesBySize, "empty parameter", "ZeroDivisionError"),
    (WritesInStorageOrder, "transposed parameter", "away"),
    (MakesImagesContiguous, "channels-last parameter", "strides"),
    (SkipsPartialStorage, "expanded gradient", "away"),
    (CastsToTheFirst, "mixed dtypes", "float32 from"),
]
NOTES = [
    (SharesMemory, "independent load", "share the memory of exp_avg, step"),
    (CastsWideState, "wide state", "loads as bfloat16"),
    (AcceptsNaN, "bad hyper-parameters", "momentum"),
]
SPREAD = [
    (MindsTheRank, ("DDP",), "off by"),
    (NormOfTheShard, ("FSDP2", "tensor parallel"), "off by"),
    (LosesShards, ("FSDP2 resume",), "in memory"),
    (SharesAtTheStart, ("FSDP2 resume",), "on disk"),
    (AssumesRows, ("tensor parallel",), "off by"),
]


def test_the_good_one_passes_without_a_note() -> None:
    report = check_optimizer(Good)
    assert report.failed == () and report.named("note") == ()
    assert report.named("refused") == ("integer parameter", "sparse gradient")
    assert report.named("not applicable") == ()


@pytest.mark.parametrize(
    ("cls", "clause", "words"), FAULTS, ids=lambda x: getattr(x, "__name__", "")
)
def test_one_fault_fails_its_clause_alone(
    cls: Any, clause: str | tuple[str, ...], words: str
) -> None:
    report = check_optimizer(cls)
    clauses = as_tuple(clause)
    assert report.failed == clauses, [tuple(f) for f in report if f.clause in report.failed]
    with pytest.raises(AssertionError, match=words):
        report.raise_if_failed()
    assert all("expected" in report[clause].detail for clause in clauses)


@pytest.mark.parametrize(
    ("cls", "clause", "words"), NOTES, ids=lambda x: getattr(x, "__name__", "")
)
def test_weaknesses_of_torch_itself_are_noted(cls: Any, clause: str, words: str) -> None:
    report = check_optimizer(cls)
    assert report.ok and report.named("note") == (clause,)
    assert words in report[clause].detail


def test_every_clause_has_a_fault() -> None:
    covered = {clause for _, told, _ in FAULTS + NOTES for clause in as_tuple(told)}
    covered |= {clause for _, clauses, _ in SPREAD for clause in clauses}
    # Nothing an optimizer does by itself depends on whether the model is compiled.
    assert covered == {clause.name for clause in CLAUSES} - {"compile"}


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(
    ("cls", "clauses", "words"), SPREAD, ids=lambda x: getattr(x, "__name__", "")
)
def test_faults_of_several_processes(
    cls: Any,
    clauses: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    importable(monkeypatch, request)
    report = check_optimizer(cls, checks=distributed.STAGES)
    assert report.failed == clauses, [tuple(f) for f in report]
    assert all(words in report[clause].detail for clause in clauses)


@pytest.mark.slow
@pytest.mark.distributed
def test_a_rank_that_hangs_is_stopped(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    importable(monkeypatch, request)
    monkeypatch.setattr(distributed, "SECONDS", 20)
    report = check_optimizer(WaitsForever, checks=distributed.STAGES)
    assert report.failed == distributed.STAGES
    assert "no answer within 20 s" in report["DDP"].detail


def as_tuple(clause: str | tuple[str, ...]) -> tuple[str, ...]:
    """What a fault breaks: one clause, or those that ask the same in two ways."""
    return (clause,) if isinstance(clause, str) else clause


def importable(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let the other processes import the classes of this file under the name they have here."""
    depth = __name__.count(".") + 1
    monkeypatch.syspath_prepend(str(Path(__file__).parents[depth - 1]))
