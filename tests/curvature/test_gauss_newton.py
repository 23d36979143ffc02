"""Gauss-Newton and Fisher matrices: dense references and the identities between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from thalweg import Training
from thalweg.curvature import (
    Operator,
    block_diagonal,
    fisher,
    generalized_gauss_newton,
    gradient_covariance,
    gradient_gram,
    hessian,
    layers,
)
from thalweg.curvature.objective import Objective

N, INPUTS, OUTPUTS = 11, 4, 3
bce = functional.binary_cross_entropy_with_logits
LOSSES: dict[str, Any] = {
    "cross entropy": functional.cross_entropy,
    "cross entropy module": nn.CrossEntropyLoss(),
    "mse": functional.mse_loss,
    "bce": bce,
}


def target(loss: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    if loss in (functional.cross_entropy, LOSSES["cross entropy module"]):
        return torch.randint(OUTPUTS, (N,), generator=generator)
    return torch.rand(N, OUTPUTS, generator=generator, dtype=torch.float64)


def problem(loss: Any, *, linear: bool = False, size: int = N) -> Training:
    torch.manual_seed(2)
    x = torch.randn(N, INPUTS, dtype=torch.float64)
    hidden: list[nn.Module] = [] if linear else [nn.Linear(INPUTS, 5), nn.Tanh()]
    model = nn.Sequential(*hidden, nn.Linear(INPUTS if linear else 5, OUTPUTS)).double()
    return Training(model, loss, list(zip(x.split(size), target(loss).split(size))))


def rows_of(training: Training) -> tuple[Tensor, Tensor]:
    batches = list(training.data)
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def model_at(training: Training, x: Tensor) -> Callable[[Tensor], Tensor]:
    like = dict(training.model.named_parameters())

    def f(theta: Tensor) -> Tensor:
        parts = theta.split([p.numel() for p in like.values()])
        held = {name: q.view(p.shape) for (name, p), q in zip(like.items(), parts)}
        return functional_call(training.model, held, (x,))

    return f


def dense_gauss_newton(training: Training) -> Tensor:
    """Row by row: Jᵀ H J with the Hessian in the outputs by torch."""
    x, y = rows_of(training)
    theta = Objective(training).start
    G = torch.zeros(len(theta), len(theta), dtype=theta.dtype)
    for i in range(len(x)):
        f = model_at(training, x[i : i + 1])
        J = torch.autograd.functional.jacobian(f, theta)[0]
        z = f(theta).detach()
        H = torch.autograd.functional.hessian(lambda z, i=i: training.loss(z, y[i : i + 1]), z)
        G += J.T @ H.view(OUTPUTS, OUTPUTS) @ J / len(x)
    return G


def row_gradients(training: Training) -> Tensor:
    x, y = rows_of(training)
    theta = Objective(training).start
    found = []
    for i in range(len(x)):
        f = model_at(training, x[i : i + 1])
        loss = lambda t, f=f, i=i: training.loss(f(t), y[i : i + 1])  # noqa: E731
        found.append(torch.autograd.functional.jacobian(loss, theta))
    return torch.stack(found)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("size", (4, N))
@pytest.mark.parametrize("memory", (2**30, 0))
def test_gauss_newton_is_dense_gauss_newton(loss: Any, size: int, memory: int) -> None:
    training = problem(loss, size=size)
    reference = dense_gauss_newton(training)
    eye = torch.eye(len(reference), dtype=torch.float64)
    for G in (
        generalized_gauss_newton(training, memory=memory),
        fisher(training, memory=memory),
    ):
        torch.testing.assert_close(G @ eye, reference, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(G @ eye[:, 0], reference[:, 0], rtol=1e-10, atol=1e-12)
    assert float(torch.linalg.eigvalsh(reference)[0]) >= -1e-12


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_any_other_loss_is_differentiated(loss: Any) -> None:
    training = problem(loss, size=4)
    closed = generalized_gauss_newton(training).dense()
    hidden = Training(training.model, lambda z, y: loss(z, y), training.data)
    torch.testing.assert_close(generalized_gauss_newton(hidden).dense(), closed)
    mapped = Training(
        _Dictionary(training.model),
        lambda out, batch: loss(out["logits"], batch["y"]),
        [{"x": x, "y": y} for x, y in training.data],
    )
    torch.testing.assert_close(generalized_gauss_newton(mapped).dense(), closed)


class _Dictionary(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"logits": self.model(x), "not used": self.model(x).sum()}


def test_a_penalty_in_the_loss_is_part_of_gauss_newton() -> None:
    plain = problem(functional.cross_entropy)

    def loss(z: Tensor, y: Tensor) -> Tensor:
        penalty = sum((p**2).sum() for p in plain.model.parameters())
        return functional.cross_entropy(z, y) + 0.5 * penalty

    with_penalty = Training(plain.model, loss, plain.data)
    difference = (
        generalized_gauss_newton(with_penalty).dense() - generalized_gauss_newton(plain).dense()
    )
    torch.testing.assert_close(difference, torch.eye(len(difference)).double())


def test_a_loss_computed_inside_the_model_is_refused() -> None:
    training = problem(functional.cross_entropy)

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = training.model

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return functional.cross_entropy(self.model(x), y)

    x, y = rows_of(training)
    inside = Training(Inside(), lambda out, _: out, [{"x": x, "y": y}])
    with pytest.raises(ValueError, match="linear in the model's outputs"):
        generalized_gauss_newton(inside).dense()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_linear_model_and_convex_loss_have_hessian_gauss_newton(loss: Any) -> None:
    training = problem(loss, linear=True)
    torch.testing.assert_close(
        generalized_gauss_newton(training).dense(), hessian(training).dense()
    )


def test_zero_residual_mse_has_hessian_gauss_newton() -> None:
    training = problem(functional.mse_loss)
    x, _ = rows_of(training)
    with torch.no_grad():
        fitted = Training(training.model, functional.mse_loss, [(x, training.model(x))])
    torch.testing.assert_close(
        generalized_gauss_newton(fitted).dense(), hessian(fitted).dense(), rtol=1e-10, atol=1e-12
    )
    G, H = generalized_gauss_newton(training).dense(), hessian(training).dense()
    assert not torch.allclose(G, H, rtol=1e-3)


@pytest.mark.parametrize("loss", (functional.cross_entropy, functional.mse_loss, bce))
def test_sampled_fisher_is_unbiased(loss: Any) -> None:
    training = problem(loss, linear=True, size=4)
    exact = fisher(training).dense()
    draws = torch.stack(
        [fisher(training, kind="sampled", seed=seed).dense() for seed in range(100)]
    )
    stderr = draws.std(0) / len(draws) ** 0.5
    z = (draws.mean(0) - exact)[stderr > 1e-12] / stderr[stderr > 1e-12]
    assert float(z.abs().max()) < 4.5
    assert float(draws[0].sub(exact).norm()) > 0.05 * float(exact.norm())  # it is an estimate
    many = fisher(training, kind="sampled", samples=400).dense()
    assert float((many - exact).norm()) < 0.3 * float((draws[0] - exact).norm())


def test_once_drawn_the_sampled_fisher_is_fixed() -> None:
    training = problem(functional.cross_entropy, size=4)
    kept = fisher(training, kind="sampled", seed=3)
    streamed = fisher(training, kind="sampled", seed=3, memory=0)
    v = torch.randn(kept.shape[0], dtype=torch.float64)
    torch.testing.assert_close(kept @ v, streamed @ v)
    torch.testing.assert_close(streamed @ v, streamed @ v, rtol=0, atol=0)
    assert not torch.allclose(kept @ v, fisher(training, kind="sampled", seed=4) @ v)


def test_positions_of_a_sequence_and_ignored_labels() -> None:
    torch.manual_seed(0)
    z_model = nn.Conv1d(2, OUTPUTS, 1).double()  # classes along dimension 1, positions last
    x, y = torch.randn(5, 2, 4, dtype=torch.float64), torch.randint(OUTPUTS, (5, 4))
    y[0, :3] = -100
    training = Training(z_model, functional.cross_entropy, [(x, y)])
    reference = hessian(training).dense()
    torch.testing.assert_close(generalized_gauss_newton(training).dense(), reference)
    draws = torch.stack(
        [fisher(training, kind="sampled", samples=20, seed=s).dense() for s in range(40)]
    )
    z = (draws.mean(0) - reference) / (draws.std(0) / 40**0.5)
    assert float(z.abs().max()) < 4.5


@pytest.mark.parametrize("size", (4, N))
@pytest.mark.parametrize("hidden", (False, True))
def test_empirical_fisher_covariance_and_gram(size: int, hidden: bool) -> None:
    training = problem(functional.cross_entropy, size=size)
    g = row_gradients(training)
    if hidden:  # rows one by one
        loss = lambda z, y: functional.cross_entropy(z, y)  # noqa: E731
        training = Training(training.model, loss, training.data)
    E = g.T @ g / N
    torch.testing.assert_close(fisher(training, kind="empirical").dense(), E)
    torch.testing.assert_close(gradient_covariance(training, centered=False).dense(), E)
    mean = g.mean(0)
    torch.testing.assert_close(gradient_covariance(training).dense(), E - torch.outer(mean, mean))
    K = gradient_gram(training)
    assert K.shape == (N, N)
    torch.testing.assert_close(K.dense(), g @ g.T / N)
    torch.testing.assert_close(K @ torch.eye(N).double(), g @ g.T / N)
    torch.testing.assert_close(K.gradients(), g)
    assert K.n_products == N


def test_a_sum_over_rows_has_no_gradients_per_row() -> None:
    training = problem(functional.cross_entropy)
    summed = Training(
        training.model,
        lambda z, y: functional.cross_entropy(z, y, reduction="sum"),
        training.data,
    )
    for make in (lambda t: fisher(t, kind="empirical") @ torch.ones(43), gradient_gram):
        with pytest.raises(ValueError, match="mean over its rows"):
            make(summed)


def test_labels_are_drawn_from_likelihoods_only() -> None:
    training = problem(functional.cross_entropy)
    hidden = Training(training.model, lambda z, y: training.loss(z, y), training.data)
    for kind in ("exact", "sampled"):
        with pytest.raises(ValueError, match="loss must be cross_entropy"):
            fisher(hidden, kind=kind)  # type: ignore[arg-type]
    smooth = Training(training.model, nn.CrossEntropyLoss(label_smoothing=0.1), training.data)
    with pytest.raises(ValueError, match="loss must be"):
        fisher(smooth)


@pytest.mark.parametrize("of", (hessian, generalized_gauss_newton, fisher))
def test_blocks_of_layers(of: Callable[[Any], Operator]) -> None:
    training = problem(functional.cross_entropy, size=4)
    whole = of(training).dense()
    objective = Objective(training)
    blocks = layers(objective, of)
    assert list(blocks) == ["0", "2"]
    torch.testing.assert_close(blocks["0"].dense(), whole[:25, :25])
    torch.testing.assert_close(blocks["2"].dense(), whole[25:, 25:])
    expected = torch.block_diag(whole[:25, :25], whole[25:, 25:])
    torch.testing.assert_close(block_diagonal(objective, of).dense(), expected)
