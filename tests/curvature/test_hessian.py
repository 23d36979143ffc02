"""The Hessian operator against dense second derivatives, for every kind of model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from thalweg import Training
from thalweg.curvature import Objective, hessian
from thalweg.curvature.attention import differentiable_kernels

N = 7


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.qkv = nn.Linear(4, 12)
        self.out = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(self.embed(tokens)).chunk(3, dim=-1)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(attended.mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.hidden = nn.Linear(4, 4)
        self.unembed = nn.Linear(4, 5, bias=False)
        self.unembed.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.unembed(self.hidden(self.embed(tokens).mean(1)).tanh())


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.never = nn.Linear(2, 2)
        self.frozen = nn.Linear(3, 4).requires_grad_(False)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.frozen(x).tanh())


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 3)

    def forward(self, x: Tensor, labels: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        return {"logits": self.out(x) * scale}


def problem(kind: str) -> tuple[nn.Module, Any, Any]:
    torch.manual_seed(3)
    x, y = torch.randn(N, 3, dtype=torch.float64), torch.randint(3, (N,))
    loss: Any = functional.cross_entropy
    if kind == "mlp":
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double(), loss, (x, y)
    if kind == "conv":
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.Softplus(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(12, 3),
        )
        model[1].running_mean.normal_()
        return model.double(), loss, (torch.randn(N, 1, 4, 4, dtype=torch.float64), y)
    if kind == "attention":
        return Attention().double(), loss, (torch.randint(5, (N, 6)), y)
    if kind == "transformer":
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.3, batch_first=True)
        model = nn.Sequential(layer, nn.Flatten(), nn.Linear(8, 3)).double()
        return model, loss, (torch.randn(N, 2, 4, dtype=torch.float64), y)
    if kind == "recurrent":
        return Recurrent().double(), loss, (torch.randn(N, 4, 3, dtype=torch.float64), y)
    if kind == "tied":
        return Tied().double(), loss, (torch.randint(5, (N, 3)), torch.randint(5, (N,)))
    if kind == "unused":
        return Unused().double(), loss, (x, y)
    assert kind == "keywords"
    with_labels = lambda out, batch: functional.cross_entropy(out["logits"], batch["labels"])  # noqa: E731
    return Keywords().double(), with_labels, {"x": x, "labels": y}


KINDS = ("mlp", "conv", "attention", "transformer", "recurrent", "tied", "unused", "keywords")


def split(batch: Any, size: int) -> list[Any]:
    if isinstance(batch, dict):
        parts = [v.split(size) for v in batch.values()]
        return [dict(zip(batch, p)) for p in zip(*parts)]
    return list(zip(*(t.split(size) for t in batch)))


def dense(training: Training, batch: Any) -> Tensor:
    """By torch.func on one batch of everything."""
    model = copy.deepcopy(training.model).eval()
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    like = [dict(model.named_parameters())[name] for name in names]

    def f(x: Tensor) -> Tensor:
        parts = [q.view(p.shape) for q, p in zip(x.split([p.numel() for p in like]), like)]
        held = dict(zip(names, parts))
        if isinstance(batch, dict):
            return training.loss(functional_call(model, held, (), batch), batch)
        return training.loss(functional_call(model, held, (batch[0],)), batch[1])

    x = torch.cat([p.detach().flatten() for p in like])
    with differentiable_kernels(model):
        rows = torch.autograd.functional.hessian(f, x)
    assert isinstance(rows, Tensor)
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_dense_hessian(kind: str) -> None:
    model, loss, batch = problem(kind)
    training = Training(model, loss, [batch])
    H = hessian(training)
    assert H.shape[0] <= 300
    reference = dense(training, batch)
    torch.testing.assert_close(H.dense(), reference, rtol=1e-10, atol=1e-10)
    # the same by forward over reverse, in unequal batches
    columns = torch.randn(H.shape[0], 2, dtype=torch.float64)
    lean = hessian(Training(model, loss, split(batch, 4)), memory=0)
    torch.testing.assert_close(lean @ columns, reference @ columns, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("memory", (2**30, 30_000, 0))
@pytest.mark.parametrize("size", (1, 3, N))
def test_the_size_of_the_batches_does_not_matter(size: int, memory: int) -> None:
    model, loss, batch = problem("mlp")
    reference = dense(Training(model, loss, [batch]), batch)
    H = hessian(Training(model, loss, split(batch, size)), memory=memory)
    for v in (reference[:, :2], reference[:, 0]):
        torch.testing.assert_close(H @ v, reference @ v, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_symmetry(kind: str) -> None:
    model, loss, batch = problem(kind)
    H = hessian(Training(model, loss, [batch]))
    u, v = torch.randn(2, H.shape[0], dtype=torch.float64)
    Hu, Hv = H @ u, H @ v
    assert abs(float(u @ Hv - v @ Hu)) <= 1e-8 * float(Hv.norm() * u.norm())


def test_the_captured_point_does_not_follow_the_model() -> None:
    model, loss, batch = problem("mlp")
    training = Training(model, loss, [batch])
    for memory in (0, 2**30):
        H = hessian(training, memory=memory)
        v = torch.randn(H.shape[0], dtype=torch.float64)
        before = H @ v
        with torch.no_grad():
            for p in model.parameters():
                p.add_(1.0)
        torch.testing.assert_close(H @ v, before)
        objective = Objective(training)
        assert not torch.allclose(objective.hvp(v), before)
        torch.testing.assert_close(objective.hvp(v, H.x), before)


def test_the_objective_follows_the_model_even_through_data() -> None:
    model, loss, batch = problem("mlp")
    training = Training(model, loss, [batch])
    objective = Objective(training)
    v = torch.randn(objective.d, dtype=torch.float64)
    objective.hvp(v)
    for p in model.parameters():
        p.data.mul_(2.0)  # leaves no trace in the version counter
    torch.testing.assert_close(objective.hvp(v), hessian(training) @ v)


def test_linear_functions_have_hessian_zero() -> None:
    flat = Training.from_function(lambda x: x.sum(), torch.ones(3))
    assert (hessian(flat) @ torch.ones(3)).tolist() == [0.0] * 3
    constant = Training.from_function(lambda x: torch.ones(()), torch.ones(3))
    assert (hessian(constant) @ torch.ones(3)).tolist() == [0.0] * 3
    assert Objective(constant).gradient().tolist() == [0.0] * 3


@pytest.mark.parametrize("memory", (2**30, 0))
def test_partly_linear(memory: int) -> None:
    training = Training.from_function(
        lambda x: x["a"].sum() + (x["b"] ** 2).sum(),
        {"a": torch.ones(2, dtype=torch.float64), "b": torch.ones(2, dtype=torch.float64)},
    )
    assert hessian(training, memory=memory).dense().diagonal().tolist() == [0, 0, 2, 2]


def test_a_subset_of_the_parameters_is_a_block_of_the_hessian() -> None:
    model, loss, batch = problem("mlp")
    training = Training(model, loss, [batch])
    whole = hessian(training).dense()
    weight = [p for name, p in model.named_parameters() if name == "0.weight"]
    torch.testing.assert_close(hessian(training, weight).dense(), whole[:15, :15])
    torch.testing.assert_close(hessian(training, ["0.weight"]).dense(), whole[:15, :15])


def test_scipy() -> None:
    from scipy.sparse.linalg import eigsh

    model, loss, batch = problem("mlp")
    H = hessian(Training(model, loss, [batch]))
    top = eigsh(H.to_scipy(), k=2, which="LA", return_eigenvectors=False)
    values = torch.linalg.eigvalsh(H.dense())
    torch.testing.assert_close(torch.tensor(sorted(top)), values[-2:])


def test_regularization_in_the_loss_is_differentiated() -> None:
    model, _, batch = problem("mlp")

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(out, y) + sum((p**2).sum() for p in model.parameters())

    plain = hessian(Training(model, functional.cross_entropy, [batch])).dense()
    with_penalty = hessian(Training(model, loss, [batch])).dense()
    torch.testing.assert_close(with_penalty - plain, 2 * torch.eye(len(plain)).double())
