"""Trace, diagonal and Frobenius norm of the Hessian of a network, against the dense one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thalweg.core.problem import Training
from thalweg.curvature import hessian
from thalweg.curvature.operators import Operator
from thalweg.curvature.trace import diagonal, frobenius, trace


@pytest.fixture(scope="module")
def H() -> Operator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)).double()
        data = [(torch.randn(40, 6).double(), torch.randint(3, (40,)))]
    return hessian(Training(model, nn.functional.cross_entropy, data))


@pytest.mark.parametrize("method", ["auto", "hutchinson", "hutch++", "xtrace", "exact"])
def test_trace(H: Operator, method: str) -> None:
    truth, before = float(H.dense().trace()), H.n_products
    found = trace(H, rtol=0.2, max_products=120, method=method)
    assert found.converged and found.n_products == H.n_products - before
    assert abs(found.value - truth) < 2 * max(found.half_width(), 1e-12)


def test_diagonal_and_frobenius(H: Operator) -> None:
    A = H.dense()
    found = diagonal(H)
    z = (found.value - A.diag()) / found.stderr.clamp_min(1e-12)
    assert 0.6 < float(z.square().mean()) < 1.5
    assert torch.allclose(diagonal(H, products=H.shape[0]).value, A.diag(), atol=1e-12)
    norm = frobenius(H)
    assert abs(norm.value - float(torch.linalg.matrix_norm(A))) < 2 * norm.half_width()


def test_half_precision_is_refused_before_anything_is_spent() -> None:
    model = nn.Linear(2, 1).half()
    training = Training(model, nn.functional.mse_loss, [(torch.ones(4, 2), torch.ones(4, 1))])
    with pytest.raises(TypeError, match=r"float32 or float64, got .*float16"):
        trace(hessian(training))
