"""What the layers of the MomentumRNN paper share: what they declare, and words of docstrings."""

from __future__ import annotations

import inspect
from typing import ClassVar, TypeVar

from thalweg.core.catalogue import Axis
from thalweg.nn.recurrent import Recurrent, RecurrentLayer

C = TypeVar("C", bound=type[Recurrent])

SHARED = {
    "sizes": r"""
input_size, hidden_size
    Sizes of :math:`x_t` and :math:`h_t`, >= 1.
num_layers
    Layers, each fed with the output of the one before, >= 1. Default 1.""",
    "nonlinearity": r"""
nonlinearity
    ``"tanh"`` (default), ``"relu"``, ``"modrelu"`` (with a learned bias) or ``"identity"``.""",
    "mu": r"""
mu
    Momentum :math:`\mu` in [0, 1). Default 0.6.""",
    "step": r"""
step
    Step size s > 0 of the input. Default 0.6.""",
    "beta": r"""
beta
    Second-moment rate :math:`\beta` in [0, 1). Default 0.9.""",
    "how": r"""
**how
    `bias`, `batch_first`, `dropout`, `bidirectional`, `device`, `dtype` as in torch.nn.LSTM.""",
    "returns": r"""
Returns
-------
tuple
    Called with ``(input, hx=None)``, as torch.nn.LSTM is: output and state.""",
    "raises": r"""
Raises
------
ValueError
    For a value out of range or a shape that does not fit.""",
    "paper": r"""
References
----------
Nguyen, Baraniuk, Bertozzi, Osher & Wang, "MomentumRNN: integrating momentum into recurrent
neural networks", NeurIPS 2020 (arXiv 2006.06919).""",
}
"""Parts of docstrings, by the name that stands for them: ``%(mu)s`` in the docstring of a class."""


class MomentumLayer(RecurrentLayer):
    """A layer of the paper: what `thalweg.core.catalogue` asks of each."""

    paper = "Nguyen, Baraniuk, Bertozzi, Osher & Wang, NeurIPS 2020 (arXiv 2006.06919)"
    year = 2020
    family = "recurrent"
    needs: ClassVar[tuple[str, ...]] = ()
    search_space: ClassVar[dict[str, Axis]] = {}


def documented(cls: C) -> C:
    """Put the parts of `SHARED` into the docstring of a class.

    Examples
    --------
    >>> @documented
    ... class Mine(MomentumLayer):
    ...     '''My layer.
    ...
    ...     Parameters
    ...     ----------
    ...     %(mu)s
    ...     '''
    >>> print(Mine.__doc__)
    My layer.
    <BLANKLINE>
    Parameters
    ----------
    mu
        Momentum :math:`\\mu` in [0, 1). Default 0.6.
    """
    if cls.__doc__ is not None:  # python -OO strips it
        shared = {name: text.strip() for name, text in SHARED.items()}
        cls.__doc__ = inspect.cleandoc(cls.__doc__) % shared
    return cls
