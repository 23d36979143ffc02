"""An update compiled once for every size and every lr.

The compiler sees the rule with its hyper-parameters as 0-d tensors. Before code is generated, all
arithmetic on hyper-parameters alone (``1 - beta1**k``) is taken out of the graph and done in double
precision on Python floats, once per step; what remains is one loop over memory that reads a handful
of numbers. The compiled loop is then called directly: a call costs about 5 microseconds, where a
call through the compiler's front end costs 22, which on a 24-tensor model is 10 % of a step.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import shutil
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from thalweg.optim.engine.update import Update, compute_dtype


class Compiled:
    """One rule, compiled for one combination of formats; any number of sizes and values.

    Parameters
    ----------
    update
        What `in_place` made.
    counts
        How many state, input and extra tensors there are.
    names
        The names of the numbers, in the order in which `scalars` takes them.
    examples
        p, g, state, inputs and extra tensors to trace with, all of them distinct in memory.
    """

    def __init__(
        self,
        update: Update,
        counts: tuple[int, int, int],
        names: Sequence[str],
        examples: Sequence[Tensor],
    ) -> None:
        n_state, n_inputs, _ = counts
        self.dtype = compute_dtype(examples[0].dtype)
        self.device = examples[0].device
        hypers = [torch.tensor(0.5, dtype=torch.float64) for _ in names]

        def traced(tensors: list[Tensor], numbers: list[Tensor]) -> None:
            p, g, *rest = tensors
            update(
                p,
                g,
                rest[:n_state],
                rest[n_state : n_state + n_inputs],
                rest[n_state + n_inputs :],
                dict(zip(names, numbers, strict=True)),
            )

        def backend(graph: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
            self._build(graph, inputs, list(examples), hypers)
            return lambda *_: ()

        def compile_it(**how: Any) -> None:
            # torch limits how often one piece of code is compiled; every try has a copy of its own.
            code = traced.__code__.replace()
            fresh = types.FunctionType(code, traced.__globals__, "traced", None, traced.__closure__)
            with torch.no_grad(), _settings(**how):
                torch.compile(fresh, backend=backend, dynamic=True, fullgraph=True)(
                    list(examples), hypers
                )

        if self.device.type != "cpu":
            compile_it()
            return
        try:
            compile_it(trust_vector_instructions=True)
        except Exception:
            # What is wrong with the rule is wrong again; a compiler too old for this processor's
            # vector instructions is found out by torch's probes.
            compile_it()

    def _build(
        self,
        graph: fx.GraphModule,
        inputs: list[Any],
        examples: list[Tensor],
        hypers: list[Tensor],
    ) -> None:
        by_address = {t.data_ptr(): ("tensor", i) for i, t in enumerate(examples)}
        by_address |= {t.data_ptr(): ("number", i) for i, t in enumerate(hypers)}
        sources: dict[fx.Node, tuple[str, Any]] = {}
        placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
        values = dict(zip(placeholders, inputs, strict=True))
        for node, value in values.items():
            if isinstance(value, Tensor):
                sources[node] = by_address[value.data_ptr()]
            else:
                sources[node] = _locate(value.node.hint, examples)

        #: False if the rule asked how large its tensors are: its code serves these sizes only.
        #: (That a length of p is the length of g, or is 1 and broadcast, is no such question; and
        #: code for rows that lie apart serves rows that do not.)
        lengths = {n: value.node for n, value in values.items() if isinstance(value, torch.SymInt)}
        apart = {node.expr for n, node in lengths.items() if sources[n][0] == "stride"}
        guards = next(iter(lengths.values())).shape_env.guards if lengths else ()
        self.for_all_sizes = all(
            guard.expr.free_symbols & apart or _holds_for_equal_lengths(guard.expr)
            for guard in guards
        )
        if not self.for_all_sizes:
            return
        scalar = {node for node in placeholders if sources[node][0] == "number"}
        for node in list(graph.graph.nodes):
            needed = node.all_input_nodes
            if node.op.startswith("call_") and needed and all(n in scalar for n in needed):
                scalar.add(node)
            elif node.target is operator.truediv and node.args[1] in scalar:
                # One division a step instead of one per entry, which costs ten multiplications.
                with graph.graph.inserting_before(node):
                    inverse = graph.graph.call_function(_inverse, (node.args[1],))
                node.target, node.args = operator.mul, (node.args[0], inverse)
                scalar.add(inverse)
        boundary = [n for n in graph.graph.nodes if n in scalar and not set(n.users) <= scalar]

        self._numbers = [sources[node][1] for node in placeholders if node in scalar]
        self._scalars, self._on_floats = _scalar_part(graph, placeholders, scalar, boundary)

        loop = fx.Graph()
        copied: dict[fx.Node, fx.Node] = {}
        self._arguments: list[tuple[str, Any]] = []
        arguments: list[Any] = []
        for node in placeholders:
            if node not in scalar:
                copied[node] = loop.placeholder(node.name)
                copied[node].meta = dict(node.meta)
                self._arguments.append(sources[node])
                arguments.append(values[node])
        vector = loop.placeholder("scalars")
        arguments.append(torch.zeros(len(boundary), dtype=self.dtype, device=self.device))
        for i, node in enumerate(boundary):
            copied[node] = loop.call_function(operator.getitem, (vector, i))
        for node in graph.graph.nodes:
            if node not in copied and node not in scalar:
                copied[node] = loop.node_copy(node, lambda n: copied[n])
        self._generate(fx.GraphModule(graph, loop), arguments)
        # A loop fixed to the example's size would write past the end of other tensors.
        for value in arguments:
            if isinstance(value, torch.SymInt) and value.node.maybe_as_int() is not None:
                raise RuntimeError(
                    f"the rule {graph} compiles for one size only; it must not branch on shapes"
                )

    def _generate(self, graph: fx.GraphModule, arguments: list[Any]) -> None:
        """Generate the code, and keep what calls it directly where nothing else is left to do.

        Around the generated code torch puts wrappers for what a graph may need (outputs to rebuild,
        aliases, gradients); they take twice as long as the call. This one has nothing but inputs
        that it changes.
        """
        from torch._functorch import config as functorch_config
        from torch._inductor.compile_fx import compile_fx, compile_fx_inner

        generated: list[tuple[Any, list[Any], list[Any]]] = []

        def inner(graph: fx.GraphModule, inputs: list[Any], **how: Any) -> Any:
            outputs = [node.args[0] for node in graph.graph.nodes if node.op == "output"]
            code = compile_fx_inner(graph, inputs, **how)
            generated.append((code, list(inputs), outputs))
            return code

        with functorch_config.patch(enable_autograd_cache=False):
            wrapped: Any = compile_fx(graph, arguments, inner_compile=inner)
        self._changed: list[int] = []
        self._loop: Any = lambda inputs: wrapped(*inputs)
        if len(generated) != 1:
            return
        code, inputs, outputs = generated[0]
        changed = getattr(code, "mutated_input_idxs", None)
        alike = len(inputs) == len(arguments) and all(
            isinstance(a, Tensor) == isinstance(b, Tensor)
            and (not isinstance(a, Tensor) or (a.dtype == b.dtype and a.dim() == b.dim()))
            for a, b in zip(inputs, arguments, strict=True)
        )
        if alike and changed and not any(outputs):
            self._loop = getattr(code, "current_callable", code)
            self._changed = [self._arguments[i][1] for i in changed]

    @property
    def goes_by_address(self) -> bool:
        """Whether the loop reads memory and lengths only, whatever shapes its tensors claim."""
        return bool(self._changed)

    def scalars(self, numbers: Sequence[float]) -> Tensor:
        """All arithmetic on numbers alone, in double precision: the vector `__call__` reads."""
        used = [numbers[i] for i in self._numbers]
        if self._on_floats:
            values = self._scalars.forward(*used)
        else:
            tensors = [torch.tensor(value, dtype=torch.float64) for value in used]
            values = [float(value) for value in self._scalars(*tensors)]
        return torch.tensor(values, dtype=self.dtype, device=self.device)

    def __call__(self, tensors: Sequence[Tensor], scalars: Tensor) -> None:
        """Update `tensors` (p, g, state, inputs, extra) in place."""
        self._loop([*self._ordered(tensors), scalars])
        if self._changed:
            torch.autograd.graph.increment_version([tensors[i] for i in self._changed])

    def _ordered(self, tensors: Sequence[Tensor]) -> list[Any]:
        """What the loop is called with, but for the scalars at the end."""
        return [
            tensors[where]
            if kind == "tensor"
            else (tensors[where[0]].shape if kind == "size" else tensors[where[0]].stride())[
                where[1]
            ]
            for kind, where in self._arguments
        ]


class Calls:
    """Calls of one compiled update that come back every step: gradients, sums and numbers are new.

    On a model of 24 tensors, looking up the rest again takes as long as a tenth of the step.

    Parameters
    ----------
    loop
        The compiled update.
    tensors
        For each call, what `loop` would be called with.
    n_totals
        How many of them, the last ones, are sums that are new every step too.
    """

    def __init__(
        self, loop: Compiled, tensors: Sequence[Sequence[Tensor]], n_totals: int = 0
    ) -> None:
        self.loop = loop
        where = {source: i for i, source in enumerate(loop._arguments)}
        # A rule that does not look at the gradient: its place is that of the scalars, put in later.
        self._gradient = where.get(("tensor", 1), -1)
        kept = len(tensors[0]) - n_totals
        self._totals = [where["tensor", kept + i] for i in range(n_totals)]
        self._calls: list[list[Any]] = [[*loop._ordered(each), None] for each in tensors]
        for call in self._calls:
            for i in (self._gradient, *self._totals):
                call[i] = None  # not kept alive
        self._moved = [each[i] for each in tensors for i in loop._changed if i < kept]

    def __call__(
        self,
        gradients: Sequence[Tensor],
        totals: Sequence[Sequence[Tensor]],
        scalars: Sequence[Tensor],
    ) -> None:
        """Update all tensors in place, given what each call reads."""
        run, gradient = self.loop._loop, self._gradient
        for call, g, sums, own in zip(self._calls, gradients, totals, scalars, strict=True):
            arguments = call.copy()  # the compiled code empties the list it is given
            arguments[gradient] = g
            for i, value in zip(self._totals, sums, strict=True):
                arguments[i] = value
            arguments[-1] = own
            run(arguments)
        if self._moved:
            torch.autograd.graph.increment_version(self._moved)


@contextlib.contextmanager
def _settings(trust_vector_instructions: bool = False) -> Iterator[None]:
    """How the compiler is set while a rule is compiled.

    The passes over joint graphs look for patterns of networks (attention, matrix products): half a
    second to load, nothing to find in a rule. To trust the vector instructions that the processor
    names saves a second of probing them, each in a process of its own.
    """
    from torch._inductor import config, cpu_vec_isa, test_operators  # noqa: F401 (for realize)

    wanted = {
        # One thread count for all calls: the code cache of inductor does not look at size hints,
        # so every trace uses the same large example and names its threads.
        "cpp.threads": torch.get_num_threads(),
        "size_asserts": False,
        "alignment_asserts": False,
        "scalar_asserts": False,
        "use_joint_graph_passes": False,
    }
    trusting = trust_vector_instructions and config.cpp.vec_isa_ok is None
    if trusting:
        wanted["cpp.vec_isa_ok"] = True
    known = {name: value for name, value in wanted.items() if _is_known(config, name)}
    probed: Any = getattr(cpu_vec_isa, "valid_vec_isa_list", None)
    # Other numbers that a rule reads, such as default arguments, are constants.
    with (
        torch._dynamo.config.patch(specialize_float=True, specialize_int=True),
        config.patch(known),
    ):
        try:
            yield
        finally:
            # What was not probed must not count as probed for the compilations of others.
            if trusting and hasattr(probed, "cache_clear"):
                probed.cache_clear()


def _is_known(config: Any, name: str) -> bool:
    """Whether this version of torch has the setting."""
    for part in name.split("."):
        if not hasattr(config, part):
            return False
        config = getattr(config, part)
    return True


def _holds_for_equal_lengths(guard: Any) -> bool:
    """Whether the compiler asked only for equalities, true once all the lengths are the same."""
    from sympy.core.relational import Equality, Relational  # type: ignore[import-untyped]

    symbols = sorted(guard.free_symbols, key=str)
    equalities = all(isinstance(part, Equality) for part in guard.atoms(Relational))
    alike = guard.xreplace(dict.fromkeys(symbols, symbols[0]))
    return bool(symbols) and equalities and bool(alike == True)  # noqa: E712


def _locate(number: int, examples: Sequence[Tensor]) -> tuple[str, tuple[int, int]]:
    """Which tensor and dimension has this length, or this stride."""
    for kind, of in (("size", Tensor.size), ("stride", Tensor.stride)):
        for i, tensor in enumerate(examples):
            for d, found in enumerate(of(tensor)):
                if found == number:
                    return kind, (i, d)
    raise AssertionError(f"no example has a length or a stride of {number}")


def _inverse(value: Any) -> Any:
    """1 / value; infinite for 0, as it is for tensors."""
    if isinstance(value, Tensor) or value != 0:
        return 1 / value
    return math.copysign(math.inf, value)


def _scalar_part(
    graph: fx.GraphModule,
    placeholders: list[fx.Node],
    scalar: set[fx.Node],
    boundary: list[fx.Node],
) -> tuple[fx.GraphModule, bool]:
    """The arithmetic on numbers alone, and whether Python floats can go through it."""
    part = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    on_floats = True
    for node in placeholders:
        if node in scalar:
            copied[node] = part.placeholder(node.name)
    for node in graph.graph.nodes:
        if node in scalar and node not in copied:
            copied[node] = part.node_copy(node, lambda n: copied[n])
            module = getattr(node.target, "__module__", "")
            on_floats &= node.op == "call_function" and (
                module in ("_operator", "builtins") or node.target is _inverse
            )
    part.output([copied[node] for node in boundary])
    return fx.GraphModule(graph, part), on_floats


@functools.cache
def compiler_available(device_type: str) -> bool:
    """True if code can be compiled here for this kind of device."""
    if device_type == "cpu":
        from torch._inductor import config

        candidates = config.cpp.cxx if isinstance(config.cpp.cxx, tuple) else (config.cpp.cxx,)
        return any(shutil.which(c) for c in candidates if c)
    if device_type == "cuda":
        from torch.utils._triton import has_triton

        return bool(has_triton())
    return False
