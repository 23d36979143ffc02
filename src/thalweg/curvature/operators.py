"""Curvature as linear operators: Hessian, Gauss-Newton, Fisher, K-FAC; use them as ``H @ v``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.curvature.hessian import HessianProducts
from thalweg.curvature.objective import Mode, Objective
from thalweg.numeric.operator import dense


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
        self.n_products += 1 if v.ndim == 1 else v.shape[1]
        return self._product(v.detach().to(self.device, self.dtype))

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
    return Operator(objective, HessianProducts(objective, objective.start), "hessian")
