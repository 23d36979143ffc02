"""The layers of a network one by one: gradient, share of the trace, curvature of their blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.estimate import Estimate
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import Operator, hessian
from thalweg.curvature.spectrum import extremes
from thalweg.inspect.cost import Spent
from thalweg.inspect.measure import basis_memory

LEAST_STEPS = 6
"""Lanczos steps below which the top eigenvalue of a block is not looked for."""


@dataclass(frozen=True)
class Layer:
    r"""One layer.

    Attributes
    ----------
    name
        Of the module that holds the parameters.
    parameters
        Their number.
    gradient_norm
        Of its part of the gradient.
    trace
        Of its block of the Hessian.
    share
        Its trace by the trace of all.
    top
        The interval of its block's largest eigenvalue; None if it was not looked for.
    """

    name: str
    parameters: int
    gradient_norm: float
    trace: Estimate
    share: Estimate
    top: tuple[float, float] | None


def measure_layers(
    objective: Objective,
    H: Operator,
    budget: int,
    spent: Spent,
    seed: int = 0,
    upper_bound: float = math.inf,
) -> list[Layer]:
    r"""Measure every layer with at most about `budget` products.

    With m random signs v, each product serves all layers at once:

    .. math:: \operatorname{tr} H_{ll} = E\, v_l^T (H v)_l, \qquad
        s_l = \frac{\operatorname{tr} H_{ll}}{\operatorname{tr} H}

    The error of the share is that of the ratio to first order.

    Parameters
    ----------
    objective
        The function.
    H
        Its Hessian at the point.
    budget
        Products, >= 2: a third for the traces, the rest for the top eigenvalues.
    spent
        What it costs is added here.
    seed
        Of the random signs.
    upper_bound
        Of the eigenvalues of H, where one is known. Default: infinite.

    Returns
    -------
    list of Layer
        In the order of the model.

    Examples
    --------
    >>> from torch import nn
    >>> from thalweg import Training
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> data = [(torch.ones(4, 1), torch.zeros(4, 1))]
    >>> objective = Objective(Training(model, nn.functional.mse_loss, data))
    >>> found = measure_layers(objective, hessian(objective), 20, Spent("layers"))
    >>> [layer.name for layer in found], round(sum(layer.share.value for layer in found), 6)
    (['0', '1'], 1.0)
    """
    groups = _by_module(objective)
    gradient = objective.gradient()
    spent.passes += 1
    norms = {n: float(g.double().square().sum()) for n, g in objective.unflatten(gradient).items()}
    traces, shares = layer_traces(objective, H, max(2, budget // 3), spent, seed)
    left = budget - budget // 3
    # Large blocks first: where there are too many layers for the budget, they matter most.
    size = {layer: sum(_size(objective, name) for name in names) for layer, names in groups.items()}
    looked_at = sorted(groups, key=lambda layer: -size[layer])[: left // LEAST_STEPS]
    steps = left // max(1, len(looked_at))
    tops: dict[str, tuple[float, float]] = {}
    for layer in looked_at:
        block = hessian(objective.restricted(groups[layer]))
        generator = torch.Generator().manual_seed(seed)
        few = min(steps, size[layer])
        ends = extremes(
            block, steps=few, dense=size[layer] <= few, memory=basis_memory(block),
            generator=generator,
        )  # fmt: skip
        spent.products += ends.n_products
        # a block's eigenvalues lie within those of the whole
        tops[layer] = (ends.highest, max(ends.highest, min(ends.upper_bound, upper_bound)))
    return [
        Layer(
            layer or "(the model itself)",
            size[layer],
            sum(norms[name] for name in names) ** 0.5,
            traces[layer],
            shares[layer],
            tops.get(layer),
        )
        for layer, names in groups.items()
    ]


def layer_traces(
    objective: Objective, H: Operator, probes: int, spent: Spent, seed: int = 0
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Trace of every layer's block, and its share of the whole; exact from d products on."""
    groups, d = _by_module(objective), objective.d
    exact = probes >= d
    if exact:
        probed = iter([torch.eye(d, dtype=objective.dtype, device=objective.device)])
    else:
        probed = _signs(objective, probes, torch.Generator().manual_seed(seed))
    samples: dict[str, list[Tensor]] = {layer: [] for layer in groups}
    for V in probed:
        products = (V * (H @ V)).double()
        spent.products += V.shape[1]
        by_name = dict(zip(objective.names, products.split(objective.sizes)))
        for layer, names in groups.items():
            parts = torch.stack([by_name[name].sum(0) for name in names]).sum(0)
            samples[layer].append(parts.cpu())
    found = {layer: torch.cat(parts) for layer, parts in samples.items()}
    if exact:
        sums = {layer: float(t.sum()) for layer, t in found.items()}
        whole = sum(sums.values()) or 1.0
        traces = {layer: Estimate(t, 0.0, d) for layer, t in sums.items()}
        return traces, {layer: Estimate(t / whole, 0.0, d) for layer, t in sums.items()}
    total = torch.stack(list(found.values())).sum(0)
    mean = float(total.mean()) or 1.0
    shares = {}
    for layer, t in found.items():
        share = float(t.mean()) / mean
        error = Estimate.of((t - share * total) / mean)
        shares[layer] = Estimate(share, error.stderr, probes)
    return {layer: Estimate.of(t) for layer, t in found.items()}, shares


def _signs(objective: Objective, probes: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Random signs ``(d, k)``, `probes` columns in all; as many at once as take little memory."""
    d = objective.d
    together = max(1, min(8, 2**25 // d))
    for first in range(0, probes, together):
        columns = [  # one by one: what is drawn does not depend on how many go together
            torch.randint(0, 2, (d,), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
            for _ in range(min(together, probes - first))
        ]
        yield torch.stack(columns, dim=1).to(objective.device, objective.dtype)


def _by_module(objective: Objective) -> Mapping[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name in objective.names:
        grouped.setdefault(name.rpartition(".")[0], []).append(name)
    return grouped


def _size(objective: Objective, name: str) -> int:
    return objective.sizes[objective.names.index(name)]
