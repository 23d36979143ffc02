"""Coordinate-wise clipping: what its card says must hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from thalweg.optim import SGD, ClippedSGD, clip_coordinates_
from thalweg.optim.clipping import _BRACKET_FROM, clip_threshold

DOUBLE = torch.float64
H = torch.tensor([1000.0] + [1.0] * 99, dtype=DOUBLE)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def by_sorting(tensors: list[Tensor], fraction: float) -> float:
    """The card's definition, on a sorted list."""
    sizes = torch.cat([t.flatten() for t in tensors]).abs().sort().values
    clipped = math.ceil(fraction * len(sizes) - 1e-9)
    return float(sizes[max(1, len(sizes) - clipped) - 1]) if clipped else math.inf


def test_1_one_steep_coordinate_sharpness_and_best_decrease() -> None:
    """f = x'diag(h)x / 2 at x = 1: the gradient wastes its step on one coordinate."""
    g = H.clone()
    clipped = g.clone()
    assert clip_coordinates_(clipped, fraction=0.01) == 1.0

    def sharpness(u: Tensor) -> float:
        return float((u * H * u).sum() / u.square().sum())

    def best_decrease(u: Tensor) -> float:
        return float((g * u).sum() ** 2 / (2 * (u * H * u).sum()))

    assert sharpness(g) == pytest.approx(999.9, abs=0.05)
    assert sharpness(clipped) == pytest.approx(10.99, abs=0.005)
    assert best_decrease(g) == pytest.approx(500.1, abs=0.05)
    assert best_decrease(clipped) == pytest.approx(549.5, abs=1e-9)


def test_1_clipping_one_coordinate_reaches_the_minimum_in_one_step() -> None:
    x = Parameter(torch.ones(100, dtype=DOUBLE))
    (H * x * x / 2).sum().backward()
    ClippedSGD([x], lr=1.0, fraction=0.01).step()
    assert x.abs().max() == 0


def test_2_fraction_0_is_sgd() -> None:
    a, b = (Parameter(gaussian(9)) for _ in range(2))
    optimizers = ClippedSGD([a], lr=0.1, momentum=0.9, fraction=0.0), SGD([b], 0.1, momentum=0.9)
    for k in range(20):
        for p, optimizer in zip((a, b), optimizers, strict=True):
            p.grad = gaussian(9, seed=k)
            optimizer.step()
    torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-14)
    u = gaussian(9)
    assert clip_coordinates_(u, fraction=0.0) == math.inf
    assert torch.equal(u, gaussian(9))


def test_2_fraction_to_1_is_the_sign_scaled() -> None:
    u = gaussian(50)
    least = float(u.abs().min())
    assert clip_coordinates_(u, fraction=0.999) == least
    assert torch.equal(u, least * gaussian(50).sign())


