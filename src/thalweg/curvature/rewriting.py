"""Simpler forms of the graph of a linear function: fewer operations, less memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

# entry by entry, and linear in the one argument that varies
ENTRYWISE = (
    aten.mul.Tensor,
    aten.threshold_backward.default,
    aten.tanh_backward.default,
    aten.sigmoid_backward.default,
    aten.gelu_backward.default,
    aten.silu_backward.default,
    aten.softplus_backward.default,
    aten.leaky_relu_backward.default,
    aten.elu_backward.default,
    aten.hardtanh_backward.default,
)
_ZEROS = (aten.zeros_like.default, aten.new_zeros.default)
# their results are memory nothing else looks at
_FRESH = (
    aten.mm.default,
    aten.addmm.default,
    aten.addmm_.default,
    aten.add_.Tensor,
    aten.mul.Tensor,
)
# a product with fewer columns takes half the time as the transpose of a product with as few rows
# (measured with MKL, 2 to 15 columns, both precisions)
_NARROW = 16


def copy_of(graph: fx.Graph) -> fx.Graph:
    """The same operations, in a graph of their own.

    Examples
    --------
    >>> graph = fx.symbolic_trace(lambda v: v + v).graph
    >>> [node.name for node in copy_of(graph).nodes]
    ['v', 'add', 'output']
    """
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph, {}))
    return copy


def simplified(graph: fx.Graph, constants: dict[str, Tensor]) -> fx.Graph:
    """Return `graph` with fewer operations, changed in place.

    Parameters
    ----------
    graph
        Of a linear function; its nodes know what their values are like (``meta["like"]``: shape
        and type).
    constants
        By the names the graph has for them; new ones are put in.

    Examples
    --------
    >>> from thalweg.curvature.tape import recorded
    >>> v = [torch.ones(2, 2), torch.ones(2, 2)]
    >>> graph, constants = recorded(lambda v: [v[0].t() + v[1].t()], v)  # simplified in there
    >>> [n.target.__name__ for n in graph.nodes if n.op == "call_function"]
    ['add.Tensor', 't.default']
    """
    _write_softmax_out(graph, constants)
    for simplify in (_skip_zeros, _pull_transposes):
        simplify(graph)
        graph.eliminate_dead_code()
    return graph


def in_least_memory(graph: fx.Graph) -> fx.Graph:
    """Return a copy of `graph` that writes results over what is not needed any more.

    It is to be run and not to be rewritten again.

    Parameters
    ----------
    graph
        As `simplified` leaves it.

    Examples
    --------
    >>> from thalweg.curvature.tape import recorded
    >>> A = torch.ones(2, 2)
    >>> graph, _ = recorded(lambda v: [A @ v[0] + A @ v[1]], [A, A])
    >>> [n.target.__name__ for n in in_least_memory(graph).nodes if n.op == "call_function"]
    ['mm.default', 'addmm_.default']
    """
    graph = copy_of(graph)
    rewrites = (
        _turn_narrow_products,
        _pull_transposes,
        _put_products_first,
        _accumulate,
        _scale_in_place,
    )
    for rewrite in rewrites:
        rewrite(graph)
        graph.eliminate_dead_code()
    return graph


def inputs(node: fx.Node) -> list[fx.Node]:
    """The nodes among the positional arguments of `node`."""
    return [x for x in node.args if isinstance(x, fx.Node)]


def is_sum(node: fx.Node) -> bool:
    """Is it the sum of two different nodes?"""
    if node.target is not aten.add.Tensor or node.kwargs or len(node.args) != 2:
        return False
    return all(isinstance(x, fx.Node) for x in node.args) and node.args[0] is not node.args[1]


def is_constant(value: Any) -> bool:
    """Is it a constant of the graph?"""
    return isinstance(value, fx.Node) and value.op == "get_attr"


def parts(node: fx.Node) -> list[fx.Node]:
    """The two tensors that `node` is the sum of, both of its shape; else none."""
    same = is_sum(node) and all(x.meta.get("like") == node.meta["like"] for x in inputs(node))
    return inputs(node) if same else []


def terms(node: fx.Node) -> Iterator[fx.Node]:
    """What `node` is the sum of, all of one shape."""
    if not parts(node):
        yield node
    for part in parts(node):
        yield from terms(part)


def bias(node: fx.Node) -> fx.Node | None:
    """The vector of which `node` has a copy in each row, if it is such a matrix."""
    views: Any = (aten.view.default, aten.reshape.default)
    if node.target is not aten.expand.default or inputs(node)[0].target not in views:
        return None
    (vector,) = inputs(inputs(node)[0])
    shape, _ = node.meta["like"]
    same = len(shape) == 2 and vector.meta.get("like", [None])[0] == shape[1:]
    return vector if same else None


def _write_softmax_out(graph: fx.Graph, constants: dict[str, Tensor]) -> None:
    r""":math:`g - p \sum_c g_c`, the derivative of a log-softmax with probabilities p."""
    for node in list(graph.nodes):
        if node.target is not aten._log_softmax_backward_data.default:
            continue
        g, log_p, dim, dtype = node.args
        if is_constant(g) or not is_constant(log_p) or g.meta["like"][1] != dtype:
            continue
        like = node.meta["like"]
        name = f"p{len(constants)}"
        constants[name] = constants[str(log_p.target)].exp()
        with graph.inserting_before(node):
            p = graph.get_attr(name)
            total = graph.call_function(aten.sum.dim_IntList, (g, [dim], True))
            part = graph.call_function(aten.mul.Tensor, (p, total))
            result = graph.call_function(aten.sub.Tensor, (g, part))
        part.meta["like"] = result.meta["like"] = like
        node.replace_all_uses_with(result)


def _turn_narrow_products(graph: fx.Graph) -> None:
    r""":math:`AB + 1 b^\top = (B^\top A^\top + b 1^\top)^\top` where that is narrow."""
    for node in list(graph.nodes):
        if node.target is aten.view.default:  # not of every layout
            node.target = aten.reshape.default
        shape, dtype = node.meta.get("like", ((), None))
        if len(shape) != 2 or not 2 <= shape[1] < min(_NARROW, shape[0]):
            continue
        with graph.inserting_before(node):
            if node.target is aten.mm.default:
                factors = [graph.call_function(aten.t.default, (x,)) for x in node.args[::-1]]
                turned = graph.call_function(aten.mm.default, tuple(factors))
            elif (vector := bias(node)) is not None:
                column = graph.call_function(aten.view.default, (vector, [shape[1], 1]))
                turned = graph.call_function(aten.expand.default, (column, shape[::-1]))
            else:
                continue
            turned.meta["like"] = (shape[::-1], dtype)
            back = graph.call_function(aten.t.default, (turned,))
        back.meta["like"] = node.meta["like"]
        node.replace_all_uses_with(back)


def _skip_zeros(graph: fx.Graph) -> None:
    """``x + 0`` is x."""
    for node in graph.nodes:
        if is_sum(node):
            for zero, other in (node.args, node.args[::-1]):
                if zero.target in _ZEROS and other.meta.get("like") == node.meta["like"]:
                    node.replace_all_uses_with(other)
                    break


def _pull_transposes(graph: fx.Graph) -> None:
    r""":math:`X^{TT} = X` and :math:`X^T + Y^T = (X + Y)^T`."""
    for node in graph.nodes:
        if node.target is aten.t.default and node.args[0].target is aten.t.default:
            node.replace_all_uses_with(node.args[0].args[0])
        elif is_sum(node) and all(x.target is aten.t.default for x in node.args):
            x, y = (part.args[0] for part in node.args)
            if x.meta.get("like", 0) == y.meta.get("like", 1):
                with graph.inserting_before(node):
                    total = graph.call_function(aten.add.Tensor, (x, y))
                    result = graph.call_function(aten.t.default, (total,))
                total.meta["like"], result.meta["like"] = x.meta["like"], node.meta["like"]
                node.replace_all_uses_with(result)


def _put_products_first(graph: fx.Graph) -> None:
    """``A B + C D + c``: new memory is written by a product, and read when it is added to."""
    for node in list(graph.nodes):
        if any(node in parts(user) for user in node.users):
            continue  # inside of a larger sum
        found = list(_own_terms(node))
        ordered = sorted(found, key=lambda x: x.target is not aten.mm.default)
        if ordered == found:
            continue
        total = ordered[0]
        with graph.inserting_before(node):
            for part in ordered[1:]:
                total = graph.call_function(aten.add.Tensor, (total, part))
                total.meta["like"] = node.meta["like"]
        node.replace_all_uses_with(total)


def _own_terms(node: fx.Node) -> Iterator[fx.Node]:
    """What `node` is the sum of, by way of sums that nothing else reads."""
    if not parts(node):
        yield node
    for part in parts(node):
        yield from _own_terms(part) if len(part.users) == 1 else (part,)


def _accumulate(graph: fx.Graph) -> None:
    """``C + A B`` in one call, and sums in the memory of a term nothing else needs."""
    for node in list(graph.nodes):
        both = parts(node)
        if not both:
            continue
        ways = [
            (c, m)
            for c, m in (both, both[::-1])
            if m.target is aten.mm.default and len(m.users) == 1
        ]
        ways.sort(key=lambda way: not _is_free(way[0]))  # first what needs no new memory
        free = [part for part in both if _is_free(part)]
        with graph.inserting_before(node):
            if ways:
                c, m = ways[0]
                call = aten.addmm_.default if _is_free(c) else aten.addmm.default
                result = graph.call_function(call, (c, *m.args))
            elif free:
                x, y = free[0], both[both[0] is free[0]]
                result = graph.call_function(aten.add_.Tensor, (x, y))
            else:
                continue
        result.meta["like"] = node.meta["like"]
        node.replace_all_uses_with(result)
        graph.erase_node(node)
        if ways:
            graph.erase_node(m)


def _scale_in_place(graph: fx.Graph) -> None:
    """What is scaled entry by entry and not needed unscaled stays in its memory."""
    for node in graph.nodes:
        varies = [a for a in inputs(node) if not is_constant(a)]
        if node.target not in ENTRYWISE or len(varies) != 1:
            continue
        (x,) = varies
        if _is_free(x) and x.meta["like"] == node.meta["like"]:
            packet = node.target.overloadpacket
            if node.target is aten.mul.Tensor:
                node.target, node.kwargs = packet.out, {"out": x}
            else:
                node.target, node.kwargs = packet.grad_input, {**node.kwargs, "grad_input": x}


def _is_free(node: fx.Node) -> bool:
    return node.target in _FRESH and len(node.users) == 1
