"""AdamRNN and AdamLSTM: momentum and second moment in the input."""

from __future__ import annotations

from typing import Unpack

from thalweg.nn.drives import AdamDrive
from thalweg.nn.family import MomentumLayer, documented
from thalweg.nn.recurrent import CellOptions, LayerOptions, RecurrentCell
from thalweg.nn.units import LSTMUnit, RNNUnit


@documented
class AdamRNN(MomentumLayer):
    r"""An RNN driven through Adam's momentum and second moment.

    .. math::
        e_t &= W x_t + b_W, \\
        v_t &= \mu v_{t-1} + s\, e_t, \qquad q_t = \beta q_{t-1} + (1 - \beta)\, e_t^2, \\
        h_t &= \sigma(U h_{t-1} + b_U + v_t / \sqrt{q_t + 10^{-16}})

    As in the authors' code: no bias correction, and 1e-16 under the root.

    Parameters
    ----------
    %(sizes)s
    %(nonlinearity)s
    %(mu)s
    %(step)s
    %(beta)s
    %(how)s

    %(returns)s
        The state is (h, v, q).

    %(raises)s

    Examples
    --------
    >>> import torch
    >>> layer = AdamRNN(3, 5)
    >>> output, (h, v, q) = layer(torch.zeros(7, 2, 3))
    >>> output.shape, v.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))

    %(paper)s
    """

    memory = "2 hidden_size per sequence"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        *,
        mu: float = 0.6,
        step: float = 0.6,
        beta: float = 0.9,
        **how: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            RNNUnit(nonlinearity),
            AdamDrive(mu, step, beta),
            input_size,
            hidden_size,
            num_layers,
            **how,
        )


class AdamRNNCell(RecurrentCell):
    """One step of `AdamRNN`, called like torch.nn.RNNCell: its state is (h, v, q).

    Examples
    --------
    >>> import torch
    >>> h, v, q = AdamRNNCell(3, 5)(torch.zeros(2, 3))
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
        beta: float = 0.9,
        **how: Unpack[CellOptions],
    ) -> None:
        super().__init__(
            RNNUnit(nonlinearity), AdamDrive(mu, step, beta), input_size, hidden_size, **how
        )


@documented
class AdamLSTM(MomentumLayer):
    r"""An LSTM driven through Adam's momentum and second moment.

    .. math::
        e_t &= W x_t + b_W, \\
        v_t &= \mu v_{t-1} + s\, e_t, \qquad q_t = \beta q_{t-1} + (1 - \beta)\, e_t^2, \\
        (i, f, g, o)_t &= U h_{t-1} + b_U + v_t / \sqrt{q_t + 10^{-16}}, \\
        c_t &= \sigma(f_t)\, c_{t-1} + \sigma(i_t) \tanh g_t, \qquad
        h_t = \sigma(o_t) \tanh c_t

    As in the authors' code: no bias correction, and 1e-16 under the root.

    Parameters
    ----------
    %(sizes)s
    %(mu)s
    %(step)s
    %(beta)s
    %(how)s

    %(returns)s
        The state is (h, c, v, q).

    %(raises)s

    Examples
    --------
    >>> import torch
    >>> layer = AdamLSTM(3, 5)
    >>> output, (h, c, v, q) = layer(torch.zeros(7, 2, 3))
    >>> output.shape, v.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 20]))

    %(paper)s
    """

    memory = "8 hidden_size per sequence"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        mu: float = 0.6,
        step: float = 0.6,
        beta: float = 0.9,
        **how: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            LSTMUnit(), AdamDrive(mu, step, beta), input_size, hidden_size, num_layers, **how
        )


class AdamLSTMCell(RecurrentCell):
    """One step of `AdamLSTM`, called like torch.nn.LSTMCell: its state is (h, c, v, q).

    Examples
    --------
    >>> import torch
    >>> h, c, v, q = AdamLSTMCell(3, 5)(torch.zeros(2, 3))
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
        beta: float = 0.9,
        **how: Unpack[CellOptions],
    ) -> None:
        super().__init__(LSTMUnit(), AdamDrive(mu, step, beta), input_size, hidden_size, **how)
