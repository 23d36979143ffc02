"""The networks of the built-in problems: small, plain, and written with torch.nn alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """A fully connected ReLU network with layers of the given sizes, input and output included.

    Examples
    --------
    >>> mlp((64, 128, 10))(torch.zeros(5, 64)).shape
    torch.Size([5, 10])
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutional(side: int, outputs: int, channels: Sequence[int] = (16, 32)) -> nn.Sequential:
    """A convolutional network with batch normalization for flat square images of one channel.

    Parameters
    ----------
    side
        Height and width of the image; its input has ``side * side`` columns.
    outputs
        Classes, or 1.
    channels
        Channels of each block (3x3 convolution, batch normalization, ReLU, 2x2 max pooling).

    Examples
    --------
    >>> convolutional(8, 10)(torch.zeros(5, 64)).shape
    torch.Size([5, 10])
    """
    layers: list[nn.Module] = [nn.Unflatten(1, (1, side, side))]
    before = 1
    for after in channels:
        layers += [
            # the mean is subtracted right after, so a bias would have no effect
            nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        before, side = after, side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * side * side, outputs))


class Block(nn.Module):
    """A pre-normalized transformer block: causal attention, then a two-layer network."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_feedforward = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.project(self.attend(self.norm_attention(x)))
        return x + self.contract(functional.gelu(self.expand(self.norm_feedforward(x))))

    def attend(self, x: Tensor) -> Tensor:
        """Causal attention of several heads: (batch, length, width) to the same shape."""
        batch, length, width = x.shape
        parts = self.query_key_value(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return attended.transpose(1, 2).reshape(batch, length, width)


class CharacterTransformer(nn.Module):
    """A decoder-only transformer over characters (pre-normalization, learned positions).

    Parameters
    ----------
    characters
        Size of the vocabulary.
    context
        Longest sequence.
    width, heads, blocks
        Width of a position, attention heads (dividing the width), number of blocks.

    Examples
    --------
    >>> model = CharacterTransformer(characters=100, context=16, width=32, heads=2, blocks=1)
    >>> model(torch.zeros(4, 16, dtype=torch.int64)).shape
    torch.Size([4, 16, 100])
    """

    def __init__(self, characters: int, context: int, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, width)
        self.position = nn.Parameter(torch.zeros(context, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, characters, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.character(codes) + self.position[: codes.shape[-1]]
        return self.output(self.norm(self.blocks(x)))
