"""Division where 0/0 is 0: a coordinate that never saw a gradient does not move."""

from __future__ import annotations

import torch
from torch import Tensor


def divide_or_zero(numerator: Tensor, denominator: Tensor) -> Tensor:
    """`numerator / denominator`, and 0 where the denominator is exactly 0.

    Examples
    --------
    >>> divide_or_zero(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0])).tolist()
    [0.5, 0.0]
    """
    return torch.where(denominator == 0, 0.0, numerator / denominator)
