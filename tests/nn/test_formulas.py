"""The formulas of recurrent cells with momentum, against closed forms and loops of scalars."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thalweg.nn import (
    SRLSTM,
    AdamLSTM,
    MomentumLSTM,
    MomentumRNN,
    NesterovLSTM,
    NesterovRNN,
    RMSPropLSTM,
    RMSPropRNN,
)
from thalweg.nn.drives import AdamDrive, Momentum, Nesterov, next_count
from thalweg.nn.units import lstm, modrelu

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 0.99), st.floats(0.1, 2.0), st.integers(1, 40))
def test_constant_input_sums_a_geometric_series(mu: float, step: float, t: int) -> None:
    e = draw(3)
    v = torch.zeros(3, dtype=F64)
    for _ in range(t):
        a, v = Momentum(mu, step)(e, torch.zeros(3, dtype=F64), v)
    torch.testing.assert_close(v, step * e * (1 - mu**t) / (1 - mu), rtol=1e-12, atol=0)
    torch.testing.assert_close(a, v, rtol=0, atol=0)


def test_linear_cell_in_closed_form() -> None:
    mu, step, time = 0.7, 0.4, 9
    layer = MomentumRNN(3, 4, nonlinearity="identity", mu=mu, step=step, dtype=F64)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(0.4 * draw(*p.shape, seed=p.numel()))
    x = draw(time, 3, seed=5)
    e = x @ layer.weight_ih_l0.T + layer.bias_ih_l0
    expected = torch.zeros(4, dtype=F64)
    for t in range(1, time + 1):
        v = step * sum(mu ** (t - j) * e[j - 1] for j in range(1, t + 1))
        power = torch.linalg.matrix_power(layer.weight_hh_l0, time - t)
        expected = expected + power @ (v + layer.bias_hh_l0)
    torch.testing.assert_close(layer(x)[0][-1], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("beta", [0.0, 0.01, 0.9, 0.999])
def test_first_step_of_rmsprop_has_one_size(beta: float) -> None:
    e = torch.tensor([3.0, -0.01, 200.0], dtype=F64)
    zero = torch.zeros_like(e)
    a, v, q = AdamDrive(0.0, 0.6, beta)(e, zero, zero, zero)
    torch.testing.assert_close(a, 0.6 * e.sign() / math.sqrt(1 - beta), rtol=1e-8, atol=0)
    torch.testing.assert_close(v, 0.6 * e)
    torch.testing.assert_close(q, (1 - beta) * e**2)


@pytest.mark.parametrize("mu", [0.0, 0.3])
def test_adam_drive_over_three_steps(mu: float) -> None:
    step, beta = 0.5, 0.8
    v, q, state = 0.0, 0.0, (torch.zeros(1, dtype=F64),) * 2
    for e, u in ((2.0, 0.1), (-1.0, 0.2), (0.5, -0.3)):
        v, q = mu * v + step * e, beta * q + (1 - beta) * e * e
        a, *state = AdamDrive(mu, step, beta)(
            torch.tensor([e], dtype=F64), torch.tensor([u], dtype=F64), *state
        )
        assert a.item() == pytest.approx(u + v / math.sqrt(q + 1e-16), rel=1e-12)
        assert [s.item() for s in state] == pytest.approx([v, q], rel=1e-12)


def test_momentum_lets_the_first_input_be_felt_at_the_end() -> None:
    time, mu = 20, 0.9

    def gradient(mu: float) -> float:
        layer = MomentumRNN(1, 1, nonlinearity="identity", mu=mu, step=1.0, dtype=F64)
        with torch.no_grad():
            layer.weight_ih_l0.fill_(1.0)
            layer.weight_hh_l0.fill_(0.5)
        x = draw(time, 1, 1).requires_grad_()
        (slope,) = torch.autograd.grad(layer(x)[0][-1].sum(), x)
        return slope[0].item()

    plain, with_momentum = gradient(0.0), gradient(mu)
    assert plain == pytest.approx(0.5 ** (time - 1), rel=1e-12)
    series = sum(mu ** (time - 1 - j) * 0.5**j for j in range(time))
    assert with_momentum == pytest.approx(series, rel=1e-12)
    assert with_momentum / plain > 1e5


@pytest.mark.parametrize(
    ("restart", "counts"),
    [(0, [1, 2, 3, 4, 5, 6]), (1, [1] * 6), (2, [1, 2, 1, 2, 1, 2]), (4, [1, 2, 3, 4, 1, 2])],
)
def test_counts_restart(restart: int, counts: list[int]) -> None:
    k, seen = torch.zeros(1, dtype=torch.int64), []
    for _ in counts:
        k = next_count(k, restart=restart)
        seen.append(int(k))
    assert seen == counts


def test_nesterov_drive_restarts_its_momentum_alone() -> None:
    e = draw(6)
    v, state = 0.0, (torch.zeros(1, dtype=F64), torch.zeros(1, dtype=torch.int64))
    for t, k in enumerate([1, 2, 3, 1, 2, 3]):
        v = (k - 1) / (k + 2) * v + 0.7 * e[t].item()
        a, *state = Nesterov(0.7, 3)(e[t : t + 1], torch.full((1,), 2.0, dtype=F64), *state)
        assert a.item() == pytest.approx(2.0 + v, rel=1e-12)


def by_hand(layer: torch.nn.Module, x: Tensor, drive: Callable[..., Tensor]) -> Tensor:
    """Outputs of a one-layer LSTM, gate by gate."""
    W, U, b_W, b_U = (p.detach() for p in layer.parameters())
    n = layer.hidden_size
    h, c = (torch.zeros(x.shape[1], n, dtype=F64) for _ in range(2))
    outputs = []
    for x_t in x:
        a = drive(x_t @ W.T + b_W, h @ U.T + b_U)
        i, f, o = (torch.sigmoid(a[:, s * n : (s + 1) * n]) for s in (0, 1, 3))
        c = f * c + i * torch.tanh(a[:, 2 * n : 3 * n])
        h = o * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs)


def randomized(layer: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for k, p in enumerate(layer.parameters()):
            p.copy_(0.6 * draw(*p.shape, seed=k))
    return layer


@pytest.mark.parametrize("restart", [0, 3])
def test_official_sr_lstm_has_momentum_on_the_recurrent_term_too(restart: int) -> None:
    layer = randomized(SRLSTM(2, 3, step=0.9, restart=restart, official_lstm=True, dtype=F64))
    counts = itertools.cycle(range(1, restart + 1)) if restart else itertools.count(1)
    last = torch.zeros(())

    def drive(e: Tensor, u: Tensor) -> Tensor:
        nonlocal last
        k = next(counts)
        p = u - 0.9 * e
        before, last = last, p
        return p + (k - 1) / (k + 2) * (p - before)

    x = draw(8, 2, 2)
    torch.testing.assert_close(layer(x)[0], by_hand(layer, x, drive), rtol=1e-12, atol=1e-13)


def test_sr_lstm_by_hand() -> None:
    layer = randomized(SRLSTM(2, 3, step=0.9, restart=3, dtype=F64))
    counts, v = itertools.cycle((1, 2, 3)), torch.zeros(())

    def drive(e: Tensor, u: Tensor) -> Tensor:
        nonlocal v
        k = next(counts)
        v = (k - 1) / (k + 2) * v + 0.9 * e
        return u + v

    x = draw(8, 2, 2)
    torch.testing.assert_close(layer(x)[0], by_hand(layer, x, drive), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NesterovLSTM(2, 3, step=0.9), SRLSTM(2, 3, step=0.9, restart=0)),
        (RMSPropLSTM(2, 3, step=0.9, beta=0.4), AdamLSTM(2, 3, mu=0.0, step=0.9, beta=0.4)),
    ],
)
def test_special_cases(one: torch.nn.Module, other: torch.nn.Module) -> None:
    other.load_state_dict(randomized(one).state_dict())
    x = draw(7, 2, 2).float()
    torch.testing.assert_close(one(x)[0], other(x)[0], rtol=0, atol=0)


def test_modrelu() -> None:
    a = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])
    assert modrelu(a, torch.tensor(-1.0)).tolist() == [-1.0, 0.0, 0.0, 0.0, 1.0]
    layer = NesterovRNN(2, 3, nonlinearity="modrelu")
    assert layer.bias_modrelu_l0.shape == (3,)
    assert layer.bias_modrelu_l0.abs().max() <= 0.01
    assert layer.bias_modrelu_l0.unique().numel() == 3
    layer(torch.ones(4, 2))[0].sum().backward()
    assert layer.bias_modrelu_l0.grad.abs().min() > 0


def test_lstm_unit_agrees_with_the_cell_of_torch() -> None:
    cell = torch.nn.LSTMCell(2, 3, dtype=F64)
    x, h, c = draw(4, 2), draw(4, 3, seed=1), draw(4, 3, seed=2)
    a = x @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh
    for ours, theirs in zip(lstm(a, c), cell(x, (h, c)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("layer_class", [AdamLSTM, RMSPropLSTM, RMSPropRNN])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_no_input_and_no_moments_is_no_nan(layer_class: type, dtype: torch.dtype) -> None:
    layer = layer_class(2, 3, bias=False, dtype=dtype)
    output, (*_, v, q) = layer(torch.zeros(3, 1, 2, dtype=dtype))
    output.sum().backward()
    assert not v.any() and not q.any()
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_first_weights_are_those_of_the_authors() -> None:
    layer = MomentumLSTM(5, 3, 2)
    W = layer.weight_ih_l0.detach()
    torch.testing.assert_close(W.T @ W, torch.eye(5))
    assert torch.equal(layer.weight_hh_l1.detach(), torch.eye(12, 3))
    for bias in (layer.bias_ih_l0, layer.bias_hh_l1):
        assert bias.tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 6
    plain = MomentumRNN(5, 3)
    assert torch.equal(plain.weight_hh_l0.detach(), torch.eye(3))
    assert not plain.bias_ih_l0.any()
