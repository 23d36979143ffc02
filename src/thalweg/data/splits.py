"""Parts of a data set for training, validation and test, and standardizing with the first alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.core import check

Part = tuple[Tensor, ...]


def split(
    tensors: Sequence[Tensor],
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 0,
    *,
    stratify: Tensor | None = None,
) -> tuple[Part, ...]:
    r"""Divide the rows at random into parts: training, validation, test.

    Part :math:`j` of class :math:`c` takes :math:`[F_j n_c] - [F_{j-1} n_c]` of its rows
    (:math:`F` the running sum of the fractions, :math:`[\cdot]` the nearest integer): within one
    row of its share. Rows keep their order inside a part.

    Parameters
    ----------
    tensors
        Tensors with one number of rows.
    fractions
        Share of each part, each > 0, together 1. Default (0.6, 0.2, 0.2).
    seed
        Seed of the division, an integer >= 0. Default 0.
    stratify
        Class number of each row: every class is divided in the same shares. Default: none.

    Returns
    -------
    tuple
        One tuple of tensors per fraction.

    Raises
    ------
    ValueError
        If a part would be empty, or an argument is outside its range.

    Examples
    --------
    >>> train, validation, test = split((torch.arange(10),), seed=1)
    >>> len(train[0]), len(validation[0]), len(test[0])
    (6, 2, 2)
    """
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError("tensors must hold at least one tensor, got none")
    rows = [len(tensor) for tensor in tensors]
    if len(set(rows)) != 1:
        raise ValueError(f"tensors must have one number of rows, got {rows}")
    for fraction in fractions:
        check.number("fractions", fraction, gt=0, le=1)
    if not fractions or abs(math.fsum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions must sum to 1, got {tuple(fractions)}")
    check.number("seed", seed, ge=0, integer=True)
    n = rows[0]
    if stratify is not None and stratify.shape != (n,):
        raise ValueError(f"stratify must have shape ({n},), got {tuple(stratify.shape)}")

    classes = torch.zeros(n, dtype=torch.int64) if stratify is None else stratify.cpu()
    generator = torch.Generator().manual_seed(seed)
    running = [math.fsum(fractions[: j + 1]) for j in range(len(fractions))]
    parts: list[list[Tensor]] = [[] for _ in fractions]
    for label in classes.unique():
        members = (classes == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        ends = [round(share * len(members)) for share in running]
        for part, begin, end in zip(parts, [0, *ends[:-1]], ends, strict=True):
            part.append(members[begin:end])
    chosen = [torch.cat(part).sort().values if part else torch.empty(0) for part in parts]
    if any(len(indices) == 0 for indices in chosen):
        raise ValueError(f"fractions must leave no part empty, got {tuple(fractions)} of {n} rows")
    return tuple(
        tuple(tensor[indices.to(tensor.device)] for tensor in tensors) for indices in chosen
    )


def standardize(
    train: Tensor, *others: Tensor, dim: int | tuple[int, ...] = 0
) -> tuple[Tensor, ...]:
    r"""Subtract the mean and divide by the standard deviation, both of the training part alone.

    .. math:: x \mapsto (x - \mathrm{mean}(train)) / \mathrm{std}(train)

    Parameters
    ----------
    train
        The tensor whose statistics count.
    *others
        Tensors moved and scaled with the same statistics.
    dim
        Dimensions the statistics are taken over. Default 0: one mean per column. Give all
        dimensions for images, whose border pixels hardly vary.

    Returns
    -------
    tuple
        `train` and `others`, standardized. A constant column becomes zero in `train`.

    Examples
    --------
    >>> train, test = standardize(torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0]]))
    >>> train.flatten().tolist(), test.flatten().tolist()
    ([-1.0, 1.0], [3.0])
    """
    # in double precision: single precision loses the spread of columns far from zero
    mean = train.double().mean(dim, keepdim=True)
    spread = train.double().std(dim, keepdim=True, correction=0)
    # the spread of a constant column is rounding error, not exactly zero
    constant = spread <= 1e-12 * mean.abs()
    scale = torch.where(constant, torch.ones_like(spread), spread)
    return tuple(((x.double() - mean) / scale).to(x.dtype) for x in (train, *others))
