"""K-FAC and EKFAC: where they are exact, how far off otherwise, and agreement with curvlinops."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thalweg import Training
from thalweg.curvature import ekfac, fisher, kfac
from thalweg.curvature.objective import Objective

LOSSES: dict[str, Any] = {"cross entropy": nn.CrossEntropyLoss(), "mse": nn.MSELoss()}


def data(loss: Any, n: int, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    if isinstance(loss, nn.CrossEntropyLoss):
        return x, torch.randint(4, (n,), generator=generator)
    return x, torch.randn(n, 4, generator=generator, dtype=torch.float64)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 4)).double()


def conv() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)
    ).double()


def blocks(matrix: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
    found, start = [], 0
    for size in sizes:
        found.append(matrix[start : start + size, start : start + size])
        start += size
    return found


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("kind", ("exact", "sampled", "empirical"))
@pytest.mark.parametrize("make", (kfac, ekfac))
def test_one_row_is_exact(loss: Any, kind: Any, make: Any) -> None:
    training = Training(mlp(), loss, [data(loss, 1, 5)])
    full = fisher(training, kind=kind, samples=1, seed=4).dense()
    expected = torch.block_diag(*blocks(full, (36, 28)))
    torch.testing.assert_close(make(training, kind=kind, seed=4).dense(), expected)


def test_the_last_layer_under_mean_squared_error_is_exact() -> None:
    loss = nn.MSELoss()
    training = Training(mlp(), loss, [data(loss, 30, 5)])
    full = fisher(training).dense()
    for make in (kfac, ekfac):
        mine = make(training).dense()
        torch.testing.assert_close(mine[36:, 36:], full[36:, 36:])
    with_entropy = Training(mlp(), LOSSES["cross entropy"], [data(LOSSES["cross entropy"], 30, 5)])
    full = fisher(with_entropy).dense()
    assert not torch.allclose(kfac(with_entropy).dense()[36:, 36:], full[36:, 36:], rtol=1e-2)


@pytest.mark.parametrize("network", (mlp, conv))
@pytest.mark.parametrize("kind", ("exact", "empirical"))
def test_the_corrected_eigenvalues_are_never_worse(network: Any, kind: Any) -> None:
    loss = nn.CrossEntropyLoss()
    model = network()
    shape = (5,) if network is mlp else (2, 4, 4)
    x, y = data(loss, 30, *shape)
    training = Training(model, loss, [(x[:13], y[:13]), (x[13:], y[13:])])
    sizes = (36, 28) if network is mlp else (57, 52)
    full = blocks(fisher(training, kind=kind).dense(), sizes)
    plain = blocks(kfac(training, kind=kind).dense(), sizes)
    corrected = blocks(ekfac(training, kind=kind).dense(), sizes)
    for exact, k, e in zip(full, plain, corrected):
        assert float((e - exact).norm()) < float((k - exact).norm())
        torch.testing.assert_close(e.trace(), exact.trace())  # a rotation keeps the trace


def test_second_moments_by_hand() -> None:
    loss = nn.CrossEntropyLoss()
    x, y = data(loss, 9, 5)
    training = Training(mlp(), loss, [(x, y)])
    E = ekfac(training, kind="empirical")
    A, B = E.factors[0]
    U = torch.kron(torch.linalg.eigh(B)[1], torch.linalg.eigh(A)[1])
    full = fisher(training, kind="empirical").dense()[:36, :36]
    # [W b] row by row, the bias last in each row
    order = torch.cat(
        [torch.cat([torch.arange(5) + 5 * i, torch.tensor([30 + i])]) for i in range(6)]
    )
    turned = full[order][:, order]
    expected = U @ torch.diag((U.T @ turned @ U).diagonal()) @ U.T
    torch.testing.assert_close(E.dense()[:36, :36][order][:, order], expected)


@pytest.mark.parametrize("make", (kfac, ekfac))
def test_solve_inverts(make: Any) -> None:
    loss = nn.CrossEntropyLoss()
    K = make(Training(mlp(), loss, [data(loss, 20, 5)]))
    v = torch.randn(K.shape[0], 3, dtype=torch.float64)
    for b in (v, v[:, 0]):
        x = K.solve(b, 0.1)
        torch.testing.assert_close(K @ x + 0.1 * x, b)
    assert K.trace() == pytest.approx(float(K.dense().trace()))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("network", (mlp, conv))
@pytest.mark.parametrize("corrected", (False, True))
@pytest.mark.parametrize("kind", ("type-2", "empirical"))
def test_agrees_with_curvlinops(loss: Any, network: Any, corrected: bool, kind: str) -> None:
    curvlinops = pytest.importorskip("curvlinops")
    model = network()
    if network is mlp:
        model[1].inplace = False
    x, y = data(loss, 12, *((5,) if network is mlp else (2, 4, 4)))
    batches = [(x[:7], y[:7]), (x[7:], y[7:])]
    theirs = curvlinops.EKFACLinearOperator if corrected else curvlinops.KFACLinearOperator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = theirs(
            model,
            loss,
            list(model.parameters()),
            batches,
            fisher_type=kind,
            separate_weight_and_bias=False,
            check_deterministic=False,
        )
        training = Training(model, loss, batches)
        mine = (ekfac if corrected else kfac)(
            training, kind="exact" if kind == "type-2" else "empirical"
        )
        eye = torch.eye(mine.shape[0], dtype=torch.float64)
        # theirs takes each of the 4 outputs of a squared error for a row of its own
        scale = 4 if kind == "empirical" and isinstance(loss, nn.MSELoss) else 1
        torch.testing.assert_close(scale * (mine @ eye), peer @ eye, rtol=1e-8, atol=1e-10)


def test_frozen_and_unknown_layers() -> None:
    loss = nn.CrossEntropyLoss()
    model = mlp()
    x, y = data(loss, 8, 5)
    model[0].requires_grad_(False)
    K = kfac(Training(model, loss, [(x, y)]))
    assert K.layers == ["2"] and K.shape == (28, 28)
    normalized = nn.Sequential(model, nn.LayerNorm(4).double())
    with pytest.raises(ValueError, match=r"nn.Linear or nn.Conv2d .* got 1.weight, 1.bias"):
        kfac(Training(normalized, loss, [(x, y)]))
    named = kfac(Training(normalized, loss, [(x, y)]), ["0.2.weight"])
    assert named.shape == (24, 24)


def test_no_hook_and_no_tensor_is_left_behind() -> None:
    loss = nn.CrossEntropyLoss()
    model = mlp()
    training = Training(model, loss, [data(loss, 8, 5)])
    K = ekfac(training)
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(layer.inputs or layer.outputs for layer in K._kronecker.layers)
    assert Objective(training).value() > 0


def test_gauss_newton_hessian_and_empirical_fisher_agree_with_curvlinops() -> None:
    curvlinops = pytest.importorskip("curvlinops")
    from thalweg.curvature import generalized_gauss_newton, hessian

    loss = nn.CrossEntropyLoss()
    model = mlp()
    model[1].inplace = False
    x, y = data(loss, 12, 5)
    batches = [(x[:7], y[:7]), (x[7:], y[7:])]
    training = Training(model, loss, batches)
    v = torch.randn(64, 2, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for theirs, mine in (
            (curvlinops.HessianLinearOperator, hessian(training)),
            (curvlinops.GGNLinearOperator, generalized_gauss_newton(training)),
            (curvlinops.EFLinearOperator, fisher(training, kind="empirical")),
        ):
            peer = theirs(model, loss, list(model.parameters()), batches)
            torch.testing.assert_close(mine @ v, peer @ v, rtol=1e-8, atol=1e-10)
