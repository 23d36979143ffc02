"""`Training`: a network (or any differentiable function) with its loss and its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from thalweg.core import check
from thalweg.core.rng import preserved_rng

Split = Literal["validation", "test"]
Evaluate = Callable[[nn.Module, Split], Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class Training:
    r"""A network with its loss and its data.

    .. math:: \min_x f(x) = E_{batch}\, loss(model_x(batch))

    Parameters
    ----------
    model
        The network whose parameters are the unknowns.
    loss
        ``loss(output, target)``, a scalar tensor: the mean over the batch.
    data
        The training data: an iterable of batches, each pass over it one epoch. A batch is a pair
        ``(inputs, target)``, or a mapping (then the model is called as ``model(**batch)`` and the
        loss as ``loss(output, batch)``). A ``torch.utils.data.DataLoader`` will do.
    evaluate
        ``evaluate(model, split)`` with split ``"validation"`` or ``"test"``: a mapping of metric
        names to floats. Default: the mean of the batches' training losses, for both splits.
    metric
        The name, among those of `evaluate`, that decides. Default: the first one.
    goal
        ``"min"`` or ``"max"``: is a small or a large metric good?
    minimum
        The least value of the loss, where it is known.
    name
        How reports call the problem.

    Examples
    --------
    >>> model = nn.Linear(2, 1)
    >>> batch = (torch.ones(8, 2), torch.zeros(8, 1))
    >>> training = Training(model, nn.functional.mse_loss, [batch])
    >>> training.batch_loss(batch).shape
    torch.Size([])
    """

    model: nn.Module
    loss: Callable[..., Tensor]
    data: Iterable[Any]
    evaluate: Evaluate | None = None
    metric: str | None = None
    goal: Literal["min", "max"] = "min"
    minimum: float | None = None
    name: str = "training"

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(self.model).__name__}")
        if not callable(self.loss):
            raise TypeError(f"loss must be callable, got {type(self.loss).__name__}")
        if not isinstance(self.data, Iterable):
            raise TypeError(f"data must be an iterable of batches, got {type(self.data).__name__}")
        if iter(self.data) is self.data:
            raise TypeError(
                "data must be iterable more than once "
                "(a list, a DataLoader, thalweg.data.Batches); "
                f"got the one-pass iterator {type(self.data).__name__}"
            )
        check.choice("goal", self.goal, ("min", "max"))

    @classmethod
    def from_function(
        cls,
        function: Callable[[Any], Tensor],
        start: Any,
        *,
        minimum: float | None = None,
        name: str = "function",
    ) -> Training:
        """A scalar function of a tensor (or of a pytree of tensors) as a `Training`.

        Parameters
        ----------
        function
            Maps the point to a scalar tensor.
        start
            Where to begin: a floating-point tensor, or a dict/tuple/list of them. It is copied.
        minimum
            The least value, where it is known.
        name
            How reports call the problem.

        Examples
        --------
        >>> training = Training.from_function(lambda x: (x**2).sum(), torch.ones(3))
        >>> training.batch_loss(None).item()
        3.0
        """
        if not callable(function):
            raise TypeError(f"function must be callable, got {type(function).__name__}")
        return cls(
            model=Point(start),
            loss=lambda point, _: function(point),
            data=(None,),
            minimum=minimum,
            name=name,
        )

    def batch_loss(self, batch: Any) -> Tensor:
        """The loss of one batch, a scalar tensor with its graph."""
        if batch is None:
            return self.loss(self.model(), None)
        if isinstance(batch, Mapping):
            return self.loss(self.model(**batch), batch)
        inputs, target = batch
        return self.loss(self.model(inputs), target)

    @torch.no_grad()
    def measure(self, split: Split) -> dict[str, float]:
        """The metrics of `split`, the deciding one first.

        Measured in evaluation mode. The model's mode, the global random generators and the epoch
        of a `thalweg.data.Batches` are left as found.

        Parameters
        ----------
        split
            ``"validation"`` or ``"test"``.

        Raises
        ------
        ValueError
            If `evaluate` does not return the deciding metric, or there are no data to measure.
        """
        check.choice("split", split, ("validation", "test"))
        mode = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            with preserved_rng():
                measured = (
                    self._mean_loss() if self.evaluate is None else self.evaluate(self.model, split)
                )
                metrics = {name: float(value) for name, value in measured.items()}
        finally:
            for module, training in mode.items():
                module.training = training
        first = self.metric if self.metric is not None else next(iter(metrics), None)
        if first is None or first not in metrics:
            raise ValueError(
                "metric must be one of the names evaluate returns "
                f"({', '.join(metrics) or 'none'}), got {first!r}"
            )
        return {first: metrics[first], **metrics}

    def _mean_loss(self) -> dict[str, float]:
        # Batches are read in order: a pass over them as they are would begin their next epoch
        ordered = getattr(self.data, "ordered", None)
        losses = [float(self.batch_loss(b)) for b in (ordered() if ordered else self.data)]
        if not losses:
            raise ValueError("data must hold at least one batch, got none")
        return {"loss": sum(losses) / len(losses)}


class Point(nn.Module):
    """The unknown of a function, held as parameters so that optimizers can move it.

    Calling it returns the point in the shape `start` had: a tensor, or a pytree of tensors.
    """

    def __init__(self, start: Any) -> None:
        super().__init__()
        leaves, self._tree = pytree.tree_flatten(start)
        if not leaves:
            raise ValueError("start must hold at least one tensor, got none")
        self.x = nn.ParameterList(
            nn.Parameter(check.floating("start", leaf).detach().clone()) for leaf in leaves
        )

    def forward(self) -> Any:
        return pytree.tree_unflatten(list(self.x), self._tree)
