"""Sums over the rows of the data that are the same for every vector, done once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx

from thalweg.curvature.rewriting import (
    ENTRYWISE,
    bias,
    copy_of,
    inputs,
    is_constant,
    is_sum,
    parts,
    terms,
)

aten = torch.ops.aten


@dataclass(frozen=True)
class Rows:
    """A constant matrix with a row for each row of the data."""

    matrix: Tensor
    key: Any  # equal for equal matrices


@dataclass(frozen=True)
class End:
    """Where a way through the rows of the data begins (an argument) or ends (a result)."""

    node: fx.Node  # the product with `factor`
    place: int  # of the argument or the result
    factor: Rows
    transposes: bool


@dataclass(frozen=True)
class Fold:
    r"""What arguments S contribute to results R by way of the rows i of the data.

    .. math:: R_{kp} = \sum_i B_{ip}\, M_{ik} \sum_q A_{iq} S_{kq} = \sum_q T_{kpq} S_{kq}, \qquad
        T_{kpq} = \sum_i B_{ip} M_{ik} A_{iq}

    T has no rows of the data. In a ReLU network A may be the inputs, M say which units of the first
    layer are on, and B be the gradient at the second layer: T is the part of the Hessian that
    couples the weights of the two. Several arguments or results (weights and biases) lie side by
    side in q and p.

    Parameters
    ----------
    begins, ends
        The arguments with A, of shape (rows, q), and the results with B, (rows, p).
    M
        Of shape (rows, k).
    """

    begins: Sequence[End]
    M: Rows
    ends: Sequence[End]

    @property
    def entries(self) -> int:
        """Of T: the multiplications of one product."""
        p, q = (sum(_width(end) for end in ends) for ends in (self.ends, self.begins))
        return self.M.matrix.shape[1] * p * q

    @property
    def price(self) -> int:
        """The multiplications that make T."""
        return self.entries * len(self.M.matrix)

    @property
    def way(self) -> tuple[Any, Any]:
        """Equal for two folds with the same T; the other way round if one's is transposed."""
        return tuple(end.factor.key for end in self.begins), tuple(
            end.factor.key for end in self.ends
        )

    def tensor(self) -> Tensor:
        """T, of shape (k, p, q)."""
        A, B = (torch.cat([e.factor.matrix for e in ends], 1) for ends in (self.begins, self.ends))
        M = self.M.matrix
        T = A.new_empty(M.shape[1], B.shape[1], A.shape[1])
        for k in range(len(T)):
            torch.mm((B * M[:, k : k + 1]).T, A, out=T[k])
        return T

    def add(self, T: Tensor, V: Sequence[Tensor], total: Sequence[Tensor]) -> None:
        """Add to the results in `total` what the arguments in `V` contribute, all of many vectors.

        Parameters
        ----------
        T
            Of shape (k, p, q).
        V, total
            Arguments and results with one more dimension in front.
        """
        S = torch.cat([_laid(V[begin.place], begin) for begin in self.begins], -1)
        R = torch.bmm(S.transpose(0, 1), T.mT)  # (k, vectors, p)
        for end, part in zip(self.ends, R.split([_width(end) for end in self.ends], -1)):
            result = total[end.place]
            if end.transposes:  # as a matrix: that copies four times as fast
                part = part.reshape(len(T), -1).t().contiguous()
            else:
                part = part.transpose(0, 1)
            result += part.reshape(result.shape)


