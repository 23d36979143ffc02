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
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            numpy.random.set_state(numpy_state)


@contextmanager
def seeded_rng(seed: int) -> Iterator[None]:
    """Seed torch, numpy and Python inside the block; leave all three as they were found."""
    with preserved_rng():
        torch.manual_seed(seed)
        numpy.random.seed(seed % 2**32)
        random.seed(seed)
        yield
