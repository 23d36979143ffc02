"""What Hutch++ and XTrace share: the size of a sketch, its rank, and the test of what it leaves."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.core.estimate import Estimate
from thalweg.numeric.estimate import OperatorEstimate, StoppingRule, sample_until
from thalweg.numeric.krylov.block import inner, norms
from thalweg.numeric.krylov.ritz import relative_noise
from thalweg.numeric.operator import LinearOperator
from thalweg.numeric.probes import column_dots, finite, rademacher


def hutchinson_on_the_rest(
    operator: LinearOperator,
    Q: Tensor,
    captured: float,
    rule: StoppingRule,
    spent: int,
    generator: torch.Generator,
    size: int,
) -> OperatorEstimate:
    r"""A trace whose part on a sketch is known: :math:`g^T (I - QQ^T) A (I - QQ^T) g` is sampled.

    Parameters
    ----------
    operator
        A, of order n.
    Q
        Orthonormal basis (n, k) of the sketch.
    captured
        :math:`\operatorname{tr}(Q^T A Q)`.
    rule, spent
        When to stop, and how many of its products were made before.
    generator
        Source of the g.
    size
        The most products at a time.
    """

    def draw(k: int) -> Tensor:
        G = rademacher(operator, k, generator)
        G = G - Q @ inner(Q, G).to(Q)
        return captured + column_dots(G, finite(operator @ G))

    samples = sample_until(rule, draw, int(rule.max_products) - spent, size)
    return rule.told(Estimate.of(samples), "hutch++", spent + len(samples))


def rounding_of(Y: Tensor) -> float:
    """What is left of products at or below this is rounding.

    Examples
    --------
    >>> rounding_of(torch.tensor([[3.0], [4.0]])) < 1e-3
    True
    """
    return 10 * relative_noise(Y.dtype) * float(norms(Y).max())


def most_columns(operator: LinearOperator, memory: int, copies: int) -> int:
    """The most columns of a sketch of which `copies` fit in so many bytes.

    Raises
    ------
    ValueError
        If not even two do.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> most_columns(as_operator(torch.eye(10)), memory=600, copies=3)
    5
    """
    fitting = memory // (copies * operator.shape[0] * operator.dtype.itemsize)
    if fitting < 2:
        least = 2 * copies * operator.shape[0] * operator.dtype.itemsize
        raise ValueError(f"memory must be >= {least} bytes for a sketch, got {memory}")
    return int(fitting)
