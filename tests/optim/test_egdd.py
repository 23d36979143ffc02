"""EGDD: identities of the card, the published example, and what it refuses."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thalweg.optim import EGDD, EGScale
from thalweg.optim.inner_product import inner_product

DOUBLE = torch.float64


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def parameter(*values: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values, dtype=DOUBLE))


def scale(optimizer: EGDD, x: Tensor) -> float:
    return float(optimizer.state[x]["scale"])


def steps_until_small(**hyper: Any) -> int:
    """The card's quadratic: f = x^2/2 from 1, lr = 1e-4, until |x| < 1e-6."""
    x = parameter(1.0)
    optimizer = EGDD([x], lr=1e-4, **hyper)
    steps = 0
    while abs(x.item()) >= 1e-6:
        x.grad = x.detach().clone()
        optimizer.step()
        steps += 1
    return steps


# ---- the card's items ----


def test_1_without_adaptation_it_is_momentum_with_lr_inside() -> None:
    x, y = parameter(*gaussian(5).tolist()), parameter(*gaussian(5).tolist())
    ours = EGDD([x], lr=0.03, momentum=0.8, scale_lr=0.0, gain_lr=0.0)
    theirs = torch.optim.SGD([y], lr=0.03, momentum=0.8)
    for k in range(50):
        x.grad, y.grad = gaussian(5, seed=k), gaussian(5, seed=k)
        ours.step()
        theirs.step()
    assert (x - y).abs().max() < 1e-12


def test_2_constant_gradient_grows_scale_and_gains_by_one_exponent_a_step() -> None:
    x = parameter(0.0, 0.0)
    optimizer = EGDD([x], lr=1e-3, scale_lr=0.05, gain_lr=0.02, scale_range=(0.1, 2.0))
    g = torch.tensor([3.0, -0.5], dtype=DOUBLE)
    for k in range(1, 31):
        x.grad = g.clone()
        optimizer.step()
        # gains are equal, so n stays parallel to g: the cosine is 1 from the second step
        expected = min(math.exp(0.05 * (k - 1)), 2.0)
        assert scale(optimizer, x) == pytest.approx(expected, rel=1e-7)
        gain = torch.full_like(g, math.exp(0.02 * (k - 1)))
        assert torch.allclose(optimizer.state[x]["gain"], gain, rtol=1e-12)
    assert scale(optimizer, x) == 2.0


def test_3_alternating_gradient_shrinks_the_scale_from_the_second_step() -> None:
    x = parameter(0.0)
    optimizer = EGDD([x], lr=1e-3, momentum=0.0, scale_lr=0.03)
    for k in range(1, 21):
        x.grad = torch.tensor([(-1.0) ** k], dtype=DOUBLE)
        optimizer.step()
        assert scale(optimizer, x) == pytest.approx(math.exp(-0.03 * (k - 1)), rel=1e-6)


@settings(deadline=None, max_examples=20)
@given(c=st.floats(1e-2, 1e4), seed=st.integers(0, 10**6))
def test_4_paths_of_scale_and_gains_do_not_see_the_size_of_the_gradient(
    c: float, seed: int
) -> None:
    x, y = parameter(0.0, 0.0, 0.0), parameter(0.0, 0.0, 0.0)
    one, other = EGDD([x], scale_lr=0.1, gain_lr=0.1), EGDD([y], scale_lr=0.1, gain_lr=0.1)
    for k in range(10):
        g = gaussian(3, seed=seed + k)
        x.grad, y.grad = g, c * g
        one.step()
        other.step()
        # the norms' floor of 1e-10 is the only trace of the size
        assert scale(one, x) == pytest.approx(scale(other, y), rel=1e-5)
        assert torch.allclose(one.state[x]["gain"], other.state[y]["gain"], rtol=1e-12)


@settings(deadline=None, max_examples=20)
@given(size=st.floats(1e-6, 1e12), normalized=st.booleans(), seed=st.integers(0, 10**6))
def test_5_scale_and_gains_stay_positive_and_in_their_ranges(
    size: float, normalized: bool, seed: int
) -> None:
    x = parameter(0.0, 0.0)
    optimizer = EGDD([x], lr=1e-3, scale_lr=1.0, gain_lr=1.0, normalized=normalized)
    for k in range(15):
        x.grad = size * gaussian(2, seed=seed + k)
        optimizer.step()
        assert 0.1 <= scale(optimizer, x) <= 10
        gain = optimizer.state[x]["gain"]
        assert bool((gain >= 1e-2).all()) and bool((gain <= 1e2).all())
    assert bool(x.isfinite().all())


