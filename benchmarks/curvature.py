"""Products with the Hessian of a digits network over the whole data set, one thread."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection

import torch
from timing import Comparison, Contender, Sample, Settings, Suite, interleaved
from torch import nn

from thalweg import Training
from thalweg.curvature import generalized_gauss_newton, hessian, kfac
from thalweg.data.models import mlp

BLOCK = 16


def time_products(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Milliseconds per call; a block is one call."""
    import curvlinops
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    rows = 20 if settings.tiny else len(inputs)
    x = torch.tensor(inputs[:rows] / 16, dtype=torch.float32)
    y = torch.tensor(labels[:rows])
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = mlp((64, 128, 128, 10))
    loss, data = nn.CrossEntropyLoss(), [(x, y)]
    training, parameters = Training(model, loss, data), list(model.parameters())
    H, G = hessian(training), generalized_gauss_newton(training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer_H = curvlinops.HessianLinearOperator(model, loss, parameters, data)
        peer_G = curvlinops.GGNLinearOperator(model, loss, parameters, data)
    v = torch.randn(H.shape[0], generator=generator)
    V = torch.randn(H.shape[0], BLOCK, generator=generator)
    first = v[:, None]

    def peer_kfac() -> object:
        return (
            curvlinops.KFACLinearOperator(
                model,
                loss,
                parameters,
                data,
                fisher_type="type-2",
                separate_weight_and_bias=False,
                check_deterministic=False,
            )
            @ first
        )

    runs: dict[str, Callable[[], object]] = {
        "hessian @ v": lambda: H @ v,
        "HessianLinearOperator @ v": lambda: peer_H @ v,
        "hessian @ V": lambda: H @ V,
        "HessianLinearOperator @ V": lambda: peer_H @ V,
        "generalized_gauss_newton @ v": lambda: G @ v,
        "GGNLinearOperator @ v": lambda: peer_G @ v,
        "kfac": lambda: kfac(training) @ first,
        "KFACLinearOperator": peer_kfac,
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        chosen = {name: Contender(run) for name, run in runs.items() if name in names}
        return interleaved(chosen, settings.rounds, settings.warm_up)
    finally:
        torch.set_num_threads(threads)


SUITES = (
    Suite(
        "curvature of the digits network 64-128-128-10, 1,797 rows, one thread (curvlinops)",
        "ms",
        [
            Comparison("one product", "hessian @ v", "HessianLinearOperator @ v", 0.5),
            Comparison(f"block of {BLOCK}", "hessian @ V", "HessianLinearOperator @ V", 0.5),
            Comparison("one product", "generalized_gauss_newton @ v", "GGNLinearOperator @ v", 1.1),
            Comparison("factors and one product", "kfac", "KFACLinearOperator", 1.3),
        ],
        time_products,
    ),
)
