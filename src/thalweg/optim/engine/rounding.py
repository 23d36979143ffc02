r"""From the exact new value of a parameter to the value stored in a short format.

A bfloat16 number has 8 bits of precision: an update smaller than 1/256 of the parameter is lost
when rounding to nearest. Two remedies, both applied to the whole update (decay and move) at once:

- *stochastic*: round up with probability equal to the discarded fraction, so that
  :math:`E[\mathrm{round}(x)] = x`;
- *compensated* (Kahan): keep the discarded part in a second bfloat16 tensor, add it next time.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDINGS = ("nearest", "stochastic", "compensated")
_LOW_BITS = 16  # float32 has 16 bits more than bfloat16


def stochastic(exact: Tensor, bits: Tensor) -> Tensor:
    """Round float32 to bfloat16 with the random integers `bits`, uniform in [0, 2**16).

    A value that bfloat16 can represent is returned unchanged, whatever the bits.

    Examples
    --------
    >>> exact = torch.full((10_000,), 1 + 2**-9)  # a quarter of the way from 1 to 1 + 2**-7
    >>> bits = torch.randint(2**16, (10_000,), dtype=torch.int32)
    >>> rounded = stochastic(exact, bits)
    >>> rounded.unique().tolist(), abs(float((rounded > 1).float().mean()) - 0.25) < 0.03
    ([1.0, 1.0078125], True)
    """
    raised = exact.view(torch.int32) + bits
    return (raised & -(1 << _LOW_BITS)).view(torch.float32).to(torch.bfloat16)


def random_bits(shape: torch.Size, device: torch.device, generator: torch.Generator) -> Tensor:
    """The random integers that `stochastic` wants, drawn on the generator's device."""
    drawn = torch.randint(
        1 << _LOW_BITS, shape, dtype=torch.int32, device=generator.device, generator=generator
    )
    return drawn.to(device)


def moved(p: Tensor, move: Tensor) -> Tensor:
    """Return ``p + move``, and `p` itself, to the bit, where that changes nothing.

    A move of -0 would turn -0 into +0; a step with lr = 0 must leave every bit alone.

    Examples
    --------
    >>> str(moved(torch.tensor(-0.0), torch.tensor(0.0)).item())
    '-0.0'
    """
    new = p + move
    return torch.where(new == p, p, new)
