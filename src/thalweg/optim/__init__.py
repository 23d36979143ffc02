"""Optimizers: drop-in replacements for `torch.optim`, one formula each."""

from __future__ import annotations

from thalweg.optim import kappa
from thalweg.optim.accelegrad import AcceleGrad, accelegrad
from thalweg.optim.adagrad import AdaGrad, AdaGradNorm
from thalweg.optim.adagrad_full import AdaGradFull
from thalweg.optim.adam import Adam, AdamW
from thalweg.optim.adamp import AdamP
from thalweg.optim.amsgrad import AMSGrad
from thalweg.optim.clipping import ClippedSGD, clip_coordinates_
from thalweg.optim.combined import Combined
from thalweg.optim.egdd import EGDD, EGScale
from thalweg.optim.engine import (
    Elementwise,
    Global,
    How,
    Matrixwise,
    RuleOptimizer,
    Tensorwise,
)
from thalweg.optim.kappa import Kappa
from thalweg.optim.lion import Lion
from thalweg.optim.lion_k import LionK, lion_lyapunov
from thalweg.optim.novograd import NovoGrad
from thalweg.optim.param_groups import ParamGroups, param_groups
from thalweg.optim.perturbed import PerturbedSGD
from thalweg.optim.rmsprop import RMSProp
from thalweg.optim.salsa import SALSA
from thalweg.optim.sasa import SASA, SSLS
from thalweg.optim.schedules import as_lr_scheduler, cooldown, power, sqrt_horizon
from thalweg.optim.sgd import SGD
from thalweg.optim.sgdp import SGDP
from thalweg.optim.sgld import SGLD
from thalweg.optim.sso import sso_minimize, sso_step
from thalweg.optim.variable_metric import gradient_mapping, variable_metric_step
from thalweg.optim.weight_noise import NoisyStep, weight_noise

__all__ = [
    "EGDD",
    "SALSA",
    "SASA",
    "SGD",
    "SGDP",
    "SGLD",
    "SSLS",
    "AMSGrad",
    "AcceleGrad",
    "AdaGrad",
    "AdaGradFull",
    "AdaGradNorm",
    "Adam",
    "AdamP",
    "AdamW",
    "ClippedSGD",
    "Combined",
    "EGScale",
    "Elementwise",
    "Global",
    "How",
    "Kappa",
    "Lion",
    "LionK",
    "Matrixwise",
    "NoisyStep",
    "NovoGrad",
    "ParamGroups",
    "PerturbedSGD",
    "RMSProp",
    "RuleOptimizer",
    "Tensorwise",
    "accelegrad",
    "as_lr_scheduler",
    "clip_coordinates_",
    "cooldown",
    "gradient_mapping",
    "kappa",
    "lion_lyapunov",
    "param_groups",
    "power",
    "sqrt_horizon",
    "sso_minimize",
    "sso_step",
    "variable_metric_step",
    "weight_noise",
]