@dataclass(frozen=True)
class Folding:
    """A linear function in two parts: a graph, and what was taken out of it.

    Parameters
    ----------
    graph
        The first part.
    folds
        The second part.
    saved
        Multiplications that a product needs no more.
    """

    graph: fx.Graph
    folds: Sequence[Fold]
    saved: int

    @property
    def pays_after(self) -> int:
        """The number of products that save what it costs to make the tensors."""
        return math.ceil(sum(fold.price for fold in self._different()) / self.saved)

    @property
    def entries(self) -> int:
        """Of all tensors together."""
        return sum(fold.entries for fold in self._different())

    def tensors(self) -> list[Tensor]:
        """T of each fold; a Hessian is symmetric, so some are transposes of others."""
        made = {_pair(fold): (fold.way, fold.tensor()) for fold in self._different()}
        of_each = [(fold, *made[_pair(fold)]) for fold in self.folds]
        return [T if way == fold.way else T.mT for fold, way, T in of_each]

    def _different(self) -> list[Fold]:
        return list({_pair(fold): fold for fold in self.folds}.values())


def foldings(graph: fx.Graph, constants: Mapping[str, Tensor]) -> Folding | None:
    """Return the function of `graph` in two parts, or None if that would save nothing.

    A way through the rows is a constant times an argument, times M entry by entry, and again a
    constant times that. Two kinds can go: from where nothing but arguments comes (the first layer
    on the way forward) the products that end in results; from where nothing but results follows
    (the first layer on the way back) the products that begin with arguments.

    Parameters
    ----------
    graph
        Of sums, products and operations entry by entry. It is not changed.
    constants
        By the names it has for them.

    Examples
    --------
    >>> from thalweg.curvature.tape import recorded
    >>> X, on = torch.ones(5, 2), torch.ones(5, 3)
    >>> v = [torch.ones(2, 3), torch.ones(2, 3)]
    >>> graph, constants = recorded(lambda v: [X.T @ ((X @ v[0]) * on) + v[1], v[0]], v)
    >>> folding = foldings(graph, constants)
    >>> folding.entries, folding.saved, folding.pays_after
    (12, 18, 4)
    >>> folding.tensors()[0].tolist()[0]
    [[5.0, 5.0], [5.0, 5.0]]
    """
    rest = copy_of(graph)
    folds: list[Fold] = []
    saved = 0
    for node in list(rest.nodes):
        for end, fold in _ways(node, constants):
            rows, columns = node.meta["like"][0]
            gain = rows * columns * _width(end) - fold.entries
            if gain > 0:
                _drop(end.node)
                folds.append(fold)
                saved += gain
    rest.eliminate_dead_code()
    return Folding(rest, folds, saved) if folds else None


def _ways(node: fx.Node, constants: Mapping[str, Tensor]) -> Iterator[tuple[End, Fold]]:
    """The ways through `node` that can be folded, each with the end that is not needed then."""
    scaled = _scaled(node, constants)
    if scaled is None:
        return
    before, M = scaled
    comes, goes = list(terms(before)), list(_uses(node))
    begins = [b for term in comes if (b := _beginning(term, constants)) is not None]
    ends = [e for use in goes if (e := _ending(*use, constants)) is not None]
    for side in (begins, ends):  # one order, to find out when a tensor is another's transpose
        side.sort(key=lambda end: repr(end.factor.key))
    if len(begins) == len(comes):
        for end in ends:
            if is_sum(next(iter(end.node.users))):
                yield end, Fold(begins, M, [end])
    elif len(ends) == len(goes):
        for begin in begins:
            if _serves_only(begin.node, node):
                yield begin, Fold([begin], M, ends)


def _scaled(node: fx.Node, constants: Mapping[str, Tensor]) -> tuple[fx.Node, Rows] | None:
    """What `node` multiplies entry by entry, and with what; both have rows and columns."""
    if node.target not in ENTRYWISE or len(node.meta["like"][0]) != 2:
        return None
    shape, dtype = node.meta["like"]
    fixed = {a: constants[str(a.target)] for a in inputs(node) if is_constant(a)}
    varies = [a for a in inputs(node) if a not in fixed]
    if len(varies) != 1 or not fixed or any(t.shape != shape for t in fixed.values()):
        return None
    (x,) = varies
    if x.meta.get("like") != node.meta["like"]:
        return None
    one = torch.ones(shape, dtype=dtype, device=next(iter(fixed.values())).device)
    arguments: Sequence[Any] = node.args
    values = [one if a is x else fixed.get(a, a) for a in arguments]
    function: Any = node.target
    key = [_key(fixed[a]) if a in fixed else a for a in arguments if a is not x]
    return x, Rows(function(*values, **node.kwargs), (function, *key, *node.kwargs.items()))


