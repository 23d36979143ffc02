"""K-FAC and EKFAC: one Kronecker product per linear or convolutional layer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.core import check
from thalweg.curvature.fisher import generator_of, likelihood_of, pair
from thalweg.curvature.objective import Objective

Labels = Literal["exact", "sampled", "empirical"]


@dataclass
class Layer:
    """A layer with its weight (and bias), where they are in the flat vector, and its factors.

    Parameters
    ----------
    name
        Of the module.
    module
        ``nn.Linear`` or ``nn.Conv2d``.
    weight, bias
        Slices of the flat vector; `bias` None where the layer has none among the unknowns.
    """

    name: str
    module: nn.Linear | nn.Conv2d
    weight: slice
    bias: slice | None
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs), the bias as a last input."""
        rows = self.module.weight.shape[0]
        return rows, (self.weight.stop - self.weight.start) // rows + (self.bias is not None)

    def read(self, V: Tensor) -> Tensor:
        """``[W b]`` of each row of V: ``(k, outputs, inputs)``."""
        out, _ = self.shape
        W = V[:, self.weight].view(len(V), out, -1)
        return W if self.bias is None else torch.cat([W, V[:, self.bias].unsqueeze(2)], dim=2)

    def write(self, V: Tensor, M: Tensor) -> None:
        """Put ``[W b]`` of each row back where it was read."""
        if self.bias is not None:
            V[:, self.bias] = M[:, :, -1]
            M = M[:, :, :-1]
        V[:, self.weight] = M.reshape(len(V), -1)

    def activations(self) -> Tensor:
        """What multiplied ``[W b]`` in this batch: ``(rows, positions, inputs)``."""
        parts = [] if self.inputs else [self.module.weight.new_zeros(0, 1, self.shape[1])]
        for a in self.inputs:
            if isinstance(self.module, nn.Conv2d):
                a = _patches(self.module, a)
            else:
                a = a.reshape(len(a), -1, a.shape[-1]) if a.dim() > 1 else a.view(1, 1, -1)
            parts.append(functional.pad(a, (0, 1), value=1.0) if self.bias is not None else a)
        return torch.cat(parts, dim=1)

    def deltas(self, gradients: list[Tensor]) -> Tensor:
        """Gradients in the layer's outputs: ``(rows, positions, outputs)``."""
        parts = [] if gradients else [self.module.weight.new_zeros(0, 1, self.shape[0])]
        for g in gradients:
            if isinstance(self.module, nn.Conv2d):
                parts.append(g.flatten(2).transpose(1, 2))
            else:
                parts.append(
                    g.reshape(len(g), -1, g.shape[-1]) if g.dim() > 1 else g.view(1, 1, -1)
                )
        return torch.cat(parts, dim=1)


def layers_of(objective: Objective) -> list[Layer]:
    """The linear and convolutional layers that hold the unknowns.

    Raises
    ------
    ValueError
        If a parameter belongs to another kind of layer, or to several.
    """
    place, start = {}, 0
    for name, size in zip(objective.names, objective.sizes):
        place[name] = slice(start, start + size)
        start += size
    model = objective.training.model
    named = {id(p): name for name, p in model.named_parameters()}
    found, covered = [], set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        weight = place.get(named.get(id(module.weight), ""))
        bias = None if module.bias is None else place.get(named.get(id(module.bias), ""))
        if weight is None:
            continue
        if isinstance(module, nn.Conv2d) and (
            module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str)
        ):
            continue
        found.append(Layer(name, module, weight, bias))
        for part in (module.weight, module.bias):
            key = named.get(id(part), "") if part is not None else ""
            if key in covered:
                raise ValueError(f"parameters must not be tied for Kronecker factors, got {key}")
            if key in place:
                covered.add(key)
    missing = [name for name in objective.names if name not in covered]
    if missing:
        raise ValueError(
            "parameters must belong to nn.Linear or nn.Conv2d (groups=1, zero padding given in "
            f"numbers) for Kronecker factors, got {', '.join(missing[:5])}"
            f"{' and more' if len(missing) > 5 else ''}: name the others in `parameters`"
        )
    return found


