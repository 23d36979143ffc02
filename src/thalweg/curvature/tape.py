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

aten = torch.ops.aten

Linear = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]

# a recorded function must agree with the original on a random vector to this, relative
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
# their results depend on more than the arguments, or their calls on what the arguments hold
_UNPREDICTABLE = {
    torch.Tag.nondeterministic_seeded,
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
}
_ZEROS = (aten.zeros_like.default, aten.new_zeros.default)
# their results are memory nothing else looks at
_FRESH = (aten.mm.default, aten.addmm.default, aten.addmm_.default, aten.mul.Tensor)


def record(function: Linear, like: Sequence[Tensor]) -> Linear | None:
    r"""Return a linear function that does the same with fewer and cheaper operations, or None.

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
    Callable or None
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
    first, second = ([_noise(t, generator) for t in like] for _ in range(2))
    recorder = _Recorder(first)
    try:
        with recorder:
            graph = recorder.finished(function(first))
        if graph is None:
            return None
        for simplify in (_skip_zeros, _pull_transposes, _accumulate_products):
            simplify(graph)
            graph.eliminate_dead_code()
        replay = _compiled(graph, recorder.constants)
        return replay if _agree(function(second), replay(second)) else None
    except RuntimeError:  # an operation that cannot be recorded
        return None


class _Recorder(TorchDispatchMode):
    """Writes down every operation that depends on the inputs."""

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


def _skip_zeros(graph: fx.Graph) -> None:
    """``x + 0`` is x."""
    for node in graph.nodes:
        if _is_sum(node):
            for zero, other in (node.args, node.args[::-1]):
                if zero.target in _ZEROS and other.meta.get("like") == node.meta["like"]:
                    node.replace_all_uses_with(other)
                    break


def _pull_transposes(graph: fx.Graph) -> None:
    r""":math:`X^{TT} = X` and :math:`X^T + Y^T = (X + Y)^T`."""
    for node in graph.nodes:
        if node.target is aten.t.default and node.args[0].target is aten.t.default:
            node.replace_all_uses_with(node.args[0].args[0])
        elif _is_sum(node) and all(x.target is aten.t.default for x in node.args):
            x, y = (part.args[0] for part in node.args)
            if x.meta.get("like", 0) == y.meta.get("like", 1):
                with graph.inserting_before(node):
                    total = graph.call_function(aten.add.Tensor, (x, y))
                    total.meta["like"] = x.meta["like"]
                    node.replace_all_uses_with(graph.call_function(aten.t.default, (total,)))


def _accumulate_products(graph: fx.Graph) -> None:
    """``C + A B`` in one call, in the memory of C where nothing else needs that."""
    for node in graph.nodes:
        if not _is_sum(node):
            continue
        ways = [
            (c, m)
            for c, m in (node.args, node.args[::-1])
            if m.target is aten.mm.default
            and len(m.users) == 1
            and c.meta.get("like") == m.meta["like"] == node.meta["like"]
        ]
        # the one that needs no new memory, if there is one
        ways.sort(key=lambda way: not _is_free(way[0]))
        if ways:
            c, m = ways[0]
            with graph.inserting_before(node):
                call = aten.addmm_.default if _is_free(c) else aten.addmm.default
                result = graph.call_function(call, (c, *m.args))
            result.meta["like"] = node.meta["like"]
            node.replace_all_uses_with(result)
            graph.erase_node(node)
            graph.erase_node(m)


def _is_free(node: fx.Node) -> bool:
    return node.target in _FRESH and len(node.users) == 1


def _is_sum(node: fx.Node) -> bool:
    two = len(node.args) == 2 and all(isinstance(x, fx.Node) for x in node.args)
    return node.target is aten.add.Tensor and two and not node.kwargs


def _compiled(graph: fx.Graph, constants: dict[str, Tensor]) -> Linear:
    # no GraphModule: it is part of a reference cycle, and the constants would wait for the
    # garbage collector
    code = graph.python_code("self")
    scope = dict(code.globals)
    exec(code.src, scope)  # what torch.fx wrote
    run = scope["forward"]
    used = {node.target for node in graph.nodes if node.op == "get_attr"}
    held = SimpleNamespace(**{name: t for name, t in constants.items() if name in used})

    def replay(v: Sequence[Tensor]) -> Sequence[Tensor | None]:
        with torch.no_grad():
            return run(held, *v)

    return replay


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


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
