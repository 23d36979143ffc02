"""SRLSTM: Nesterov momentum in the input, restarted on a schedule."""

from __future__ import annotations

from typing import Unpack

from thalweg.nn.drives import Nesterov, OfficialNesterov
from thalweg.nn.family import MomentumLayer, documented
from thalweg.nn.recurrent import CellOptions, LayerOptions, RecurrentCell
from thalweg.nn.units import LSTMUnit


@documented
class SRLSTM(MomentumLayer):
    r"""An LSTM driven through Nesterov momentum that is restarted on a schedule.

    .. math::
        e_t &= W x_t + b_W, \\
        v_t &= \tfrac{k-1}{k+2}\, v_{t-1} + s\, e_t, \qquad k = 1, \dots, R, 1, \dots, \\
        (i, f, g, o)_t &= U h_{t-1} + b_U + v_t, \\
        c_t &= \sigma(f_t)\, c_{t-1} + \sigma(i_t) \tanh g_t, \qquad
        h_t = \sigma(o_t) \tanh c_t

    At k=1 the momentum is off, so v is never zeroed.

    Parameters
    ----------
    %(sizes)s
    %(step)s
    restart
        Steps between restarts, >= 0; 0 never restarts. Default 40.
    official_lstm
        Follow the authors' LSTM code, whose momentum is on :math:`p_t = U h_{t-1} + b_U - s e_t`:
        the pre-activation is :math:`p_t + \frac{k-1}{k+2} (p_t - p_{t-1})`, and the state v holds
        :math:`p_t`. Default False: the formula above.
    %(how)s

    %(returns)s
        The state is (h, c, v, k).

    %(raises)s

    Examples
    --------
    >>> import torch
    >>> layer = SRLSTM(3, 5)
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
        restart: int = 40,
        official_lstm: bool = False,
        **how: Unpack[LayerOptions],
    ) -> None:
        drive = OfficialNesterov if official_lstm else Nesterov
        super().__init__(
            LSTMUnit(), drive(step, restart), input_size, hidden_size, num_layers, **how
        )


class SRLSTMCell(RecurrentCell):
    """One step of `SRLSTM`, called like torch.nn.LSTMCell: its state is (h, c, v, k).

    Examples
    --------
    >>> import torch
    >>> h, c, v, k = SRLSTMCell(3, 5)(torch.zeros(2, 3))
    >>> h.shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        step: float = 0.6,
        restart: int = 40,
        official_lstm: bool = False,
        **how: Unpack[CellOptions],
    ) -> None:
        drive = OfficialNesterov if official_lstm else Nesterov
        super().__init__(LSTMUnit(), drive(step, restart), input_size, hidden_size, **how)
