"""Division where 0/0 is 0: a coordinate that never saw a gradient does not move."""

from __future__ import annotations

import torch
from torch import Tensor


def divide(numerator: Tensor, denominator: Tensor, eps: float | Tensor = 0.0) -> Tensor:
    r"""Return :math:`a / (b + \epsilon)` for :math:`b, \epsilon \ge 0`, with :math:`0/0 = 0`.

    Parameters
    ----------
    numerator, denominator
        Tensors of one shape; the denominator is not negative.
    eps
        A number >= 0, or a 0-d tensor (then its value is not looked at).

    Examples
    --------
    >>> divide(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0])).tolist()
    [0.5, 0.0]
    """
    if not isinstance(eps, Tensor) and eps > 0:
        return numerator / (denominator + eps)
    denominator = denominator + eps
    return torch.where(denominator == 0, 0.0, numerator / denominator)
