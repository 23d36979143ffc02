"""The optimizer under test and the small deterministic training it is put through."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thalweg.testing.report import Verdict, failed, refused

STEPS = 4  # steps before, and again after, whatever a clause does in between
CLEAR = (TypeError, ValueError, RuntimeError)  # NotImplementedError is a RuntimeError


def seed(number: int) -> None:
    """Seed every global generator an optimizer may draw from."""
    torch.default_generator.manual_seed(number)
    random.seed(number)
    numpy.random.seed(number)  # noqa: NPY002


def mlp(sizes: Sequence[int] = (8, 16, 4), *, bias: bool = True) -> nn.Sequential:
    """A tanh network with the same initial weights every time."""
    seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=bias, dtype=torch.float32), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).to("cpu")


def loss_at(model: nn.Module, t: int, outputs: int = 4) -> Tensor:
    """Squared error on the batch of step `t`; the batch depends on `t` alone."""
    dtype = next(model.parameters()).dtype
    draw = torch.Generator().manual_seed(1000 + t)
    x = torch.randn(32, 8, generator=draw, dtype=torch.float32)
    y = torch.sin(2 * x[:, :outputs]) + 0.1 * torch.randn(
        32, outputs, generator=draw, dtype=torch.float32
    )
    return (model(x.to(dtype)) - y.to(dtype)).square().mean()


def step_with(optimizer: Optimizer, closure: Callable[[], Tensor] | None) -> Any:
    """One step. torch's annotation asks closures for a float; its own methods get tensors."""
    step: Callable[..., Any] = optimizer.step
    return step() if closure is None else step(closure)


class NotApplicable(Exception):
    """A clause asks for what this subject never takes."""


@dataclass(frozen=True)
class Subject:
    """An optimizer class with its hyper-parameters, and how it wants to be driven.

    Parameters
    ----------
    cls, hyper
        The class and the keyword arguments it is built with.
    bias
        False for methods that take matrices only.
    closure
        True for methods whose ``step`` needs a closure.
    dtype
        dtype of the parameters; bfloat16 for options that make sense there only.
    """

    cls: Callable[..., Optimizer]
    hyper: Mapping[str, Any] = field(default_factory=dict)
    bias: bool = True
    closure: bool = False
    dtype: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        """The class and its hyper-parameters, as one would write them."""
        hyper = ", ".join(f"{k}={v!r}" for k, v in self.hyper.items())
        return f"{getattr(self.cls, '__name__', str(self.cls))}({hyper})"

    def model(self) -> nn.Sequential:
        """The network it is tried on, with the same weights each time."""
        return mlp(bias=self.bias).to(self.dtype)

    def optimizer(self, params: Iterable[Any], **override: Any) -> Optimizer:
        """The optimizer over `params`, in training mode."""
        params = list(params)
        if self.dtype is not torch.float32:
            tensors = (p for _, p in leaves(params) if isinstance(p, Tensor))
            if any(p.dtype is not self.dtype for p in tensors):
                raise NotApplicable(f"takes {self.dtype} parameters only")
        optimizer = self.cls(params, **{**self.hyper, **override})
        # Methods that evaluate at an average (schedule-free ones) have modes, as modules have.
        if callable(train := getattr(optimizer, "train", None)):
            train()
        return optimizer

    def start(self, dtype: torch.dtype | None = None, **override: Any) -> Run:
        """A fresh model and a fresh optimizer over it."""
        model = self.model() if dtype is None else self.model().to(dtype)
        return Run(self, model, self.optimizer(model.parameters(), **override))

    def trained(self, steps: int = STEPS, dtype: torch.dtype | None = None, **override: Any) -> Run:
        """A run that has made `steps` steps."""
        return self.start(dtype, **override).train(range(steps))

    def apply(
        self, optimizer: Optimizer, params: Sequence[Tensor], gradients: Sequence[Tensor | None]
    ) -> None:
        """One step with prescribed gradients."""

        def prescribe() -> Tensor:
            for p, g in zip(params, gradients, strict=True):
                p.grad = g
            return torch.tensor(1.0)

        prescribe()
        step_with(optimizer, prescribe if self.closure else None)


@dataclass(frozen=True)
class Run:
    """A model and its optimizer."""

    subject: Subject
    model: nn.Module
    optimizer: Optimizer

    def backward(self, t: int) -> Tensor:
        """The loss and the gradients of the batch of step `t`."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = loss_at(self.model, t)
            loss.backward()
        return loss

    def step(self, t: int) -> None:
        """One step on the batch of step `t`."""
        if self.subject.closure:
            step_with(self.optimizer, lambda: self.backward(t))
        else:
            self.backward(t)
            self.optimizer.step()

    def train(self, steps: Iterable[int], *, reseed: bool = True) -> Run:
        """Step; the global RNG is reseeded before each one, so that only the clause on random
        state sees whether a method draws from it."""
        for t in steps:
            if reseed:
                seed(t)
            self.step(t)
        return self

    def twin(self, **override: Any) -> Run:
        """The same weights under a fresh optimizer."""
        model = copy.deepcopy(self.model)
        model.zero_grad(set_to_none=True)
        return Run(self.subject, model, self.subject.optimizer(model.parameters(), **override))

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all parameters and of every state tensor, by name."""
        state = self.optimizer.state_dict()["state"]
        found = {f"parameter {k}": v for k, v in self.model.state_dict().items()}
        found |= {f"state {k}": v for k, v in leaves(state) if isinstance(v, Tensor)}
        return {k: v.detach().clone() for k, v in found.items()}


def leaves(tree: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    """Every leaf of nested dicts, lists and tuples, with its path."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, (list, tuple)):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{path}[{index}]")
    else:
        yield path, tree


def parameters(optimizer: Optimizer) -> list[Tensor]:
    """All parameters, group by group."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal to the last bit: -0.0 is not 0.0, and a NaN equals itself."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    a, b = (x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (a, b))
    return torch.equal(a, b)


def difference(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """The first tensor that differs in any bit, in words, or None."""
    if got.keys() != expected.keys():
        odd = sorted(got.keys() ^ expected.keys())
        return f"{odd[0]!r} in one of the two only"
    for name, want in expected.items():
        have = got[name]
        if (have.dtype, have.shape) != (want.dtype, want.shape):
            return f"{name} {describe(have)} instead of {describe(want)}"
        if not same_bits(have, want):
            gap = (have.double() - want.double()).abs().max().item() if have.numel() else 0.0
            return f"{name} off by {gap:.2g}"
    return None


def close(got: Tensor, expected: Tensor) -> bool:
    """Equal up to the rounding of another memory layout."""
    return torch.allclose(got, expected, rtol=1e-4, atol=1e-6)


def describe(x: Tensor) -> str:
    """Data type and shape, as in ``float32[2, 3]``."""
    return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}"


def message(error: BaseException) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def deliberate(error: Exception) -> bool:
    """An error meant for the caller: of a type for wrong input, or one the package defines."""
    return isinstance(error, CLEAR) or type(error).__module__ != "builtins"


def refusal(error: Exception, *words: str, expected: str) -> Verdict:
    """Refused if the error is of a clear type and names the matter, else failed."""
    if isinstance(error, NotApplicable):
        raise error
    text = str(error).lower()
    if deliberate(error) and any(word in text for word in words):
        return refused(message(error))
    return failed(message(error), f"{expected}, or an error that names it")
