"""Weights on a simplex: which mixture of forecasters predicts best? AMSGrad in its own metric.

python examples/fair_mixture.py

Eight forecasters predict the diabetes data set from two columns each; their mixture must be a
convex combination. The result is checked against an exact solver.
"""

from __future__ import annotations

import numpy
import torch
from scipy.optimize import minimize

from thalweg.data import load
from thalweg.numeric import Simplex
from thalweg.optim import AMSGrad, gradient_mapping


def forecasts() -> tuple[torch.Tensor, torch.Tensor]:
    """The predictions of least squares on two columns each, and the truth."""
    dataset = load("diabetes")
    x, y = dataset.inputs.double(), dataset.targets.double().reshape(-1)
    y = (y - y.mean()) / y.std()
    columns = [x[:, [i, i + 2]] for i in range(8)]
    predictions = [c @ torch.linalg.lstsq(c, y[:, None]).solution for c in columns]
    return torch.cat(predictions, dim=1), y


def main() -> None:
    F, y = forecasts()

    def loss(w: torch.Tensor) -> torch.Tensor:
        return (F @ w - y).square().mean()

    w = torch.nn.Parameter(torch.full((8,), 1 / 8, dtype=torch.float64))
    optimizer = AMSGrad([w], lr=0.1, constraint=Simplex())
    for _ in range(3000):
        optimizer.zero_grad()
        loss(w).backward()
        optimizer.step()
    g = torch.autograd.grad(loss(w), w)[0]
    stationarity = float(gradient_mapping(w.detach(), g, 1.0, Simplex()).norm())
    found = float(loss(w.detach()))

    exact = minimize(
        lambda v: float(loss(torch.tensor(v))),
        numpy.full(8, 1 / 8),
        method="SLSQP",
        bounds=[(0, 1)] * 8,
        constraints={"type": "eq", "fun": lambda v: v.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    print("weights     ", [round(v, 3) for v in w.tolist()])
    print(f"loss         {found:.8f} (SLSQP {exact.fun:.8f})")
    print(f"stationarity {stationarity:.1e}")
    assert abs(float(w.detach().sum()) - 1) < 1e-9 and bool((w >= 0).all())
    assert found <= exact.fun + 1e-6


if __name__ == "__main__":
    main()
