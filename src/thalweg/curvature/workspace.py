"""Memory for the intermediate results of a graph that is run many times."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

# operations that write into memory they are given, by those that take their own
_INTO = {
    aten.mm.default: aten.mm.out,
    aten.addmm.default: aten.addmm.out,
    aten.mul.Tensor: aten.mul.out,
    aten.sub.Tensor: aten.sub.out,
}

Shape = tuple[torch.Size, torch.dtype]


def plan(graph: fx.Graph) -> list[Shape]:
    """Let the operations of `graph` write into memory it is given; return the shapes of that.

    Results that nobody sees after the run share memory as soon as the earlier one is not needed any
    more. The memory becomes arguments of the graph, after its own.

    Parameters
    ----------
    graph
        Its nodes know what their values are like (``meta["like"]``). It is changed.

    Returns
    -------
    list of (shape, dtype)
        Of the further arguments.

    Examples
    --------
    >>> from thalweg.curvature.tape import recorded
    >>> A = torch.ones(2, 2)
    >>> graph, _ = recorded(lambda v: [A @ (A @ (A @ (A @ v[0])))], [A])
    >>> plan(graph)  # the first and the third product share it; the last is the result
    [(torch.Size([2, 2]), torch.float32), (torch.Size([2, 2]), torch.float32)]
    """
    nodes = list(graph.nodes)
    place = {node: i for i, node in enumerate(nodes)}
    memory = _memory_of(nodes)
    last: dict[fx.Node, int] = {}
    for node in nodes:
        for root in memory[node]:
            last[root] = max([last.get(root, 0), *(place[user] for user in node.users)])
    returned = {root for x in nodes[-1].all_input_nodes for root in memory[x]}
    shapes: list[Shape] = []
    given: list[fx.Node] = []
    free: dict[Shape, list[int]] = defaultdict(list)
    until: dict[int, list[tuple[Shape, int]]] = defaultdict(list)
    arguments = [node for node in nodes if node.op == "placeholder"]
    for i, node in enumerate(nodes):
        own = memory[node] == {node}
        if node.target in _INTO and own and node not in returned and "like" in node.meta:
            like = node.meta["like"]
            if not free[like]:
                free[like].append(len(shapes))
                shapes.append(like)
                with graph.inserting_after((given or arguments)[-1]):
                    given.append(graph.placeholder(f"w{len(given)}"))
            slot = free[like].pop()
            node.target = _INTO[node.target]
            node.kwargs = {**node.kwargs, "out": given[slot]}
            until[last[node]].append((like, slot))
        for like, slot in until[i]:
            free[like].append(slot)
    return shapes


def taken(shapes: list[Shape], device: torch.device) -> list[Tensor]:
    """New memory of these shapes."""
    return [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in shapes]


def _memory_of(nodes: list[fx.Node]) -> dict[fx.Node, set[fx.Node]]:
    """The nodes in whose memory the value of each node may lie."""
    memory: dict[fx.Node, set[fx.Node]] = {}
    for node in nodes:
        seen = list(_seen(node))
        memory[node] = set().union(*(memory[x] for x in seen)) if seen else {node}
    return memory


def _seen(node: fx.Node) -> Iterator[fx.Node]:
    """Arguments whose memory the result may share."""
    target: Any = node.target
    if target is operator.getitem:
        yield from node.all_input_nodes
    if not isinstance(target, torch._ops.OpOverload):
        return
    if all(value.alias_info is None for value in target._schema.returns):
        return
    for i, argument in enumerate(target._schema.arguments):
        if argument.alias_info is not None:
            value = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
            if isinstance(value, fx.Node):
                yield value
