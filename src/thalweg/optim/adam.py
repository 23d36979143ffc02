"""Adam and AdamW."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.core.catalogue import LogUniform, OneMinusLogUniform
from thalweg.numeric.division import divide
from thalweg.optim.engine import Elementwise, How


class AdamW(Elementwise):
    slots = ("exp_avg", "exp_avg_sq")
    paper = "x"
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, **how):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay), **how)

    @staticmethod
    def rule(p, g, exp_avg, exp_avg_sq, *, k, lr, beta1, beta2, eps, weight_decay):
        exp_avg = beta1 * exp_avg + (1 - beta1) * g
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g * g
        m_hat = exp_avg / (1 - beta1**k)
        v_hat = exp_avg_sq / (1 - beta2**k)
        p = p * (1 - lr * weight_decay)
        return p - lr * divide(m_hat, v_hat.sqrt(), eps), exp_avg, exp_avg_sq
Adam = AdamW
