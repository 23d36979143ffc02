"""Optimizers: drop-in replacements for `torch.optim`, one formula each."""

from __future__ import annotations

from thalweg.optim.accelegrad import AcceleGrad, accelegrad
from thalweg.optim.adagrad import AdaGrad, AdaGradNorm
from thalweg.optim.adagrad_full import AdaGradFull
from thalweg.optim.adam import Adam, AdamW
from thalweg.optim.amsgrad import AMSGrad
from thalweg.optim.engine import (
    Elementwise,
    Global,
    How,
    Matrixwise,
    RuleOptimizer,
    Tensorwise,
)
from thalweg.optim.perturbed import PerturbedSGD
from thalweg.optim.rmsprop import RMSProp
from thalweg.optim.schedules import as_lr_scheduler, cooldown, power, sqrt_horizon
from thalweg.optim.sgd import SGD
from thalweg.optim.sgld import SGLD
from thalweg.optim.variable_metric import gradient_mapping, variable_metric_step

__all__ = [
    "SGD",
    "SGLD",
    "AMSGrad",
    "AcceleGrad",
    "AdaGrad",
    "AdaGradFull",
    "AdaGradNorm",
    "Adam",
    "AdamW",
    "Elementwise",
    "Global",
    "How",
    "Matrixwise",
    "PerturbedSGD",
    "RMSProp",
    "RuleOptimizer",
    "Tensorwise",
    "accelegrad",
    "as_lr_scheduler",
    "cooldown",
    "gradient_mapping",
    "power",
    "sqrt_horizon",
    "variable_metric_step",
]
