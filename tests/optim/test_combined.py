"""`Combined`: every member steps as it would alone, and the whole behaves as one optimizer."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from thalweg import optim
from thalweg.optim import Combined


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 2))


def split(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    params = list(model.parameters())
    return [p for p in params if p.dim() > 1], [p for p in params if p.dim() <= 1]


def members(model: nn.Module) -> list[Any]:
    """One of ours and one of torch's."""
    matrices, rest = split(model)
    return [optim.Lion(matrices, lr=1e-2), torch.optim.AdamW(rest, lr=1e-1)]


def backward(model: nn.Module, t: int) -> Tensor:
    model.zero_grad()
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(t))
    loss = (model(x) - torch.sin(x[:, :2])).square().mean()
    loss.backward()
    return loss


def train(model: nn.Module, optimizers: list[Any], steps: range) -> list[Tensor]:
    for t in steps:
        backward(model, t)
        for optimizer in optimizers:
            optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_members_step_as_they_would_alone() -> None:
    one, other = network(), network()
    together = train(one, [Combined(members(one))], range(8))
    alone = train(other, members(other), range(8))
    assert all(map(torch.equal, together, alone))


def test_a_scheduler_moves_every_member_from_its_own_lr() -> None:
    model = network()
    parts = members(model)
    optimizer = Combined(parts)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    train(model, [optimizer], range(1))
    scheduler.step()
    assert [part.param_groups[0]["lr"] for part in parts] == [5e-3, 5e-2]
    other = network()
    apart = members(other)
    schedulers = [lr_scheduler.ExponentialLR(part, 0.5) for part in apart]
    train(other, apart, range(1))
    for one in schedulers:
        one.step()
    assert all(
        map(torch.equal, train(model, [optimizer], range(1, 4)), train(other, apart, range(1, 4)))
    )


def test_one_cycle_finds_what_all_members_have() -> None:
    model = network()
    optimizer = Combined(members(model))
    lr_scheduler.OneCycleLR(optimizer, max_lr=[0.1, 0.2], total_steps=10)
    assert [group["betas"][0] for group in optimizer.param_groups] == [0.95, 0.95]
    matrices, rest = split(model)
    mixed = Combined([optim.Lion(matrices), torch.optim.SGD(rest, lr=0.1)])
    with pytest.raises(ValueError, match="momentum"):
        lr_scheduler.OneCycleLR(mixed, max_lr=0.1, total_steps=10)


@pytest.mark.parametrize("how", ["weights_only", "deepcopy", "pickle"])
def test_a_run_continues(how: str, tmp_path: Path) -> None:
    model = network()
    optimizer = Combined(members(model))
    train(model, [optimizer], range(4))
    if how == "weights_only":
        torch.save(optimizer.state_dict(), tmp_path / "o.pt")
        twin = copy.deepcopy(model)
        resumed = Combined(members(twin))
        resumed.load_state_dict(torch.load(tmp_path / "o.pt", weights_only=True))
    elif how == "deepcopy":
        twin, resumed = copy.deepcopy((model, optimizer))
    else:
        twin, resumed = pickle.loads(pickle.dumps((model, optimizer)))
    assert len(resumed.state) == len(optimizer.state) == 6
    assert all(
        map(
            torch.equal, train(twin, [resumed], range(4, 8)), train(model, [optimizer], range(4, 8))
        )
    )
    for group, member in zip(resumed.param_groups, resumed.members, strict=True):
        assert group is member.param_groups[0]  # still live


def test_the_checkpoint_numbers_parameters_as_torch_does() -> None:
    model = network()
    optimizer = Combined(members(model))
    train(model, [optimizer], range(1))
    saved = optimizer.state_dict()
    assert [group["params"] for group in saved["param_groups"]] == [[0, 1], [2, 3, 4, 5]]
    ordered = [p for group in optimizer.param_groups for p in group["params"]]
    for number, state in saved["state"].items():
        assert state["exp_avg"].shape == ordered[number].shape


def test_hooks_on_checkpoints_run() -> None:
    model = network()
    optimizer = Combined(members(model))
    seen: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("save"))
    optimizer.register_state_dict_post_hook(lambda o, saved: {**saved, "note": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, saved: seen.append("load"))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    assert saved["note"] == 1 and seen == ["save", "load", "loaded"]


def test_a_closure_is_called_once_with_grad() -> None:
    model, other = network(), network()
    optimizer = Combined(members(model))
    calls = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        return backward(model, 0)

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert calls == [True]
    assert torch.equal(loss, backward(other, 0))
    assert all(map(torch.equal, model.parameters(), train(other, members(other), range(1))))


def test_an_added_group_goes_where_it_is_told_and_comes_last(tmp_path: Path) -> None:
    model = network()
    first, *_, last = model
    parts = [optim.Lion([first.weight]), torch.optim.AdamW([first.bias])]
    optimizer = Combined(parts)
    scheduler = lr_scheduler.LambdaLR(optimizer, [lambda t: 0.5, lambda t: 0.25])
    with pytest.raises(ValueError, match=r"0 \(Lion\), 1 \(AdamW\), got None"):
        optimizer.add_param_group({"params": [last.weight]})
    with pytest.raises(ValueError, match="got 2"):
        optimizer.add_param_group({"params": [last.weight]}, to=2)
    with pytest.raises(ValueError, match="got SGD"):
        optimizer.add_param_group({"params": [last.weight]}, to=optim.SGD([last.weight]))
    optimizer.add_param_group({"params": [last.weight], "lr": 7.0}, to=parts[0])
    optimizer.add_param_group({"params": [last.bias], "lr": 8.0}, to=1)
    assert [group["lr"] for group in optimizer.param_groups[2:]] == [7.0, 8.0]
    assert parts[0].param_groups[1] is optimizer.param_groups[2]
    assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups[:2]]
    with pytest.raises(ValueError, match=r"parameter 0 of group \d \(shape \(7,\)\)"):
        optimizer.add_param_group({"params": [first.bias]}, to=0)
    assert len(optimizer.param_groups) == 4
    backward(model, 0)
    optimizer.step()
    twin = network()
    resumed = Combined([optim.Lion([twin[0].weight]), torch.optim.AdamW([twin[0].bias])])
    resumed.add_param_group({"params": [twin[-1].weight]}, to=0)
    resumed.add_param_group({"params": [twin[-1].bias]}, to=1)
    resumed.load_state_dict(optimizer.state_dict())
    assert [g["lr"] for g in resumed.param_groups] == [g["lr"] for g in optimizer.param_groups]
    assert torch.equal(
        resumed.state[twin[-1].weight]["exp_avg"], optimizer.state[last.weight]["exp_avg"]
    )


