from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from thalweg.data import split, standardize

thirds = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)


@given(st.integers(20, 200), thirds, st.integers(0, 2**31))
def test_every_row_lands_in_one_part(n: int, fractions: tuple[float, ...], seed: int) -> None:
    assume(n * min(fractions) >= 1)
    row = torch.arange(n)
    parts = split((row, row * 2), fractions, seed)
    assert sorted(torch.cat([part[0] for part in parts]).tolist()) == row.tolist()
    for (first, second), fraction in zip(parts, fractions, strict=True):
        assert torch.equal(first * 2, second)
        assert torch.equal(first, first.sort().values)
        assert abs(len(first) - fraction * n) <= 1


@given(st.lists(st.integers(0, 4), min_size=20, max_size=150), thirds, st.integers(0, 2**31))
def test_stratified_parts_hold_each_class_within_one_row_of_its_share(
    labels: list[int], fractions: tuple[float, ...], seed: int
) -> None:
    label = torch.tensor(labels)
    counts = torch.bincount(label, minlength=5)
    assume(counts.max() * min(fractions) >= 1)
    row = torch.arange(len(labels))
    parts = split((row, label), fractions, seed, stratify=label)
    assert sorted(torch.cat([part[0] for part in parts]).tolist()) == row.tolist()
    for (rows, held), fraction in zip(parts, fractions, strict=True):
        assert torch.equal(label[rows], held)
        share = fraction * counts.double()
        assert ((torch.bincount(held, minlength=5) - share).abs() <= 1 + 1e-9).all()


def test_the_seed_alone_decides() -> None:
    row = torch.arange(100)
    first = split((row,), seed=3)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again, other = split((row,), seed=3), split((row,), seed=4)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for (a,), (b,) in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], other[0][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": (0.5, 0.6)}, r"fractions must sum to 1, got \(0.5, 0.6\)"),
        ({"fractions": (1.2, -0.2)}, r"fractions must be in \(0, 1\], got 1.2"),
        ({"fractions": ()}, "fractions must sum to 1"),
        ({"fractions": (0.99, 0.01)}, r"no part empty, got \(0.99, 0.01\) of 10 rows"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"stratify": torch.zeros(9)}, r"stratify must have shape \(10,\), got \(9,\)"),
        ({"tensors": ()}, "at least one tensor"),
        ({"tensors": (torch.ones(3), torch.ones(2))}, r"one number of rows, got \[3, 2\]"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(**{"tensors": (torch.ones(10),), **options})


def test_standardize_uses_the_training_part_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.randn(50, 3, generator=generator) * torch.tensor([1.0, 100.0, 0.01]) + 7
    test = torch.randn(20, 3, generator=generator)
    new_train, new_test = standardize(train, test)
    mean, std = train.double().mean(0), train.double().std(0, correction=0)
    torch.testing.assert_close(
        new_train.double().mean(0), torch.zeros(3).double(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        new_train.double().std(0, correction=0), torch.ones(3).double(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(new_test, ((test.double() - mean) / std).float())
    assert torch.equal(standardize(train, test * 1000)[0], new_train)


def test_standardize_keeps_small_spreads_far_from_zero() -> None:
    column = (1e4 + torch.arange(8.0))[:, None]
    (new,) = standardize(column)
    expected = (torch.arange(8.0) - 3.5) / torch.arange(8.0).std(correction=0)
    torch.testing.assert_close(new[:, 0], expected)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8])
def test_a_constant_column_becomes_zero(value: float) -> None:
    train, other = standardize(torch.full((7, 1), value), torch.full((2, 1), value + 1))
    assert train.abs().max() <= 1e-9
    assert torch.isfinite(other).all()


def test_one_statistic_for_a_whole_image() -> None:
    images = torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    (new,) = standardize(images, dim=(0, 1))
    assert new.mean().abs() < 1e-7
    torch.testing.assert_close(new.flatten()[3], torch.tensor(3 / 3**0.5))
