"""NesterovRNN and NesterovLSTM: growing momentum in the input."""

from __future__ import annotations

from typing import ClassVar, Unpack

from thalweg.core.catalogue import Axis
from thalweg.nn.drives import Nesterov
from thalweg.nn.recurrent import CellOptions, LayerOptions, RecurrentCell, RecurrentLayer
from thalweg.nn.units import LSTMUnit, RNNUnit

_PAPER = "Nguyen, Baraniuk, Bertozzi, Osher & Wang, NeurIPS 2020 (arXiv 2006.06919)"


class NesterovRNN(RecurrentLayer):
    r"""An RNN driven through Nesterov's growing momentum.

    .. math::
        e_t &= W x_t + b_W, \\
        v_t &= \tfrac{k-1}{k+2}\, v_{t-1} + s\, e_t, \qquad k = 1, 2, \dots, \\
        h_t &= \sigma(U h_{t-1} + b_U + v_t)

    The momentum grows to 1 with the length of the sequence: see `SRLSTM` for restarts.

    Parameters
    ----------
    input_size, hidden_size
        Sizes of :math:`x_t` and :math:`h_t`, >= 1.
    num_layers
        Layers, each fed with the output of the one before, >= 1. Default 1.
    nonlinearity
        ``"tanh"`` (default), ``"relu"``, ``"modrelu"`` (with a learned bias) or ``"identity"``.
    step
        Step size s > 0 of the input. Default 0.6.
    **how
        `bias`, `batch_first`, `dropout`, `bidirectional`, `device`, `dtype` as in torch.nn.RNN.

    Returns
    -------
    tuple
        Called with ``(input, hx=None)`` as torch.nn.RNN; the state is (h, v, k).

    Raises
    ------
    ValueError
        For a value out of range or a shape that does not fit.

    Examples
    --------
    >>> import torch
    >>> layer = NesterovRNN(3, 5)
    >>> output, (h, v, k) = layer(torch.zeros(7, 2, 3))
    >>> output.shape, v.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))

    References
    ----------
    Nguyen, Baraniuk, Bertozzi, Osher & Wang, "MomentumRNN: integrating momentum into recurrent
    neural networks", NeurIPS 2020 (arXiv 2006.06919).
    """

    paper = _PAPER
    year = 2020
    family = "recurrent"
    needs: ClassVar[tuple[str, ...]] = ()
    memory = "hidden_size per sequence + 1"
    search_space: ClassVar[dict[str, Axis]] = {}

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


class NesterovLSTM(RecurrentLayer):
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
    input_size, hidden_size
        Sizes of :math:`x_t` and :math:`h_t`, >= 1.
    num_layers
        Layers, each fed with the output of the one before, >= 1. Default 1.
    step
        Step size s > 0 of the input. Default 0.6.
    **how
        `bias`, `batch_first`, `dropout`, `bidirectional`, `device`, `dtype` as in torch.nn.LSTM.

    Returns
    -------
    tuple
        Called with ``(input, hx=None)`` as torch.nn.LSTM; the state is (h, c, v, k).

    Raises
    ------
    ValueError
        For a value out of range or a shape that does not fit.

    Examples
    --------
    >>> import torch
    >>> layer = NesterovLSTM(3, 5)
    >>> output, (h, c, v, k) = layer(torch.zeros(7, 2, 3))
    >>> output.shape, v.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 20]))

    References
    ----------
    Nguyen, Baraniuk, Bertozzi, Osher & Wang, "MomentumRNN: integrating momentum into recurrent
    neural networks", NeurIPS 2020 (arXiv 2006.06919).
    """

    paper = _PAPER
    year = 2020
    family = "recurrent"
    needs: ClassVar[tuple[str, ...]] = ()
    memory = "4 hidden_size per sequence + 1"
    search_space: ClassVar[dict[str, Axis]] = {}

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
