"""MomentumRNN and MomentumLSTM: heavy-ball momentum in the input."""

from __future__ import annotations

from typing import Unpack

from thalweg.nn.drives import Momentum
from thalweg.nn.family import MomentumLayer, documented
from thalweg.nn.recurrent import CellOptions, LayerOptions, RecurrentCell
from thalweg.nn.units import LSTMUnit, RNNUnit


@documented
class MomentumRNN(MomentumLayer):
    r"""An RNN driven through heavy-ball momentum, against vanishing gradients.

    .. math::
        e_t &= W x_t + b_W, \\
        v_t &= \mu v_{t-1} + s\, e_t, \\
        h_t &= \sigma(U h_{t-1} + b_U + v_t)

    With mu=0 and step=1 it is torch.nn.RNN, whose weights it loads.

    Parameters
    ----------
    %(sizes)s
    %(nonlinearity)s
    %(mu)s
    %(step)s
    %(how)s

    %(returns)s
        The state is (h, v).

    %(raises)s

    Examples
    --------
    >>> import torch
    >>> layer = MomentumRNN(3, 5)
    >>> output, (h, v) = layer(torch.zeros(7, 2, 3))
    >>> output.shape, v.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))

    %(paper)s
    """

    memory = "hidden_size per sequence"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        *,
        mu: float = 0.6,
        step: float = 0.6,
        **how: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            RNNUnit(nonlinearity), Momentum(mu, step), input_size, hidden_size, num_layers, **how
        )


class MomentumRNNCell(RecurrentCell):
    """One step of `MomentumRNN`, called like torch.nn.RNNCell: its state is (h, v).

    Examples
    --------
    >>> import torch
    >>> h, v = MomentumRNNCell(3, 5)(torch.zeros(2, 3))
    >>> h.shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: str = "tanh",
        *,
        mu: float = 0.6,
        step: float = 0.6,
        **how: Unpack[CellOptions],
    ) -> None:
        super().__init__(RNNUnit(nonlinearity), Momentum(mu, step), input_size, hidden_size, **how)


@documented
class MomentumLSTM(MomentumLayer):
    r"""An LSTM driven through heavy-ball momentum, against vanishing gradients.

    .. math::
        e_t &= W x_t + b_W, \\
        v_t &= \mu v_{t-1} + s\, e_t, \\
        (i, f, g, o)_t &= U h_{t-1} + b_U + v_t, \\
        c_t &= \sigma(f_t)\, c_{t-1} + \sigma(i_t) \tanh g_t, \qquad
        h_t = \sigma(o_t) \tanh c_t

    With mu=0 and step=1 it is torch.nn.LSTM, whose weights it loads.

    Parameters
    ----------
    %(sizes)s
    %(mu)s
    %(step)s
    %(how)s

    %(returns)s
        The state is (h, c, v).

    %(raises)s

    Examples
    --------
    >>> import torch
    >>> layer = MomentumLSTM(3, 5)
    >>> output, (h, c, v) = layer(torch.zeros(7, 2, 3))
    >>> output.shape, v.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 20]))

    %(paper)s
    """

    memory = "4 hidden_size per sequence"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        mu: float = 0.6,
        step: float = 0.6,
        **how: Unpack[LayerOptions],
    ) -> None:
        super().__init__(LSTMUnit(), Momentum(mu, step), input_size, hidden_size, num_layers, **how)


class MomentumLSTMCell(RecurrentCell):
    """One step of `MomentumLSTM`, called like torch.nn.LSTMCell: its state is (h, c, v).

    Examples
    --------
    >>> import torch
    >>> h, c, v = MomentumLSTMCell(3, 5)(torch.zeros(2, 3))
    >>> h.shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        mu: float = 0.6,
        step: float = 0.6,
        **how: Unpack[CellOptions],
    ) -> None:
        super().__init__(LSTMUnit(), Momentum(mu, step), input_size, hidden_size, **how)
