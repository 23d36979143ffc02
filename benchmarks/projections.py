"""Methods whose cost is one call of linear algebra or of sorting."""

from __future__ import annotations

from collections.abc import Collection

import torch
from timing import Comparison, Contender, Sample, Settings, Suite, interleaved

from thalweg.numeric import Simplex
from thalweg.optim import AdaGradFull


def time_calls(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Milliseconds per call."""
    d, many = (8, 100) if settings.tiny else (500, 1_000_000)
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(d, generator=generator).requires_grad_()
    full = AdaGradFull([p])
    factor = torch.randn(d, d, generator=generator, dtype=torch.float64)
    gram = factor @ factor.T
    y = torch.randn(many, generator=generator)
    simplex = Simplex()

    def new_gradient() -> None:
        p.grad = torch.randn(d, generator=generator)

    contenders = {
        "AdaGradFull": Contender(full.step, new_gradient),
        "torch.linalg.eigh, float64": Contender(lambda: torch.linalg.eigh(gram)),
        "Simplex.project": Contender(lambda: simplex.project(y)),
        "torch.sort": Contender(lambda: torch.sort(y)),
    }
    chosen = {name: contender for name, contender in contenders.items() if name in names}
    return interleaved(chosen, settings.rounds, settings.warm_up)


SUITES = (
    Suite(
        "linear algebra and projections",
        "ms",
        [
            Comparison("one step, d = 500", "AdaGradFull", "torch.linalg.eigh, float64", 1.2),
            Comparison("10^6 floats", "Simplex.project", "torch.sort", 3.0),
        ],
        time_calls,
    ),
)
