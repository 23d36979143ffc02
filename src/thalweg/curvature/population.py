"""A saddle of the population risk, too? The direction of one sample, tested on another."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.estimate import Estimate
from thalweg.core.problem import Training
from thalweg.curvature.certificate import Certificate, Verdict
from thalweg.curvature.fisher import single_rows
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import How


@dataclass(frozen=True)
class PopulationClaim:
    r"""What an independent sample says about the curvature of the population risk.

    Attributes
    ----------
    verdict
        STRICT_SADDLE (of negative curvature: the gradient is not tested) or INCONCLUSIVE.
    curvature
        Mean over the rows of :math:`q_i = y^\top H_i y`, with its standard error.
    upper_bound
        Of :math:`E q`, with probability `confidence` (Student's).
    curvature_tolerance
        :math:`\beta`.
    confidence
        Of the bound.
    reason
        Why not more.
    """

    verdict: Verdict
    curvature: Estimate | None
    upper_bound: float
    curvature_tolerance: float
    confidence: float
    reason: str = ""

    def __str__(self) -> str:
        if self.curvature is None:
            return f"{self.verdict.name}: {self.reason}"
        return (
            f"{self.verdict.name} (population): curvature along the direction {self.curvature}, "
            f"<= {self.upper_bound:.4g} with probability {self.confidence:g} over "
            f"{self.curvature.samples} independent rows; beta = {self.curvature_tolerance:.3g}"
            + (f"; {self.reason}" if self.reason else "")
        )


def population_claim(
    training: Training,
    certificate: Certificate,
    independent: Iterable[Any],
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    curvature_tolerance: float | None = None,
    confidence: float = 0.99,
    **how: Unpack[How],
) -> PopulationClaim:
    r"""Test a direction of negative curvature on rows that had no part in finding it.

    .. math:: q_i = y^\top H_i y, \qquad
              \bar q + t_{n-1, p}\, \frac{\mathrm{sd}(q)}{\sqrt n} < -\beta

    Nothing of the kind is possible for "no negative curvature": that would need bounds on the
    Hessians of single rows, which networks do not have. Such certificates give INCONCLUSIVE.

    Parameters
    ----------
    training
        What was certified: its model is at the point, its data are the first sample.
    certificate
        With a direction of negative curvature.
    independent
        Batches of the second sample; its rows must be drawn like the first sample's, and have had
        no part in training either.
    parameters
        The unknowns, as for `certify`.
    curvature_tolerance
        :math:`\beta > 0`. Default: the certificate's.
    confidence
        p in (1/2, 1). Default 0.99.
    **how
        ``mode``, ``weight``, ``memory``: as for `certify`.

    Returns
    -------
    PopulationClaim
        ``verdict``, ``curvature``, ``upper_bound``.

    Raises
    ------
    ValueError
        For an argument out of range, or fewer than two rows.

    Examples
    --------
    >>> from thalweg import certify
    >>> class Saddle(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    ...
    ...     def forward(self, x):
    ...         return x @ self.w**2
    >>> rows = torch.tensor([[1.0, -1.0], [1.0, -2.0], [1.0, -3.0]], dtype=torch.float64)
    >>> data = [(rows, torch.zeros(3, dtype=torch.float64))]
    >>> training = Training(Saddle(), lambda z, y: (z - y).mean(), data)
    >>> claim = population_claim(training, certify(training, curvature_tolerance=1e-3), data)
    >>> round(claim.curvature.value, 6)
    -4.0

    References
    ----------
    Student, "The probable error of a mean", Biometrika 6, 1908.
    """
    check.number("confidence", confidence, gt=0.5, lt=1)
    beta = certificate.curvature_tolerance if curvature_tolerance is None else curvature_tolerance
    check.number("curvature_tolerance", beta, gt=0)
    if certificate.direction is None or certificate.curvature is None:
        return PopulationClaim(
            Verdict.INCONCLUSIVE, None, math.inf, beta, confidence,
            f"a certificate of {certificate.verdict.name} has no direction of negative curvature, "
            "and its absence on a sample says nothing about the population",
        )  # fmt: skip
    second = Objective(replace(training, data=list(independent)), parameters, **how)
    second.check_deterministic()
    q = row_curvatures(second, certificate.direction)
    if len(q) < 2:
        raise ValueError(f"independent must have at least 2 rows, got {len(q)}")
    from scipy.stats import t as student

    curvature = Estimate.of(q)
    quantile = float(student.ppf(confidence, len(q) - 1))
    upper = float(curvature.value) + quantile * float(curvature.stderr)
    if upper < -beta:
        return PopulationClaim(Verdict.STRICT_SADDLE, curvature, upper, beta, confidence)
    return PopulationClaim(
        Verdict.INCONCLUSIVE, curvature, upper, beta, confidence,
        "the bound is not below -beta: more rows, or no such curvature in the population",
    )  # fmt: skip


def row_curvatures(objective: Objective, direction: Tensor) -> Tensor:
    r""":math:`y^\top H_i y` of every row i, float64 ``(n,)``; one row at a time.

    Examples
    --------
    >>> model = nn.Linear(1, 1, bias=False)
    >>> data = [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))]
    >>> objective = Objective(Training(model, nn.functional.mse_loss, data))
    >>> row_curvatures(objective, torch.ones(1)).tolist()
    [2.0, 18.0]
    """
    leaves = objective.leaves()
    y = objective.split(direction.to(objective.start))
    found = []
    with objective.measuring():
        for batch, _ in objective.batches():
            for row in single_rows(batch):
                g = objective.derivative(objective.loss(leaves, row), leaves, create_graph=True)
                slope = torch.stack([(a * b).sum() for a, b in zip(g, y, strict=True)]).sum()
                Hy = objective.derivative(slope, leaves)
                found.append(sum(float((a * b).sum()) for a, b in zip(Hy, y, strict=True)))
    return torch.tensor(found, dtype=torch.float64)