def test_the_only_member_needs_no_target() -> None:
    model = network()
    optimizer = Combined([optim.Lion([model[0].weight])])
    optimizer.add_param_group({"params": [model[0].bias]})
    assert len(optimizer.members[0].param_groups) == 2


def test_state_reads_and_writes_what_the_members_hold() -> None:
    model = network()
    parts = members(model)
    optimizer = Combined(parts)
    assert not optimizer.state and model[0].weight not in optimizer.state
    train(model, [optimizer], range(1))
    weight = model[0].weight
    assert optimizer.state[weight] is parts[0].state[weight]
    optimizer.state[weight] = {"exp_avg": torch.ones(7, 5)}
    assert parts[0].state[weight]["exp_avg"].sum() == 35
    del optimizer.state[weight]
    assert weight not in parts[0].state
    optimizer.state = {}
    assert not parts[0].state and not parts[1].state


def test_state_bytes_are_those_of_all_members() -> None:
    model = network()
    optimizer = Combined(members(model))
    train(model, [optimizer], range(1))
    matrices, rest = (sum(p.numel() for p in part) for part in split(model))
    # Lion keeps one number a parameter, AdamW two; torch counts steps for each of four tensors.
    lion = optimizer.members[0].state_bytes()
    assert lion >= 4 * matrices
    assert optimizer.state_bytes() == lion + 4 * (2 * rest + 4)


def test_methods_with_modes_are_switched() -> None:
    model = network()
    matrices, rest = split(model)
    optimizer = Combined([optim.AcceleGrad(matrices, diameter=4.0), optim.AdamW(rest)])
    x = train(model, [optimizer], range(3))
    optimizer.eval()
    assert not torch.equal(model[0].weight, x[0]) and torch.equal(model[0].bias, x[1])
    optimizer.train()
    assert torch.equal(model[0].weight, x[0])


def test_grad_scaler_skips_all_members_at_once() -> None:
    model = network()
    optimizer = Combined(members(model))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = [p.detach().clone() for p in model.parameters()]
    scaler.scale(backward(model, 0))
    next(iter(model.parameters())).grad.fill_(float("inf"))
    scaler.step(optimizer)
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda m: Combined([]), ValueError, "at least one optimizer, got none"),
        (lambda m: Combined([m]), TypeError, "got Sequential"),
        (
            lambda m: Combined([optim.Lion([m[0].weight]), optim.AdamW(m.parameters())]),
            ValueError,
            r"parameter 0 of group 0 \(shape \(7, 5\)\) of AdamW in Lion too",
        ),
        (
            lambda m: Combined(
                [optim.Lion([m[0].weight]), torch.optim.AdamW(m.named_parameters())]
            ),
            ValueError,
            r"parameter '0.weight' \(shape \(7, 5\)\) of AdamW in Lion too",
        ),
    ],
)
def test_bad_members_are_refused(build: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build(network())


def test_a_checkpoint_of_other_groups_is_refused() -> None:
    model = network()
    saved = torch.optim.AdamW(model.parameters()).state_dict()
    with pytest.raises(ValueError, match=r"groups of \[2, 4\] parameters, got \[6\]"):
        Combined(members(model)).load_state_dict(saved)
    saved = Combined(members(model)).state_dict()
    first, second = (group["params"] for group in saved["param_groups"])
    second.insert(0, first.pop())  # as many groups, other sizes: no member may load its part
    with pytest.raises(ValueError, match=r"groups of \[2, 4\] parameters, got \[1, 5\]"):
        Combined(members(model)).load_state_dict(saved)


def test_a_member_that_saves_more_is_refused() -> None:
    class Odd(torch.optim.SGD):
        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "schedule": b""}

    optimizer = Combined([Odd(network().parameters(), lr=0.1)])
    with pytest.raises(TypeError, match="got Odd with 'schedule' in its state_dict"):
        optimizer.state_dict()


def test_a_member_that_needs_the_closure_itself_says_so() -> None:
    model = network()
    matrices, rest = split(model)
    optimizer = Combined([optim.SALSA(matrices), optim.AdamW(rest)])
    with pytest.raises(ValueError, match="closure is needed"):
        optimizer.step(lambda: backward(model, 0))
