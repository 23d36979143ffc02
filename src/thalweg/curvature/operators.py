"""Curvature as linear operators: Hessian, Gauss-Newton, Fisher, K-FAC; use them as ``H @ v``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.curvature.fisher import (
    empirical_fisher_products,
    likelihood_of,
    sampled_fisher_products,
)
from thalweg.curvature.gauss_newton import gauss_newton_products
from thalweg.curvature.hessian import hessian_products
from thalweg.curvature.objective import Mode, Objective
from thalweg.numeric.operator import dense

_watched: ContextVar[Callable[[int], object] | None] = ContextVar("watched", default=None)


class How(TypedDict, total=False):
    """How an objective is measured; see `Objective`."""

    mode: Mode
    weight: Callable[[Any], float] | None
    memory: int
    group: Any


class Operator:
    r"""A symmetric matrix :math:`A \in \mathbb{R}^{d \times d}` known by its products.

    It belongs to the parameters the model held when it was made: it does not follow the model.

    Parameters
    ----------
    objective
        The function it belongs to.
    product
        The map from ``(d,)`` or ``(d, k)`` to the same shape.
    name
        Its field name, for reports.

    Attributes
    ----------
    shape, dtype, device
        Of the matrix.
    n_products
        Matrix-vector products so far: a block of k vectors counts k.
    x
        The flat vector it belongs to.

    Examples
    --------
    >>> training = Training.from_function(lambda x: (x**3).sum(), torch.tensor([1.0, 2.0]))
    >>> H = hessian(training)
    >>> (H @ torch.ones(2)).tolist(), H.n_products
    ([6.0, 12.0], 1)
    >>> H.dense().tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """

    def __init__(
        self, objective: Objective, product: Callable[[Tensor], Tensor], name: str = "operator"
    ) -> None:
        self.objective = objective
        self.name = name
        self.shape = (objective.d, objective.d)
        self.dtype, self.device = objective.dtype, objective.device
        self.n_products = 0
        self.x = objective.start
        self._product = product

    def __matmul__(self, v: Tensor) -> Tensor:
        """The product with one vector ``(d,)`` or with the columns of ``(d, k)``."""
        if not isinstance(v, Tensor) or v.ndim not in (1, 2) or v.shape[0] != self.shape[0]:
            got = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
            n = self.shape[0]
            raise ValueError(f"v must be of shape ({n},) or ({n}, k), got {got}")
        vectors = 1 if v.ndim == 1 else v.shape[1]
        self.n_products += vectors
        product = self._product(v.detach().to(self.device, self.dtype))
        watch = _watched.get()
        if watch is not None:
            watch(vectors)
        return product

    def dense(self) -> Tensor:
        """The matrix ``(d, d)``, made symmetric: d products, so for small d."""
        check.number("the order d of a dense matrix", self.shape[0], le=20_000)
        matrix = dense(self)
        return (matrix + matrix.T) / 2

    def to_scipy(self) -> Any:
        """A ``scipy.sparse.linalg.LinearOperator`` (numpy vectors in, numpy vectors out)."""
        from scipy.sparse.linalg import LinearOperator

        def multiply(v: Any) -> Any:
            tensor = torch.as_tensor(v, dtype=self.dtype, device=self.device)
            if tensor.ndim == 2 and tensor.shape[1] == 1:
                return (self @ tensor[:, 0]).cpu().numpy()[:, None]
            return (self @ tensor).cpu().numpy()

        kind = torch.empty(0, dtype=self.dtype).numpy().dtype
        return LinearOperator(
            self.shape, matvec=multiply, rmatvec=multiply, matmat=multiply, dtype=kind
        )

    def value(self) -> float:
        """The loss at `x`."""
        return self.objective.value(self.x)

    def gradient(self) -> Tensor:
        """The gradient at `x`, a flat vector ``(d,)``."""
        return self.objective.gradient(self.x)

    def __repr__(self) -> str:
        return f"{self.name}(d={self.shape[0]}, {self.dtype}, {self.objective.training.name})"


@contextmanager
def products_watched(tell: Callable[[int], object]) -> Iterator[None]:
    """Call `tell` after every product of an `Operator` inside the block, with its vectors.

    For progress: the algorithms that make the products know nothing of it. What another thread
    makes is not told.

    Examples
    --------
    >>> H = hessian(Training.from_function(lambda x: (x**3).sum(), torch.tensor([1.0, 2.0])))
    >>> with products_watched(print):
    ...     product = H @ torch.eye(2)
    2
    """
    token = _watched.set(tell)
    try:
        yield
    finally:
        _watched.reset(token)


def prepared(
    training: Training | Objective, parameters: Iterable[nn.Parameter | str] | None, how: How
) -> Objective:
    """The objective to differentiate, its determinism checked."""
    if isinstance(training, Objective):
        if parameters is not None or how:
            raise ValueError("parameters and options belong to the Objective that was given")
        objective = training
    else:
        objective = Objective(training, parameters, **how)
    objective.check_deterministic()
    return objective


def hessian(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    **how: Unpack[How],
) -> Operator:
    r"""Return the Hessian of the loss over the whole data set.

    .. math:: H = \nabla^2 f(x), \qquad H v = \nabla_x \langle \nabla f(x), v \rangle

    Exact products, never the matrix. Two passes over the data must agree first (a stochastic loss
    is refused).

    Parameters
    ----------
    training
        The network, its loss and its data; or an `Objective`.
    parameters
        The unknowns: parameters of the model, or their names. Default: all with ``requires_grad``.
    **how
        ``mode``, ``weight``, ``memory``, ``group``: see `Objective`.

    Returns
    -------
    Operator
        Use it as ``H @ v``, with v of shape ``(d,)`` or ``(d, k)``.

    Raises
    ------
    ValueError
        If the loss is stochastic, not a finite scalar, or the data are empty.
    TypeError
        For parameters in half precision.

    Examples
    --------
    >>> model = nn.Linear(2, 1, bias=False)
    >>> data = [(torch.eye(2), torch.zeros(2, 1))]
    >>> H = hessian(Training(model, nn.functional.mse_loss, data))
    >>> H.dense().tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    References
    ----------
    Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994.
    """
    objective = prepared(training, parameters, how)
    return Operator(objective, hessian_products(objective, objective.start), "hessian")


def generalized_gauss_newton(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    **how: Unpack[How],
) -> Operator:
    r"""Return the generalized Gauss-Newton matrix.

    .. math:: G = \frac1n \sum_i J_i^\top H_i J_i

    with :math:`J_i` the Jacobian of the model's outputs in the parameters and :math:`H_i` the
    Hessian of the loss in the outputs: in closed form for cross entropy, mean squared error and
    binary cross entropy of torch, by differentiation for every other loss (which then must be
    convex in the outputs, and in parameters it uses directly, for G to be positive semidefinite).
    The Hessian is :math:`G + \frac1n \sum_{i,c} \partial_{z_c} \ell_i\, \nabla^2 z_{ic}`: negative
    curvature can come from the second part only.

    Parameters
    ----------
    training
        The network, its loss and its data; or an `Objective`.
    parameters
        The unknowns. Default: all with ``requires_grad``.
    **how
        ``mode``, ``weight``, ``memory``, ``group``: see `Objective`.

    Returns
    -------
    Operator
        Use it as ``G @ v``.

    Raises
    ------
    ValueError
        If the loss is linear in what the model returns (say, computed inside the model).

    Examples
    --------
    >>> data = [(torch.eye(2), torch.zeros(2, 1))]
    >>> training = Training(nn.Linear(2, 1, bias=False), nn.functional.mse_loss, data)
    >>> generalized_gauss_newton(training).dense().tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    References
    ----------
    Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural
    Computation 14, 2002; Martens, arXiv 1412.1193.
    """
    objective = prepared(training, parameters, how)
    products = gauss_newton_products(objective, objective.start)
    return Operator(objective, products, "generalized Gauss-Newton")


def fisher(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    kind: Literal["exact", "sampled", "empirical"] = "exact",
    samples: int = 1,
    seed: int = 0,
    **how: Unpack[How],
) -> Operator:
    r"""Return the Fisher matrix.

    .. math:: F = \frac1n \sum_i E_{y \sim p(y \mid x_i)}\, s_{iy} s_{iy}^\top, \qquad
        s_{iy} = \nabla \bigl(-\log p(y \mid x_i)\bigr)

    on the scale of the loss: it equals the generalized Gauss-Newton matrix.

    Parameters
    ----------
    training
        The network, its loss and its data; or an `Objective`.
    parameters
        The unknowns. Default: all with ``requires_grad``.
    kind
        ``"exact"`` (default): the expectation over the labels, in closed form. ``"sampled"``: the
        mean over `samples` labels drawn from the model, an unbiased estimate; once drawn the
        matrix is fixed. ``"empirical"``: the labels of the data, which is another matrix
        (:math:`\frac1n \sum_i g_i g_i^\top`); for any loss that is a mean over rows.
    samples
        Labels drawn per row, >= 1. Default 1.
    seed
        Of the draws, >= 0. Default 0.
    **how
        ``mode``, ``weight``, ``memory``, ``group``: see `Objective`.

    Returns
    -------
    Operator
        Symmetric, positive semidefinite.

    Raises
    ------
    ValueError
        For ``"exact"`` and ``"sampled"``, if the loss is no likelihood known here; for
        ``"empirical"``, if it is not a mean over rows.

    Examples
    --------
    >>> data = [(torch.eye(2), torch.zeros(2, 1))]
    >>> training = Training(nn.Linear(2, 1, bias=False), nn.functional.mse_loss, data)
    >>> fisher(training).dense().tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    References
    ----------
    Martens, "New insights and perspectives on the natural gradient method", arXiv 1412.1193;
    Kunstner, Balles & Hennig, "Limitations of the empirical Fisher approximation", 2019 (arXiv
    1905.12558).
    """
    check.choice("kind", kind, ("exact", "sampled", "empirical"))
    check.number("samples", samples, ge=1, integer=True)
    check.number("seed", seed, ge=0, integer=True)
    objective = prepared(training, parameters, how)
    x = objective.start
    if kind == "exact":
        likelihood_of(objective)
        products = gauss_newton_products(objective, x)
    elif kind == "sampled":
        products = sampled_fisher_products(objective, x, int(samples), int(seed))
    else:
        products = empirical_fisher_products(objective, x)
    return Operator(objective, products, f"{kind} Fisher")
