from __future__ import annotations

import itertools
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.data import Batches, batches

rows = st.integers(1, 50)
sizes = st.integers(1, 60)
seeds = st.integers(0, 2**31)
epochs = st.integers(0, 1000)


def make(n: int, **options: object) -> Batches:
    number = torch.arange(n)
    return Batches(torch.stack((number, number), 1).float(), number, **options)


def numbers(iterator: object) -> list[int]:
    return [int(number) for _, target in iterator for number in target]


@given(rows, sizes, seeds, epochs)
def test_an_epoch_visits_every_row_once(n: int, size: int, seed: int, e: int) -> None:
    data = make(n, batch_size=size, seed=seed, drop_last=False)
    got = list(data.epoch(e))
    assert len(got) == len(data)
    assert sorted(numbers(got)) == list(range(n))
    assert [len(target) for _, target in got[:-1]] == [size] * (len(got) - 1)
    assert all(torch.equal(inputs[:, 0].long(), target) for inputs, target in got)


@given(rows, st.data(), seeds, epochs)
def test_drop_last_leaves_whole_batches_of_the_same_order(
    n: int, draw: st.DataObject, seed: int, e: int
) -> None:
    size = draw.draw(st.integers(1, n))
    whole = make(n, batch_size=size, seed=seed)
    assert [len(target) for _, target in whole.epoch(e)] == [size] * (n // size)
    assert len(whole) == n // size
    everything = numbers(make(n, batch_size=size, seed=seed, drop_last=False).epoch(e))
    assert numbers(whole.epoch(e)) == everything[: n // size * size]


@given(rows, seeds, epochs, st.lists(epochs, max_size=3))
def test_an_epoch_is_a_function_of_seed_and_number_alone(
    n: int, seed: int, e: int, earlier: list[int]
) -> None:
    data = make(n, batch_size=1, seed=seed)
    for each in earlier:
        next(data.epoch(each))
    torch.manual_seed(e)
    assert numbers(data.epoch(e)) == numbers(make(n, batch_size=1, seed=seed).epoch(e))


def test_seeds_and_epochs_give_different_orders() -> None:
    orders = {
        tuple(numbers(make(30, batch_size=3, seed=seed).epoch(e)))
        for seed in range(10)
        for e in range(10)
    }
    assert len(orders) == 100


@given(rows, sizes, seeds)
def test_the_order_of_rows_does_not_depend_on_the_batch_size(n: int, size: int, seed: int) -> None:
    options = {"seed": seed, "drop_last": False}
    assert numbers(make(n, batch_size=size, **options).epoch(0)) == numbers(
        make(n, batch_size=1, **options).epoch(0)
    )


def test_all_positions_are_equally_likely() -> None:
    # 4000 epochs: each row comes first 1000 times on average, standard deviation 27
    first = [int(batches.permutation(4, 0, e)[0]) for e in range(4000)]
    assert all(abs(first.count(row) - 1000) < 5 * 27.4 for row in range(4))


def test_passes_are_consecutive_epochs() -> None:
    data = make(10, batch_size=3, seed=1)
    for e in range(3):
        assert numbers(data) == numbers(data.epoch(e))


def test_asking_for_an_iterator_does_not_use_up_an_epoch() -> None:
    data = make(10, batch_size=3, seed=1)
    iter(data)
    numbers(data.epoch(5))
    numbers(data.ordered())
    assert numbers(data) == numbers(data.epoch(0))


def test_a_broken_off_pass_is_an_epoch() -> None:
    data = make(10, batch_size=3, seed=1)
    next(iter(data))
    assert numbers(data) == numbers(data.epoch(1))


@given(rows, sizes, st.none() | sizes)
def test_ordered(n: int, size: int, other: int | None) -> None:
    data = make(n, batch_size=size, drop_last=False).ordered(other)
    assert numbers(data) == numbers(data) == list(range(n))
    assert {len(target) for _, target in itertools.islice(data, len(data) - 1)} <= {other or size}


def test_ordered_keeps_the_rows_that_epochs_drop() -> None:
    data = make(10, batch_size=4)
    assert len(data) == 2 and len(data.ordered()) == 3


def test_without_shuffling_every_epoch_is_in_order() -> None:
    data = make(7, batch_size=3, shuffle=False)
    assert numbers(data) == numbers(data.epoch(4)) == list(range(6))


@given(rows, sizes, seeds)
def test_gathering_in_chunks_changes_nothing(n: int, size: int, seed: int) -> None:
    data = make(n, batch_size=size, seed=seed, drop_last=False)
    whole = list(data.epoch(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_CHUNK_BYTES", 16)
        chunked = list(data.epoch(0))
    assert len(whole) == len(chunked)
    for (a, b), (c, d) in zip(whole, chunked, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


def test_the_global_generator_is_untouched() -> None:
    data = make(10, batch_size=3)
    before = torch.get_rng_state()
    numbers(data)
    assert torch.equal(before, torch.get_rng_state())


def test_any_number_of_tensors_of_any_type() -> None:
    half, flag = torch.zeros(6, 2, 3, dtype=torch.bfloat16), torch.ones(6, dtype=torch.bool)
    (a, b, c), *_ = Batches(half, flag, torch.arange(6), batch_size=2)
    assert (a.dtype, a.shape) == (torch.bfloat16, (2, 2, 3))
    assert b.dtype == torch.bool and c.shape == (2,)


def test_writing_into_a_shuffled_batch_leaves_the_data_alone() -> None:
    data = make(6, batch_size=2)
    for inputs, _ in data:
        inputs.zero_()
    assert data.tensors[0][:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_pickling_keeps_the_place() -> None:
    data = make(10, batch_size=3, seed=1)
    numbers(data)
    assert numbers(pickle.loads(pickle.dumps(data))) == numbers(data.epoch(1))


@pytest.mark.parametrize(
    ("tensors", "options", "error", "message"),
    [
        ((), {}, ValueError, "at least one tensor"),
        (([1.0],), {}, TypeError, r"tensors with rows, got \[1.0\]"),
        ((torch.tensor(1.0),), {}, TypeError, "tensors with rows"),
        ((torch.ones(3), torch.ones(4)), {}, ValueError, r"one number of rows, .*got \[3, 4\]"),
        ((torch.ones(0),), {}, ValueError, r"at least 1, got \[0\]"),
        ((torch.ones(3),), {"batch_size": 0}, ValueError, "batch_size must be an integer in"),
        ((torch.ones(3),), {"batch_size": 4}, ValueError, r"batch_size .* in \[1, 3\], got 4"),
        ((torch.ones(3),), {"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_arguments_are_named(
    tensors: tuple[object, ...],
    options: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        Batches(*tensors, **{"batch_size": 2, **options})


def test_bad_epoch() -> None:
    with pytest.raises(ValueError, match="e must be an integer >= 0, got -1"):
        make(3, batch_size=1).epoch(-1)
