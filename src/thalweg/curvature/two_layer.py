"""Where a model is a two-layer ReLU network on its kinks, the exact test answers for `certify`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from thalweg.curvature import outputs
from thalweg.curvature.certificate import Verdict
from thalweg.curvature.objective import Objective

KINK = 1e-6
"""Relative distance from a kink that counts as on it."""
LARGEST = 10**7
"""Preactivations up to which kinks are looked for here."""


class AtKinks(NamedTuple):
    """What SOSP-Check says, in the words of a certificate.

    Attributes
    ----------
    verdict
        The verdict.
    direction, step
        Unit vector and step of the decrease it found; None and 0 without.
    sentence
        Its own words.
    displacement
        How far the point is from lying exactly on its kinks.
    failure
        The probability with which negative curvature was missed (large networks).
    """

    verdict: Verdict
    direction: Tensor | None
    step: float
    sentence: str
    displacement: float
    failure: float


def verdict_at_kinks(
    objective: Objective, *, budget: int = 400, failure: float = 1e-3, seed: int = 0
) -> AtKinks | None:
    """The verdict of SOSP-Check; None unless the point is on kinks of a two-layer ReLU network.

    The model must be ``nn.Sequential(Linear, ReLU or LeakyReLU, Linear)``, all of it unknown, with
    a squared, binary or cross-entropy loss of torch and batches ``(inputs, target)``.

    Parameters
    ----------
    objective
        f, at the parameters the model holds.
    budget, failure, seed
        For networks with more than 3,000 parameters, see `check_local_optimality`.

    Examples
    --------
    >>> from thalweg import Training
    >>> verdict_at_kinks(Objective(Training.from_function(lambda x: x.sum(), torch.ones(2))))
    """
    model = objective.training.model
    likelihood = outputs.of(objective.training.loss)
    if likelihood is None or objective.group is not None or objective._weight is not None:
        return None
    if not isinstance(model, nn.Sequential):
        return None
    kinds = [type(layer) for layer in model]
    if len(kinds) != 3 or kinds[0] is not nn.Linear or kinds[2] is not nn.Linear:
        return None
    if kinds[1] not in (nn.ReLU, nn.LeakyReLU):
        return None
    if objective.d != sum(p.numel() for p in model.parameters()):
        return None
    pairs = [batch for batch, _ in objective.batches()]
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        return None
    if not all(isinstance(part, Tensor) for pair in pairs for part in pair):
        return None
    if sum(len(X) for X, _ in pairs) * len(next(model.parameters())) > LARGEST:
        return None
    X, y = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
    if likelihood.family == "categorical" and (
        y.is_floating_point() or bool((y == likelihood.ignore_index).any())
    ):
        return None
    return _sosp_check(objective, model, X, y, likelihood, budget, failure, seed)


def _sosp_check(
    objective: Objective,
    model: nn.Module,
    X: Tensor,
    y: Tensor,
    likelihood: outputs.Likelihood,
    budget: int,
    failure: float,
    seed: int,
) -> AtKinks | None:
    from thalweg.curvature.relu import TwoLayerReLU, check_local_optimality
    from thalweg.curvature.relu.check import Verdict as Found
    from thalweg.curvature.relu.losses import Loss
    from thalweg.curvature.relu.snap import near_kinks

    losses: dict[str, Loss] = {"categorical": "ce", "gaussian": "mse", "bernoulli": "bce"}
    try:
        network = TwoLayerReLU.from_module(model, X, y, losses[likelihood.family])
    except ValueError:  # targets or slopes it has no test for
        return None
    if not near_kinks(network, KINK).any():
        return None  # smooth here: the Hessian says it all
    found = check_local_optimality(
        network, tau=KINK, polish=False, budget=budget, failure=failure, seed=seed
    )
    verdict = {
        Found.DESCENT_FIRST_ORDER: Verdict.NOT_STATIONARY,
        Found.DESCENT_SECOND_ORDER: Verdict.STRICT_SADDLE,
        Found.SECOND_ORDER_STATIONARY: Verdict.SECOND_ORDER_STATIONARY,
        Found.LOCAL_MINIMUM: Verdict.MINIMUM_MODULO_SYMMETRY,
        Found.DEGENERATE: Verdict.INCONCLUSIVE,
        Found.INCONCLUSIVE: Verdict.INCONCLUSIVE,
    }[found.verdict]
    direction, step = None, 0.0
    if found.direction is not None and found.step is not None:
        parts = [t.reshape(-1) for t in network.tensors(found.direction)]
        direction, step = torch.cat(parts).to(objective.start), found.step.t
    return AtKinks(verdict, direction, step, str(found), found.displacement, found.failure)
