"""What every recurrent layer and cell does, whatever its formula."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

import thalweg.nn
from thalweg.core.catalogue import collect
from thalweg.nn import MomentumLSTM, MomentumRNN
from thalweg.nn.recurrent import RecurrentCell, RecurrentLayer

F64 = torch.float64
LAYERS = [e.target for e in collect(thalweg.nn)]
INTEGER = {"k"}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def make(layer_class: type[RecurrentLayer], *args: Any, **how: Any) -> RecurrentLayer:
    """A layer with random weights: the first ones are too regular to tell mistakes."""
    layer = layer_class(*(args or (3, 4)), **{"dtype": F64, **how})
    with torch.no_grad():
        for k, p in enumerate(layer.parameters()):
            p.copy_(0.5 * draw(*p.shape, seed=k + 1, dtype=p.dtype))
    return layer


def state_of(layer: RecurrentLayer, batch: int, seed: int = 9) -> tuple[Tensor, ...]:
    """A random initial state; k is 7, 8, ..., one a sequence."""
    zeros = layer(torch.zeros(1, batch, layer.input_size, dtype=F64))[1]
    return tuple(
        torch.arange(7, 7 + batch).view(1, batch, 1).expand_as(z).clone()
        if z.dtype == torch.int64
        else draw(*z.shape, seed=seed).abs()
        for z in zeros
    )


def assert_same(one: Any, other: Any, tolerance: float = 1e-13) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_the_catalogue_lists_every_layer_and_no_cell() -> None:
    layers = {n for n in thalweg.nn.__all__ if not n.endswith("Cell")}
    assert {e.name for e in collect(thalweg.nn)} == layers
    assert len(layers) == 9
    assert {e.family for e in collect(thalweg.nn)} == {"recurrent"}


# ------------------------------------------------------------------------------ torch's own


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (F64, 1e-12)])
@pytest.mark.parametrize("bias", [True, False])
def test_without_momentum_it_is_torch_lstm(
    dtype: torch.dtype, tolerance: float, bias: bool
) -> None:
    how = {"bias": bias, "bidirectional": True, "batch_first": True, "dtype": dtype}
    torch.manual_seed(0)
    theirs = nn.LSTM(3, 4, 2, **how)
    ours = MomentumLSTM(3, 4, 2, mu=0.0, step=1.0, **how)
    ours.load_state_dict(theirs.state_dict())
    x, h, c = draw(5, 6, 3, dtype=dtype), draw(4, 5, 4, dtype=dtype), draw(4, 5, 4, dtype=dtype)
    expected, hidden = theirs(x, (h, c))
    output, state = ours(x, (h, c, torch.zeros(4, 5, 16, dtype=dtype)))
    assert_same(output, expected, tolerance)
    assert_same(state[:2], hidden, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (F64, 1e-12)])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_without_momentum_it_is_torch_rnn(
    dtype: torch.dtype, tolerance: float, nonlinearity: str
) -> None:
    torch.manual_seed(0)
    theirs = nn.RNN(3, 4, 2, nonlinearity, bidirectional=True, dtype=dtype)
    ours = MomentumRNN(3, 4, 2, nonlinearity, mu=0.0, step=1.0, bidirectional=True, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    x = draw(6, 5, 3, dtype=dtype)
    expected, hidden = theirs(x)
    output, (h, _) = ours(x)
    assert_same(output, expected, tolerance)
    assert_same(h, hidden, tolerance)


def test_gradients_without_momentum_are_those_of_torch() -> None:
    theirs = nn.LSTM(3, 4, 2, dtype=F64)
    ours = MomentumLSTM(3, 4, 2, mu=0.0, step=1.0, dtype=F64)
    ours.load_state_dict(theirs.state_dict())
    for layer in (ours, theirs):
        layer(draw(6, 5, 3))[0].square().sum().backward()
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_same(p.grad, q.grad, 1e-12)


# -------------------------------------------------------------------------- shapes and states


@pytest.mark.parametrize("layer_class", LAYERS)
def test_gradcheck(layer_class: type[RecurrentLayer]) -> None:
    layer = make(layer_class, 2, 2)
    x = draw(4, 2, 2).requires_grad_()
    start = state_of(layer, 2)
    floating = [s.requires_grad_() for s in start if s.is_floating_point()]

    def run(x: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        output, state = layer(x, start)
        return output, *(s for s in state if s.is_floating_point())

    assert torch.autograd.gradcheck(run, (x, *floating, *layer.parameters()))


@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_sequence_in_two_halves_is_the_whole(layer_class: type[RecurrentLayer]) -> None:
    layer, x = make(layer_class, 3, 4, 2), draw(9, 5, 3)
    whole, end = layer(x)
    first, state = layer(x[:4])
    second, last = layer(x[4:], state)
    assert_same(torch.cat([first, second]), whole)
    assert_same(last, end)


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences_are_run_one_by_one(
    layer_class: type[RecurrentLayer], enforce_sorted: bool
) -> None:
    lengths = [6, 4, 4, 1] if enforce_sorted else [4, 1, 6, 4]
    layer = make(layer_class, 3, 4, 2, bidirectional=True)
    sequences = [draw(n, 3, seed=k) for k, n in enumerate(lengths)]
    start = state_of(layer, 4)
    output, state = layer(pack_sequence(sequences, enforce_sorted=enforce_sorted), start)
    padded, found = pad_packed_sequence(output)
    assert found.tolist() == lengths
    for k, x in enumerate(sequences):
        alone, end = layer(x, tuple(s[:, k] for s in start))
        assert_same(padded[: lengths[k], k], alone)
        assert_same(tuple(s[:, k] for s in state), end)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_packed_equals_padded_where_all_are_equally_long(
    layer_class: type[RecurrentLayer],
) -> None:
    layer, x = make(layer_class), draw(5, 3, 3)
    packed, state = layer(pack_sequence(list(x.unbind(1))))
    output, expected = layer(x)
    assert_same(pad_packed_sequence(packed)[0], output)
    assert_same(state, expected)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_two_directions_are_two_runs(layer_class: type[RecurrentLayer]) -> None:
    both, x = make(layer_class, bidirectional=True), draw(6, 5, 3)
    start = state_of(both, 5)
    weights = both.state_dict()
    output, state = both(x, start)
    for k, suffix in enumerate(["_l0", "_l0_reverse"]):
        one = make(layer_class)
        one.load_state_dict({n: weights[n.replace("_l0", suffix)] for n in one.state_dict()})
        alone, end = one(x.flip(0) if k else x, tuple(s[k : k + 1] for s in start))
        assert_same(output[..., 4 * k : 4 * k + 4], alone.flip(0) if k else alone)
        assert_same(tuple(s[k : k + 1] for s in state), end)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_layers_are_stacked(layer_class: type[RecurrentLayer]) -> None:
    two, x = make(layer_class, 3, 4, 2), draw(6, 5, 3)
    weights = two.state_dict()
    lower, upper = make(layer_class, 3, 4), make(layer_class, 4, 4)
    for k, one in enumerate((lower, upper)):
        one.load_state_dict({n: weights[n.replace("_l0", f"_l{k}")] for n in one.state_dict()})
    assert_same(two(x)[0], upper(lower(x)[0])[0])


@pytest.mark.parametrize("layer_class", LAYERS)
def test_batch_first_and_no_batch(layer_class: type[RecurrentLayer]) -> None:
    layer, x = make(layer_class), draw(6, 5, 3)
    output, state = layer(x)
    first = make(layer_class, batch_first=True)
    swapped, same = first(x.transpose(0, 1))
    assert_same(swapped, output.transpose(0, 1))
    assert_same(same, state)
    alone, end = layer(x[:, 2])
    assert_same(alone, output[:, 2])
    assert_same(end, tuple(s[:, 2] for s in state))


@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_cell_is_one_step_of_its_layer(layer_class: type[RecurrentLayer]) -> None:
    layer = make(layer_class)
    cell_class: type[RecurrentCell] = getattr(thalweg.nn, layer_class.__name__ + "Cell")
    cell = cell_class(3, 4, dtype=F64)
    weights = layer.state_dict()
    cell.load_state_dict({n: weights[f"{n}_l0"] for n in cell.state_dict()})
    x, state = draw(6, 5, 3), None
    outputs = []
    for x_t in x:
        state = cell(x_t, state)
        outputs.append(state[0])
    expected, end = layer(x)
    assert_same(torch.stack(outputs), expected)
    assert_same(tuple(state), tuple(s[0] for s in end))
    assert_same(cell(x[0, 0]), tuple(s[0] for s in cell(x[0])))


def test_dropout_acts_between_layers_and_in_training_only() -> None:
    layer, x = make(MomentumLSTM, 3, 4, 2, dropout=0.5), draw(6, 5, 3)
    sure = make(MomentumLSTM, 3, 4, 2)
    torch.manual_seed(0)
    noisy, again = layer(x), layer(x)
    assert not torch.equal(noisy[0], again[0])
    # the state of the lower layer has not seen the noise
    assert_same(noisy[1][0][0], sure(x)[1][0][0])
    assert_same(layer.eval()(x)[0], sure(x)[0])
    gone = make(MomentumLSTM, 3, 4, 2, dropout=1.0)
    zeros = make(MomentumLSTM, 4, 4)
    zeros.load_state_dict({n: gone.state_dict()[n.replace("0", "1")] for n in zeros.state_dict()})
    assert_same(gone(x)[0], zeros(torch.zeros(6, 5, 4, dtype=F64))[0])


@pytest.mark.parametrize("layer_class", LAYERS)
def test_copies_and_state_dict(layer_class: type[RecurrentLayer]) -> None:
    layer, x = make(layer_class, 3, 4, 2, bidirectional=True), draw(6, 5, 3)
    expected = layer(x)[0]
    loaded = layer_class(3, 4, 2, bidirectional=True, dtype=F64)
    loaded.load_state_dict(layer.state_dict())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert torch.equal(twin(x)[0], expected)
    assert layer.float()(x.float())[0].dtype == torch.float32


@pytest.mark.compile
@pytest.mark.slow
@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_layer_compiles_without_a_break(layer_class: type[RecurrentLayer]) -> None:
    torch.compiler.reset()  # torch compiles one function, here that of all layers, eight times
    layer, x = make(layer_class, 3, 4, bidirectional=True), draw(4, 2, 3)
    compiled = torch.compile(layer, fullgraph=True)
    assert_same(compiled(x), layer(x), 1e-12)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_an_exported_layer_is_the_layer(layer_class: type[RecurrentLayer]) -> None:
    layer, x = make(layer_class, 3, 4, bidirectional=True), draw(4, 2, 3)
    exported = torch.export.export(layer, (x,)).module()
    other = draw(4, 2, 3, seed=8)
    assert_same(exported(other), layer(other))


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("MomentumLSTM", {"mu": 1.0}, r"mu must be in \[0, 1\), got 1.0"),
        ("MomentumRNN", {"mu": -0.1}, r"mu must be in \[0, 1\), got -0.1"),
        ("MomentumLSTM", {"step": 0.0}, "step must be > 0, got 0.0"),
        ("AdamLSTM", {"beta": 1.0}, r"beta must be in \[0, 1\), got 1.0"),
        ("AdamRNN", {"mu": 1.5}, r"mu must be in \[0, 1\), got 1.5"),
        ("RMSPropLSTM", {"beta": float("nan")}, r"beta must be in \[0, 1\), got nan"),
        ("RMSPropRNN", {"step": -1.0}, "step must be > 0, got -1.0"),
        ("NesterovLSTM", {"step": 0.0}, "step must be > 0, got 0.0"),
        ("SRLSTM", {"restart": -1}, "restart must be an integer >= 0, got -1"),
        ("SRLSTM", {"restart": 1.5}, "restart must be an integer >= 0, got 1.5"),
        ("AdamRNN", {"nonlinearity": "tan"}, r"nonlinearity must be one of .* \(did you mean"),
        ("AdamRNN", {"dropout": 1.1}, r"dropout must be in \[0, 1\], got 1.1"),
        ("AdamRNN", {"num_layers": 0}, "num_layers must be an integer >= 1, got 0"),
        ("AdamRNN", {"hidden_size": 0}, "hidden_size must be an integer >= 1, got 0"),
        ("AdamRNN", {"input_size": 2.5}, "input_size must be an integer >= 1, got 2.5"),
    ],
)
def test_values_out_of_range(name: str, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(thalweg.nn, name)(**{"input_size": 3, "hidden_size": 4, **how})


@pytest.mark.parametrize("name", ["bias", "batch_first", "bidirectional"])
def test_flags_are_flags(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be True or False, got 1"):
        MomentumLSTM(3, 4, **{name: 1})  # type: ignore[arg-type]


def test_dropout_of_one_layer_warns() -> None:
    with pytest.warns(UserWarning, match="dropout acts between layers"):
        MomentumLSTM(3, 4, dropout=0.5)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(5, 2, 7), r"input must have last size input_size=3, got \(5, 2, 7\)"),
        (torch.zeros(3), r"input must have 2 or 3 dimensions, got \(3,\)"),
        (torch.zeros(1, 5, 2, 3), r"input must have 2 or 3 dimensions, got \(1, 5, 2, 3\)"),
        (torch.zeros(0, 2, 3), "input must have at least one time step"),
    ],
)
def test_inputs_of_a_bad_shape(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MomentumLSTM(3, 4)(x)


def test_inputs_of_a_bad_kind() -> None:
    with pytest.raises(TypeError, match="input must be a real floating-point tensor"):
        MomentumLSTM(3, 4)(torch.zeros(5, 2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"input must have 1 or 2 dimensions"):
        thalweg.nn.MomentumLSTMCell(3, 4)(torch.zeros(5, 2, 3))


def test_states_of_a_bad_shape() -> None:
    layer, x = MomentumLSTM(3, 4), torch.zeros(5, 2, 3)
    h, c, v = layer(x)[1]
    with pytest.raises(ValueError, match=r"hx must be a tuple \(h, c, v\), got 2 members"):
        layer(x, (h, c))
    with pytest.raises(ValueError, match=r"hx must be a tuple \(h, c, v\), got Tensor"):
        layer(x, h)
    with pytest.raises(ValueError, match=r"hx: v must have shape \(1, 2, 16\), got \(1, 2, 4\)"):
        layer(x, (h, c, h))
    with pytest.raises(ValueError, match=r"hx: h must have shape \(1, 4\), got \(1, 2, 4\)"):
        layer(x[:, 0], (h, c, v))
