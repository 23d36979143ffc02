from __future__ import annotations

import random

import numpy
import pytest
import torch

from thalweg.core import preserved_rng, seeded_rng


def draws() -> tuple[float, float, float]:
    return torch.rand(1).item(), numpy.random.rand(), random.random()  # noqa: NPY002


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


@pytest.mark.parametrize("context", [preserved_rng, lambda: seeded_rng(7)])
def test_all_three_generators_are_left_as_found(context: object) -> None:
    seed_all(1)
    expected = draws()
    seed_all(1)
    with context():
        draws()
        torch.manual_seed(99)
    assert draws() == expected


@pytest.mark.parametrize("context", [preserved_rng, lambda: seeded_rng(7)])
def test_left_as_found_after_an_error(context: object) -> None:
    seed_all(1)
    expected = draws()
    seed_all(1)
    with pytest.raises(ZeroDivisionError), context():
        draws()
        raise ZeroDivisionError
    assert draws() == expected


def test_the_seed_alone_decides() -> None:
    seed_all(1)
    with seeded_rng(3):
        first = draws()
    seed_all(2)
    with seeded_rng(3):
        again = draws()
    with seeded_rng(4):
        other = draws()
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_preserved_does_not_seed() -> None:
    seed_all(5)
    expected = draws()
    seed_all(5)
    with preserved_rng():
        assert draws() == expected


def test_blocks_nest() -> None:
    with seeded_rng(1):
        first, second = draws(), draws()
    with seeded_rng(1):
        assert draws() == first
        with seeded_rng(2):
            draws()
        assert draws() == second


def test_no_seed_is_queued_for_an_accelerator_not_initialized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if torch.cuda.is_initialized():
        pytest.skip("the accelerator is initialized already")
    queued: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", queued.append)
    with seeded_rng(3):
        pass
    assert queued == []


def test_large_and_negative_seeds_are_seeds_like_others() -> None:
    found = []
    for seed in (2**40, -1, 5):
        for _ in range(2):
            with seeded_rng(seed):
                found.append(draws())
    assert found[0::2] == found[1::2]
    for generator in range(3):  # torch, numpy, Python: each hears every seed
        assert len({drawn[generator] for drawn in found}) == 3
