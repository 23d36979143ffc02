"""A linear function of tensors, recorded as the list of operations it consists of."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from thalweg.curvature.folding import Fold, foldings
from thalweg.curvature.rewriting import in_least_memory, simplified
from thalweg.curvature.workspace import plan, taken

Linear = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]

# a recorded function must agree with the original on a random vector to this, relative
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
# their results depend on more than the arguments, or their calls on what the arguments hold
_UNPREDICTABLE = {
    torch.Tag.nondeterministic_seeded,
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
}
# tensors of a folding may hold this many times what the record does: memory has been reserved for
# three times what the graph of the loss holds
_MOST_FOLDED = 2


def record(function: Linear, like: Sequence[Tensor]) -> Record | None:
    r"""Return a record that does the same with fewer and cheaper operations, or None.

    A backward pass is a fixed list of operations (a Wengert list) once its graph stands. The list
    is recorded in one run and simplified: what does not depend on the arguments is computed once,
    zeros are not added (the second derivative of a ReLU), and a product that is added to something
    becomes one call, :math:`C + AB`. The recorded function holds all it needs; it does not look at
    `function` again.

    That the two agree is checked on a random vector: for linear functions A, B the probability is
    zero that :math:`A v = B v` although :math:`A \ne B` (Freivalds). None if they do not, as when
    operations write into constants or look at the values of the arguments.

    Parameters
    ----------
    function
        Linear, from tensors to tensors or None.
    like
        Tensors of the shapes and types of the arguments.

    Returns
    -------
    Record or None
        From arguments to the same results.

    Examples
    --------
    >>> A = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> replay = record(lambda v: [A.T @ v[0] + A.exp().log() @ v[0]], [A])
    >>> replay([torch.eye(2)])[0].tolist()
    [[2.0, 5.0], [5.0, 8.0]]
    >>> record(lambda v: [v[0] * v[0].max().item()], [torch.ones(2)]) is None  # not linear
    True

    References
    ----------
    Griewank & Walther, "Evaluating Derivatives", SIAM 2008, ch. 2; Freivalds, "Probabilistic
    machines can use less running time", IFIP 1977.
    """
    generator = torch.Generator().manual_seed(0)
    first, second = (
        [_noise(t.shape, t.dtype, t.device, generator) for t in like] for _ in range(2)
    )
    try:
        found = recorded(function, first)
        if found is None:
            return None
        replay = Record(*found, like)
        return replay if _agree(function(second), replay(second)) else None
    except RuntimeError:  # an operation that cannot be recorded
        return None


def recorded(function: Linear, v: Sequence[Tensor]) -> tuple[fx.Graph, dict[str, Tensor]] | None:
    """The simplified graph of a linear function, run on `v`, and its constants.

    Examples
    --------
    >>> graph, constants = recorded(lambda v: [v[0] @ (2 * torch.eye(2))], [torch.ones(2, 2)])
    >>> [node.op for node in graph.nodes]
    ['placeholder', 'get_attr', 'call_function', 'output']
    >>> [t.tolist() for t in constants.values()]
    [[[2.0, 0.0], [0.0, 2.0]]]
    """
    recorder = _Recorder(v)
    with recorder:
        graph = recorder.finished(function(v))
    if graph is None:
        return None
    return simplified(graph, recorder.constants), recorder.constants


class Record:
    """A linear function as a list of operations, which holds all it needs.

    Parameters
    ----------
    graph
        The operations.
    constants
        By the names the graph has for them.
    like
        Tensors of the shapes and types of the arguments.

    Attributes
    ----------
    pays_after
        The number of products that save what `fold` costs; None if there is nothing to fold.

    Examples
    --------
    >>> replay = record(lambda v: [2 * v[0]], [torch.ones(2)])
    >>> replay([torch.tensor([1.0, 2.0])])[0].tolist(), replay.pays_after
    ([2.0, 4.0], None)
    """

    def __init__(
        self, graph: fx.Graph, constants: dict[str, Tensor], like: Sequence[Tensor]
    ) -> None:
        self._like = [(t.shape, t.dtype, t.device) for t in like]
        self._code = _Code(graph, constants)
        self._folds: list[tuple[Fold, Tensor]] = []
        self._folding = foldings(graph, constants)
        if self._folding is not None and (
            self._folding.entries > _MOST_FOLDED * self._code.numbers
        ):
            self._folding = None
        self._constants = constants if self._folding is not None else {}

    @property
    def pays_after(self) -> int | None:
        return None if self._folding is None else self._folding.pays_after

    def memory(self) -> list[Tensor]:
        """Room for intermediate results, for any number of calls one after another."""
        return taken(self._code.shapes, self._like[0][2])

    def __call__(
        self, v: Sequence[Tensor], memory: Sequence[Tensor] | None = None
    ) -> Sequence[Tensor | None]:
        """The results; once `fold` has been called, without what `add_folded` adds.

        Parameters
        ----------
        v
            The arguments.
        memory
            What `memory` returned. Default: taken for this call.
        """
        return self._code(v, self.memory() if memory is None else memory)

    def fold(self) -> None:
        """Do the sums over rows of the data once that are the same for all products."""
        if self._folding is None:
            return
        folding, constants = self._folding, self._constants
        self._folding, self._constants = None, {}
        before, held = self._code, self._folds
        generator = torch.Generator().manual_seed(2)
        v = [_noise(*like, generator) for like in self._like]
        want = self(v)
        self._code = _Code(folding.graph, constants)
        self._folds = list(zip(folding.folds, folding.tensors(), strict=True))
        got = [v[0].new_zeros(0) if t is None else t[None].clone() for t in self(v)]
        self.add_folded([x[None] for x in v], got)
        if not _agree(want, [None if w is None else t[0] for w, t in zip(want, got)]):
            self._code, self._folds = before, held

    @torch.no_grad()
    def add_folded(self, V: Sequence[Tensor], total: Sequence[Tensor]) -> None:
        """Add to the results in `total` what is folded, of the arguments `V` of many vectors."""
        for fold, T in self._folds:
            fold.add(T, V, total)


class _Recorder(TorchDispatchMode):
    """Writes down every operation that depends on the inputs."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what skips it imports it first, for most of a second

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self._faithful = True
        self._held: list[Any] = []  # what was seen, so that identities stay unique
        self._variables: dict[int, fx.Node] = {}
        self._fixed: dict[int, fx.Node] = {}
        for i, t in enumerate(inputs):
            self._place(self.graph.placeholder(f"v{i}"), t)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self._held.append((args, kwargs, out))
        if not any(id(t) in self._variables for t in pytree.tree_leaves((args, kwargs))):
            return out  # a constant
        func = _out_of_place(func)  # its result stands for what was written into from now on
        if func is None or not _UNPREDICTABLE.isdisjoint(func.tags):
            self._faithful = False
        elif self._faithful:
            args, kwargs = pytree.tree_map(self._written, (args, kwargs))
            node = self.graph.call_function(func, tuple(args), kwargs)
            if isinstance(out, Tensor):
                self._place(node, out)
            else:
                for i, part in enumerate(out):
                    self._place(self.graph.call_function(operator.getitem, (node, i)), part)
        return out

    def finished(self, found: Sequence[Tensor | None]) -> fx.Graph | None:
        """The graph with these outputs; None if it would not do what was run."""
        self.graph.output(tuple(self._written(t) for t in found))
        self._held.clear()
        return self.graph if self._faithful else None

    def _place(self, node: fx.Node, t: Any) -> None:
        if isinstance(t, Tensor):
            self._held.append(t)
            self._variables[id(t)] = node
            node.meta["like"] = (t.shape, t.dtype)

    def _written(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or id(value) in self._variables:
            return self._variables[id(value)] if isinstance(value, Tensor) else value
        if id(value) not in self._fixed:
            name = f"c{len(self.constants)}"
            self._held.append(value)
            self.constants[name] = value.detach()
            self._fixed[id(value)] = self.graph.get_attr(name)
        return self._fixed[id(value)]


def _out_of_place(func: Any) -> Any:
    """The operation that returns what `func` writes into its first argument, if there is one."""
    if not func._schema.is_mutable:
        return func
    namespace, name = func._schema.name.split("::")
    plain = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    return getattr(plain, func._overloadname, None) if name.endswith("_") else None


class _Code:
    """A graph as a function that writes into memory it is given."""

    def __init__(self, graph: fx.Graph, constants: dict[str, Tensor]) -> None:
        finished = in_least_memory(graph)
        self.shapes = plan(finished)
        # no GraphModule: it is part of a reference cycle, and the constants would wait for the
        # garbage collector
        code = finished.python_code("self")
        scope = dict(code.globals)
        exec(code.src, scope)  # what torch.fx wrote
        self._run = scope["forward"]
        used = {node.target for node in finished.nodes if node.op == "get_attr"}
        self.held = SimpleNamespace(**{name: t for name, t in constants.items() if name in used})

    @property
    def numbers(self) -> int:
        """How many numbers are held."""
        held = vars(self.held).values()
        return sum({t.untyped_storage().data_ptr(): t.numel() for t in held}.values())

    @torch.no_grad()
    def __call__(self, v: Sequence[Tensor], memory: Sequence[Tensor]) -> Sequence[Tensor | None]:
        return self._run(self.held, *v, *memory)


def _noise(
    shape: torch.Size, dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=dtype).to(device)


def _agree(want: Sequence[Tensor | None], got: Sequence[Tensor | None]) -> bool:
    size, error, tolerance = 0.0, 0.0, 0.0
    for a, b in zip(want, got, strict=True):
        if a is None or b is None:
            if a is not b:
                return False
            continue
        size += float(torch.linalg.vector_norm(a, dtype=torch.float64)) ** 2
        error += float(torch.linalg.vector_norm(a - b, dtype=torch.float64)) ** 2
        tolerance = max(tolerance, _TOLERANCE.get(a.dtype, 0.0))
    return error <= tolerance**2 * size
