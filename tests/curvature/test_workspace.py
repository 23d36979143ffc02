"""Memory shared by the intermediate results of a recorded function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.test_hessian import KINDS, problem
from tests.curvature.test_tape import graph_of
from torch import Tensor

from thalweg.curvature.tape import record

A = torch.randn(4, 4, dtype=torch.float64)


def chain(v: Sequence[Tensor]) -> list[Tensor]:
    return [A @ (A @ (A @ (A @ v[0])))]


def kept_alive(v: Sequence[Tensor]) -> list[Tensor]:
    x = A @ v[0]
    y = A @ x
    return [A @ (y * A) + (x.t() @ A), A @ y]


def returned_by_a_view(v: Sequence[Tensor]) -> list[Tensor]:
    x = A @ v[0]
    return [x.t(), x.reshape(2, 8)[0], A @ (A @ x)]


def parts(v: Sequence[Tensor]) -> list[Tensor]:
    left, right = (A @ v[0]).chunk(2)
    return [A @ torch.cat([A[:2] * left, right]), (A @ v[0]) - (A @ (A @ v[0]))]


@pytest.mark.parametrize("function", [chain, kept_alive, returned_by_a_view, parts])
def test_the_same_results_whatever_the_memory_holds(function: Any) -> None:
    v = [torch.randn(4, 4, dtype=torch.float64)]
    replay = record(function, v)
    assert replay is not None
    memory = replay.memory()
    before = A.clone()
    results = []
    for _ in range(3):
        for t in memory:
            t.fill_(float("nan"))
        v = [torch.randn(4, 4, dtype=torch.float64)]
        results.append((replay(v, memory), function(v)))
    for got, want in results:  # later calls have not written into earlier results
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)
    assert torch.equal(A, before)


def test_memory_is_used_again() -> None:
    replay = record(chain, [A])
    assert replay is not None and len(replay.memory()) == 2
    replay = record(kept_alive, [A])
    assert replay is not None and len(replay.memory()) == 3


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 100))
def test_for_every_kind_of_network(kind: str, seed: int) -> None:
    graph = graph_of(*problem(kind))
    generator = torch.Generator().manual_seed(seed)
    like = graph.objective.split(torch.zeros(graph.objective.d, dtype=torch.float64))
    v = [torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in like]
    replay = record(lambda v: graph.products(v, False), like)
    assert replay is not None
    memory = replay.memory()
    for t in memory:
        t.fill_(float("nan"))
    first = replay(v, memory)
    again = replay(v, memory)
    for got, same, want in zip(first, again, graph.products(v, False), strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            assert torch.equal(got, same)  # type: ignore[arg-type]
            torch.testing.assert_close(got, want)


def test_results_are_not_in_the_memory() -> None:
    replay = record(returned_by_a_view, [A])
    assert replay is not None
    memory = replay.memory()
    held = {t.untyped_storage().data_ptr() for t in memory}
    for t in replay([A], memory):
        assert t is not None and t.untyped_storage().data_ptr() not in held