def test_6_ten_times_fewer_steps_on_a_quadratic_with_a_tiny_lr() -> None:
    x, n, plain = 1.0, 0.0, 0  # SGD with momentum, which item 1 shows EGDD to be without adaptation
    while abs(x) >= 1e-6:
        n = 0.9 * n + 1e-4 * x
        x, plain = x - n, plain + 1
    adapted = steps_until_small()
    scale_only = steps_until_small(gain_lr=0.0, scale_lr=0.01, scale_range=(0.1, 1e4))
    assert (plain, adapted, scale_only) == (13_693, 422, 494)
    assert 10 * max(adapted, scale_only) < plain


# ---- the formulas, against a loop over numbers ----


def by_hand(gradients: list[list[float]], *, align: str, normalized: bool, beta: float = 0.7):
    """x, s and p after each step, from the card's lines, for one tensor."""
    d = len(gradients[0])
    x, n, gb, p, s = [0.0] * d, [0.0] * d, [0.0] * d, [1.0] * d, 1.0
    for k, g in enumerate(gradients, start=1):
        other = n if align == "momentum" else gb
        inner = sum(a * b for a, b in zip(g, other, strict=True))
        if normalized:
            inner /= (math.hypot(*g) + 1e-10) * (math.hypot(*other) + 1e-10)
            exponents = [
                0.2 * math.copysign(1, a) * (math.copysign(1, b) if b else 0)
                for a, b in zip(g, gb, strict=True)
            ]
            s *= math.exp(0.1 * inner)
        else:
            corrected = [b / (1 - beta ** max(k - 1, 1)) for b in gb]
            exponents = [min(max(0.2 * a * b, -1), 1) for a, b in zip(g, corrected, strict=True)]
            s *= math.exp(min(max(0.1 * inner, -1), 1))
        s = min(max(s, 0.5), 3.0)
        p = [min(max(a * math.exp(e), 0.1), 5.0) for a, e in zip(p, exponents, strict=True)]
        n = [0.6 * a + 0.05 * b * c for a, b, c in zip(n, p, g, strict=True)]
        gb = [beta * a + (1 - beta) * b for a, b in zip(gb, g, strict=True)]
        x = [a - s * b for a, b in zip(x, n, strict=True)]
    return x, s, p


@pytest.mark.parametrize("align", ["momentum", "average"])
@pytest.mark.parametrize("normalized", [True, False])
def test_formulas_by_hand(align: Any, normalized: bool) -> None:
    gradients = [gaussian(3, seed=k).tolist() for k in range(12)]
    x = parameter(0.0, 0.0, 0.0)
    optimizer = EGDD(
        [x], lr=0.05, momentum=0.6, beta=0.7, scale_lr=0.1, gain_lr=0.2, scale_range=(0.5, 3.0),
        gain_range=(0.1, 5.0), align=align, normalized=normalized,
    )  # fmt: skip
    for g in gradients:
        x.grad = torch.tensor(g, dtype=DOUBLE)
        optimizer.step()
    expected, s, p = by_hand(gradients, align=align, normalized=normalized)
    assert x.tolist() == pytest.approx(expected, rel=1e-10)
    assert scale(optimizer, x) == pytest.approx(s, rel=1e-10)
    assert optimizer.state[x]["gain"].tolist() == pytest.approx(p, rel=1e-10)


def test_one_scale_for_all_tensors_or_one_for_each() -> None:
    gradients = [gaussian(4, seed=k) for k in range(8)]

    def run(scope: Any, split: bool) -> list[float]:
        xs = [parameter(0.0, 0.0), parameter(0.0, 0.0)] if split else [parameter(*[0.0] * 4)]
        optimizer = EGDD(xs, scale_lr=0.2, gain_lr=0.0, scope=scope)
        for g in gradients:
            for x, part in zip(xs, g.split(2) if split else [g], strict=True):
                x.grad = part.clone()
            optimizer.step()
        return [scale(optimizer, x) for x in xs]

    (whole,) = run("global", split=False)
    assert run("global", split=True) == pytest.approx([whole, whole], rel=1e-12)
    first, second = run("tensor", split=True)
    assert abs(first - second) > 1e-3 and whole not in (first, second)


def test_lr_is_inside_the_momentum() -> None:
    x = parameter(0.0)
    optimizer = EGDD([x], lr=1.0, momentum=0.5, scale_lr=0.0, gain_lr=0.0)
    x.grad = torch.ones(1, dtype=DOUBLE)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.0  # the old part of n keeps its lr
    optimizer.step()
    assert x.item() == -1.5


