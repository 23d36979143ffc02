"""Sums over rows that are done once: the same Hessian with fewer products."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.test_hessian import dense
from torch import Tensor, nn
from torch.nn import functional

from thalweg import Training
from thalweg.curvature import generalized_gauss_newton, graphs, hessian
from thalweg.curvature.folding import End, Fold, Rows, foldings
from thalweg.curvature.graphs import _WORTH_RECORDING
from thalweg.curvature.tape import Record, record, recorded

ROWS = 300


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_SMALL", 0)


def network(sizes: Sequence[int], activation: Any = nn.ReLU, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b, bias=bias), activation()]
    return nn.Sequential(*layers[:-1]).double()


def training(model: nn.Module, width: int, classes: int) -> tuple[Training, Any]:
    x = torch.randn(ROWS, width, dtype=torch.float64)
    batch = (x, torch.randint(classes, (ROWS,)))
    return Training(model, functional.cross_entropy, [batch]), batch


def record_of(operator: Any) -> Record:
    (graph,) = operator._product._kept
    assert graph._record is not None
    return graph._record


def folded(operator: Any) -> list[tuple[Fold, Tensor]]:
    """After enough products."""
    for _ in range(40):
        operator @ torch.ones(operator.shape[0], _WORTH_RECORDING, dtype=operator.dtype)
    return record_of(operator)._folds


@pytest.mark.parametrize("transposes", [(a, b) for a in (False, True) for b in (False, True)])
def test_the_tensor_is_the_sum_over_rows(transposes: tuple[bool, bool]) -> None:
    k, vectors = 3, 2
    A, a = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 1, dtype=torch.float64)
    B, b = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 1, dtype=torch.float64)
    M = torch.randn(5, k, dtype=torch.float64)
    node: Any = None
    begins = [End(node, 0, Rows(A, "A"), transposes[0]), End(node, 1, Rows(a, "a"), False)]
    ends = [End(node, 0, Rows(B, "B"), transposes[1]), End(node, 1, Rows(b, "b"), False)]
    fold = Fold(begins, Rows(M, "M"), ends)
    T = fold.tensor()
    AA, BB = torch.cat([A, a], 1), torch.cat([B, b], 1)
    torch.testing.assert_close(T, torch.einsum("ip,ik,iq->kpq", BB, M, AA))
    assert (fold.entries, fold.price) == (T.numel(), 5 * T.numel())

    S, s = torch.randn(vectors, k, 4, dtype=torch.float64), torch.randn(2, k, dtype=torch.float64)
    R = torch.ones(vectors, k, 2, dtype=torch.float64)
    r = torch.ones(vectors, k, dtype=torch.float64)
    total = [(R.mT if transposes[1] else R).clone(), r.clone()]
    fold.add(T, [S.mT if transposes[0] else S, s], total)
    want = torch.einsum("ip,ik,iq,vkq->vkp", BB, M, AA, torch.cat([S, s[..., None]], -1))
    torch.testing.assert_close(total[0].mT if transposes[1] else total[0], R + want[..., :2])
    torch.testing.assert_close(total[1], r + want[..., 2])


ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Softplus, nn.LeakyReLU, nn.ELU)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_folded_is_the_hessian(activation: Any) -> None:
    problem, batch = training(network((3, 5, 6, 2), activation), 3, 2)
    H = hessian(problem)
    # the first layer forward and back, if its second derivative is written in products of rows
    assert len(folded(H)) == {nn.SiLU: 0, nn.Softplus: 1, nn.GELU: 1, nn.ELU: 1}.get(activation, 2)
    reference = dense(problem, batch)
    V = torch.randn(H.shape[0], _WORTH_RECORDING + 3, dtype=torch.float64)
    torch.testing.assert_close(H @ V, reference @ V, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(H @ V[:, 0], reference @ V[:, 0], rtol=1e-10, atol=1e-12)


def test_one_memory_for_both_ways() -> None:
    H = hessian(training(network((3, 5, 6, 2)), 3, 2)[0])
    (first, T), (second, U) = folded(H)
    assert T.data_ptr() == U.data_ptr() and T.shape == U.mT.shape
    assert T.numel() == 5 * (3 + 1) * 6
    # weights and bias of the first layer, and the weights of the second
    assert {e.place for e in first.begins} == {0, 1} and [e.place for e in first.ends] == [2]
    assert {e.place for e in second.ends} == {0, 1} and [e.place for e in second.begins] == [2]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=3, max_size=5),
    st.sampled_from(ACTIVATIONS),
    st.booleans(),
)
def test_every_shape_of_network(sizes: list[int], activation: Any, bias: bool) -> None:
    problem, batch = training(network(sizes, activation, bias), sizes[0], sizes[-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "_SMALL", 0)
        H = hessian(problem)
        folded(H)
    reference = dense(problem, batch)
    torch.testing.assert_close(
        H @ torch.eye(H.shape[0], dtype=torch.float64), reference, rtol=1e-9, atol=1e-12
    )


class Skip(nn.Module):
    """The first layer's sum is read twice, and its weights are used again behind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        return self.second(self.first(torch.relu(z)) * z)


def test_ways_that_cross_others_stay_right() -> None:
    torch.manual_seed(0)
    problem, batch = training(Skip().double(), 3, 2)
    H = hessian(problem)
    folded(H)
    reference = dense(problem, batch)
    V = torch.randn(H.shape[0], 5, dtype=torch.float64)
    torch.testing.assert_close(H @ V, reference @ V, rtol=1e-10, atol=1e-12)


