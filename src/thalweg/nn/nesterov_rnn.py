"""NesterovRNN and NesterovLSTM: growing momentum in the input."""

from __future__ import annotations

from typing import Unpack

from thalweg.nn.drives import Nesterov
from thalweg.nn.family import MomentumLayer, documented
from thalweg.nn.recurrent import CellOptions, LayerOptions, RecurrentCell
from thalweg.nn.units import LSTMUnit, RNNUnit


@documented
class NesterovRNN(MomentumLayer):
    r"""An RNN driven through Nesterov's growing momentum.

    .. math::
        e_t &= W x_t + b_W, \\
        v_t &= \tfrac{k-1}{k+2}\, v_{t-1} + s\, e_t, \qquad k = 1, 2, \dots, \\
        h_t &= \sigma(U h_{t-1} + b_U + v_t)

    The momentum grows to 1 with the length of the sequence: see `SRLSTM` for restarts.

    Parameters
    ----------
    %(sizes)s
    %(nonlinearity)s
    %(step)s
    %(how)s

    %(returns)s
        The state is (h, v, k).

    %(raises)s

    Examples
    --------
    >>> import torch
    >>> layer = NesterovRNN(3, 5)
    >>> output, (h, v, k) = layer(torch.zeros(7, 2, 3))
    >>> output.shape, v.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))

    %(paper)s
    """

    memory = "hidden_size per sequence + 1"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        *,
        step: float = 0.6,
        **how: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            RNNUnit(nonlinearity), Nesterov(step), input_size, hidden_size, num_layers, **how
        )


class NesterovRNNCell(RecurrentCell):
    """One step of `NesterovRNN`, called like torch.nn.RNNCell: its state is (h, v, k).

    Examples
    --------
    >>> import torch
    >>> h, v, k = NesterovRNNCell(3, 5)(torch.zeros(2, 3))
    >>> h.shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: str = "tanh",
        *,
        step: float = 0.6,
        **how: Unpack[CellOptions],
    ) -> None:
        super().__init__(RNNUnit(nonlinearity), Nesterov(step), input_size, hidden_size, **how)


@documented
class NesterovLSTM(MomentumLayer):
    r"""An LSTM driven through Nesterov's growing momentum.

    .. math::
        e_t &= W x_t + b_W, \\
        v_t &= \tfrac{k-1}{k+2}\, v_{t-1} + s\, e_t, \qquad k = 1, 2, \dots, \\
        (i, f, g, o)_t &= U h_{t-1} + b_U + v_t, \\
        c_t &= \sigma(f_t)\, c_{t-1} + \sigma(i_t) \tanh g_t, \qquad
        h_t = \sigma(o_t) \tanh c_t

    The momentum grows to 1 with the length of the sequence: see `SRLSTM` for restarts.

    Parameters
    ----------
    %(sizes)s
    %(step)s
    %(how)s

    %(returns)s
        The state is (h, c, v, k).

    %(raises)s

    Examples
    --------
    >>> import torch
    >>> layer = NesterovLSTM(3, 5)
    >>> output, (h, c, v, k) = layer(torch.zeros(7, 2, 3))
    >>> output.shape, v.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 20]))

    %(paper)s
    """

    memory = "4 hidden_size per sequence + 1"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        step: float = 0.6,
        **how: Unpack[LayerOptions],
    ) -> None:
        super().__init__(LSTMUnit(), Nesterov(step), input_size, hidden_size, num_layers, **how)


class NesterovLSTMCell(RecurrentCell):
    """One step of `NesterovLSTM`, called like torch.nn.LSTMCell: its state is (h, c, v, k).

    Examples
    --------
    >>> import torch
    >>> h, c, v, k = NesterovLSTMCell(3, 5)(torch.zeros(2, 3))
    >>> h.shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        step: float = 0.6,
        **how: Unpack[CellOptions],
    ) -> None:
        super().__init__(LSTMUnit(), Nesterov(step), input_size, hidden_size, **how)
