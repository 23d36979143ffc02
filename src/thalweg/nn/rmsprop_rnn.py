"""RMSPropRNN and RMSPropLSTM: the input over the root of its second moment."""

from __future__ import annotations

from typing import ClassVar, Unpack

from thalweg.core.catalogue import Axis
from thalweg.nn.drives import AdamDrive
from thalweg.nn.recurrent import CellOptions, LayerOptions, RecurrentCell, RecurrentLayer
from thalweg.nn.units import LSTMUnit, RNNUnit

_PAPER = "Nguyen, Baraniuk, Bertozzi, Osher & Wang, NeurIPS 2020 (arXiv 2006.06919)"


class RMSPropRNN(RecurrentLayer):
    r"""An RNN driven through RMSProp's second moment.

    .. math::
        e_t &= W x_t + b_W, \\
        v_t &= s\, e_t, \qquad q_t = \beta q_{t-1} + (1 - \beta)\, e_t^2, \\
        h_t &= \sigma(U h_{t-1} + b_U + v_t / \sqrt{q_t + 10^{-16}})

    It is AdamRNN with mu=0.

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
    beta
        Second-moment rate :math:`\beta` in [0, 1). Default 0.9.
    **how
        `bias`, `batch_first`, `dropout`, `bidirectional`, `device`, `dtype` as in torch.nn.RNN.

    Returns
    -------
    tuple
        Called with ``(input, hx=None)`` as torch.nn.RNN; the state is (h, v, q).

    Raises
    ------
    ValueError
        For a value out of range or a shape that does not fit.

    Examples
    --------
    >>> import torch
    >>> layer = RMSPropRNN(3, 5)
    >>> output, (h, v, q) = layer(torch.zeros(7, 2, 3))
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
    memory = "2 hidden_size per sequence"
    search_space: ClassVar[dict[str, Axis]] = {}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        *,
        step: float = 0.6,
        beta: float = 0.9,
        **how: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            RNNUnit(nonlinearity),
            AdamDrive(0.0, step, beta),
            input_size,
            hidden_size,
            num_layers,
            **how,
        )


class RMSPropRNNCell(RecurrentCell):
    """One step of `RMSPropRNN`, called like torch.nn.RNNCell: its state is (h, v, q).

    Examples
    --------
    >>> import torch
    >>> h, v, q = RMSPropRNNCell(3, 5)(torch.zeros(2, 3))
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
        beta: float = 0.9,
        **how: Unpack[CellOptions],
    ) -> None:
        super().__init__(
            RNNUnit(nonlinearity), AdamDrive(0.0, step, beta), input_size, hidden_size, **how
        )


class RMSPropLSTM(RecurrentLayer):
    r"""An LSTM driven through RMSProp's second moment.

    .. math::
        e_t &= W x_t + b_W, \\
        v_t &= s\, e_t, \qquad q_t = \beta q_{t-1} + (1 - \beta)\, e_t^2, \\
        (i, f, g, o)_t &= U h_{t-1} + b_U + v_t / \sqrt{q_t + 10^{-16}}, \\
        c_t &= \sigma(f_t)\, c_{t-1} + \sigma(i_t) \tanh g_t, \qquad
        h_t = \sigma(o_t) \tanh c_t

    It is AdamLSTM with mu=0.

    Parameters
    ----------
    input_size, hidden_size
        Sizes of :math:`x_t` and :math:`h_t`, >= 1.
    num_layers
        Layers, each fed with the output of the one before, >= 1. Default 1.
    step
        Step size s > 0 of the input. Default 0.6.
    beta
        Second-moment rate :math:`\beta` in [0, 1). Default 0.9.
    **how
        `bias`, `batch_first`, `dropout`, `bidirectional`, `device`, `dtype` as in torch.nn.LSTM.

    Returns
    -------
    tuple
        Called with ``(input, hx=None)`` as torch.nn.LSTM; the state is (h, c, v, q).

    Raises
    ------
    ValueError
        For a value out of range or a shape that does not fit.

    Examples
    --------
    >>> import torch
    >>> layer = RMSPropLSTM(3, 5)
    >>> output, (h, c, v, q) = layer(torch.zeros(7, 2, 3))
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
    memory = "8 hidden_size per sequence"
    search_space: ClassVar[dict[str, Axis]] = {}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        step: float = 0.6,
        beta: float = 0.9,
        **how: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            LSTMUnit(), AdamDrive(0.0, step, beta), input_size, hidden_size, num_layers, **how
        )


class RMSPropLSTMCell(RecurrentCell):
    """One step of `RMSPropLSTM`, called like torch.nn.LSTMCell: its state is (h, c, v, q).

    Examples
    --------
    >>> import torch
    >>> h, c, v, q = RMSPropLSTMCell(3, 5)(torch.zeros(2, 3))
    >>> h.shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        step: float = 0.6,
        beta: float = 0.9,
        **how: Unpack[CellOptions],
    ) -> None:
        super().__init__(LSTMUnit(), AdamDrive(0.0, step, beta), input_size, hidden_size, **how)
