"""The corpus is drawn from its chain, the same for the same seed."""

from __future__ import annotations

import math

import torch

from thalweg.studies.markov_corpus import LENGTH, TOKENS, chain, chain_loss, corpus


def test_the_corpus_follows_its_chain() -> None:
    tokens = corpus(400, seed=1)
    assert tokens.shape == (400, LENGTH + 1)
    assert torch.equal(tokens, corpus(400, seed=1))
    assert torch.allclose(chain().sum(1), torch.ones(TOKENS))
    uniform = -float(chain().log().mean())
    assert chain_loss(tokens) < uniform - 1.0


def test_the_loss_of_the_chain_is_its_entropy() -> None:
    tokens = corpus(400, seed=2)
    rows = chain()[tokens[:, :-1]].double()
    entropy = -(rows * rows.log()).sum(-1).mean()  # over the states that were visited
    assert math.isclose(chain_loss(tokens), float(entropy), rel_tol=0.03)
