"""The loss as a function of the model's outputs: its Hessian, a factor of it, drawn gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Family = Literal["categorical", "gaussian", "bernoulli"]


@dataclass(frozen=True)
class Likelihood:
    r"""A loss that is the mean of negative log likelihoods, :math:`-\log p(y \mid z)`.

    In the model's outputs z the Hessian of one row's loss is

    .. math::
        \text{categorical: } \operatorname{diag} p - p p^\top, \qquad
        \text{Gaussian: } \tfrac{2}{C} I, \qquad
        \text{Bernoulli: } \tfrac{1}{C} \operatorname{diag} p (1 - p)

    with C outputs per row; each is also the covariance of the gradient at labels drawn from the
    model, so that Fisher matrix and generalized Gauss-Newton matrix are one.

    Parameters
    ----------
    family
        ``"categorical"`` (cross entropy; classes along dimension 1), ``"gaussian"`` (mean squared
        error; the variance that makes :math:`-\log p` the loss) or ``"bernoulli"`` (binary cross
        entropy with logits).
    ignore_index
        The label of the positions a cross entropy leaves out.
    per_row
        The loss of each row or position, not averaged.

    Examples
    --------
    >>> likelihood = of(functional.mse_loss)
    >>> likelihood.family
    'gaussian'
    >>> z = torch.zeros(3, 2)
    >>> likelihood.hessian_product(z, z, torch.ones(3, 2))[0].tolist()  # 2 / C, over 3 rows
    [0.3333333432674408, 0.3333333432674408]
    """

    family: Family
    per_row: Callable[[Tensor, Tensor], Tensor]
    ignore_index: int = -100

    def counted(self, z: Tensor, y: Tensor) -> Tensor:
        """One over the number of terms the mean is over, shaped to multiply with z."""
        if self.family != "categorical":
            return torch.full((), 1 / z.numel(), dtype=z.dtype, device=z.device)
        if y.is_floating_point():
            terms = z.numel() // z.shape[self._classes(z)]
            return torch.full((), 1 / terms, dtype=z.dtype, device=z.device)
        keep = (y != self.ignore_index).to(z.dtype)
        return (keep / keep.sum()).unsqueeze(self._classes(z))

    def hessian_product(self, z: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """The Hessian of the batch's mean loss in the outputs, times u."""
        scale = self.counted(z, y)
        if self.family == "gaussian":
            return 2 * scale * u
        if self.family == "bernoulli":
            p = z.sigmoid()
            return scale * p * (1 - p) * u
        p = z.softmax(self._classes(z))
        return scale * p * (u - (p * u).sum(self._classes(z), keepdim=True))

    def factor(self, z: Tensor, y: Tensor) -> Iterator[Tensor]:
        r"""Columns of S, shaped like z, with :math:`S S^\top` the Hessian of every row's block.

        A column touches one output of each row; columns of different rows must not be mixed.
        """
        root = self.counted(z, y).sqrt()
        dim = self._classes(z)
        flat = z.shape[1:] if z.dim() > 1 else z.shape
        p = z.softmax(dim) if self.family == "categorical" else z.sigmoid()
        for index in range(flat.numel()):
            column = torch.zeros_like(z)
            place = column.view(len(z), -1) if z.dim() > 1 else column.view(1, -1)
            place[:, index] = 1.0
            if self.family == "gaussian":
                yield column * root * math.sqrt(2)
            elif self.family == "bernoulli":
                yield column * root * (p * (1 - p)).sqrt()
            else:
                # column c of diag(sqrt p) - p sqrt(p)^T
                here = (column * p.sqrt()).sum(dim, keepdim=True)
                one = column.sum(dim, keepdim=True)
                yield root * (column * p.sqrt() - one * p * here)

    def drawn(self, z: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Square root of a term's weight times the gradient in z at labels drawn from the model."""
        root = self.counted(z, y).sqrt()
        if self.family == "gaussian":
            noise = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
            return root * math.sqrt(2) * noise
        if self.family == "bernoulli":
            p = z.sigmoid()
            return root * (p - torch.bernoulli(p, generator=generator))
        dim = self._classes(z)
        p = z.softmax(dim).movedim(dim, -1)
        labels = torch.multinomial(p.reshape(-1, p.shape[-1]), 1, generator=generator)
        one_hot = functional.one_hot(labels[:, 0], p.shape[-1]).view(p.shape).to(z.dtype)
        return root * (p - one_hot).movedim(-1, dim)

    def _classes(self, z: Tensor) -> int:
        return 1 if z.dim() > 1 else 0


def of(loss: Any) -> Likelihood | None:
    """The likelihood of a loss torch defines, averaged, without weights or smoothing; else None.

    Parameters
    ----------
    loss
        ``functional.cross_entropy``, ``functional.mse_loss``,
        ``functional.binary_cross_entropy_with_logits``, their modules, or a ``functools.partial``
        of the functions.

    Examples
    --------
    >>> of(nn.CrossEntropyLoss()).family
    'categorical'
    >>> of(nn.CrossEntropyLoss(label_smoothing=0.1)) is None
    True
    """
    options: dict[str, Any] = {}
    if isinstance(loss, functools.partial):
        if loss.args:
            return None
        loss, options = loss.func, dict(loss.keywords)
    if type(loss) in _MODULES:
        names = ("reduction", "weight", "pos_weight", "label_smoothing", "ignore_index")
        options = {name: getattr(loss, name) for name in names if hasattr(loss, name)}
        loss = _MODULES[type(loss)]
    family = _FAMILIES.get(loss) if callable(loss) and _hashable(loss) else None
    if family is None or options.pop("reduction", "mean") != "mean":
        return None
    ignore = options.pop("ignore_index", -100)
    if any(value is not None and value != 0.0 for value in options.values()):
        return None
    per_row = functools.partial(loss, reduction="none")
    if family == "categorical":
        per_row = functools.partial(per_row, ignore_index=ignore)
    return Likelihood(family, per_row, ignore)


def _hashable(loss: object) -> bool:
    return type(loss).__hash__ is not None


_MODULES: dict[type, Any] = {
    nn.CrossEntropyLoss: functional.cross_entropy,
    nn.MSELoss: functional.mse_loss,
    nn.BCEWithLogitsLoss: functional.binary_cross_entropy_with_logits,
}
_FAMILIES: dict[Any, Family] = {
    functional.cross_entropy: "categorical",
    functional.mse_loss: "gaussian",
    functional.binary_cross_entropy_with_logits: "bernoulli",
}
