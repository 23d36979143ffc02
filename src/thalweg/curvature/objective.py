"""`Objective`: the loss over the whole, fixed data set, as a function of one flat vector."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, DistributedSampler

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.core.rng import preserved_rng
from thalweg.curvature import determinism
from thalweg.curvature.attention import differentiable_kernels
from thalweg.curvature.unknowns import unknowns

Mode = Literal["eval", "train"]


class Objective:
    r"""The loss over the whole data set as a function of the parameters, one flat vector.

    .. math:: f(x) = \frac{\sum_b w_b\, loss(model_x(b))}{\sum_b w_b}

    over the batches b in a fixed order, :math:`w_b` the rows of batch b. Nothing of the user's is
    changed by any measurement: parameters, ``.grad``, train or eval mode, buffers, the global
    random generators.

    Parameters
    ----------
    training
        The network, its loss and its data. A `thalweg.data.Batches` is read in order, all rows.
    parameters
        The unknowns: parameters of the model, or their names. Default: all with ``requires_grad``.
        The others are constants; parameters the loss does not use have zero derivatives, and
        tied ones count once.
    mode
        In which mode the model is measured. ``"eval"`` (default): no dropout, batch normalization
        with its running statistics. ``"train"`` differs with such layers only: dropout is refused,
        batch statistics need a single batch and warn.
    weight
        ``weight(batch)``, the weight :math:`w_b` of a batch (say, its number of tokens). Default:
        the length of the first tensor of the batch.
    memory
        Bytes that graphs may occupy while they are kept for further Hessian-vector products
        (beyond it they are built batch by batch and dropped). Default 1 GiB.
    group
        The process group over which the data are sharded: sums are all-reduced, so every process
        must make the same calls. Default: the whole world if the data are a ``DataLoader`` with a
        ``DistributedSampler``, else this process alone.

    Attributes
    ----------
    d
        Number of unknowns.
    names, shapes
        Of the parameters, in the order they have in the flat vector.
    dtype, device
        Of the flat vectors.

    Raises
    ------
    TypeError
        For parameters in half precision, of several types, or none of floating point.
    ValueError
        For parameters on several devices or not of the model, and data in random order.

    Examples
    --------
    >>> training = Training.from_function(lambda x: (x**4).sum() / 4, torch.tensor([1.0, 2.0]))
    >>> objective = Objective(training)
    >>> objective.value()
    4.25
    >>> objective.gradient().tolist()
    [1.0, 8.0]
    >>> objective.hvp(torch.tensor([1.0, 1.0])).tolist()
    [3.0, 12.0]
    >>> objective.value(torch.zeros(2))
    0.0
    """

    def __init__(
        self,
        training: Training,
        parameters: Iterable[nn.Parameter | str] | None = None,
        *,
        mode: Mode = "eval",
        weight: Callable[[Any], float] | None = None,
        memory: int = 2**30,
        group: Any = None,
    ) -> None:
        if not isinstance(training, Training):
            raise TypeError(f"training must be a Training, got {type(training).__name__}")
        if isinstance(training.model, nn.parallel.DistributedDataParallel):
            # its forward would arm the hooks of a backward pass that never comes
            training = dataclasses.replace(training, model=training.model.module)
        self.training = training
        self.mode: Mode = check.choice("mode", mode, ("eval", "train"))
        self.memory = int(check.number("memory", memory, ge=0, integer=True))
        self.group = _group(training.data) if group is None else group
        self._weight = weight
        self._parameters = unknowns(training.model, parameters)
        self.names = tuple(self._parameters)
        self.shapes = tuple(p.shape for p in self._parameters.values())
        self.sizes = [shape.numel() for shape in self.shapes]
        self.d = sum(self.sizes)
        first = next(iter(self._parameters.values()))
        self.dtype, self.device = first.dtype, first.device
        self.position = 0  # of the batch being read
        self._caller = _Caller(training.model)
        self._data = determinism.fixed_order(training.data)
        self._checked: list[Tensor] | None = None
        self._products: Any = None
        if self.mode == "train":
            determinism.check_train_mode(training.model)

    # -- the flat vector ---------------------------------------------------------------------

    @property
    def start(self) -> Tensor:
        """The parameters the model holds now, a new flat vector ``(d,)``."""
        return self.flatten([p.detach() for p in self._parameters.values()])

    def flatten(self, tensors: Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor:
        """One flat vector ``(d,)`` of tensors shaped like the parameters, in their order."""
        if isinstance(tensors, Mapping):
            tensors = [tensors[name] for name in self.names]
        return torch.cat([t.reshape(-1) for t in tensors])

    def unflatten(self, x: Tensor) -> dict[str, Tensor]:
        """Views of a flat vector in the shapes of the parameters, by name."""
        return dict(zip(self.names, self.split(self._point("x", x))))

    def split(self, x: Tensor) -> list[Tensor]:
        """Views of ``(..., d)`` in the shapes of the parameters, leading dimensions kept."""
        lead = x.shape[:-1]
        return [
            part.view(*lead, *shape) for part, shape in zip(x.split(self.sizes, -1), self.shapes)
        ]

    @contextmanager
    def put(self, x: Tensor) -> Iterator[None]:
        """The model holds `x` inside the block, and its own values, bit for bit, afterwards."""
        before = [p.detach().clone() for p in self._parameters.values()]
        self.write(x)
        try:
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(self._parameters.values(), before):
                    p.copy_(value)

    @torch.no_grad()
    def write(self, x: Tensor) -> None:
        """Let the model hold `x` from now on (the one method that changes the model)."""
        for p, value in zip(self._parameters.values(), self.split(self._point("x", x))):
            p.copy_(value)

    # -- what is measured --------------------------------------------------------------------

    @torch.inference_mode(False)
    def value(self, x: Tensor | None = None) -> float:
        """The loss f at the flat vector `x` (default: at the model's parameters)."""
        leaves = self.leaves(x, requires_grad=False)
        total, rows = 0.0, 0.0
        with self.measuring(), torch.no_grad():
            for batch, weight in self.batches():
                total += weight * float(self.loss(leaves, batch))
                rows += weight
        total, rows = self.summed(torch.tensor([total, rows], dtype=torch.float64)).tolist()
        return total / self.all_rows(rows)

    def gradient(self, x: Tensor | None = None) -> Tensor:
        r"""The gradient :math:`\nabla f(x)`, a flat vector ``(d,)``."""
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Tensor | None = None) -> tuple[float, Tensor]:
        """Both, at the price of the gradient."""
        value, gradient, _ = self.pass_over_data(x)
        return value, gradient

    @torch.inference_mode(False)
    def pass_over_data(self, x: Tensor | None = None) -> tuple[float, Tensor, float]:
        """The loss, its gradient, and the mean norm of the gradients of the single batches."""
        leaves = self.leaves(x)
        gradient = torch.zeros(self.d, dtype=self.dtype, device=self.device)
        total, norms, rows = 0.0, 0.0, 0.0
        with self.measuring():
            for batch, weight in self.batches():
                f = self.loss(leaves, batch)
                g = self.flat(self.derivative(f, leaves))
                if not torch.isfinite(g).all():
                    raise ValueError(
                        "the gradient must be finite, got "
                        f"{_first_bad(g, self)} in batch {self.position}"
                    )
                gradient.add_(g, alpha=weight)
                total += weight * float(f.detach())
                norms += weight * float(g.norm())
                rows += weight
        sums = torch.tensor([total, norms, rows], dtype=torch.float64)
        total, norms, rows = self.summed(sums).tolist()
        rows = self.all_rows(rows)
        return total / rows, self.summed(gradient).div_(rows), norms / rows

    def hvp(self, v: Tensor, x: Tensor | None = None) -> Tensor:
        r"""The product :math:`\nabla^2 f(x)\, v`.

        Parameters
        ----------
        v
            One vector ``(d,)`` or the columns of ``(d, k)``.
        x
            The flat vector. Default: the model's parameters.
        """
        from thalweg.curvature.hessian import hessian_products

        point = self.start if x is None else self._point("x", x)
        if self._products is None or not self._products.holds(point):
            self._products = hessian_products(self, point)
        return self._products(v)

    def check_deterministic(self) -> None:
        """Raise a ValueError, with the likely cause, unless two passes over the data agree."""
        point = [self.start, *(b.clone() for b in self.training.model.buffers())]
        if self._checked is None or not all(map(torch.equal, self._checked, point)):
            determinism.two_passes(self)
            self._checked = point

    def restricted(self, names: Iterable[str]) -> Objective:
        """The same function of fewer parameters; its determinism counts as checked here."""
        part = Objective(
            self.training,
            names,
            mode=self.mode,
            weight=self._weight,
            memory=self.memory,
            group=self.group,
        )
        if self._checked is not None:
            part._checked = [part.start, *self._checked[1:]]
        return part

    # -- for the operators of this package ---------------------------------------------------

    def leaves(self, x: Tensor | None = None, requires_grad: bool = True) -> list[Tensor]:
        """Copies of the parameters at `x`, leaves of new graphs."""
        with torch.inference_mode(False):
            flat = self.start if x is None else self._point("x", x).detach()
            return [part.clone().requires_grad_(requires_grad) for part in self.split(flat)]

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Mode, kernels, generators and precision set for a pass, and restored afterwards."""
        model = self.training.model
        modes = [(module, module.training) for module in model.modules()]
        with ExitStack() as stack:
            stack.enter_context(preserved_rng())
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.autocast(self.device.type, enabled=False))
            stack.enter_context(differentiable_kernels(model))
            model.train(self.mode == "train")
            try:
                yield
            finally:
                for module, training in modes:
                    module.training = training

    def batches(self) -> Iterator[tuple[Any, float]]:
        """The batches in their order, each with its weight."""
        self.position = -1
        for batch in self._data:
            self.position += 1
            if self.position == 1 and self.mode == "train":
                determinism.refuse_batch_statistics(self.training.model)
            weight = rows(batch) if self._weight is None else float(self._weight(batch))
            # tensors made in inference mode cannot enter a graph
            batch = pytree.tree_map_only(Tensor, _tracked, batch)
            yield batch, float(check.number("the weight of a batch", weight, ge=0))

    def call(self, leaves: Sequence[Tensor], function: Callable[[], Any]) -> Any:
        """`function()` while the model's parameters are `leaves` and its buffers are copies."""
        model = self.training.model
        held = {f"model.{name}": leaf for name, leaf in zip(self.names, leaves)}
        held |= {f"model.{name}": b.detach().clone() for name, b in model.named_buffers()}
        return functional_call(self._caller, held, (function,))

    def loss(self, leaves: Sequence[Tensor], batch: Any) -> Tensor:
        """The loss of a batch, a finite scalar with its graph to the leaves."""
        f = self.call(leaves, lambda: self.training.batch_loss(batch))
        return self.scalar(f)

    def scalar(self, f: Any) -> Tensor:
        """`f` if it is a finite scalar tensor, else an error that names the batch."""
        if not isinstance(f, Tensor) or f.numel() != 1:
            got = tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__
            raise ValueError(
                f"loss must return a scalar tensor, got {got} in batch {self.position}"
            )
        if not torch.isfinite(f):
            raise ValueError(
                f"the loss must be finite, got {float(f.detach())} in batch {self.position}"
            )
        return f.reshape(())

    def derivative(
        self, f: Tensor, leaves: Sequence[Tensor], create_graph: bool = False
    ) -> list[Tensor]:
        """The gradient of a scalar in the leaves; zero where it does not depend on one."""
        if not f.requires_grad:
            return [torch.zeros_like(leaf) for leaf in leaves]
        found = torch.autograd.grad(f, leaves, create_graph=create_graph, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, found)]

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([t.detach().reshape(-1) for t in tensors])

    def summed(self, t: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.group is not None:
            t = t if self.device.type == "cpu" else t.to(self.device)
            torch.distributed.all_reduce(t, group=self.group)
        return t

    def all_rows(self, rows: float) -> float:
        if not rows > 0:
            raise ValueError("data must hold at least one batch with rows, got none")
        return rows

    def _point(self, name: str, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.shape != (self.d,):
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{name} must be a vector of shape ({self.d},), got {got}")
        return x.to(self.device, self.dtype)

    def __repr__(self) -> str:
        return f"Objective({self.training.name}, d={self.d}, {self.dtype}, mode={self.mode!r})"


def rows(batch: Any) -> float:
    """The length of the first tensor of a batch that has a length; 1 for a batch without one."""
    for leaf in pytree.tree_leaves(dict(batch) if isinstance(batch, Mapping) else batch):
        if isinstance(leaf, Tensor) and leaf.dim() > 0:
            return float(len(leaf))
    return 1.0


def _tracked(t: Tensor) -> Tensor:
    return t.clone() if t.is_inference() else t


class _Caller(nn.Module):
    """Calls a function while the parameters of `model` are replaced, the loss's use included."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


def _group(data: Any) -> Any:
    sharded = isinstance(data, DataLoader) and isinstance(data.sampler, DistributedSampler)
    if sharded and data.sampler.num_replicas > 1:
        return torch.distributed.group.WORLD
    return None


def _first_bad(g: Tensor, objective: Objective) -> str:
    for name, part in zip(objective.names, objective.split(g)):
        bad = part[~torch.isfinite(part)]
        if len(bad):
            return f"{float(bad[0])} in {name}"
    return "none"
