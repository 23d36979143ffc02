"""Spectra of Hessians of small networks, against dense matrices, ARPACK and PyHessian's loop."""

from __future__ import annotations

import numpy
import pytest
import scipy.sparse.linalg
import torch
from torch import nn

from thalweg.core.problem import Training
from thalweg.curvature.operators import Operator, hessian
from thalweg.curvature.spectrum import density, extremes
from thalweg.numeric.operator import LinearOperator


def network(dtype: torch.dtype = torch.float64) -> Training:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, dtype=torch.float64, generator=generator).to(dtype)
    y = torch.randint(3, (60,), generator=generator)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3)).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, dtype=torch.float64, generator=generator) / 2)
    return Training(model, nn.functional.cross_entropy, [(x, y)])


@pytest.fixture(scope="module")
def H() -> Operator:
    return hessian(network())


def test_a_hessian_is_an_operator(H: Operator) -> None:
    assert isinstance(H, LinearOperator)


def test_both_ends_agree_with_arpack_and_the_dense_matrix(H: Operator) -> None:
    found = extremes(H, 3, steps=90, tol=1e-11, dense=False)
    A = H.dense()
    exact = torch.linalg.eigvalsh(A)
    assert torch.allclose(found.values, torch.cat([exact[:3], exact[-3:]]), atol=1e-10)
    for which, part in (("SA", found.values[:3]), ("LA", found.values[-3:])):
        values = scipy.sparse.linalg.eigsh(A.numpy(), 3, which=which, return_eigenvectors=False)
        assert part.numpy() == pytest.approx(numpy.sort(values), abs=1e-8)
    assert found.lowest < 0 and found.lower_bound <= float(exact[0])
    assert torch.allclose(extremes(H, 3).values, found.values, atol=1e-10)  # dense, as d < 500


def test_the_lowest_vector_proves_negative_curvature(H: Operator) -> None:
    found = extremes(H, dense=False, steps=30)
    y = found.vectors[:, 0]
    assert float(y @ (H @ y)) == pytest.approx(found.lowest, abs=1e-12)
    assert found.lowest < 0


def test_single_precision_networks_lie_within_their_noise(H: Operator) -> None:
    exact = extremes(H)
    found = extremes(hessian(network(torch.float32)), dense=False, steps=90)
    assert found.noise == pytest.approx(1e-6 * found.highest, rel=1e-3)
    assert found.lower_bound <= exact.lowest and exact.highest <= found.upper_bound
    assert found.lowest == pytest.approx(exact.lowest, abs=3 * found.noise)


def test_the_density_has_the_moments_of_the_hessian(H: Operator) -> None:
    A = H.dense()
    found = density(H, steps=40, probes=30)
    for order, exact in ((1, A.trace() / len(A)), (2, (A**2).sum() / len(A))):
        estimate = found.moment(order)
        assert abs(estimate.value - float(exact)) <= 4 * estimate.stderr
    share = float((torch.linalg.eigvalsh(A) <= -1e-3).double().mean())
    below = found.mass_below(-1e-3)
    assert abs(below.estimate.value - share) <= 4 * below.estimate.stderr + 0.02


def test_equal_starts_give_the_nodes_of_pyhessian(H: Operator) -> None:
    # its loop, with the basis kept orthogonal by one sweep as there
    steps, n = 12, H.shape[0]
    v = (2 * torch.randint(2, (n, 1), generator=torch.Generator().manual_seed(3)) - 1)[:, 0]
    v = v.to(H.dtype) / n**0.5
    basis, alphas, betas = [v], [], []
    w = torch.zeros_like(v)
    for i in range(steps):
        if i > 0:
            betas.append(float(w.norm()))
            for u in basis:
                w = w - (w @ u) * u
            v = w / w.norm()
            basis.append(v)
        Hv = H @ v
        alphas.append(float(Hv @ v))
        w = Hv - alphas[-1] * v - (betas[-1] * basis[-2] if i > 0 else 0)
    T = torch.diag(torch.tensor(alphas)) + torch.diag(torch.tensor(betas), 1)
    T = T.double() + torch.diag(torch.tensor(betas).double(), -1)
    nodes, vectors = torch.linalg.eigh(T)
    found = density(H, steps, 1, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(found.nodes[0], nodes, atol=1e-4 * float(nodes.abs().max()))
    assert torch.allclose(found.weights[0], vectors[0] ** 2, atol=1e-4)
