"""Parameter groups by role: the table, ties, frozen parameters, any optimizer."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thalweg
from thalweg.optim import SGD, AdaGradNorm, AdamW, param_groups


class Language(nn.Module):
    """A small language model: embedding, one transformer block, norm, head."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.position = nn.Parameter(torch.zeros(1, 16, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 50, bias=False)
        if tied:
            self.head.weight = self.embed.weight


def names(groups: Any) -> dict[str, list[str]]:
    return {group["role"]: group["param_names"] for group in groups}


TABLE = """\
role       tensors  parameters  options         names
matrix           5         640                  position, block.self_attn.in_proj_weight, \
block.self_attn.out_proj.weight, block.linear1.weight, ... 1 more
embedding        1         400                  embed.weight
head             1         400                  head.weight
norm             6          48  weight_decay=0  block.norm1.weight, block.norm1.bias, \
block.norm2.weight, block.norm2.bias, ... 2 more
bias             4          56  weight_decay=0  block.self_attn.in_proj_bias, \
block.self_attn.out_proj.bias, block.linear1.bias, block.linear2.bias"""


def test_table_of_a_language_model() -> None:
    groups = thalweg.param_groups(Language())
    assert groups.table() == TABLE
    assert repr(groups) == TABLE


def test_roles_of_a_convolutional_network() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(4, 3)
    )
    assert names(param_groups(model)) == {
        "matrix": ["0.weight"],
        "head": ["4.weight"],
        "norm": ["1.weight", "1.bias", "2.weight", "2.bias"],
        "bias": ["0.bias", "4.bias"],
    }


def test_every_trained_parameter_is_in_one_group() -> None:
    model = Language()
    model.block.linear1.weight.requires_grad_(False)
    listed = [p for group in param_groups(model) for p in group["params"]]
    assert len({id(p) for p in listed}) == len(listed)
    assert {id(p) for p in listed} == {id(p) for p in model.parameters() if p.requires_grad}


def test_tied_parameters_count_once_where_they_come_first() -> None:
    groups = names(param_groups(Language(tied=True)))
    assert groups["embedding"] == ["embed.weight"] and "head" not in groups


def test_no_weight_decay_on_norms_and_biases_alone() -> None:
    optimizer = torch.optim.AdamW(param_groups(Language()), lr=1e-3, weight_decay=0.1)
    decays = {group["role"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {"matrix": 0.1, "embedding": 0.1, "head": 0.1, "norm": 0.0, "bias": 0.0}


def test_classes_named_norm_are_norms() -> None:
    class ScaleNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1, 3))

    assert names(param_groups(nn.Sequential(ScaleNorm())))["norm"] == ["0.gain"]


@pytest.mark.parametrize(
    "make",
    [
        lambda groups: torch.optim.SGD(groups, lr=0.1),
        lambda groups: torch.optim.AdamW(groups, lr=0.1),
        lambda groups: torch.optim.Adagrad(groups),
        lambda groups: SGD(groups, lr=0.1),
        lambda groups: AdamW(groups, lr=0.1, compile=False),
        lambda groups: AdaGradNorm(groups),  # knows no weight decay
    ],
)
def test_any_optimizer_takes_them_and_keeps_the_roles_in_its_checkpoint(make: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    optimizer = make(param_groups(model))
    model(torch.ones(2, 4)).square().sum().backward()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = make(param_groups(model))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert [group["role"] for group in other.param_groups] == ["matrix", "head", "norm", "bias"]


def test_one_optimizer_leaves_nothing_behind_for_the_next() -> None:
    groups = param_groups(nn.Linear(2, 2))
    torch.optim.SGD(groups, lr=0.5, momentum=0.9)
    second = torch.optim.SGD(groups, lr=0.1)
    assert [group["lr"] for group in second.param_groups] == [0.1, 0.1]
    assert "lr" not in groups[0]
    groups[0]["params"].clear()
    assert len(groups[0]["params"]) == 1 and len(groups) == 2


def test_options_of_roles() -> None:
    groups = param_groups(
        Language(), options={"embedding": {"lr": 0.5}, "norm": {"weight_decay": 0.01}}
    )
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.2)
    found = {g["role"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert found["embedding"] == (0.5, 0.2) and found["norm"] == (0.1, 0.01)
    assert "lr=0.5" in groups.table()


def test_head_by_name_by_module_or_none() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    assert names(param_groups(model, head="0"))["head"] == ["0.weight"]
    assert names(param_groups(model, head=model[1]))["head"] == ["1.weight"]
    assert "head" not in names(param_groups(model, head=None))


def test_exceptions_by_pattern() -> None:
    groups = names(param_groups(Language(), roles={"position": "embedding", "*.linear?.*": "bias"}))
    assert groups["embedding"] == ["embed.weight", "position"] or groups["embedding"] == [
        "position",
        "embed.weight",
    ]
    assert "block.linear1.weight" in groups["bias"]


# ---- bad input ----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": "haed"}, r"head must be 'last', None, or the name of a module, got 'haed' \(did"),
        ({"head": nn.Linear(1, 1)}, "head must be a module of the model, got another Linear"),
        ({"roles": {"*.nothing": "bias"}}, r"got '\*.nothing', which matches none"),
        ({"roles": {"position": "embeding"}}, "role must be one of .*did you mean 'embedding'"),
        ({"options": {"norms": {}}}, "role must be one of .*did you mean 'norm'"),
    ],
)
def test_bad_input(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        param_groups(Language(), **options)


def test_nothing_to_train() -> None:
    with pytest.raises(ValueError, match="model must have parameters that require a gradient"):
        param_groups(nn.ReLU())
    with pytest.raises(TypeError, match="model must be a torch"):
        param_groups([torch.ones(2)])  # type: ignore[arg-type]


def test_params_are_plain_tensors() -> None:
    assert all(isinstance(p, Tensor) for g in param_groups(Language()) for p in g["params"])
