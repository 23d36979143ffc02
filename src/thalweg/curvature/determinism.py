"""Is the loss the same function each time it is asked? Refusals that name the likely cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from thalweg.core import check
from thalweg.core.rng import preserved_rng

if TYPE_CHECKING:
    from thalweg.curvature.objective import Objective

# two passes agree to these: differences within rounding, relative
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
_RANDOM_ORDER = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def fixed_order(data: Any) -> Any:
    """The data to be read in the same order every time.

    Parameters
    ----------
    data
        Of a `Training`. What offers ``ordered()`` (`thalweg.data.Batches`) is read that way.

    Raises
    ------
    ValueError
        For a ``DataLoader`` that draws its rows.

    Examples
    --------
    >>> fixed_order([1, 2])
    [1, 2]
    """
    ordered = getattr(data, "ordered", None)
    if callable(ordered):
        return ordered()
    if isinstance(data, DataLoader):
        inner = getattr(data.batch_sampler, "sampler", data.sampler)
        for sampler in (data.sampler, inner):
            if isinstance(sampler, _RANDOM_ORDER):
                raise ValueError(
                    "data must come in a fixed order, got a DataLoader with "
                    f"{_drawing(sampler)}: pass one over the same rows with shuffle=False"
                )
    return data


def _drawing(sampler: object) -> str:
    name = type(sampler).__name__
    return "shuffle=True" if isinstance(sampler, RandomSampler) else name


def check_train_mode(model: nn.Module) -> None:
    """Refuse dropout in train mode; warn about batch statistics."""
    for name, module in model.named_modules():
        if _drops(module):
            raise ValueError(
                f"the loss must be deterministic, got dropout in train mode (module {name!r}, "
                f'p={getattr(module, "p", None) or module.dropout}): measure with mode="eval"'
            )
    if _uses_batch_statistics(model):
        check.warn(
            "batch normalization in train mode: the loss couples the rows of the batch, and the "
            "curvature is that of the whole batch, not a mean over rows"
        )


def refuse_batch_statistics(model: nn.Module) -> None:
    """Refuse a second batch where the statistics of the first were used."""
    if _uses_batch_statistics(model):
        raise ValueError(
            "the loss must not depend on how rows are grouped, got batch normalization in train "
            'mode over several batches: measure with mode="eval", or with one batch of all rows'
        )


def two_passes(objective: Objective) -> None:
    r"""Raise unless the loss and its gradient agree between two passes over the data.

    .. math::
        |f_1 - f_2| \le \tau \max(|f_1|, 10^{-12}), \qquad
        \|g_1 - g_2\| \le \tau\, \operatorname{mean}_b \|g_b\|

    with :math:`\tau = 10^{-6}` (float64) or :math:`10^{-4}` (float32). The gradients of the single
    batches give the scale: near a stationary point their mean cancels.

    Raises
    ------
    ValueError
        With the likely cause.

    Examples
    --------
    >>> from thalweg import Training
    >>> from thalweg.curvature.objective import Objective
    >>> noisy = Training.from_function(lambda x: (x * torch.rand(2)).sum(), torch.ones(2))
    >>> two_passes(Objective(noisy))
    Traceback (most recent call last):
    ...
    ValueError: the loss must be deterministic, got ... (likely cause: ...)
    """
    tol = _TOLERANCE[objective.dtype]
    captured(objective)
    # each pass would begin from the same state of the generators if each restored it itself:
    # the second pass begins where a draw after the first leaves off
    with preserved_rng():
        f1, g1, scale = objective.pass_over_data()
        _advance()
        f2, g2, _ = objective.pass_over_data()
    apart = float((g1 - g2).norm())
    # the processes decide together
    if abs(f1 - f2) > tol * max(abs(f1), 1e-12):
        what = f"losses {f1:.8g} and {f2:.8g}"
    elif apart > tol * scale:
        what = f"gradients {apart / max(scale, 1e-300):.2g} apart, relative to those of batches,"
    else:
        return
    raise ValueError(
        f"the loss must be deterministic, got {what} in two passes "
        f"(likely cause: {_likely_cause(objective)})"
    )


def captured(objective: Objective) -> None:
    """Raise if the loss uses parameters of the model that it did not take from the model."""
    held = {id(p): name for name, p in objective.training.model.named_parameters()}
    leaves = objective.leaves()
    with objective.measuring():
        for batch, _ in objective.batches():
            f = objective.loss(leaves, batch)
            for variable in _leaves_of(f):
                name = held.get(id(variable))
                if name in objective.names:
                    raise ValueError(
                        f"the loss must take parameters from the model when it is called, got "
                        f"{name} captured before: write model.parameters() inside the loss"
                    )
            return


def _leaves_of(f: Tensor) -> list[Tensor]:
    seen, found, stack = set(), [], [f.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        stack.extend(after for after, _ in node.next_functions)
    return found


def _advance() -> None:
    """Move the global generators on."""
    import random

    import numpy

    torch.rand(7)
    numpy.random.random(7)  # noqa: NPY002
    random.random()


def _likely_cause(objective: Objective) -> str:
    model, data = objective.training.model, objective.training.data
    if objective.mode == "train":
        return "a layer that draws in train mode"
    if isinstance(data, DataLoader):
        return (
            "random augmentation in the data set, rows drawn by the sampler, or random numbers in "
            "the model or the loss"
        )
    for name, module in model.named_modules():
        if "noise" in type(module).__name__.lower():
            return f"module {name!r} ({type(module).__name__})"
    if not isinstance(data, tuple | list):
        return "shuffled or augmented data, or random numbers in the model or the loss"
    return "random numbers in the model or the loss, such as functional.dropout without training="


def _drops(module: nn.Module) -> bool:
    recurrent = isinstance(module, nn.RNNBase) and module.num_layers > 1 and module.dropout > 0
    attends = isinstance(module, nn.MultiheadAttention) and module.dropout > 0
    return recurrent or attends or (isinstance(module, _DropoutNd) and module.p > 0)


def _uses_batch_statistics(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())
