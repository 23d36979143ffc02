"""Random numbers: seeded where they are wanted, left as found everywhere else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Leave the global generators of torch, numpy and Python as they were found.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> with preserved_rng():
    ...     _ = torch.rand(100)
    >>> after = torch.rand(1)
    >>> _ = torch.manual_seed(0)
    >>> bool(after == torch.rand(1))
    True
    """
    # the legacy generators are the global ones, hence those a user's code may draw from
    python_state, numpy_state = random.getstate(), numpy.random.get_state()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            numpy.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def seeded_rng(seed: int) -> Iterator[None]:
    """Seed torch, numpy and Python inside the block; leave all three as they were found.

    Parameters
    ----------
    seed
        Any integer torch accepts: in [-2**63, 2**64).

    Examples
    --------
    >>> with seeded_rng(3):
    ...     first = torch.rand(2)
    >>> with seeded_rng(3):
    ...     bool((first == torch.rand(2)).all())
    True
    """
    with preserved_rng():
        # torch.manual_seed would also queue a seed for accelerators not initialized yet, and that
        # seed would come into force after the block
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        numpy.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        yield
