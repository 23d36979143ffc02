"""`Batches`: batches of tensors in memory, at the cost of a slice each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy
import torch
from torch import Tensor

from thalweg.core import check

_CHUNK_BYTES = 2**25  # rows are gathered a chunk at a time: one gather for many batches


class Batches:
    r"""Batches of tensors held in memory; each pass over it is one epoch.

    Epoch :math:`e` visits the rows in the order of a permutation that is a function of
    :math:`(seed, e)` alone, so any epoch can be had again without playing the earlier ones.

    Parameters
    ----------
    *tensors
        Tensors with one number of rows n: usually inputs and target.
    batch_size
        Rows per batch, in [1, n] (larger than n is accepted only with ``drop_last=False``).
    shuffle
        False: every epoch in the order of the rows. Default True.
    seed
        Seed of the permutations, an integer >= 0. Default 0.
    drop_last
        Leave out the last batch of an epoch when it is smaller than the others. Default True.

    Raises
    ------
    ValueError
        If the numbers of rows differ, or an argument is outside its range.

    Examples
    --------
    >>> batches = Batches(torch.arange(5.0), torch.arange(5), batch_size=2)
    >>> len(batches), [len(target) for inputs, target in batches]
    (2, [2, 2])
    >>> [target.tolist() for inputs, target in batches.ordered()]
    [[0, 1], [2, 3], [4]]
    >>> all(torch.equal(a, b) for (a, _), (b, _) in zip(batches.epoch(7), batches.epoch(7)))
    True
    """

    def __init__(
        self,
        *tensors: Tensor,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        if not tensors:
            raise ValueError("tensors must hold at least one tensor, got none")
        for tensor in tensors:
            if not isinstance(tensor, Tensor) or tensor.dim() == 0:
                raise TypeError(f"tensors must be tensors with rows, got {tensor!r}")
        rows = [len(tensor) for tensor in tensors]
        if len(set(rows)) != 1 or rows[0] == 0:
            raise ValueError(f"tensors must have one number of rows, at least 1, got {rows}")
        most = rows[0] if drop_last else None
        self.tensors = tensors
        self.batch_size = int(check.number("batch_size", batch_size, ge=1, le=most, integer=True))
        self.shuffle = shuffle
        self.seed = int(check.number("seed", seed, ge=0, integer=True))
        self.drop_last = drop_last
        self._next_epoch = 0

    @property
    def rows(self) -> int:
        """The number of rows n."""
        return len(self.tensors[0])

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(self.rows, self.batch_size)
        return full if self.drop_last or rest == 0 else full + 1

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        # a generator, so that the epoch is counted when the pass begins, not when iter() is called
        epoch = self._next_epoch
        self._next_epoch += 1
        yield from self.epoch(epoch)

    def epoch(self, e: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches of epoch `e` (an integer >= 0), whatever was iterated before."""
        check.number("e", e, ge=0, integer=True)
        return self._batches(int(e))

    def _batches(self, e: int) -> Iterator[tuple[Tensor, ...]]:
        used = len(self) * self.batch_size if self.drop_last else self.rows
        if not self.shuffle:
            yield from _sliced(tuple(tensor[:used] for tensor in self.tensors), self.batch_size)
            return
        order = permutation(self.rows, self.seed, e)[:used]
        row_bytes = max(tensor[0].numel() * tensor.element_size() for tensor in self.tensors)
        chunk = max(1, _CHUNK_BYTES // max(1, row_bytes * self.batch_size)) * self.batch_size
        for rows in order.split(chunk):
            gathered = tuple(
                tensor.index_select(0, rows.to(tensor.device)) for tensor in self.tensors
            )
            yield from _sliced(gathered, self.batch_size)

    def ordered(self, batch_size: int | None = None) -> Batches:
        """The same rows in their own order, none left out.

        Parameters
        ----------
        batch_size
            Rows per batch, >= 1. Default: as here.
        """
        return Batches(
            *self.tensors,
            batch_size=self.batch_size if batch_size is None else batch_size,
            shuffle=False,
            seed=self.seed,
            drop_last=False,
        )

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in self.tensors)
        order = f"seed={self.seed}" if self.shuffle else "in order"
        return f"Batches({shapes}; {len(self)} batches of {self.batch_size}, {order})"


def permutation(n: int, seed: int, e: int) -> Tensor:
    """The order of n rows in epoch `e`: a function of its arguments alone, no global generator."""
    mixed = numpy.random.SeedSequence((seed, e)).generate_state(1, numpy.uint64)[0]
    return torch.randperm(n, generator=torch.Generator().manual_seed(int(mixed >> 1)))


def _sliced(tensors: tuple[Tensor, ...], batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(batch_size) for tensor in tensors), strict=True)
