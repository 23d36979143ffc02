"""Networks of the studies: seeds side by side do not touch each other."""

from __future__ import annotations

import math

import torch
from torch import nn

from thalweg.optim import Lion
from thalweg.studies.networks import (
    SeededMLP,
    best,
    cosine,
    digits,
    evaluate,
    losses,
    rows_of_steps,
    train,
    tune,
)


def test_a_network_is_the_same_alone_and_beside_others() -> None:
    part = digits().train
    trained = []
    for seeds in ([3], [1, 2, 3]):
        model = SeededMLP((64, 16, 10), seeds)
        rows = rows_of_steps(len(part[0]), 32, 10, seeds)
        train(model, Lion(model.parameters(), lr=1e-3), part, rows, cosine)
        trained.append(evaluate(model, part, len(seeds)))
    assert torch.allclose(trained[0].loss[0], trained[1].loss[2], atol=1e-5)
    assert not torch.allclose(trained[1].loss[0], trained[1].loss[2], atol=1e-3)


def test_one_seed_is_the_plain_network_of_torch() -> None:
    model = SeededMLP((4, 3, 2), [7])
    plain = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        for layer, w, b in zip(plain[::2], model.weights, model.biases, strict=True):
            layer.weight.copy_(w[0].T)
            layer.bias.copy_(b[0, 0])
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 1, 0, 1])
    assert torch.allclose(model(x[None])[0], plain(x), atol=1e-6)
    expected = nn.functional.cross_entropy(plain(x), y)
    assert torch.allclose(losses(model(x[None]), y[None])[0], expected, atol=1e-6)


def test_every_seed_sees_every_row_equally_often_at_any_batch_size() -> None:
    for batch, steps in ((7, 30), (64, 10)):
        rows = rows_of_steps(70, batch, steps, [0, 1])
        counts = rows[:, 1].flatten().bincount(minlength=70)
        assert counts.max() - counts.min() <= 1
        assert not torch.equal(rows[:, 0], rows[:, 1])


def test_the_parts_of_digits_are_disjoint() -> None:
    parts = [{tuple(row) for row in x.tolist()} for x, _ in digits()]
    assert sum(map(len, parts)) == 1797
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_cosine_falls_from_one_to_zero() -> None:
    assert cosine(0, 10) == 1
    assert math.isclose(cosine(5, 10), 0.5)
    assert math.isclose(cosine(10, 10), 0.0, abs_tol=1e-15)


def test_a_diverged_value_is_never_the_best() -> None:
    assert best({0.1: 2.0, 1.0: 1.0, 10.0: math.nan}) == (1.0, False)
    assert tune([1.0, 2.0, 3.0], lambda v: math.nan).edge


def test_either_end_of_the_grid_is_an_edge() -> None:
    assert tune([1.0, 2.0, 3.0], lambda v: v) == (1.0, True)
    assert tune([1.0, 2.0, 3.0], lambda v: -v) == (3.0, True)


def test_weights_start_uniform_within_one_over_the_root_of_their_inputs() -> None:
    model = SeededMLP((64, 400, 10), [0, 1])
    for w, inputs in zip(model.weights, (64, 400), strict=True):
        bound = 1 / math.sqrt(inputs)
        assert 0.95 * bound < float(w.detach().abs().max()) <= bound
        assert math.isclose(float(w.detach().std()), bound / math.sqrt(3), rel_tol=0.05)
