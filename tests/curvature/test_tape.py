"""Recorded linear functions: the same products, and no record where there cannot be one."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.curvature.test_hessian import KINDS, N, dense, problem, split
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from thalweg import Training
from thalweg.curvature import Objective, hessian, rewriting
from thalweg.curvature.graphs import _WORTH_RECORDING
from thalweg.curvature.hessian import GradientGraph
from thalweg.curvature.tape import record, recorded

aten_mm = torch.ops.aten.mm.default


def graph_of(model: nn.Module, loss: Any, batch: Any) -> GradientGraph:
    objective = Objective(Training(model, loss, [batch]))
    return GradientGraph(objective, objective.leaves(), batch, 1.0)


def relu_network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func.overloadpacket.__name__))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_recorded_is_the_hessian(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thalweg.curvature.graphs._SMALL", 0)  # one vector at a time
    model, loss, batch = problem(kind)
    reference = dense(Training(model, loss, [batch]), batch)
    H = hessian(Training(model, loss, split(batch, 4)))
    V = torch.randn(H.shape[0], 2 * _WORTH_RECORDING, dtype=torch.float64)
    for _ in range(3):  # the second time recorded halfway, the third time nothing but records
        torch.testing.assert_close(H @ V, reference @ V, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_can_be_recorded(kind: str) -> None:
    graph = graph_of(*problem(kind))
    v = graph.objective.split(torch.randn(graph.objective.d, dtype=torch.float64))
    replay = record(lambda v: graph.products(v, False), v)
    assert replay is not None
    for _ in range(2):  # nothing of the record is used up
        for got, want in zip(replay(v), graph.products(v, False), strict=True):
            torch.testing.assert_close(got, want)


def test_zeros_are_not_added_and_products_accumulate() -> None:
    torch.manual_seed(0)
    batch = (torch.randn(N, 3), torch.randint(3, (N,)))
    graph = graph_of(relu_network(), functional.cross_entropy, batch)
    v = graph.objective.split(torch.randn(graph.objective.d))
    replay = record(lambda v: graph.products(v, False), v)
    assert replay is not None
    before, after = Operations(), Operations()
    with before:
        want = graph.products(v, False)
    with after:
        got = replay(v)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    assert before.names.count("zeros_like") == 3 and before.names.count("add") > 5
    assert not {"zeros_like", "exp"} & set(after.names) and "add" not in after.names
    assert before.names.count("mm") == sum(n in ("mm", "addmm", "addmm_") for n in after.names)


def test_arguments_and_constants_are_not_written_into() -> None:
    A, B = torch.randn(2, 4, 4, dtype=torch.float64)
    v = [torch.randn(4, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)]
    replay = record(lambda v: [v[1] + A @ v[0], (A @ v[0]) + (B @ v[1]), v[0].t() + v[1]], v)
    assert replay is not None
    before = [t.clone() for t in (A, B, *v)]
    for _ in range(2):
        first, second, third = replay(v)
        torch.testing.assert_close(first, v[1] + A @ v[0])
        torch.testing.assert_close(second, A @ v[0] + B @ v[1])
        torch.testing.assert_close(third, v[0].t() + v[1])
    assert all(map(torch.equal, before, (A, B, *v)))


def test_what_is_written_into_is_what_is_read_afterwards() -> None:
    replay = record(lambda v: [(3 * v[0]).add_(v[1]).div_(2), v[0]], [torch.ones(2)] * 2)
    assert replay is not None
    v = [torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])]
    assert [t.tolist() for t in replay(v)] == [[2.0, 3.0], [1.0, 2.0]]  # type: ignore[union-attr]


def test_a_result_that_is_used_twice_stays() -> None:
    A, B = torch.randn(2, 4, 4, dtype=torch.float64)

    def function(v: Sequence[Tensor]) -> list[Tensor]:
        x = A @ v[0]
        return [x + B @ v[0], 2 * x, x]

    v = [torch.randn(4, 4, dtype=torch.float64)]
    replay = record(function, v)
    assert replay is not None
    for got, want in zip(replay(v), function(v)):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    "function",
    (
        lambda v: [v[0] * float(v[0].sum())],  # looks at the values
        lambda v: [torch.as_tensor(v[0].numpy().copy())],  # out of torch's sight
        lambda v: [torch.zeros(5).add_(v[0])],  # writes into a constant
        lambda v: [torch.stack([x := 2 * v[0], x.view(5).mul_(2)]).sum(0) + x],  # and into a view
        lambda v: [v[0] * torch.rand_like(v[0])],
        lambda v: [v[0][v[0] > 0]],
        lambda v: [v[0], None][int(v[0].sum()) % 2 :],
    ),
)
def test_what_cannot_be_recorded(function: Any) -> None:
    state = torch.get_rng_state()
    assert record(function, [torch.ones(5)]) is None
    torch.set_rng_state(state)


def test_a_wrong_record_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    A = torch.randn(4, 4)
    assert record(lambda v: [A @ v[0] + v[0]], [A]) is not None

    def forget(graph: Any) -> None:
        for node in graph.nodes:
            if rewriting.is_sum(node):
                node.replace_all_uses_with(node.args[1])

    monkeypatch.setattr(rewriting, "_skip_zeros", forget)
    assert record(lambda v: [A @ v[0] + v[0]], [A]) is None


def test_none_stays_none() -> None:
    replay = record(lambda v: [None, 2 * v[0]], [torch.ones(2)])
    assert replay is not None
    nothing, twice = replay([torch.ones(2)])
    assert nothing is None and twice is not None and twice.tolist() == [2.0, 2.0]


def test_a_record_is_gone_with_its_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thalweg.curvature.graphs._SMALL", 0)
    torch.manual_seed(0)
    batch = (torch.randn(N, 3), torch.randint(3, (N,)))
    H = hessian(Training(relu_network(), functional.cross_entropy, [batch]))
    V = torch.randn(H.shape[0], 2 * _WORTH_RECORDING)
    for _ in range(2):
        H @ V
    (graph,) = H._product._kept  # type: ignore[attr-defined]
    assert graph._record is not None and graph.gradient == []
    held = graph._record._code.held
    references = [weakref.ref(t) for t in vars(held).values()]
    assert references
    gc.disable()
    try:
        del H, graph, held
        assert not any(reference() is not None for reference in references)
    finally:
        gc.enable()


def test_vectors_and_blocks_in_turn() -> None:
    model, loss, batch = problem("mlp")  # small: blocks are sent through together
    H = hessian(Training(model, loss, [batch]))
    V = torch.randn(H.shape[0], 3, dtype=torch.float64)
    want = H @ V
    for _ in range(_WORTH_RECORDING):
        torch.testing.assert_close(H @ V[:, 0], want[:, 0])
    torch.testing.assert_close(H @ V, want)
    torch.testing.assert_close(H @ V[:, 1], want[:, 1])


def test_narrow_products_and_softmax() -> None:
    torch.manual_seed(0)
    batch = (torch.randn(40, 3), torch.randint(3, (40,)))
    graph = graph_of(relu_network(), functional.cross_entropy, batch)
    v = graph.objective.split(torch.randn(graph.objective.d))
    replay = record(lambda v: graph.products(v, False), v)
    assert replay is not None
    seen = Operations()
    with seen:
        got = replay(v)
    assert "_log_softmax_backward_data" not in seen.names and "sub" in seen.names
    for a, b in zip(got, graph.products(v, False), strict=True):
        torch.testing.assert_close(a, b)


def test_the_compiler_of_torch_is_not_imported() -> None:
    program = (
        "import sys, torch\n"
        "from thalweg.curvature.tape import record\n"
        "assert record(lambda v: [2 * v[0]], [torch.ones(2)]) is not None\n"
        "print('torch._dynamo' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "False"  # it takes most of a second


def test_narrow_products_are_done_as_wide_ones() -> None:
    X = torch.randn(40, 3)
    found = recorded(lambda v: [X @ v[0]], [torch.randn(3, 5)])
    assert found is not None
    (product,) = (n for n in rewriting.in_least_memory(found[0]).nodes if n.target is aten_mm)
    assert product.meta["like"][0] == (5, 40)
