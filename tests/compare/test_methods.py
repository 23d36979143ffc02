from __future__ import annotations

import pytest
import torch

import thalweg.nn
from thalweg.compare import BadInput
from thalweg.compare.catalogues import entries
from thalweg.compare.methods import resolve
from thalweg.core.catalogue import LogUniform, OneMinusLogUniform


def test_module_and_class() -> None:
    (contender,) = resolve("torch.optim:AdamW")
    assert contender.target is torch.optim.AdamW
    assert contender.name == contender.spec == "torch.optim:AdamW"
    assert contender.place == "torch.optim.adamw:AdamW"
    assert "lr" in contender.space and contender.defaults["lr"] == 1e-3
    assert contender.defaults["betas"] == (0.9, 0.999)


def test_a_class() -> None:
    (contender,) = resolve([torch.optim.SGD])
    assert contender.name == "SGD" and contender.target is torch.optim.SGD


def test_values_inline_are_fixed_and_not_tuned() -> None:
    free, fixed = resolve(["torch.optim:SGD", "torch.optim:SGD[lr=1e-3, nesterov=True]"])
    assert set(free.space) == {"lr", "momentum"} and set(fixed.space) == {"momentum"}
    assert fixed.fixed == {"lr": 1e-3, "nesterov": True}
    assert fixed.arguments({"momentum": 0.5}) == {"lr": 1e-3, "nesterov": True, "momentum": 0.5}
    assert fixed.declared
    assert free.key != fixed.key


def test_a_fixed_pair_removes_the_axes_of_its_elements(
    odd_methods: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import odd_methods as module  # type: ignore[import-not-found]

    class Pair(module.Plain):  # type: ignore[misc]
        search_space = {"lr": LogUniform(1e-3, 1.0), "betas[0]": OneMinusLogUniform(1e-2, 1.0)}

        def __init__(self, params: object, lr: float = 0.1, betas: tuple = (0.9, 0.99)) -> None:
            super().__init__(params, lr)

    monkeypatch.setattr(module, "Pair", Pair, raising=False)
    free, fixed = resolve(["odd_methods:Pair", "odd_methods:Pair[betas=(0.5,0.6)]"])
    assert free.default_values() == {"lr": 0.1, "betas[0]": 0.9}
    assert free.arguments({"lr": 1.0, "betas[0]": 0.3}) == {"lr": 1.0, "betas": (0.3, 0.99)}
    assert set(fixed.space) == {"lr"}
    assert fixed.arguments({"lr": 1.0}) == {"lr": 1.0, "betas": (0.5, 0.6)}


def test_the_same_method_twice_gets_two_names_and_one_key() -> None:
    first, second = resolve(["torch.optim:SGD", "torch.optim:SGD"])
    assert first.name != second.name
    assert first.key == second.key


def test_an_empty_space_is_parameter_free(odd_methods: str) -> None:
    (contender,) = resolve(f"{odd_methods}:AutoTuned")
    assert not contender.declared and contender.space == {}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("no_such_method_at_all", "unknown method 'no_such_method_at_all'"),
        ("torch.optim:AdamWW", "did you mean 'AdamW'"),
        ("no.such.module:Adam", "cannot import 'no'"),
        ("torch.optim:lr_scheduler", "must be an optimizer class"),
        ("torch.nn:Linear", "must be an optimizer class"),
        ("torch.optim:SGD[lr=]", "cannot read the values"),
        ("torch.optim:SGD[0.1]", "cannot read the values"),
        ("torch.optim:SGD[lr=__import__('os')]", "cannot read the values"),
        ("torch.optim:SGD[lr=0.1", "cannot read method"),
        ("torch.optim:SGD[momentun=0.1]", "did you mean 'momentum'"),
        ("torch.optim:SGD[lr=-1]", "Invalid learning rate"),
        ("torch.optim:AdamW[betas=0.9]", "torch.optim:AdamW[betas=0.9]: "),
    ],
)
def test_bad_methods(spec: str, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        resolve([spec])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_and_something_else() -> None:
    with pytest.raises(BadInput, match="at least one method"):
        resolve([])
    with pytest.raises(BadInput, match="got 3 of type int"):
        resolve([3])  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["MomentumLSTM", "NesterovRNN"])
def test_modules_of_the_catalogue_cannot_race(name: str) -> None:
    assert name not in {entry.name for entry in entries()}
    for method in (f"thalweg.nn:{name}", getattr(thalweg.nn, name)):
        with pytest.raises(BadInput, match=f"{name}'? must be an optimizer class with a method"):
            resolve([method])
    with pytest.raises(BadInput, match=f"unknown method '{name}'"):
        resolve([name])


def test_a_module_that_raises_shows_its_own_traceback(
    write_problem: object, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    write_problem("raise RuntimeError('half written')", "half_written.py")  # type: ignore[operator]
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BadInput, match="RuntimeError: half written") as caught:
        resolve("half_written:Method")
    assert caught.value.traceback is not None
    assert "half_written.py" in caught.value.traceback
    assert "thalweg" not in caught.value.traceback


def test_catalogue_names_ignore_capitals() -> None:
    entry = entries()[0]
    (contender,) = resolve(entry.name.lower())
    assert contender.target is entry.target and contender.name == entry.name
    with pytest.raises(BadInput, match=f"did you mean '{entry.name}'"):
        resolve(entry.name + "x")