def test_maximize_mirrors_scale_and_gains() -> None:
    x, y = parameter(1.0, 2.0), parameter(1.0, 2.0)
    up, down = EGDD([x], maximize=True, scale_lr=0.3), EGDD([y], scale_lr=0.3)
    for k in range(6):
        x.grad, y.grad = gaussian(2, seed=k), -gaussian(2, seed=k)
        up.step()
        down.step()
    assert torch.equal(x, y) and scale(up, x) == scale(down, y) != 1.0


# ---- the scale for any optimizer ----


def test_wrapped_sgd_is_egdd_without_gains_and_momentum() -> None:
    """Without momentum, n = a g and u = a g: the scale sees the same directions."""
    xs = [parameter(1.0, -2.0), parameter(0.5)]
    ys = [parameter(1.0, -2.0), parameter(0.5)]
    one = EGDD(xs, lr=0.1, momentum=0.0, scale_lr=0.3, gain_lr=0.0)
    other = EGScale(torch.optim.SGD(ys, lr=0.1), scale_lr=0.3)
    for k in range(20):
        for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
            noise = gaussian(len(x), seed=10 * k + i)
            x.grad, y.grad = x.detach() + noise, y.detach() + noise
        one.step()
        other.step()
        assert other.scale == pytest.approx(scale(one, xs[0]), rel=1e-6)
    assert other.scale != 1.0
    assert all(torch.allclose(x, y, rtol=1e-6) for x, y in zip(xs, ys, strict=True))


def test_wrapper_resumes_bitwise() -> None:
    def build() -> tuple[torch.nn.Parameter, EGScale]:
        x = parameter(1.0, 2.0)
        return x, EGScale(torch.optim.Adam([x], lr=0.1), scale_lr=0.5)

    def train(x: torch.nn.Parameter, optimizer: EGScale, steps: range) -> None:
        for k in steps:
            optimizer.zero_grad()
            x.grad = x.detach() + gaussian(2, seed=k)
            optimizer.step()

    expected, optimizer = build()
    train(expected, optimizer, range(10))
    x, optimizer = build()
    train(x, optimizer, range(5))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    y, other = build()
    y.data.copy_(x.data)
    other.load_state_dict(torch.load(file, weights_only=True))
    train(y, other, range(5, 10))
    assert torch.equal(y, expected) and other.scale != 1.0


def test_wrapper_wants_an_optimizer() -> None:
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer, got list"):
        EGScale([parameter(1.0)])  # type: ignore[arg-type]


# ---- bad input ----


def test_unnormalized_exponents_are_clipped() -> None:
    x = parameter(0.0)
    optimizer = EGDD([x], lr=1.0, scale_lr=1.0, gain_lr=1.0, normalized=False)
    for _ in range(2):
        x.grad = torch.full((1,), 1e200, dtype=DOUBLE)
        optimizer.step()
    assert scale(optimizer, x) == pytest.approx(math.e)
    assert optimizer.state[x]["gain"].item() == pytest.approx(math.e)


def test_sparse_gradients_are_refused() -> None:
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = EGDD(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match="EGDD takes dense gradients"):
        optimizer.step()


@pytest.mark.parametrize(
    ("hyper", "words"),
    [
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"beta": -0.1}, r"beta must be in \[0, 1\), got -0.1"),
        ({"scale_lr": -1}, "scale_lr must be >= 0, got -1"),
        ({"gain_lr": math.nan}, "gain_lr must be >= 0, got nan"),
        ({"scale_range": (0.0, 10.0)}, r"scale_range\[0\] must be in \(0, 1\], got 0.0"),
        ({"gain_range": (0.1, 0.5)}, r"gain_range\[1\] must be >= 1, got 0.5"),
        ({"gain_range": 3.0}, r"gain_range must be a pair \(low, high\), got 3.0"),
        ({"scope": "group"}, "scope must be one of 'global', 'tensor', got 'group'"),
        ({"align": "momentun"}, "did you mean 'momentum'"),
    ],
)
def test_bad_hyper_parameters(hyper: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        EGDD([parameter(1.0)], **hyper)


def test_inner_product_runs_over_all_tensors_and_formats() -> None:
    left = [torch.ones(3, dtype=torch.bfloat16), gaussian(2, 5), torch.zeros(0)]
    right = [torch.full((3,), 2.0), gaussian(5, 2, seed=1).t(), torch.zeros(0)]
    expected = 6 + float((left[1] * right[1]).sum())
    right[0] = right[0].bfloat16()
    assert inner_product(left, right) == pytest.approx(expected, rel=1e-12)
    assert inner_product([], []) == 0.0