@given(q=st.floats(0, 0.999), seed=st.integers(0, 1000), d=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_3_the_right_number_of_coordinates_is_touched(q: float, seed: int, d: int) -> None:
    u = gaussian(d, seed=seed)
    tau = clip_coordinates_(u, fraction=q)
    # the least coordinate is tau itself where all are to be clipped
    expected = min(math.ceil(q * d - 1e-9), d - 1)
    assert int((u != gaussian(d, seed=seed)).sum()) == expected
    assert tau == by_sorting([gaussian(d, seed=seed)], q)


@given(q=st.floats(0, 0.999), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_4_a_clipped_direction_still_descends(q: float, seed: int) -> None:
    u = gaussian(40, seed=seed)
    clipped = u.clone()
    clip_coordinates_(clipped, fraction=q)
    assert float((clipped * u).sum()) >= 0
    assert torch.equal(clipped.sign(), u.sign())


@pytest.mark.parametrize("q", [1e-6, 0.01, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["gaussian", "sorted", "ties", "mostly zero"])
def test_the_threshold_of_many_entries_is_exact(q: float, kind: str) -> None:
    """Where a sample brackets it: also if the sample misleads."""
    u = gaussian(_BRACKET_FROM + 7)
    if kind == "sorted":
        u = u.sort().values
    if kind == "ties":
        u = u.round()
    if kind == "mostly zero":
        u[::2] = 0
        u[1 : len(u) // 2] = 0
    tensors = [u[:1000].clone(), u[1000:].clone()]
    assert clip_threshold(tensors, q) == by_sorting(tensors, q)


def test_scopes() -> None:
    def pair() -> list[Tensor]:
        return [torch.tensor([1.0, 2.0]), torch.tensor([30.0, 40.0])]

    tensors = pair()
    assert clip_coordinates_(tensors, fraction=0.5) == 2.0
    assert [t.tolist() for t in tensors] == [[1.0, 2.0], [2.0, 2.0]]
    tensors = pair()
    assert clip_coordinates_(tensors, fraction=0.5, scope="tensor") == [1.0, 30.0]
    assert [t.tolist() for t in tensors] == [[1.0, 1.0], [30.0, 30.0]]


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.compile)])
@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize("clip", ["update", "gradient"])
@pytest.mark.parametrize("maximize", [False, True])
def test_definition(clip: Any, scope: Any, compile: bool, maximize: bool) -> None:
    shapes = [(3, 4), (7,), (150, 120)]
    params = [Parameter(gaussian(*s)) for s in shapes]
    expected = [p.detach().clone() for p in params]
    momenta = [torch.zeros_like(x) for x in expected]
    optimizer = ClippedSGD(
        params, 0.1, 0.8, fraction=0.2, clip=clip, scope=scope, compile=compile, maximize=maximize
    )
    for k in range(6):
        gradients = [gaussian(*s, seed=10 * k + i) * (i + 1) for i, s in enumerate(shapes)]
        for p, g in zip(params, gradients, strict=True):
            p.grad = g.clone()
        optimizer.step()
        gradients = [-g if maximize else g for g in gradients]
        if clip == "update":
            momenta = [0.8 * m + g for m, g in zip(momenta, gradients, strict=True)]
            moves = [m.clone() for m in momenta]
            clip_coordinates_(moves, 0.2, scope)
        else:
            clip_coordinates_(gradients, 0.2, scope)
            momenta = [0.8 * m + 0.2 * g for m, g in zip(momenta, gradients, strict=True)]
            moves = momenta
        expected = [x - 0.1 * u for x, u in zip(expected, moves, strict=True)]
    for p, x in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), x, rtol=1e-12, atol=1e-12)


def test_bad_input_all_zero_and_ties() -> None:
    u = torch.zeros(5)
    assert clip_coordinates_(u, fraction=0.5) == 0.0
    assert u.tolist() == [0.0] * 5
    u = torch.tensor([2.0, -2.0, 2.0, 1.0])
    assert clip_coordinates_(u, fraction=0.25) == 2.0
    assert u.tolist() == [2.0, -2.0, 2.0, 1.0]


def test_bad_input_mostly_zero_does_not_move() -> None:
    u = torch.tensor([0.0] * 9 + [5.0])
    assert clip_coordinates_(u, fraction=0.1) == 0.0
    assert u.tolist() == [0.0] * 10


@pytest.mark.parametrize("fraction", [-0.1, 1.0, math.nan])
def test_bad_input_a_fraction_outside_its_range(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\), got"):
        clip_coordinates_(torch.ones(2), fraction=fraction)
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\), got"):
        ClippedSGD([Parameter(torch.ones(2))], fraction=fraction)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must be >= 0, got -1.0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"clip": "updates"}, r"clip must be one of 'update', 'gradient', got 'updates' \(did you"),
        ({"scope": "group"}, "scope must be one of 'global', 'tensor', got 'group'"),
    ],
)
def test_bad_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClippedSGD([Parameter(torch.zeros(1))], **options)
