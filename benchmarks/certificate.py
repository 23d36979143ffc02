"""The time of a certificate. No package gives one; the limit is this project's own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection

import torch
from timing import Comparison, Sample, Settings, Suite
from torch import nn

from thalweg.core.problem import Training
from thalweg.curvature import certify, extremes, hessian
from thalweg.data import load

LIMIT = 180.0
DEFAULT = "certify, its own tolerance"
WHOLE = "certify, its whole budget of 400 products"


def trained(tiny: bool) -> Training:
    """A digits network (d = 51,466, n = 1,797) after 50 steps of Adam."""
    data = load("digits")
    x = torch.as_tensor(data.inputs, dtype=torch.float32)
    y = torch.as_tensor(data.targets)
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    if tiny:
        x, y = x[:50], y[:50]
    width = 8 if tiny else 192
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(64, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, 10),
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Training(model, nn.functional.cross_entropy, [(x, y)])


def time_certificates(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Seconds. The gradient counts as small, else the first test would end it."""
    training = trained(settings.tiny)
    budget = 40 if settings.tiny else 400
    # just beyond the lowest eigenvalue: nothing is settled before the budget is spent
    hard = 1.001 * abs(extremes(hessian(training), steps=200, dense=False).lowest)
    samples = {}
    for name, tolerance in ((DEFAULT, None), (WHOLE, hard)):
        if name in names:
            values = []
            for seed in range(2):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the tolerance is below the resolution
                    start = time.perf_counter()
                    found = certify(
                        training, gradient_tolerance=1e3, curvature_tolerance=tolerance,
                        budget=budget, dense=False, seed=seed,
                    )  # fmt: skip
                    values.append(time.perf_counter() - start)
                if name == WHOLE and not settings.tiny:
                    assert found.products >= budget
            samples[name] = Sample(values)
    return samples


SUITES = (
    Suite(
        "time of a certificate",
        "s",
        [
            Comparison("digits MLP, d = 51,466, n = 1,797", name, bar=1.0, limit=LIMIT)
            for name in (DEFAULT, WHOLE)
        ],
        time_certificates,
    ),
)