def test_folding_waits_until_it_pays() -> None:
    H = hessian(training(network((3, 5, 6, 2)), 3, 2)[0])
    V = torch.randn(H.shape[0], _WORTH_RECORDING, dtype=torch.float64)
    for _ in range(2):  # the graph is kept after the first
        H @ V
    wait = record_of(H).pays_after
    # T has 5 * 4 * 6 entries of 300 products each; two products of 300 x 5 x 6 go, less 120 each
    saved = ROWS * 5 * 6 + ROWS * 5 * 6 - 2 * 120
    assert wait == -(-120 * ROWS // saved) == 3
    assert record_of(H)._folds == []
    H @ V[:, : wait - 1]
    assert record_of(H)._folds == []
    H @ V[:, 0]
    assert len(record_of(H)._folds) == 2 and record_of(H).pays_after is None


def test_what_does_not_pay_or_takes_too_much_memory_is_not_folded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, on = torch.randn(4, 30), torch.randn(4, 30)  # fewer rows than columns
    v = [torch.randn(30, 30), torch.randn(30, 30)]
    function = lambda v: [X.T @ ((X @ v[0]) * on) + v[1], v[0]]  # noqa: E731
    found = recorded(function, v)
    assert found is not None and foldings(*found) is None
    X, on = torch.randn(400, 3), torch.randn(400, 3)
    v = [torch.randn(3, 3), torch.randn(3, 3)]
    replay = record(function, v)
    assert replay is not None and replay.pays_after is not None
    monkeypatch.setattr("thalweg.curvature.tape._MOST_FOLDED", 0)
    replay = record(function, v)
    assert replay is not None and replay.pays_after is None
    replay.fold()
    assert replay._folds == []


def test_the_only_part_of_a_result_is_not_folded() -> None:
    X, on = torch.randn(400, 3), torch.randn(400, 3)
    found = recorded(lambda v: [X.T @ ((X @ v[0]) * on)], [torch.randn(3, 3)])
    assert found is not None and foldings(*found) is None  # nothing would be left


def test_a_product_of_two_arguments_is_no_way() -> None:
    X = torch.randn(400, 3)
    v = [torch.randn(3, 3), torch.randn(3, 3)]
    found = recorded(lambda v: [X.T @ ((X @ v[0]) * (X @ v[1])) + v[1]], v)
    assert found is not None and foldings(*found) is None


def test_a_wrong_tensor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    X, on = torch.randn(400, 3), torch.randn(400, 3)
    v = [torch.randn(3, 3), torch.randn(3, 3)]
    replay = record(lambda v: [X.T @ ((X @ v[0]) * on) + v[1]], v)
    assert replay is not None
    want = replay(v)[0]
    right = Fold.tensor
    monkeypatch.setattr(Fold, "tensor", lambda self: 1.001 * right(self))
    replay.fold()
    assert replay._folds == [] and torch.equal(replay(v)[0], want)  # type: ignore[arg-type]


def test_nothing_is_written_into_what_is_folded() -> None:
    X, on = torch.randn(2, 400, 3, dtype=torch.float64)
    v = list(torch.randn(2, 3, 3, dtype=torch.float64))
    before = [t.clone() for t in (X, on, *v)]
    replay = record(lambda v: [X.T @ ((X @ v[0]) * on) + v[1], v[1], None], v)
    assert replay is not None
    replay.fold()
    assert len(replay._folds) == 1
    total = [torch.zeros(1, 3, 3, dtype=torch.float64) for _ in v]
    for _ in range(2):
        replay(v)
        replay.add_folded([t[None] for t in v], total)
    torch.testing.assert_close(total[0][0], 2 * (X.T @ ((X @ v[0]) * on)))
    assert not total[1].any() and all(map(torch.equal, before, (X, on, *v)))


def test_gauss_newton_products_are_recorded_too() -> None:
    problem, _ = training(network((3, 5, 6, 2)), 3, 2)
    G = generalized_gauss_newton(problem)
    V = torch.randn(G.shape[0], _WORTH_RECORDING, dtype=torch.float64)
    want = G @ V
    for _ in range(3):
        torch.testing.assert_close(G @ V, want)
    (graph,) = G._product._kept  # type: ignore[attr-defined]
    assert graph._record is not None and graph.jacobian.z == []


def test_a_product_that_others_read_stays() -> None:
    X, D, on, on_again = torch.randn(4, 400, 3)
    W = torch.randn(3, 3)

    def function(v: Sequence[Tensor]) -> list[Tensor]:
        x = D @ v[0]
        z = x + ((X @ v[1]) * on) @ W
        return [X.T @ (z * on_again) + v[1], x]

    found = recorded(function, list(torch.randn(2, 3, 3)))
    assert found is not None and foldings(*found) is None


def test_a_result_that_is_returned_twice_is_not_folded() -> None:
    X, on = torch.randn(2, 400, 3)

    def function(v: Sequence[Tensor]) -> list[Tensor]:
        x = X.T @ ((X @ v[0]) * on) + v[1]
        return [x, x]

    found = recorded(function, list(torch.randn(2, 3, 3)))
    assert found is not None and foldings(*found) is None
