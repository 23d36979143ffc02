"""Checkpoints: every layout that training scripts write, and nothing that could run code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from thalweg.inspect import load_checkpoint


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.fixture
def trained() -> nn.Module:
    torch.manual_seed(5)
    model = network()
    model(torch.randn(8, 3))  # running statistics
    return model


def same(model: nn.Module, other: nn.Module) -> bool:
    pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("key", [None, "model", "state_dict", "model_state_dict"])
def test_plain_and_wrapped_state_dicts(tmp_path: Path, trained: nn.Module, key: str | None) -> None:
    state = trained.state_dict()
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "model.pt")
    model = network()
    assert not same(model, trained)
    load_checkpoint(model, tmp_path / "model.pt")
    assert same(model, trained)


def test_safetensors_and_models_trained_in_parallel(tmp_path: Path, trained: nn.Module) -> None:
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    parallel = {f"module.{key}": value for key, value in trained.state_dict().items()}
    torch.save(parallel, tmp_path / "parallel.pt")
    for name in ("model.safetensors", "parallel.pt"):
        model = network()
        load_checkpoint(model, tmp_path / name)
        assert same(model, trained)


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return os.mkdir, (os.environ["HARM"],)


def test_a_pickle_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: nn.Module
) -> None:
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    for name, content in (("code.pt", {"model": Harmful()}), ("whole.pt", trained)):
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match=r"tensors and plain values only, got pickled objects"):
            load_checkpoint(network(), tmp_path / name)
    assert not (tmp_path / "harm").exists()


def test_differing_keys_are_listed_and_nothing_is_loaded(
    tmp_path: Path, trained: nn.Module
) -> None:
    state = trained.state_dict()
    state["2.wight"] = state.pop("2.weight")
    state["0.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "model.pt")
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError) as refusal:
        load_checkpoint(model, tmp_path / "model.pt")
    told = str(refusal.value)
    assert "it lacks 2.weight; it has 2.wight, which the model has not" in told
    assert "0.bias ((7,) there, (4,) in the model)" in told and "\n" not in told
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_many_differing_keys_are_counted(tmp_path: Path) -> None:
    torch.save({f"layer.{i}": torch.ones(1) for i in range(9)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"layer\.4 and 4 more, which the model has not"):
        load_checkpoint(network(), tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.pt", None, "which is none"),
        ("noise.pt", b"not a checkpoint", "checkpoint"),
        ("noise.safetensors", b"not a checkpoint", "cannot be read"),
        ("cut.pt", b"PK\x03\x04", "cannot be read"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as refusal:
        load_checkpoint(network(), tmp_path / name)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [[1, 2], {}, 3.0], ids=str)
def test_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="must hold a state dict"):
        load_checkpoint(network(), tmp_path / "model.pt")
