"""Which parameters of a model are the unknowns of an objective."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from thalweg.core import check


def unknowns(
    model: nn.Module, parameters: Iterable[nn.Parameter | str] | None = None
) -> dict[str, nn.Parameter]:
    """The parameters of a model that are unknowns, by name, in the order of the flat vector.

    Parameters
    ----------
    model
        Whose parameters they are.
    parameters
        Parameters of the model, or their names (any of the names of a tied one). Default: all with
        ``requires_grad``.

    Returns
    -------
    dict
        Tied parameters once.

    Raises
    ------
    TypeError
        For parameters in half precision, of several types, or none of floating point.
    ValueError
        For parameters on several devices or not of the model.

    Examples
    --------
    >>> list(unknowns(nn.Linear(2, 1))), list(unknowns(nn.Linear(2, 1), ["bias"]))
    (['weight', 'bias'], ['bias'])
    """
    named = dict(model.named_parameters())
    if parameters is None:
        chosen = {name: p for name, p in named.items() if p.requires_grad}
        # a module of integers, or one whose layers are all frozen
        if not chosen:
            raise TypeError(
                "the model must have a parameter of floating point with requires_grad, "
                f"got {', '.join(str(p.dtype) for p in named.values()) or 'no parameter'}"
            )
    else:
        names = {id(p): name for name, p in named.items()}
        # a tied parameter has several names
        aliases = dict(model.named_parameters(remove_duplicate=False))
        chosen = {}
        for item in parameters:
            p = aliases.get(item) if isinstance(item, str) else item
            if p is None or id(p) not in names:
                what = repr(item) if isinstance(item, str) else f"a tensor of {tuple(item.shape)}"
                near = check.did_you_mean(item, named) if isinstance(item, str) else ""
                raise ValueError(f"parameters must be parameters of the model, got {what}{near}")
            chosen[names[id(p)]] = p
        if not chosen:
            raise ValueError("parameters must hold at least one parameter, got none")
    for name, p in chosen.items():
        if p.dtype in (torch.float16, torch.bfloat16):
            raise TypeError(
                f"parameters must be float32 or float64, got {name} in {p.dtype}: "
                "curvature drowns in its rounding; convert the model with model.float()"
            )
        if p.is_complex() or not p.is_floating_point():
            raise TypeError(f"parameters must be of real floating point, got {name} in {p.dtype}")
    for what, kinds in (
        ("one type", {str(p.dtype) for p in chosen.values()}),
        ("one device", {str(p.device) for p in chosen.values()}),
    ):
        if len(kinds) > 1:
            error = TypeError if what == "one type" else ValueError
            raise error(f"parameters must be of {what}, got {', '.join(sorted(kinds))}")
    return chosen