def _beginning(node: fx.Node, constants: Mapping[str, Tensor]) -> End | None:
    """`node` as a constant with rows times an argument."""
    arguments = [n for n in node.graph.nodes if n.op == "placeholder"]
    vector = bias(node)
    if vector in arguments:
        rows, dtype = node.meta["like"][0][0], node.meta["like"][1]
        return End(node, arguments.index(vector), _ones(rows, dtype, constants), False)
    if node.target is not aten.mm.default or not is_constant(node.args[0]):
        return None
    factor, argument = inputs(node)
    transposed = argument.target is aten.t.default
    argument = inputs(argument)[0] if transposed else argument
    if argument not in arguments:
        return None
    A = constants[str(factor.target)]
    return End(node, arguments.index(argument), Rows(A, _key(A)), not transposed)


def _ending(
    node: fx.Node, transposed: bool, rows: fx.Node, constants: Mapping[str, Tensor]
) -> End | None:
    """`node` as a constant times `rows` (which it sees `transposed`), part of a result."""
    place = _result(node)
    if place is None:
        return None
    if node.target is aten.sum.dim_IntList and not transposed and node.args[1] == [0]:
        shape, dtype = rows.meta["like"]
        return End(node, place, _ones(shape[0], dtype, constants), False)
    if node.target is not aten.mm.default:
        return None
    factor = inputs(node)[1 if transposed else 0]
    if not is_constant(factor):
        return None
    B = constants[str(factor.target)]
    B = B if transposed else B.T
    return End(node, place, Rows(B, _key(B)), not transposed)


def _result(node: fx.Node) -> int | None:
    """The place of the one result that `node` is part of, if it is part of nothing else."""
    while len(node.users) == 1:
        (user,) = node.users
        if user.op == "output":
            results = list(cast("Sequence[Any]", user.args[0]))
            return results.index(node) if results.count(node) == 1 else None
        if user.target is not aten.view.default and node not in parts(user):
            return None
        node = user
    return None


def _uses(node: fx.Node) -> Iterator[tuple[fx.Node, bool, fx.Node]]:
    """Who reads `node`, each with whether it reads the transpose."""
    for user in node.users:
        if user.target is aten.t.default:
            yield from ((reader, True, node) for reader in user.users)
        else:
            yield user, False, node


def _serves_only(term: fx.Node, node: fx.Node) -> bool:
    """Is `term` part of a sum that nothing but `node` reads?"""
    while len(term.users) == 1:
        (user,) = term.users
        if user is node:
            return True
        term = user
    return False


def _drop(term: fx.Node) -> None:
    """Leave `term` out of the sum it is part of."""
    (total,) = term.users
    (other,) = (part for part in inputs(total) if part is not term)
    total.replace_all_uses_with(other)
    total.graph.erase_node(total)
    total.graph.erase_node(term)


def _laid(V: Tensor, begin: End) -> Tensor:
    """The arguments as (vectors, k, q)."""
    if V.ndim == 2:
        return V.unsqueeze(-1)
    return V.mT if begin.transposes else V


def _width(end: End) -> int:
    return end.factor.matrix.shape[1]


def _pair(fold: Fold) -> Any:
    return fold.M.key, frozenset(fold.way)


def _key(t: Tensor) -> Any:
    return t.data_ptr(), t.shape, t.stride()


def _ones(rows: int, dtype: torch.dtype, constants: Mapping[str, Tensor]) -> Rows:
    device = next(iter(constants.values())).device
    return Rows(torch.ones(rows, 1, dtype=dtype, device=device), ("ones", rows))
