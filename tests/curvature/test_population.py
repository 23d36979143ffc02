"""Curvature of the population, by sample splitting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from thalweg.core.problem import Training
from thalweg.curvature import Objective, Verdict, certify, hessian
from thalweg.curvature.population import population_claim, row_curvatures


class Rows(nn.Module):
    """The loss of a row is -+ its own curvature times w^2 / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w**2 / 2


def draw(n: int, mean: float, seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = mean + torch.randn(n, generator=generator, dtype=torch.float64)
    return [(x, torch.zeros(n))]


def training(data: list[tuple[Tensor, Tensor]]) -> Training:
    return Training(Rows(), lambda z, y: (z - y).mean(), data)


def test_row_curvatures_have_the_mean_of_the_hessian() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (12,), generator=generator)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    problem = Training(model, nn.functional.cross_entropy, [(x[:7], y[:7]), (x[7:], y[7:])])
    H = hessian(problem)
    v = torch.randn(H.shape[0], generator=generator, dtype=torch.float64)
    q = row_curvatures(Objective(problem), v)
    assert len(q) == 12 and float(q.mean()) == pytest.approx(float(v @ (H @ v)), rel=1e-10)


def test_the_claim_is_false_as_seldom_as_said() -> None:
    wrong, right = 0, 0
    for seed in range(60):
        # the sample has a negative mean by chance, the population has none: E q = 0 > -beta
        first = training([(torch.tensor([-1.0]).double(), torch.zeros(1))])
        certificate = certify(first, curvature_tolerance=1e-3)
        assert certificate.verdict.goes_down
        claims = [
            population_claim(first, certificate, draw(15, mean, seed), confidence=0.9)
            for mean in (0.0, -2.0)
        ]
        wrong += claims[0].verdict is Verdict.STRICT_SADDLE
        right += claims[1].verdict is Verdict.STRICT_SADDLE
    # 10 % of 60, and 4 standard deviations
    assert 0 < wrong <= 6 + 9 and right >= 58


def test_nothing_is_claimed_where_there_is_no_direction() -> None:
    bowl = training(draw(10, 5.0, 0))
    claim = population_claim(bowl, certify(bowl), draw(10, 5.0, 1))
    assert claim.verdict is Verdict.INCONCLUSIVE and "says nothing about the population" in str(
        claim
    )
    first = training(draw(10, -5.0, 0))
    certificate = certify(first)
    assert "independent rows" in str(population_claim(first, certificate, draw(10, -5.0, 1)))
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        population_claim(first, certificate, draw(1, -5.0, 1))
    with pytest.raises(ValueError, match=r"confidence must be in \(0.5, 1\)"):
        population_claim(first, certificate, draw(5, -5.0, 1), confidence=0.3)
