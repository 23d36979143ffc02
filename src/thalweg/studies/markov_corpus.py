"""A language without a download: sequences of one sparse Markov chain."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

TOKENS, LENGTH = 64, 32


@cache
def chain() -> Tensor:
    """Transition probabilities, (64, 64): sparse rows, mixed 0.9 / 0.1 with Zipf's law.

    Examples
    --------
    >>> torch.allclose(chain().sum(1), torch.ones(TOKENS))
    True
    """
    generator = np.random.default_rng(0)
    rows = generator.dirichlet(np.full(TOKENS, 0.05), size=TOKENS)
    zipf = 1 / np.arange(1, TOKENS + 1)
    return torch.from_numpy(0.9 * rows + 0.1 * zipf / zipf.sum()).float()


def corpus(sequences: int, seed: int) -> Tensor:
    """Sequences of the chain, shape (sequences, 33): 32 inputs and their next tokens.

    Examples
    --------
    >>> corpus(4, seed=0).shape
    torch.Size([4, 33])
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(TOKENS, (sequences,), generator=generator)]
    for _ in range(LENGTH):
        tokens.append(torch.multinomial(chain()[tokens[-1]], 1, generator=generator)[:, 0])
    return torch.stack(tokens, dim=1)


def chain_loss(tokens: Tensor) -> float:
    r"""Mean cross-entropy, in nats, of the chain itself: no model does better on average.

    .. math:: -\frac1n \sum_i \log P(t_{i+1} \mid t_i)

    Examples
    --------
    >>> 1.0 < chain_loss(corpus(64, seed=0)) < 3.0
    True
    """
    return -float(chain()[tokens[:, :-1], tokens[:, 1:]].log().mean())