class Kronecker:
    r"""Kronecker-factored curvature, one block :math:`B_l \otimes A_l` per layer.

    .. math::
        A_l = \frac1n \sum_{i,t} a_{it} a_{it}^\top, \qquad
        B_l = \frac{1}{nT} \sum_{i,t} \delta_{it} \delta_{it}^\top

    over rows i and positions t (T = 1 for a linear layer of vectors), a the inputs with a 1
    appended for the bias, :math:`\delta` the gradients in the outputs. With `corrected` (EKFAC)
    the eigenvalues are replaced by the second moments of the gradient in the eigenbasis.

    Parameters
    ----------
    objective
        Whose parameters must belong to linear or convolutional layers.
    x
        Flat vector ``(d,)``.
    kind
        Labels: summed over, drawn, or the data's.
    samples
        Labels drawn per row, for ``"sampled"``.
    seed
        Of the draws.
    corrected
        EKFAC instead of K-FAC.
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        objective: Objective,
        x: Tensor,
        kind: Labels,
        samples: int = 1,
        seed: int = 0,
        corrected: bool = False,
    ) -> None:
        self.objective, self.x, self.kind = objective, x, kind
        self.samples, self.seed = samples, seed
        self.layers = layers_of(objective)
        self.likelihood = None if kind == "empirical" else likelihood_of(objective)
        self.A, self.B = self._factors()
        eigen = [(torch.linalg.eigh(A), torch.linalg.eigh(B)) for A, B in zip(self.A, self.B)]
        self.bases = [(a.eigenvectors, b.eigenvectors) for a, b in eigen]
        self.eigenvalues = [
            b.eigenvalues.clamp_min(0)[:, None] * a.eigenvalues.clamp_min(0)[None] for a, b in eigen
        ]
        if corrected:
            self.eigenvalues = self._second_moments()
        self.corrected = corrected

    def __call__(self, v: Tensor) -> Tensor:
        """The product with ``(d,)`` or the columns of ``(d, k)``."""
        if self.corrected:
            return self._blockwise(v, lambda i, M: self._rotated(i, M, self.eigenvalues[i]))
        return self._blockwise(v, lambda i, M: self.B[i] @ M @ self.A[i])

    def solve(self, v: Tensor, damping: float) -> Tensor:
        r""":math:`(F + \lambda I)^{-1} v`, exactly, by the eigenvectors of the factors."""
        check.number("damping", damping, gt=0)
        return self._blockwise(
            v, lambda i, M: self._rotated(i, M, 1 / (self.eigenvalues[i] + damping))
        )

    def trace(self) -> float:
        """The trace."""
        return sum(float(values.sum()) for values in self.eigenvalues)

    def _rotated(self, i: int, M: Tensor, scale: Tensor) -> Tensor:
        U_A, U_B = self.bases[i]
        return U_B @ ((U_B.T @ M @ U_A) * scale) @ U_A.T

    def _blockwise(self, v: Tensor, block: Callable[[int, Tensor], Tensor]) -> Tensor:
        V = v.T if v.ndim == 2 else v.unsqueeze(0)
        total = torch.zeros_like(V, memory_format=torch.contiguous_format)
        for i, layer in enumerate(self.layers):
            layer.write(total, block(i, layer.read(V)))
        return total.T if v.ndim == 2 else total[0]

    def _factors(self) -> tuple[list[Tensor], list[Tensor]]:
        A = [self._zeros(layer.shape[1], layer.shape[1]) for layer in self.layers]
        B = [self._zeros(layer.shape[0], layer.shape[0]) for layer in self.layers]
        sums = torch.zeros(1, dtype=torch.float64)
        for weight, columns in self._batches():
            sums += weight
            for i, layer in enumerate(self.layers):
                a = layer.activations()
                A[i].addmm_(a.flatten(0, 1).T, a.flatten(0, 1), alpha=weight / max(len(a), 1))
            for gradients in columns:
                for i, g in enumerate(gradients):
                    # g carries the square root of 1/n: its outer products sum to the mean
                    B[i].addmm_(g.flatten(0, 1).T, g.flatten(0, 1), alpha=weight / g.shape[1])
        total = self.objective.all_rows(float(self.objective.summed(sums)))
        return (
            [self.objective.summed(a).div_(total) for a in A],
            [self.objective.summed(b).div_(total) for b in B],
        )

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=self.objective.dtype, device=self.objective.device)

    def _second_moments(self) -> list[Tensor]:
        S = [self._zeros(*layer.shape) for layer in self.layers]
        sums = torch.zeros(1, dtype=torch.float64)
        for weight, columns in self._batches():
            sums += weight
            turned = [layer.activations() @ U_A for layer, (U_A, _) in zip(self.layers, self.bases)]
            for gradients in columns:
                for i, g in enumerate(gradients):
                    a, g = turned[i], g @ self.bases[i][1]
                    if g.shape[1] == 1:
                        S[i].addmm_(g[:, 0].square().T, a[:, 0].square(), alpha=weight)
                    else:
                        S[i].add_((g.transpose(1, 2) @ a).square().sum(0), alpha=weight)
        total = self.objective.all_rows(float(self.objective.summed(sums)))
        return [self.objective.summed(s).div_(total) for s in S]

    def _batches(self) -> Iterator[tuple[float, Iterator[list[Tensor]]]]:
        """Each batch's weight, and for each column of the output's factor the layers' deltas.

        The layers hold the batch's inputs while it is worked on.
        """
        objective = self.objective
        with objective.measuring():
            for batch, weight in objective.batches():
                inputs, y = pair(batch)
                with _captured(self.layers):
                    leaves = objective.leaves(self.x)
                    run = functools.partial(objective.training.model, inputs)
                    z = objective.call(leaves, run)
                    yield weight, self._deltas(z, y)

    def _deltas(self, z: Tensor, y: Tensor) -> Iterator[list[Tensor]]:
        heads = [t for layer in self.layers for t in layer.outputs]
        for u in self._columns(z, y):
            gradients = list(
                torch.autograd.grad(
                    z, heads, u, retain_graph=True, allow_unused=True, materialize_grads=True
                )
            )
            deltas = []
            for layer in self.layers:
                own = [gradients.pop(0) for _ in layer.outputs]
                deltas.append(layer.deltas(own))
            yield deltas

    def _columns(self, z: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Gradients in the outputs, times the square root of their weight in the mean."""
        held = z.detach()
        if self.kind == "exact":
            assert self.likelihood is not None
            yield from self.likelihood.factor(held, y)
        elif self.kind == "sampled":
            assert self.likelihood is not None
            generator = generator_of(self.objective, self.seed)
            for _ in range(self.samples):
                yield self.likelihood.drawn(held, y, generator) / self.samples**0.5
        else:
            held.requires_grad_()
            f = self.objective.scalar(self.objective.training.loss(held, y))
            (g,) = torch.autograd.grad(f, held)
            # the loss is a mean over rows: the row's own gradient is n g
            yield g * len(g) ** 0.5


@contextmanager
def _captured(layers: list[Layer]) -> Iterator[None]:
    """Let the layers remember their inputs and outputs while they run; forget them afterwards."""
    handles = []
    for layer in layers:

        def remember(
            _: nn.Module, args: tuple[Any, ...], output: Tensor, layer: Layer = layer
        ) -> Tensor:
            layer.inputs.append(args[0].detach())
            layer.outputs.append(output)
            # what follows may work in place, and the gradient is wanted before that
            return output.clone()

        handles.append(layer.module.register_forward_hook(remember))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            layer.inputs.clear()
            layer.outputs.clear()


def _patches(module: nn.Conv2d, a: Tensor) -> Tensor:
    assert not isinstance(module.padding, str)
    patches = functional.unfold(
        a, module.kernel_size, module.dilation, module.padding, module.stride
    )
    return patches.transpose(1, 2)
