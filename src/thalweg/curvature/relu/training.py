"""Recognise a `Training` as a two-layer ReLU network with one of the three losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.core.problem import Training
from thalweg.curvature.relu.losses import Loss
from thalweg.curvature.relu.network import TwoLayerReLU

FUNCTIONS: dict[Any, Loss] = {
    F.mse_loss: "mse",
    F.binary_cross_entropy_with_logits: "bce",
    F.cross_entropy: "ce",
}


def two_layer_relu(training: Training) -> TwoLayerReLU | None:
    """The network of a `Training` if the exact test applies to it, else None.

    It applies to ``nn.Sequential(Linear, ReLU or LeakyReLU, Linear)`` with all parameters
    trainable, a loss of torch (mean or sum) without weights or label smoothing: ``mse_loss``,
    ``binary_cross_entropy_with_logits``, ``cross_entropy``, as functions or modules, and batches
    that are pairs of tensors. The risk differs from the training's loss by a constant factor,
    which no verdict depends on.

    Parameters
    ----------
    training
        Any; nothing of it is changed.

    Returns
    -------
    TwoLayerReLU or None

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> data = [(torch.ones(4, 2), torch.ones(4, 1)), (torch.zeros(2, 2), torch.ones(2, 1))]
    >>> two_layer_relu(Training(model, nn.MSELoss(), data)).sizes
    (6, 2, 3, 1)
    >>> two_layer_relu(Training(nn.Linear(2, 1), nn.MSELoss(), data)) is None
    True
    """
    loss = known_loss(training.loss)
    if loss is None or not isinstance(training.model, nn.Sequential):
        return None
    # The order of a pass over `thalweg.data.Batches` would begin its next epoch
    ordered = getattr(training.data, "ordered", None)
    inputs, target = [], []
    for batch in ordered() if ordered else training.data:
        pair = isinstance(batch, tuple | list) and len(batch) == 2
        if not pair or not all(isinstance(part, Tensor) for part in batch):
            return None
        inputs.append(batch[0])
        target.append(batch[1])
    if not inputs:
        return None
    try:
        X, y = torch.cat(inputs), torch.cat(target)
        network = TwoLayerReLU.from_module(training.model, X, y, loss)
    except (ValueError, RuntimeError):  # another model, or targets of another kind
        return None
    # torch broadcasts (m,) against (m, 1) to (m, m): another loss than ours
    same_shape = loss == "ce" or tuple(y.shape) == network.y.shape
    return network if same_shape else None


def known_loss(loss: Callable[..., Any]) -> Loss | None:
    """The name of a loss of torch without weights, or None.

    Examples
    --------
    >>> known_loss(nn.CrossEntropyLoss()), known_loss(F.mse_loss)
    ('ce', 'mse')
    >>> known_loss(nn.CrossEntropyLoss(label_smoothing=0.1)) is None
    True
    """
    if not isinstance(loss, nn.Module):
        try:
            return FUNCTIONS.get(loss)
        except TypeError:  # not hashable
            return None
    if getattr(loss, "reduction", "") not in ("mean", "sum"):
        return None
    if getattr(loss, "weight", None) is not None or getattr(loss, "pos_weight", None) is not None:
        return None
    if type(loss) is nn.MSELoss:
        return "mse"
    if type(loss) is nn.BCEWithLogitsLoss:
        return "bce"
    plain = type(loss) is nn.CrossEntropyLoss and loss.label_smoothing == 0
    return "ce" if plain else None
