"""Modules: recurrent layers whose input goes through the momentum of an optimizer."""

from __future__ import annotations

from thalweg.nn.adam_rnn import AdamLSTM, AdamLSTMCell, AdamRNN, AdamRNNCell
from thalweg.nn.momentum_rnn import MomentumLSTM, MomentumLSTMCell, MomentumRNN, MomentumRNNCell
from thalweg.nn.nesterov_rnn import NesterovLSTM, NesterovLSTMCell, NesterovRNN, NesterovRNNCell
from thalweg.nn.rmsprop_rnn import RMSPropLSTM, RMSPropLSTMCell, RMSPropRNN, RMSPropRNNCell
from thalweg.nn.sr_lstm import SRLSTM, SRLSTMCell

__all__ = [
    "SRLSTM",
    "AdamLSTM",
    "AdamLSTMCell",
    "AdamRNN",
    "AdamRNNCell",
    "MomentumLSTM",
    "MomentumLSTMCell",
    "MomentumRNN",
    "MomentumRNNCell",
    "NesterovLSTM",
    "NesterovLSTMCell",
    "NesterovRNN",
    "NesterovRNNCell",
    "RMSPropLSTM",
    "RMSPropLSTMCell",
    "RMSPropRNN",
    "RMSPropRNNCell",
    "SRLSTMCell",
]
