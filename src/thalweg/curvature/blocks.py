"""Layer-wise blocks of a curvature matrix, and the block-diagonal matrix they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import Operator


def layers(objective: Objective, of: Callable[[Objective], Operator]) -> dict[str, Operator]:
    r"""Return the diagonal block of each layer: the curvature in its own parameters alone.

    Parameters
    ----------
    objective
        The function; its determinism is checked once.
    of
        The curvature: `thalweg.curvature.hessian`, `generalized_gauss_newton`, `fisher`, or a
        function of an objective that calls one of them with options.

    Returns
    -------
    dict of str to Operator
        By the name of the module that holds the parameters, in the order of the model.

    Examples
    --------
    >>> from torch import nn
    >>> from thalweg import Training
    >>> from thalweg.curvature import hessian
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> data = [(torch.ones(4, 2), torch.zeros(4, 1))]
    >>> blocks = layers(Objective(Training(model, nn.functional.mse_loss, data)), hessian)
    >>> {name: block.shape for name, block in blocks.items()}
    {'0': (9, 9), '2': (4, 4)}
    """
    objective.check_deterministic()
    return {
        layer: of(objective.restricted(names)) for layer, names in _by_module(objective).items()
    }


def block_diagonal(objective: Objective, of: Callable[[Objective], Operator]) -> Operator:
    r"""Return the block-diagonal part of a curvature matrix, a block per layer.

    .. math:: \operatorname{diag}(A_{11}, \dots, A_{LL}), \qquad A_{ll} = P_l A P_l^\top

    Parameters
    ----------
    objective
        The function.
    of
        The curvature, as in `layers`.

    Returns
    -------
    Operator
        Over the whole flat vector.

    Examples
    --------
    >>> from torch import nn
    >>> from thalweg import Training
    >>> from thalweg.curvature import hessian
    >>> model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    >>> data = [(torch.ones(4, 1), torch.zeros(4, 1))]
    >>> objective = Objective(Training(model, nn.functional.mse_loss, data))
    >>> block_diagonal(objective, hessian).dense()[2:, :2].tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    blocks = layers(objective, of)
    places = _places(objective)

    def product(v: Tensor) -> Tensor:
        total = torch.zeros_like(v, memory_format=torch.contiguous_format)
        for layer, block in blocks.items():
            total[places[layer]] = block @ v[places[layer]]
        return total

    return Operator(objective, product, "block-diagonal curvature")


def _by_module(objective: Objective) -> Mapping[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name in objective.names:
        grouped.setdefault(name.rpartition(".")[0], []).append(name)
    return grouped


def _places(objective: Objective) -> dict[str, Tensor]:
    """For each layer, where its parameters are in the flat vector."""
    entries = dict(
        zip(
            objective.names,
            torch.arange(objective.d, device=objective.device).split(objective.sizes),
        )
    )
    return {
        layer: torch.cat([entries[name] for name in names])
        for layer, names in _by_module(objective).items()
    }
